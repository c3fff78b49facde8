"""Geodesic distances between points in polar form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lapha._checks import check
from lapha.geometry.autograd import Distance, chord, pairwise_chord
from lapha.geometry.checks import check_broadcast
from lapha.geometry.points import PolarPoints, check_same_space


def dist0(X: PolarPoints) -> Tensor:
    """Distance from the origin, 2 · radius: (…,), float32 (float64 for float64). Gradient 0 at the origin.

    NaN where the radius is NaN or negative.
    """
    check(isinstance(X, PolarPoints), "X", "PolarPoints", type(X).__name__)
    return torch.where(X.radius == 0, 0, torch.where(X.radius >= 0, 2 * X.radius, torch.nan))


def dist(X: PolarPoints, Y: PolarPoints) -> Tensor:
    """Geodesic distance between corresponding points.

    Chords between directions come from direct differences, so near-duplicates keep their relative accuracy.

    Args:
        X, Y: points of one space, batch shapes that broadcast.

    Returns:
        (…,) distances >= 0, float32 (float64 for float64); exactly 0 between identical points; NaN where one of the two
        is no point: NaN or Inf, a negative radius, a direction of length 0. The gradient is exact everywhere and 0
        between coincident points. Differentiable once.

    Raises:
        ValueError: another dimension, dtype, device or curvature, or batch shapes that do not broadcast.
    """
    check_same_space(X, Y)
    shape = check_broadcast(X.shape, Y.shape, "Y")
    return _apply(X.radius.expand(shape), Y.radius.expand(shape), chord(X.direction, Y.direction), X.curvature)


def pairwise_dist(X: PolarPoints, Y: PolarPoints | None = None) -> Tensor:
    """All geodesic distances between two batches of points, or within one.

    The plain exact form: chords from a matrix product in float64 (where the device has it), near-duplicates again by
    direct differences, and the (…, N, M) result held in memory a few times over. `lapha.kernels.pairwise_dist` is
    the one for speed.

    Args:
        X: (…, N) points.
        Y: (…, M) points of the same space; X itself if None.

    Returns:
        (…, N, M) distances, as `dist`; the diagonal is 0 without `Y`.

    Raises:
        ValueError: another dimension, dtype, device or curvature, or leading batch shapes that do not broadcast.
    """
    Y = X if Y is None else Y
    check_same_space(X, Y)
    for points, name in ((X, "X"), (Y, "Y")):
        check(len(points.shape) >= 1, name, "a batch of points, (…, N)", "a single point")
    lead = check_broadcast(X.shape[:-1], Y.shape[:-1], "Y")
    shape = (*lead, X.shape[-1], Y.shape[-1])
    radius_x, radius_y = X.radius.unsqueeze(-1).expand(shape), Y.radius.unsqueeze(-2).expand(shape)
    return _apply(radius_x, radius_y, pairwise_chord(X.direction, Y.direction), X.curvature)


def _apply(radius_x: Tensor, radius_y: Tensor, chords: Tensor, curvature: float) -> Any:
    return Distance.apply(radius_x, radius_y, chords, curvature)
