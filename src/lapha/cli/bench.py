"""``lapha bench``: the distance kernels against the plain formula, on this machine."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

_ROOT = Path(__file__).resolve().parents[3]
_DTYPES = ("float64", "float32", "bfloat16", "float16")


def bench(
    context: typer.Context,
    rows: Annotated[int, typer.Option(help="Latents on one side.")] = 1024,
    columns: Annotated[int, typer.Option(help="Latents on the other side.")] = 1024,
    width: Annotated[int, typer.Option(help="Numbers per latent.")] = 2048,
    device: Annotated[str | None, typer.Option(help="torch device; default: CUDA where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the latents: " + ", ".join(_DTYPES) + ".")] = "float32",
    seconds: Annotated[float, typer.Option(help="Time for each kernel.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per kernel on standard output.")] = False,
) -> int:
    """Time the distance kernels against the plain formula.

    In a checkout, `lapha bench SUITE …` runs a suite of its benchmarks (`lapha bench list` names them).
    """
    if context.args:
        return _suite(context.args)
    import torch

    from lapha._checks import check_choice
    from lapha.kernels.benchmark import run_benchmarks

    check_choice(dtype, "dtype", _DTYPES)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: expected a device of this machine, got {place!r} ({error})") from error
    timings = run_benchmarks(
        rows=rows, columns=columns, width=width, device=place, dtype=getattr(torch, dtype), seconds=seconds
    )
    if as_json:
        for one in timings:
            print(json.dumps({**dataclasses.asdict(one), "device": place, "dtype": dtype}))
        return 0
    print(f"{rows} x {columns} latents of {width} numbers, {dtype}, {place}, {torch.get_num_threads()} threads")
    for one in timings:
        plain = "does not fit" if one.plain_seconds is None else f"{1e3 * one.plain_seconds:9.3f} ms"
        ratio = "" if one.speedup is None else f"  {one.speedup:5.2f}x"
        print(f"{one.kernel:14} {1e3 * one.seconds:9.3f} ms   plain formula {plain}{ratio}   {one.calls} calls")
    return 0


def _suite(arguments: list[str]) -> int:
    names = sorted(path.stem.removeprefix("bench_") for path in (_ROOT / "benchmarks").glob("bench_*.py"))
    if not names:
        raise ValueError(
            f"bench: expected no argument {arguments[0]!r} in an installation; the suites of benchmarks are in the "
            "repository (git clone, pip install -e .), and `lapha bench` alone times the kernels"
        )
    if arguments == ["list"]:
        print("\n".join(names))
        return 0
    return subprocess.call([sys.executable, "-m", "benchmarks", *arguments], cwd=_ROOT)
