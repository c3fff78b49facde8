"""Distances on latents as they are: search trees, clusters, few coordinates; the potential; geoopt's ball.

The other suites' latents keep apart, so that the second pass over near pairs has nothing to do. Here it has. Contestants
take turns with the matrix product of the same shape, with six plain torch lines (potential) or with geoopt (ball).
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.data import pairwise_error, tree_latents
from benchmarks.harness import Case, Contestant, Session, Skipped
from benchmarks.real_latents import clustered, policy_trees
from lapha import kernels
from lapha.geometry import PolarPoints
from lapha.shaping import potential

_SMALL = 10  # what sizes are divided by for a smoke run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace, session: Session) -> None:
    smoke = args.sizes == "smoke"
    part = _SMALL if smoke else 1
    for name, X in _latents(part).items():
        session.measure(Case({"N": len(X), "D": X.dim}, name, _distances(X)))
    for dim in (2, 3, 8):
        X, Y = (clustered(2048 // part, 2048, 0.5, dim, seed) for seed in (0, 1))
        shape = {"N": len(X), "M": len(Y), "D": dim}
        session.measure(Case(shape, "few coordinates", _few_coordinates(X, Y)))
    for n, goals, dim in ((30, 2, 576), (150, 10, 1536), (800, 40, 1536)):
        X = tree_latents(max(goals, n // part), dim, session.device)
        session.measure(Case({"N": len(X), "M": goals, "D": dim}, "potential", _potentials(X, goals)))
    for n, dim in ((100_000, 10), (10_000, 256)):
        session.measure(Case({"N": n // part, "D": dim}, "ball", _ball(n // part, dim)))


def _latents(part: int) -> dict[str, PolarPoints]:
    trees = policy_trees(2 if part > 1 else 12)
    return {
        "one tree of the embedded policy": trees[0],
        "trees of the embedded policy": PolarPoints.cat(trees),
        "20 clusters, cosine 0.96": clustered(2048 // part, 20, 0.96, 1536 // part),
        "20 clusters, cosine 0.8": clustered(2048 // part, 20, 0.8, 1536 // part),
        "200 clusters, cosine 0.96": clustered(2048 // part, 200, 0.96, 1536 // part),
        "far apart": clustered(2048 // part, 2048, 0.5, 1536 // part),
    }


def _distances(X: PolarPoints) -> list[Contestant | Skipped]:
    copy = PolarPoints(X.direction.clone(), X.radius.clone())
    weight = torch.randn(len(X), len(X), generator=torch.Generator().manual_seed(0))

    def backward(distances: Callable[[PolarPoints], torch.Tensor]) -> Callable[[], Any]:
        def call() -> None:
            direction = X.direction.clone().requires_grad_()
            distances(PolarPoints(direction, X.radius)).backward(weight)

        return call

    goals = copy[: max(1, len(X) // 4)]
    work = {"flops": 2.0 * len(X) ** 2 * X.dim, "error": lambda out: pairwise_error(X, X, out)}
    return [
        Contestant("matmul", lambda: X.direction @ copy.direction.T, ceiling=True),
        Contestant("pairwise_dist(X)", lambda: kernels.pairwise_dist(X), **work),
        Contestant("pairwise_dist(X, Y)", lambda: kernels.pairwise_dist(X, copy), **work),
        Contestant("nearest of a quarter", lambda: kernels.nearest(X, goals)),
        Contestant("matmul of a quarter", lambda: X.direction @ goals.direction.T),
        Contestant("forward and backward", backward(lambda P: kernels.pairwise_dist(P, copy))),
        Contestant("matmul, forward and backward", backward(lambda P: P.direction @ copy.direction.T)),
    ]


def _few_coordinates(X: PolarPoints, Y: PolarPoints) -> list[Contestant | Skipped]:
    def plain() -> torch.Tensor:
        chord = torch.zeros(len(X), len(Y))
        for d in range(X.dim):
            difference = X.direction[:, d, None] - Y.direction[:, d]
            chord += difference * difference
        return _from_chord(chord, X, Y)

    return [
        Contestant("plain differences", plain, lambda out: pairwise_error(X, Y, out), ceiling=True),
        Contestant("pairwise_dist(X, Y)", lambda: kernels.pairwise_dist(X, Y), lambda out: pairwise_error(X, Y, out)),
        Contestant("pairwise_dist(X)", lambda: kernels.pairwise_dist(X), lambda out: pairwise_error(X, X, out)),
    ]


def _potentials(X: PolarPoints, goals: int) -> list[Contestant | Skipped]:
    mask = torch.zeros(len(X), dtype=torch.bool)
    mask[:goals] = True

    def plain() -> torch.Tensor:
        Y = X[mask]
        chord = (2 - 2 * X.direction @ Y.direction.T).clamp_min(0)
        d_goal, d_root = _from_chord(chord, X, Y).amin(1), 2 * X.radius
        return d_root / (d_root + d_goal + 1e-8)

    return [
        Contestant("six plain lines", plain, ceiling=True),
        Contestant("potential", lambda: potential(X, mask)),
        Contestant("nearest", lambda: kernels.nearest(X, X[:goals])),
        Contestant("matmul", lambda: X.direction @ X.direction[:goals].T),
    ]


def _from_chord(chord: torch.Tensor, X: PolarPoints, Y: PolarPoints) -> torch.Tensor:
    a, b = X.radius[:, None], Y.radius
    square = torch.sinh(a - b).square() + 0.25 * torch.sinh(2 * a) * torch.sinh(2 * b) * chord
    return 2 * torch.asinh(square.sqrt())


def _ball(n: int, dim: int) -> list[Contestant | Skipped]:
    if importlib.util.find_spec("geoopt") is None:
        return [Skipped("geoopt", "not installed")]
    import geoopt

    import lapha

    generator = torch.Generator().manual_seed(0)
    x, y = (PolarPoints.from_tangent(torch.randn(n, dim, generator=generator) / dim**0.5).to_ball() for _ in range(2))
    theirs, ours = geoopt.PoincareBall(), lapha.PoincareBall()
    calls: dict[str, tuple[torch.Tensor, ...]] = {
        "dist": (x, y),
        "expmap": (x, y),
        "mobius_add": (x, y),
        "transp": (x, y, x),
    }
    entries: list[Contestant | Skipped] = []
    for name, arguments in calls.items():
        entries.append(Contestant(f"geoopt {name}", lambda n=name, z=arguments: getattr(theirs, n)(*z), ceiling=True))
        entries.append(Contestant(f"lapha {name}", lambda n=name, z=arguments: getattr(ours, n)(*z)))
    return entries
