"""Latents of all kinds, and their distances in float64."""

from __future__ import annotations

import math

import torch

from lapha.geometry import PolarPoints
from lapha.geometry import pairwise_dist as exact_pairwise


def widened(points: PolarPoints) -> PolarPoints:
    """The same numbers in float64."""
    return PolarPoints(points.direction.double(), points.radius.double(), points.curvature)


def exact_distances(X: PolarPoints, Y: PolarPoints) -> torch.Tensor:
    """(N, M) float64 distances of the latents as stored, by the plain form of `lapha.geometry`."""
    return exact_pairwise(widened(X), widened(Y))


def largest_error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest relative error; Inf for a NaN, or for a zero that is not one."""
    wrong = torch.isnan(got) | ((exact == 0) & (got != 0))
    if got.numel() == 0:
        return 0.0
    relative = (got.double() - exact).abs() / torch.where(exact > 0, exact, 1)
    return float(torch.where(wrong, math.inf, relative).max())


def family(
    count: int,
    dim: int,
    cosine: float,
    radius: float,
    seed: int,
    dtype: torch.dtype = torch.float32,
    curvature: float = 1.0,
) -> PolarPoints:
    """Latents whose directions have about this cosine with each other, at tangent norms of 0.5 to 1 times `radius`."""
    generator = torch.Generator().manual_seed(seed)
    common, own = (torch.randn(rows, dim, generator=generator, dtype=torch.float64) for rows in (1, count))
    common = common / common.norm()
    if dim == 1:  # only two directions exist
        common = torch.zeros_like(common)
    own = own - (own @ common.T) * common
    own = own / own.norm(dim=1, keepdim=True).clamp_min(1e-30)
    share = abs(cosine) if dim > 1 else 0.0
    direction = math.sqrt(share) * math.copysign(1, cosine) * common + math.sqrt(1 - share) * own
    norms = radius * (0.5 + 0.5 * torch.rand(count, generator=generator, dtype=torch.float64))
    direction = direction / direction.norm(dim=1, keepdim=True)
    stored = torch.float64 if dtype == torch.float64 else torch.float32
    return PolarPoints(direction.to(dtype), norms.to(stored), curvature)
