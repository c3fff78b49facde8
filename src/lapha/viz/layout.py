"""Where the nodes of a tree go on the disk.

The distance from the root is what the potential reads, so it is kept: the radius depends on it alone, by a scale that is
chosen from the data and drawn as labeled rings. The angle has no meaning but that a subtree keeps together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from lapha._checks import check, check_choice

if TYPE_CHECKING:
    from lapha.geometry import PolarPoints

_OUTERMOST = 0.94
_BY_RANK = 0.65  # how much of a radius comes from the rank of the distance; the rest is linear in the distance
_KNOTS = 24
_RINGS = (0.22, 0.4, 0.58, 0.76, 0.92)


@dataclass(frozen=True)
class DiskLayout:
    """A tree laid out on the unit disk; the root is at the center.

    Attributes:
        theta: (N,) float64 angles in radians.
        distance: (N,) float64, true hyperbolic distances from the root.
        knots: (distance, radius) pairs, both increasing, from (0, 0): the radial scale, linear between knots.
        rings: true distances at which a ring helps to read the picture.
    """

    theta: np.ndarray
    distance: np.ndarray
    knots: tuple[tuple[float, float], ...]
    rings: tuple[float, ...]

    def radius(self, distance: float | np.ndarray) -> np.ndarray:
        """The drawn radius in [0, 1) of points at true `distance` from the root."""
        at, drawn = zip(*self.knots)
        return np.interp(np.asarray(distance, dtype=np.float64), at, drawn)

    @property
    def xy(self) -> np.ndarray:
        """(N, 2) float64 positions in the open unit disk, y upwards."""
        rho = self.radius(self.distance)
        return np.stack([rho * np.cos(self.theta), rho * np.sin(self.theta)], axis=1)


def disk_layout(latents: PolarPoints, parent: np.ndarray, *, angle: Literal["tree", "pca"] = "tree") -> DiskLayout:
    """Lay out root-centered latents on the disk: radius from the true distance, angle from the tree.

    Args:
        latents: (N,) points of a tree, the root (radius 0) first.
        parent: (N,) integers, −1 at the root; a parent stands before its children.
        angle: ``"tree"`` gives every subtree a wedge as wide as its share of the leaves, siblings ordered along the
            first principal direction of all latents; ``"pca"`` takes the angle in the plane of the two principal
            directions.

    Raises:
        ValueError: shapes that disagree, latents that are not finite, or an unknown `angle`.
    """
    check_choice(angle, "angle", ("tree", "pca"))
    size = len(parent)
    check(tuple(latents.shape) == (size,), "latents", f"batch shape ({size},)", tuple(latents.shape))
    distance = 2 * latents.radius.detach().to("cpu", torch.float64).numpy()
    check(bool(np.isfinite(distance).all()), "latents", "finite radii", "others")
    plane = _principal_plane(latents, 2 if angle == "pca" else 1)
    theta = np.arctan2(plane[:, 1], plane[:, 0]) if angle == "pca" else _wedge_angles(parent, plane[:, 0])
    knots = radial_scale(distance)
    return DiskLayout(theta=theta, distance=distance, knots=knots, rings=_rings(knots))


def radial_scale(distance: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Knots of the radial scale for these distances: increasing, from (0, 0) to the largest at 0.94.

    A mixture of the distance itself and of its rank, so that nodes crowded in a thin shell come apart, while nodes that
    are farther are always drawn farther out.
    """
    largest = float(distance.max(initial=0.0))
    if largest <= 0:
        return ((0.0, 0.0), (1.0, _OUTERMOST))
    positive = np.sort(distance[distance > 0])
    at = np.unique(np.quantile(positive, np.linspace(0, 1, _KNOTS)))
    rank = np.searchsorted(positive, at, side="right") / len(positive)
    # the innermost shell starts away from the center, and ranks fill the area rather than the radius
    drawn = _OUTERMOST * ((1 - _BY_RANK) * at / largest + _BY_RANK * np.sqrt(rank))
    knots = [(0.0, 0.0)]
    for d, r in zip(at.tolist(), drawn.tolist()):
        if d > knots[-1][0]:
            knots.append((d, max(r, knots[-1][1])))
    return tuple(knots)


def _rings(knots: tuple[tuple[float, float], ...]) -> tuple[float, ...]:
    """Round distances whose rings lie well apart."""
    at, drawn = zip(*knots)
    rings: list[float] = []
    radii: list[float] = [0.0]
    for wanted in _RINGS:
        distance = float(np.interp(wanted, drawn, at))
        if distance <= 0:
            continue
        for digits in (2, 3):
            rounded = float(f"{distance:.{digits}g}")
            radius = float(np.interp(rounded, at, drawn))
            if rounded <= at[-1] and radius - radii[-1] >= 0.1 and math.isfinite(rounded):
                rings.append(rounded)
                radii.append(radius)
                break
    return tuple(rings)


def _principal_plane(latents: PolarPoints, count: int) -> np.ndarray:
    """(N, 2) coordinates of the directions along their `count` principal axes; the root, which has none, stays out."""
    from scipy.sparse.linalg import svds

    direction = latents.direction.detach().to("cpu", torch.float64).numpy()[1:]
    coordinates = np.zeros((len(latents), 2))
    if len(direction) < 2:
        return coordinates
    centered = direction - direction.mean(0)
    if min(centered.shape) <= count + 1:
        u, s, _ = np.linalg.svd(centered, full_matrices=False)
    elif not centered.any():
        return coordinates
    else:
        # Lanczos on the smaller side, from a fixed start: the cost grows with N, and a tree has one picture
        u, s, _ = svds(centered, k=count, v0=np.random.default_rng(0).standard_normal(min(centered.shape)))
        u, s = u[:, ::-1], s[::-1]
    top = u[:, :count] * s[:count]
    # A singular vector's sign is arbitrary; fix it so that the same tree gives the same picture.
    largest = np.abs(top).argmax(0)
    sign = np.sign(top[largest, np.arange(top.shape[1])])
    coordinates[1:, : top.shape[1]] = top * np.where(sign == 0, 1.0, sign)
    return coordinates


def _wedge_angles(parent: np.ndarray, order: np.ndarray) -> np.ndarray:
    size = len(parent)
    children: list[list[int]] = [[] for _ in range(size)]
    for node in range(1, size):
        children[parent[node]].append(node)
    leaves = np.array([0 if kids else 1 for kids in children])
    for node in range(size - 1, 0, -1):
        leaves[parent[node]] += leaves[node]
    start, theta = np.zeros(size), np.zeros(size)
    width = np.full(size, 2 * np.pi)
    for node in range(size):
        edge = start[node]
        for child in sorted(children[node], key=lambda index: (order[index], index)):
            start[child], width[child] = edge, width[node] * leaves[child] / leaves[node]
            theta[child] = edge + width[child] / 2
            edge += width[child]
    return theta


@dataclass(frozen=True)
class Arc:
    """A geodesic between two points of the disk: a circle's arc, or a straight line where `radius` is None.

    Attributes:
        radius: of the circle, which meets the unit circle at right angles; None on a diameter.
        clockwise: whether the short arc turns clockwise with y upwards.
    """

    radius: float | None
    clockwise: bool


def geodesic_arc(start: np.ndarray, end: np.ndarray) -> Arc:
    """The geodesic of the Poincaré disk from `start` to `end`, (2,) points of the open unit disk.

    The circle's center m satisfies 2 m·p = 1 + |p|² for both ends, because it is orthogonal to the unit circle.
    """
    determinant = float(start[0] * end[1] - start[1] * end[0])
    if abs(determinant) < 1e-9:
        return Arc(None, False)
    a, b = (1 + start @ start) / 2, (1 + end @ end) / 2
    center = np.array([a * end[1] - b * start[1], b * start[0] - a * end[0]]) / determinant
    radius = float(np.sqrt(max(float(center @ center) - 1, 0.0)))
    from_center, to_end = start - center, end - center
    turn = float(from_center[0] * to_end[1] - from_center[1] * to_end[0])
    return Arc(radius, turn < 0)
