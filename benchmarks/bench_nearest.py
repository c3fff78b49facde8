"""Distance to the nearest of M latents (the goal distance), against the matrix product alone.

Contestants: the ball formula in float32 torch followed by a minimum, the same under torch.compile, KeOps where it is
installed, and lapha's back ends and precisions. Extra memory is what to look at beside time: the formula holds N × M
arrays.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.alternatives import ball_nearest, compiled_ball_nearest, keops_nearest
from benchmarks.ceilings import matmul_ceilings
from benchmarks.data import nearest_error, tree_latents
from benchmarks.harness import Case, Contestant, Session, Skipped
from benchmarks.variants import lapha_variants
from lapha import kernels
from lapha.geometry import PolarPoints

_SIZES = {
    "smoke": [(128, 64, 32), (200, 37, 48)],
    "cpu": [(1024, 64, 1536), (8192, 1024, 1536), (65536, 1024, 1536)],
    "cuda": [(8192, 1024, 1536), (65536, 1024, 1536), (262144, 1024, 1536)],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--radius", type=float, default=1.0, help="typical tangent norm of the latents (1.0)")


def run(args: argparse.Namespace, session: Session) -> None:
    device = session.device
    for n, m, d in _SIZES["smoke" if args.sizes == "smoke" else device.type]:
        X, Y = (tree_latents(count, d, device, seed, args.radius) for seed, count in enumerate((n, m)))
        session.measure(Case({"N": n, "M": m, "D": d}, "float32", _contestants(X, Y)))


def _contestants(X: PolarPoints, Y: PolarPoints) -> list[Contestant | Skipped]:
    n, m, d = len(X), len(Y), X.dim
    work = {"result_bytes": 12 * n, "flops": 2.0 * n * m * d, "error": lambda out: nearest_error(X, Y, *out)}
    entries: list[Contestant | Skipped] = [*matmul_ceilings(X.direction, Y.direction)]
    x, y = X.to_ball(), Y.to_ball()
    for make in (ball_nearest, compiled_ball_nearest, keops_nearest):
        name, function = make(x, y)
        if isinstance(function, str):
            entries.append(Skipped(name, function))
        else:
            entries.append(Contestant(name, function, **work))
    for backend, precision in lapha_variants("nearest", X):

        def ours(backend: str = backend, precision: str = precision) -> tuple[torch.Tensor, torch.Tensor]:
            return kernels.nearest(X, Y, backend=backend, precision=precision)

        labels = {"backend": backend, "precision": precision}
        entries.append(Contestant(f"lapha {backend} {precision}", ours, labels=labels, **work))
    return entries
