"""Where the nodes of a tree go on the Poincaré disk, and the geodesics between them.

The distance from the root is kept; only the angle is a projection. That is the point of the picture: a plane cannot
hold the latent's hundreds of dimensions, and what the potential reads, the distance from the root, survives whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lapha._checks import check, check_choice

if TYPE_CHECKING:
    from lapha.geometry import PolarPoints

# The outermost node should sit between these disk radii; outside them, the tangent norms are scaled and the scale said.
_READABLE = (0.6, 0.97)
_TARGET = 0.92


@dataclass(frozen=True)
class DiskLayout:
    """A tree laid out on the unit disk.

    Attributes:
        xy: (N, 2) float64, positions in the open unit disk; the root is at the origin.
        distance: (N,) float64, true hyperbolic distances from the root.
        scale: the drawn radius is ``tanh(scale·√c·‖v‖)``; 1 is the true Poincaré radius.
        curvature: c, where the space has curvature −c.
    """

    xy: np.ndarray
    distance: np.ndarray
    scale: float
    curvature: float

    def disk_radius(self, distance: float | np.ndarray) -> np.ndarray:
        """The drawn radius in [0, 1] of points at true `distance` from the root."""
        return np.tanh(self.scale * np.sqrt(self.curvature) * np.asarray(distance, dtype=np.float64) / 2)


def disk_layout(
    latents: PolarPoints, parent: np.ndarray, *, angle: str = "tree", scale: float | None = None
) -> DiskLayout:
    """Lay out root-centred latents on the disk: radius from the true distance, angle from a projection.

    Args:
        latents: (N,) points of a tree, the root (radius 0) first.
        parent: (N,) integers, −1 at the root.
        angle: ``"tree"`` gives every subtree a wedge as wide as its share of the leaves, siblings ordered along their
            first principal direction; ``"pca"`` takes the angle in the plane of the two principal directions.
        scale: factor on the tangent norm before tanh, > 0; None takes 1 where the tree is then readable, and
            otherwise the factor that puts the outermost node at radius 0.92.

    Raises:
        ValueError: shapes that disagree, an unknown `angle`, or a scale that is not positive.
    """
    check_choice(angle, "angle", ("tree", "pca"))
    check(scale is None or scale > 0, "scale", "a number > 0", scale)
    size = len(parent)
    check(tuple(latents.shape) == (size,), "latents", f"batch shape ({size},)", tuple(latents.shape))
    radius = latents.radius.detach().to("cpu", torch.float64).numpy()
    curvature = float(latents.curvature)
    norm = np.sqrt(curvature) * radius
    if scale is None:
        scale = _readable_scale(norm)
    plane = _principal_plane(latents)
    theta = np.arctan2(plane[:, 1], plane[:, 0]) if angle == "pca" else _wedge_angles(parent, plane[:, 0])
    rho = np.tanh(scale * norm)
    xy = np.stack([rho * np.cos(theta), rho * np.sin(theta)], axis=1)
    return DiskLayout(xy=xy, distance=2 * radius, scale=float(scale), curvature=curvature)


def _readable_scale(norm: np.ndarray) -> float:
    outermost = float(norm.max(initial=0.0))
    if outermost == 0 or _READABLE[0] <= np.tanh(outermost) <= _READABLE[1]:
        return 1.0
    return float(np.arctanh(_TARGET) / outermost)


def _principal_plane(latents: PolarPoints) -> np.ndarray:
    """(N, 2) coordinates of the directions along their two principal axes; the root, which has none, stays out."""
    direction = latents.direction.detach().to("cpu", torch.float64)[1:]
    coordinates = np.zeros((len(latents), 2))
    if len(direction) < 2:
        return coordinates
    centred = direction - direction.mean(0)
    # The Gram matrix is (N, N): a tree has far fewer nodes than the latent has dimensions, or about as many.
    eigenvalue, eigenvector = torch.linalg.eigh(centred @ centred.T)
    top = eigenvector[:, -2:].flip(1) * eigenvalue[-2:].flip(0).clamp_min(0).sqrt()
    # An eigenvector's sign is arbitrary; fix it so that the same tree gives the same picture.
    sign = torch.sign(top.gather(0, top.abs().argmax(0, keepdim=True)))
    coordinates[1:] = (top * torch.where(sign == 0, 1.0, sign)).numpy()
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

    The circle's centre m satisfies 2 m·p = 1 + |p|² for both ends, because it is orthogonal to the unit circle.
    """
    determinant = float(start[0] * end[1] - start[1] * end[0])
    if abs(determinant) < 1e-9:
        return Arc(None, False)
    a, b = (1 + start @ start) / 2, (1 + end @ end) / 2
    centre = np.array([a * end[1] - b * start[1], b * start[0] - a * end[0]]) / determinant
    radius = float(np.sqrt(max(float(centre @ centre) - 1, 0.0)))
    from_centre, to_end = start - centre, end - centre
    turn = float(from_centre[0] * to_end[1] - from_centre[1] * to_end[0])
    return Arc(radius, turn < 0)
