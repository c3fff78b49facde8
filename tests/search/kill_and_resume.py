"""Run by `test_journal.py`: kills a search again and again, and resumes it from its journal.

Usage: python kill_and_resume.py FOLDER KILLS SEED. Prints one JSON line. The search runs in forked children, so that
torch is imported once; each is killed with SIGKILL at a random moment and resumed, up to five times a journal.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from search_helpers import fingerprint

from lapha.engines.scripted import ScriptedEngine
from lapha.search import Search, SearchConfig

QUESTIONS = [f"question {i % 9}" for i in range(12)]  # some are asked twice
CONFIG = SearchConfig(simulations=6, breadth=4, prune_every=3, seed=11, answer="vote", selection="puct")


class LoggingEnvironment:
    """Notes every question that is really begun."""

    def __init__(self, inner, log: Path):
        self.inner, self.log = inner, log

    def start(self, question):
        handle = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (question + "\n").encode())
        os.close(handle)
        return self.inner.start(question)

    async def step(self, turn, sample, depth):
        return await self.inner.step(turn, sample, depth)

    def close(self, turn):
        self.inner.close(turn)


def search(journal, log: Path) -> list[str]:
    engine = ScriptedEngine(latency=0.0005, jitter=6.0, capacity=30)
    environment = LoggingEnvironment(engine.environment, log)
    results = Search(engine, environment=environment, config=CONFIG).run(QUESTIONS, concurrency=3, journal=journal)
    return [fingerprint(result) for result in results]


def finished(journal: Path) -> list[str]:
    lines = (journal / "results.jsonl").read_bytes().split(b"\n") if (journal / "results.jsonl").exists() else [b""]
    return [json.loads(line)["key"] for line in lines[:-1]]


def in_child(work) -> int:
    """Fork; the child does `work` and exits. Its process id, to be waited for."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def kill_at_some_moment(child: int, journal: Path, lines: int, generator: random.Random) -> int:
    """SIGKILL once the journal holds so many lines and a random time has passed; the child's status."""
    results = journal / "results.jsonl"
    deadline = time.monotonic() + 60
    while not (results.exists() and results.read_bytes().count(b"\n") >= lines) and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.0005)
    time.sleep(generator.uniform(0, generator.choice([0.002, 0.02, 0.1])))
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def one_journal(journal: Path, kills: int, generator: random.Random, report: dict) -> None:
    """Kill the search up to `kills` times, let it finish, and add what was seen to `report`."""
    log, outcome = journal.with_suffix(".log"), journal.with_suffix(".out")
    before: list[str] = []
    killed_here = 0
    while True:
        child = in_child(lambda: outcome.write_text(json.dumps(search(journal, log))))
        if killed_here < kills:
            status = kill_at_some_moment(child, journal, len(before) + generator.choice([0, 0, 1, 2]), generator)
        else:
            _, status = os.waitpid(child, 0)
        now = finished(journal)
        report["lost"] += before != now[: len(before)]
        before = now
        if not os.WIFSIGNALED(status):
            if os.WEXITSTATUS(status) != 0:
                raise SystemExit(f"a resumed run failed after {killed_here} kills")
            break
        killed_here += 1
        report["kills_with_some_finished"] += 0 < len(now) < len(QUESTIONS)
    report["kills"] += killed_here
    report["journals"] += 1
    report["repeated"] += len(before) - len(set(before))
    report["unfinished"] += len(QUESTIONS) - len(set(before))
    # at most `concurrency` trees were in flight at each kill, and may have been begun again
    report["begun_again_needlessly"] += max(len(log.read_text().splitlines()) - len(QUESTIONS) - 3 * killed_here, 0)


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    folder.mkdir()
    generator = random.Random(seed)
    # in this process, so that its children have everything imported; one thread, so that forking is safe
    uninterrupted = search(folder / "uninterrupted", folder / "uninterrupted.log")
    assert len(os.listdir("/proc/self/task")) == 1, "forking a process with threads could hang its children"
    names = (
        "kills",
        "kills_with_some_finished",
        "journals",
        "lost",
        "repeated",
        "unfinished",
        "begun_again_needlessly",
    )
    report = dict.fromkeys(names, 0)
    different = 0
    while report["kills"] < kills:
        journal = folder / f"journal-{report['journals']}"
        one_journal(journal, min(5, kills - report["kills"]), generator, report)
        different += json.loads(journal.with_suffix(".out").read_text()) != uninterrupted
    print(json.dumps({**report, "different": different}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
