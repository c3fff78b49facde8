"""Latents to measure on, the same for every contestant, and errors against float64."""

from __future__ import annotations

import torch

from lapha.geometry import PolarPoints
from lapha.geometry import pairwise_dist as exact_pairwise

# Error is taken on a part of the result: float64 on all of it would take longer than the benchmark.
_ROWS, _COLUMNS = 64, 1024


def tree_latents(count: int, dim: int, device: torch.device, seed: int = 0, radius: float = 1.0) -> PolarPoints:
    """Latents like those of search trees: all lean one way, groups of siblings lean one way more.

    Cosines between directions are about 0.4 in general and 0.8 between siblings; tangent norms are `radius` times
    0.2 to 1.8. Two sets with different seeds are of the same trees.
    """
    shared, own = (torch.Generator().manual_seed(number) for number in (12345, seed))
    families = max(1, count // 6)
    common = torch.randn(1, dim, generator=shared) / dim**0.5
    family = torch.randn(families, dim, generator=shared) / dim**0.5
    direction = 0.63 * common + 0.63 * family[torch.randint(families, (count,), generator=own)]
    direction += 0.45 / dim**0.5 * torch.randn(count, dim, generator=own)
    norms = radius * (0.2 + 1.6 * torch.rand(count, generator=own))
    v = torch.nn.functional.normalize(direction, dim=1) * norms[:, None]
    return PolarPoints.from_tangent(v.to(device))


def pairwise_error(X: PolarPoints, Y: PolarPoints, distance: torch.Tensor) -> float:
    """Largest relative error of (N, M) distances on a part of them; pairs at distance 0 must be 0."""
    rows = torch.linspace(0, len(X) - 1, min(_ROWS, len(X))).long().to(X.device)
    columns = torch.linspace(0, len(Y) - 1, min(_COLUMNS, len(Y))).long().to(X.device)
    wide = [PolarPoints(p.direction.double(), p.radius.double(), p.curvature) for p in (X[rows], Y[columns])]
    exact = exact_pairwise(*wide)
    return relative_error(distance[rows][:, columns], exact)


def relative_error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest |got − exact|/exact; Inf if a zero is not one."""
    if bool((got[exact == 0] != 0).any()):
        return float("inf")
    positive = exact > 0
    return float(((got.double() - exact).abs()[positive] / exact[positive]).max())


def nearest_error(X: PolarPoints, Y: PolarPoints, distance: torch.Tensor, index: torch.Tensor) -> float:
    """Largest relative error of the distance to the nearest latent, or of choosing another one, on some rows."""
    rows = torch.linspace(0, len(X) - 1, min(_ROWS, len(X))).long().to(X.device)
    wide = [PolarPoints(p.direction.double(), p.radius.double(), p.curvature) for p in (X[rows], Y)]
    exact = exact_pairwise(*wide)
    least = exact.min(dim=1).values
    chosen = exact.gather(1, index[rows, None])[:, 0]
    return max(relative_error(distance[rows], least), relative_error(chosen, least))


def knn_error(X: PolarPoints, Y: PolarPoints, distance: torch.Tensor) -> float:
    """Largest relative error of the distances to the k nearest latents on some rows."""
    rows = torch.linspace(0, len(X) - 1, min(_ROWS, len(X))).long().to(X.device)
    wide = [PolarPoints(p.direction.double(), p.radius.double(), p.curvature) for p in (X[rows], Y)]
    exact = exact_pairwise(*wide).topk(distance.shape[1], dim=1, largest=False).values
    return relative_error(distance[rows].sort(dim=1).values, exact)
