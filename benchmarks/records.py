"""What a measurement is written with: where, when and with what it was made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("lapha", "torch", "triton", "numpy", "scipy", "geoopt", "pykeops", "fastcluster", "transformers")
_ROOT = Path(__file__).parents[1]


def run_facts(device: torch.device) -> dict[str, Any]:
    """Commit, versions and device: the same for every measurement of a run."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        # result files do not count: a suite appends to its own while it runs
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        # other work on the same cores makes every time longer: a result file says whether there was any
        "load": round(os.getloadavg()[0], 2),
    }


def device_name(device: torch.device) -> str:
    """The processor's or the GPU's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # an archive without history, or no git
        return "unknown"
    return done.stdout.strip()


def write_records(records: Iterable[dict[str, Any]], path: Path) -> None:
    """Append JSON lines to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, allow_nan=False) + "\n")


def read_records(path: Path) -> list[dict[str, Any]]:
    """All measurements of a result file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]
