"""``python -m benchmarks.learning run STUDY``: one resumable command per study; ``report``, ``plan`` and ``policies``."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is missing of a study: policies, tuning, final seeds")
    run.add_argument("study")
    run.add_argument("--workers", type=int, default=1, help="processes at a time")
    run.add_argument("--seeds", type=int, help="final seeds 0 to N − 1 instead of the study's")
    report = commands.add_parser("report", help="print a study's table; draw its figures")
    report.add_argument("study")
    report.add_argument("--figures", type=Path, help="folder for the figures")
    plan = commands.add_parser("plan", help="list a study's cells and what is there")
    plan.add_argument("study")
    policy = commands.add_parser("policy", help="build one start policy")
    policy.add_argument("family")
    policy.add_argument("name", help="such as tiny@0.1")
    cell = commands.add_parser("cell", help="(used by run) one cell, in this process")
    cell.add_argument("options")
    cell.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    globals()[f"_{arguments.command}"](arguments)


def _run(arguments: argparse.Namespace) -> None:
    from benchmarks.learning.runner import run_study
    from benchmarks.learning.studies import STUDIES

    study = STUDIES[arguments.study]
    if arguments.seeds is not None:
        study = replace(study, final_seeds=range(arguments.seeds))
    run_study(study, workers=arguments.workers)


def _report(arguments: argparse.Namespace) -> None:
    from benchmarks.learning.analysis import compare, detectable_ratio, draw, text_table
    from benchmarks.learning.runner import read_rows, result_file

    rows = read_rows(result_file(arguments.study))
    print(text_table(compare(rows)))
    for place, ratio in detectable_ratio(rows, "dv-hyperbolic").items():
        print(f"{'/'.join(place)}: a token ratio of {ratio:.2f} would be found with power 0.8")
    if arguments.figures:
        for file in draw(rows, arguments.figures, arguments.study):
            print(file)


def _plan(arguments: argparse.Namespace) -> None:
    from benchmarks.learning.runner import read_rows, result_file
    from benchmarks.learning.studies import STUDIES

    study = STUDIES[arguments.study]
    done = {row["cell"] for row in read_rows(result_file(study.name))}
    cells = list(study.tuning())
    finals = len(study.places) * len(study.arms) * len(study.final_seeds)
    for cell in cells:
        print("done   " if cell.name in done else "missing", cell.name)
    print(f"{len(cells)} tuning cells, then {finals} final ones with the learning rates that they choose")


def _policy(arguments: argparse.Namespace) -> None:
    from benchmarks.learning.policies import build_policy

    print(json.dumps(build_policy(arguments.name, arguments.family), indent=1))


def _cell(arguments: argparse.Namespace) -> None:
    import torch

    from benchmarks.learning.runner import write_row
    from benchmarks.learning.training import Cell, run_cell
    from benchmarks.records import run_facts

    torch.set_num_threads(1)
    cell = Cell(**json.loads(arguments.options))
    facts = run_facts(torch.device("cpu"))
    write_row({**run_cell(cell, arguments.folder), "run": facts}, arguments.folder)


if __name__ == "__main__":
    main()
