"""Training on a whole tree: a step over all its groups and states, packed in each of the forms that `LaPhaTrainer` has.

One case: a tree of depth 6 and breadth 6 after 24 simulations (145 states), prompt of 300 tokens, steps of 200, and a
model of 4.9 M parameters (on CUDA the same). The same targets in each comparison:

* tree, shared prompts, rows: all 24 sibling groups, and the values of all states; the same number of passes for each.
* tree / shared prompts, two groups: two groups, and the states on their paths, which is what a step with shared prompts
  covers by default.

Every contestant lives in a process of its own; they take turns step by step. Peak memory is what a process held at most
beyond its libraries. On a CPU a step's time is the process's own processor time, so that other programs do not count.
"""

from __future__ import annotations

import argparse
import dataclasses

from benchmarks.bench_training import Worker, _line, _records
from benchmarks.harness import Session
from benchmarks.records import write_records
from benchmarks.tree_training_steps import FORMS, TreeCase, counts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--passes", type=int, default=6, help="micro-batches of the step (6)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the lengths of prompt and steps (1.0)")
    parser.add_argument("--cold", action="store_true", help="measure from the first step on")
    parser.add_argument("--contestants", nargs="+", choices=list(FORMS), default=list(FORMS), help="who takes part")


def run(args: argparse.Namespace, session: Session) -> None:
    case = TreeCase(passes=args.passes, device=str(session.device))
    case = dataclasses.replace(case, prompt=round(case.prompt * args.scale), step=round(case.step * args.scale))
    if args.sizes == "smoke":
        case = dataclasses.replace(
            case, depth=2, breadth=3, simulations=4, prompt=9, step=7, bridge=2, small=True, passes=2
        )
    workers = [Worker(f"tree:{form}", case, 1) for form in args.contestants]
    try:
        for worker in [] if args.cold else workers:
            worker.step()  # allocates; counts for the peak alone
        for _ in range(session.repeats):
            for worker in workers:
                worker.seconds.append(worker.step())
    finally:
        for worker in workers:
            worker.close()
    records = _records(session, case, {"tokens": counts(args.contestants[0], case)["tree_tokens"]}, workers)
    for record in records:
        record["name"] = record["name"].removeprefix("tree:")
        record["against"] = {name.removeprefix("tree:"): ratio for name, ratio in record.get("against", {}).items()}
        record["counts"] = counts(record["name"], case)
        print(f"  {record['name']:<28} {_line(record)}", flush=True)
        write_records([record], session.output)
        session.records.append(record)
