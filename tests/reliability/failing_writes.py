"""Every write of lapha on a disk that is full, in a process of its own.

``python failing_writes.py FOLDER limit`` limits the size of files (the kernel then fails writes as a full disk does, for
any user); ``python failing_writes.py FOLDER disk`` fills FOLDER, a small file system, up. Prints one JSON line a kind:
what was raised, what the small file that was there before still holds, and which temporary files are left.
"""

import json
import os
import random
import resource
import signal
import sys
from pathlib import Path

import torch

from lapha._store import LineFile, read_lines
from lapha.engines import ScriptedEngine
from lapha.evaluation.folders import JsonLines
from lapha.evaluation.grading import Verdict
from lapha.evaluation.modes import Outcome
from lapha.evaluation.results import grade_run
from lapha.evaluation.run_folder import RunFolder, read_outcomes
from lapha.geometry import PolarPoints
from lapha.latent import LatentBank, ValueHead
from lapha.search import Search, SearchConfig, SearchResult
from lapha.tree import load_tree, save_tree
from lapha.viz import Page, Section, write_page

SMALL, LARGE = SearchConfig(simulations=1, breadth=2), SearchConfig(simulations=60, breadth=6)
LIMIT = 24 << 10  # bytes of a file, or left on the disk


def searched(config):
    [result] = Search(ScriptedEngine(hidden_size=64), config=config).run(["What is 1 + 1?"])
    return result


def bank(rows):
    made = LatentBank(64)
    made.append(PolarPoints.from_tangent(torch.randn(rows, 64), 1.0))
    return made


def outcome(index, size):
    return Outcome(index, "single", "7" * size, 0.5, ("7",), (0.5,), 12, 0.25)


def run_of(folder, size):
    made = RunFolder(folder, {"seed": 1})
    try:
        for index in range(len(made.outcomes), len(made.outcomes) + 3):
            made.add(outcome(index, size))
    finally:
        made.close()


def judged(path, size):
    file = LineFile(path, checked=False)
    try:
        file.append({"key": f"{size}", "pair": ["1" * size, "2"], "correct": True}, sync=True)
    finally:
        file.close()


def journal(folder, questions):
    return len(list(Search(ScriptedEngine(hidden_size=64), config=LARGE).run(questions, journal=folder)))


def graded(folder, size):
    if not folder.exists():
        run_of(folder, 2)
    grade_run(folder, lambda pairs: [Verdict(True, "exact", "x" * size) for _ in pairs])


def report(path, size):
    text = random.Random(0).randbytes(size).hex()  # pages are compressed
    write_page(Page("title", sections=[Section("heading", text, [])]), path)


def metrics(path, size):
    lines = JsonLines(path, append=True)
    lines.write({"text": "x" * size})
    lines.close()


# kind -> (the file, write a small one, write a large one, what the small one says)
KINDS = {
    "bank": ("bank", lambda p: bank(3).save(p), lambda p: bank(900).save(p), lambda p: len(LatentBank.from_file(p))),
    "tree": (
        "tree.json", lambda p: save_tree(searched(SMALL).tree, p), lambda p: save_tree(searched(LARGE).tree, p),
        lambda p: len(load_tree(p)),
    ),
    "result": (
        "result.json", lambda p: searched(SMALL).save(p), lambda p: searched(LARGE).save(p),
        lambda p: len(SearchResult.load(p).latents),
    ),
    "value head": (
        "head", lambda p: ValueHead(16).save_pretrained(p), lambda p: ValueHead(20_000).save_pretrained(p),
        lambda p: ValueHead.from_pretrained(p).hidden_size,
    ),
    "run folder": ("run", lambda p: run_of(p, 2), lambda p: run_of(p, 40_000), lambda p: len(read_outcomes(p))),
    "journal": (
        "journal", lambda p: journal(p, []), lambda p: journal(p, ["a", "b", "c"]), lambda p: sorted(f.name for f in p.iterdir()),
    ),
    "grades": ("graded", lambda p: graded(p, 1), lambda p: graded(p, 40_000), lambda p: len(read_lines(p / "grades.jsonl").records)),
    "judge": ("judge.jsonl", lambda p: judged(p, 1), lambda p: judged(p, 40_000), lambda p: len(read_lines(p).records)),
    "report": ("page.html", lambda p: report(p, 1), lambda p: report(p, 60_000), lambda p: len(p.read_bytes())),
    "metrics": ("metrics.jsonl", lambda p: metrics(p, 1), lambda p: metrics(p, 60_000), lambda p: p.read_bytes()[:9].decode()),
}  # fmt: skip


def scarce(folder, how, wanted):
    """Do `wanted` with little room."""
    filler = folder / "filler"
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    else:
        room = os.statvfs(folder)
        filler.write_bytes(bytes(max(0, room.f_bavail * room.f_bsize - LIMIT)))
    try:
        wanted()
    except (OSError, ValueError) as error:
        return type(error).__name__, str(error), getattr(error, "filename", None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        filler.unlink(missing_ok=True)
    return None


def main(folder, how):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    torch.manual_seed(0)
    for kind, (name, small, large, says) in KINDS.items():
        path = folder / name
        small(path)
        before = says(path)
        raised = scarce(folder, how, lambda path=path, large=large: large(path))
        left = [str(p.relative_to(folder)) for p in folder.rglob(".*") if p.name != ".lock"]
        after = says(path)
        large(path)  # there is room again
        report = {"raised": raised, "before": before, "after": after, "left": left, "then": says(path)}
        print(json.dumps({"kind": kind, "path": str(path), **report}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
