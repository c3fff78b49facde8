"""Reports: seconds to build the page of a run, and its bytes.

Two runs of the scripted engine, made in a temporary folder before the clock starts:

* many: 1,000 problems in all five modes, each with its tree (16 simulations × 6 children);
* large: 24 problems, each with a tree of 1,195 nodes, latents of 1,536 numbers and long
  steps.

The seconds are of the whole command ``lapha report``, from its start to its end.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.generated_run import generate_run
from benchmarks.harness import Session
from benchmarks.records import write_records
from lapha.viz import read_page

# name -> options of `generate_run`
_RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "many": {"problems": 1000, "simulations": 16, "hidden_size": 256},
        "large": {"problems": 24, "simulations": 199, "modes": ["value"], "hidden_size": 1536, "characters": 1500},
    },
    "smoke": {
        "many": {"problems": 20, "simulations": 4},
        "large": {"problems": 2, "simulations": 40, "modes": ["value"], "characters": 1500},
    },
}
_OUTSIDE = re.compile(r"""(?:src|href)=["'](?!#|data:)|@import|url\((?!#|data:)""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace, session: Session) -> None:
    for name, options in _RUNS[args.sizes].items():
        with tempfile.TemporaryDirectory() as folder:
            _report(session, _measure(name, options, Path(folder)))


def _measure(name: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    run = generate_run(folder / "run", **options)
    page = folder / "report.html"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lapha", "report", str(folder / "run"), "--out", str(page)], check=True)
    seconds = time.perf_counter() - begin
    text = page.read_text(encoding="utf-8")
    return {
        "name": f"lapha report, {name}",
        "shape": {key: options[key] for key in ("problems", "simulations")},
        "outcomes": len(run.records),
        "trees": len(read_page(page)["manifest"]["trees"]),
        "seconds": seconds,
        "bytes": page.stat().st_size,
        "outside_references": len(_OUTSIDE.findall(text)),
    }


def _report(session: Session, record: dict[str, Any]) -> None:
    full = {**session.facts, "suite": session.suite, "dtype": "text", **record}
    print(f"{session.suite} {record['name']} {record['shape']}", flush=True)
    print("  " + ", ".join(f"{key} {record[key]}" for key in record if key not in ("name", "shape")), flush=True)
    write_records([full], session.output)
