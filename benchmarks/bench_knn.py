"""The k nearest of M latents, against the matrix product alone.

Contestants: the ball formula in float32 torch followed by topk, KeOps where it is installed, and lapha's back ends and
precisions.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.alternatives import ball_knn, keops_knn
from benchmarks.ceilings import matmul_ceilings
from benchmarks.data import knn_error, tree_latents
from benchmarks.harness import Case, Contestant, Session, Skipped
from benchmarks.variants import lapha_variants
from lapha import kernels
from lapha.geometry import PolarPoints

_SIZES = {
    "smoke": [(64, 200, 32)],
    "cpu": [(256, 1024, 1536), (2048, 4096, 1536), (2048, 16384, 1536)],
    "cuda": [(4096, 16384, 1536), (16384, 65536, 1536)],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--k", type=int, default=8, help="neighbours of each latent (8)")
    parser.add_argument("--radius", type=float, default=1.0, help="typical tangent norm of the latents (1.0)")


def run(args: argparse.Namespace, session: Session) -> None:
    device = session.device
    for n, m, d in _SIZES["smoke" if args.sizes == "smoke" else device.type]:
        X, Y = (tree_latents(count, d, device, seed, args.radius) for seed, count in enumerate((n, m)))
        session.measure(Case({"N": n, "M": m, "D": d, "k": args.k}, "float32", _contestants(X, Y, args.k)))


def _contestants(X: PolarPoints, Y: PolarPoints, k: int) -> list[Contestant | Skipped]:
    n, m, d = len(X), len(Y), X.dim
    work = {"result_bytes": 12 * n * k, "flops": 2.0 * n * m * d, "error": lambda out: knn_error(X, Y, out[0])}
    entries: list[Contestant | Skipped] = [*matmul_ceilings(X.direction, Y.direction)]
    x, y = X.to_ball(), Y.to_ball()
    for make in (ball_knn, keops_knn):
        name, function = make(x, y, k)
        if isinstance(function, str):
            entries.append(Skipped(name, function))
        else:
            entries.append(Contestant(name, function, **work))
    for backend, precision in lapha_variants("knn", X):

        def ours(backend: str = backend, precision: str = precision) -> tuple[torch.Tensor, torch.Tensor]:
            return kernels.knn(X, Y, k, backend=backend, precision=precision)

        labels = {"backend": backend, "precision": precision}
        entries.append(Contestant(f"lapha {backend} {precision}", ours, labels=labels, **work))
    return entries
