"""What a run ran on: versions, commit and hardware, for its record."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "numpy", "scipy", "scikit-learn", "geoopt", "safetensors", "transformers", "trl", "vllm", "deepspeed",
    "accelerate", "datasets", "math-verify", "sympy", "triton", "matplotlib", "typer", "rich",
)  # fmt: skip


def version_of(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the checkout that lapha runs from, with ``+changes`` where it has any; None outside a checkout."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):  # no git, or not a repository it trusts
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def environment_record() -> dict[str, Any]:
    """Names and versions, in the order in which a reader wants them; None where a package is not installed."""
    import torch

    import lapha

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "lapha": lapha.__version__,
        "commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": ", ".join(gpus) or "none",
        "cuda": torch.version.cuda or "none",
        **{package: version_of(package) for package in PACKAGES},
    }
