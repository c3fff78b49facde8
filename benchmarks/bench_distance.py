"""Pairwise geodesic distances: N × M of dimension D, against the matrix product alone.

Contestants: the ball formula in float32 torch as it is usually written, the same under torch.compile, geoopt's `dist`
broadcast over all pairs where that fits, KeOps where it is installed, and lapha's back ends and precisions. The
ceiling is a matrix product of the same shape in float32 (and in bfloat16 on CUDA).
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.alternatives import ball_pairwise, compiled_ball_pairwise, geoopt_pairwise, keops_pairwise
from benchmarks.ceilings import matmul_ceilings
from benchmarks.data import pairwise_error, tree_latents
from benchmarks.harness import Case, Contestant, Session, Skipped
from benchmarks.variants import lapha_variants
from lapha import kernels
from lapha.geometry import PolarPoints

_SIZES = {
    "smoke": [(64, 64, 32), (200, 100, 48)],
    "cpu": [(256, 256, 1536), (1024, 1024, 1536), (4096, 4096, 1536), (4096, 4096, 576)],
    "cuda": [(1024, 1024, 1536), (4096, 4096, 1536), (16384, 16384, 1536), (16384, 16384, 576)],
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
    work = {"result_bytes": 4 * n * m, "flops": 2.0 * n * m * d, "error": lambda out: pairwise_error(X, Y, out)}
    entries: list[Contestant | Skipped] = [*matmul_ceilings(X.direction, Y.direction)]
    x, y = X.to_ball(), Y.to_ball()
    for make in (ball_pairwise, compiled_ball_pairwise, geoopt_pairwise, keops_pairwise):
        name, function = make(x, y)
        if isinstance(function, str):
            entries.append(Skipped(name, function))
        else:
            entries.append(Contestant(name, function, **work))
    for backend, precision in lapha_variants("pairwise_dist", X):

        def ours(backend: str = backend, precision: str = precision) -> torch.Tensor:
            return kernels.pairwise_dist(X, Y, backend=backend, precision=precision)

        labels = {"backend": backend, "precision": precision}
        entries.append(Contestant(f"lapha {backend} {precision}", ours, labels=labels, **work))
    return entries
