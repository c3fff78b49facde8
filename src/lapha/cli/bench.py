"""``lapha bench``: the benchmarks that live beside the package in a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer


def bench(context: typer.Context) -> int:
    """Run the benchmarks of a checkout; all arguments are passed on (try: lapha bench --help)."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "benchmarks" / "__main__.py").is_file():
        raise ValueError(
            "bench: expected lapha to run from a checkout (git clone, pip install -e .), "
            f"got an installation without benchmarks in {root}"
        )
    return subprocess.call([sys.executable, "-m", "benchmarks", *context.args], cwd=root)
