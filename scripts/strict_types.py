"""Run mypy --strict and compare its errors per package with the ceilings below. Usage: python scripts/strict_types.py

A package that is not listed has none. A ceiling only ever goes down.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CEILINGS = {
    "sandbox": 131, "kernels": 59, "geometry": 46, "evaluation": 41, "integrations": 27, "engines": 14,
    "tiny": 10, "search": 9, "latent": 3, "tree": 3, "agent": 2, "_identity": 1, "_store": 1, "cli": 1, "pruning": 1, "viz": 1,
}  # fmt: skip


def main() -> int:
    """Print the counts; 1 where a package has more than its ceiling, or fewer, which then has to be lowered."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache" / "strict")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    lines = re.findall(r"^src/lapha/([^/.]+)\S*: error: .*$", done.stdout, re.MULTILINE)
    found, worse = Counter(lines), False
    for package in sorted({*found, *CEILINGS}):
        most = CEILINGS.get(package, 0)
        note = (
            ""
            if found[package] == most
            else f"  expected {most}" + (": lower the ceiling" if found[package] < most else "")
        )
        worse |= found[package] > most
        print(f"{package:14} {found[package]:4}{note}")
    print(f"{sum(found.values()):19} in all")
    if worse:
        print(done.stdout)
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
