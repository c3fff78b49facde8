"""Command line: ``python -m benchmarks SUITE [options]``, and ``python -m benchmarks plot FILE…``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from benchmarks import PREFIX, suite_docstring, suite_names
from benchmarks.harness import Session
from benchmarks.plots import plot_records
from benchmarks.records import read_records, run_facts
from benchmarks.report import table

_EPILOG = """\
Every measurement is a JSON line with the git commit, versions, device, dtype and shape that it belongs to. Contestants
of one case take turns, so a ratio between them (the share of a ceiling) is of numbers measured side by side.
Results go to benchmarks/results/ unless --output says otherwise; --sizes smoke is for trying out a suite.

examples:
  python -m benchmarks distance                     all shapes of this device's default size
  python -m benchmarks nearest --sizes smoke        seconds, to see that it runs
  python -m benchmarks plot benchmarks/results/*.jsonl --output distance.svg
"""


def parser(chosen: str = "") -> argparse.ArgumentParser:
    """The command line. Only the chosen suite is imported: another's optional packages are no reason to fail."""
    top = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure lapha against the obvious alternatives and against the machine's ceilings.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="SUITE")
    for name in suite_names():
        first, _, rest = suite_docstring(name).partition("\n")
        suite = commands.add_parser(
            name, help=first, description=f"{first}\n{rest}", formatter_class=argparse.RawDescriptionHelpFormatter
        )
        _add_common(suite)
        if name == chosen:
            module = importlib.import_module(f"benchmarks.{PREFIX}{name}")
            module.add_arguments(suite)
            suite.set_defaults(suite=module)
    plot = commands.add_parser("plot", help="Draw result files: log-log, against the ceiling.")
    plot.add_argument("files", nargs="+", type=Path, help="result files (.jsonl)")
    plot.add_argument("--output", type=Path, required=True, help="picture to write (.svg, .png or .pdf)")
    plot.set_defaults(suite=None)
    lines = commands.add_parser("table", help="Print result files as a table.")
    lines.add_argument("files", nargs="+", type=Path, help="result files (.jsonl)")
    lines.set_defaults(suite=None)
    return top


def _add_common(suite: argparse.ArgumentParser) -> None:
    group = suite.add_argument_group("options of all suites")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    group.add_argument("--device", default=default, help=f"torch device (here: {default})")
    group.add_argument("--sizes", choices=("smoke", "default"), default="default", help="tiny shapes, or the real ones")
    group.add_argument("--repeats", type=int, default=20, help="most timed calls of a contestant (20)")
    group.add_argument("--seconds", type=float, default=20.0, help="time for one contestant in one case (20)")
    group.add_argument(
        "--only", default="", metavar="TEXT", help="only contestants whose name contains TEXT, and the ceiling"
    )
    group.add_argument("--output", type=Path, help="result file, appended to (benchmarks/results/SUITE-DEVICE.jsonl)")
    group.add_argument("--plot", type=Path, help="also draw the results of this run (.svg, .png or .pdf)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one suite, or draw files. Returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser(next((word for word in argv if not word.startswith("-")), "")).parse_args(argv)
    if args.suite is None:
        records = [record for file in args.files for record in read_records(file)]
        if args.command == "plot":
            plot_records(records, args.output)
        else:
            print(table(records))
        return 0
    return _run(args.suite, args)


def _run(module: ModuleType, args: argparse.Namespace) -> int:
    device = torch.device(args.device)
    output = args.output or Path(__file__).parent / "results" / f"{args.command}-{device.type}.jsonl"
    session = Session(
        suite=args.command,
        device=device,
        repeats=args.repeats,
        seconds=args.seconds,
        only=args.only,
        output=output,
        facts=run_facts(device),
    )
    module.run(args, session)
    print(table(session.records))
    print(f"{len(session.records)} measurements appended to {output}")
    if args.plot is not None:
        plot_records(session.records, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
