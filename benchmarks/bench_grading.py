"""Grading: answers a second in worker processes, and what one input that hangs costs the others.

10,000 different pairs of the kinds that mathematics benchmarks have (half of them right in another form, half near
misses; about half of them numbers, the rest for SymPy), or with --data the gold answers of JSONL files against others of
the same file. The workers are warm before the clock starts.

* alone: answers a second, and how many verdicts are not what they should be;
* with a hang: one input on which SymPy does not end comes among the first; when the last of the others has its verdict.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.answer_pairs import Pair, answer_pairs
from benchmarks.harness import Session
from benchmarks.records import write_records
from lapha.evaluation import GraderPool, Verdict

_SIZES = {"smoke": 200, "default": 10_000}
_HANG: Pair = ("9^{9^{9^{9}}}", "3")
_TIMEOUT = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=2, help="grader processes (2)")
    parser.add_argument("--count", type=int, default=None, help="number of answers (10000)")
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="JSONL files whose 'answer' fields to grade")


def run(args: argparse.Namespace, session: Session) -> None:
    count = args.count or _SIZES[args.sizes]
    graded = _from_files(args.data, count) if args.data else answer_pairs(count)
    with GraderPool(args.workers, timeout=_TIMEOUT) as pool:
        pool.grade([(f"{number}+x", f"x+{number}") for number in range(40 * args.workers)])  # all have started
        alone = _measure(pool, [pair for pair, _ in graded])
    wrong = [
        pair
        for (pair, right), verdict in zip(graded, alone["verdicts"])
        if right is not None and verdict.correct is not right
    ]
    _report(session, "alone", args.workers, count, alone, {"not_as_expected": len(wrong), "examples": wrong[:10]})
    with GraderPool(args.workers, timeout=_TIMEOUT) as pool:
        pool.grade([(f"{number}+x", f"x+{number}") for number in range(40 * args.workers)])
        hung = _measure(pool, [*(pair for pair, _ in graded[:4]), _HANG, *(pair for pair, _ in graded[4:])])
    same = hung["verdicts"][:4] + hung["verdicts"][5:] == alone["verdicts"]
    about = {"hang": hung["verdicts"][4].detail, "other_verdicts_the_same": same, "others_done_s": hung["others_done"]}
    _report(session, "one hangs", args.workers, count, hung, about)


def _from_files(paths: list[Path], count: int) -> list[tuple[Pair, bool | None]]:
    """Each gold answer as its own prediction in a sentence, and against others; what those are worth is not known."""
    found: dict[Pair, bool | None] = {}
    rng = random.Random(0)
    golds = [[json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()] for path in paths]
    for answers in golds:
        found |= {(f"The answer is $\\boxed{{{gold.strip('$')}}}$.", gold): None for gold in answers}
    while len(found) < count:
        answers = rng.choice(golds)
        found[rng.choice(answers), rng.choice(answers)] = None
    return list(found.items())[:count]


def _measure(pool: GraderPool, pairs: list[Pair]) -> dict[str, Any]:
    """Verdicts, seconds for all, and seconds until the last but the hanging one."""
    came: dict[int, float] = {}
    begin = time.perf_counter()

    def note(place: int, verdict: Verdict) -> None:
        came[place] = time.perf_counter() - begin

    verdicts = pool.grade(pairs, on_verdict=note)
    others = max(seconds for place, seconds in came.items() if pairs[place] != _HANG)
    return {"verdicts": verdicts, "seconds": time.perf_counter() - begin, "others_done": others}


def _report(
    session: Session, name: str, workers: int, count: int, measured: dict[str, Any], about: dict[str, Any]
) -> None:
    record = {
        "name": f"grading, {name}",
        "shape": {"answers": count, "workers": workers},
        "seconds": measured["seconds"],
        "answers_per_s": count / measured["others_done"],
        "methods": dict(Counter(verdict.method for verdict in measured["verdicts"])),
        **about,
    }
    full = {**session.facts, "suite": session.suite, "dtype": "text", **record}
    print(f"{session.suite} {name} {record['shape']}", flush=True)
    print("  " + ", ".join(f"{key} {record[key]}" for key in record if key not in ("name", "shape")), flush=True)
    write_records([full], session.output)
