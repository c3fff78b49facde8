"""A process of its own for one contestant of the training benchmark, so that its peak memory is nobody else's.

Started by `bench_training` with a JSON object on the command line; reads a line for every step and answers with a JSON
line: seconds, loss, and the most memory held so far beyond what the libraries took.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch

from benchmarks.memory import forget_peak, peak_resident, resident
from benchmarks.training_data import TrainingCase
from benchmarks.training_steps import run_steps
from benchmarks.tree_training_steps import TreeCase, run_tree_steps


def main() -> None:
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    # Answers go through a descriptor of their own: trainers print to standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tree = spec["kind"].startswith("tree:")
    case: Any = TreeCase(**spec["case"]) if tree else TrainingCase(**spec["case"])
    _import_libraries()
    forget_peak()
    before = resident()

    def turn() -> bool:
        return bool(sys.stdin.readline().strip())

    def report(seconds: float, loss: float) -> None:
        if case.device == "cpu":
            peak = peak_resident()
            held = None if peak is None or before is None else peak - before
        else:
            held = torch.cuda.max_memory_allocated()
        print(json.dumps({"seconds": seconds, "loss": loss, "peak_bytes": held}), file=answers, flush=True)

    if tree:
        run_tree_steps(spec["kind"].removeprefix("tree:"), case, turn, report)
    else:
        run_steps(spec["kind"], case, turn, report, spec["micro_groups"])


def _import_libraries() -> None:
    """What all contestants import, before memory is looked at for the first time."""
    import datasets  # noqa: F401
    import transformers  # noqa: F401
    import trl  # noqa: F401

    from lapha.tiny import load_tiny

    load_tiny()
    torch.ones(64, 64) @ torch.ones(64, 64)


if __name__ == "__main__":
    main()
