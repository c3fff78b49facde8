"""The potential V of a state, and the other value target: the success rate of its subtree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lapha import kernels
from lapha._checks import check, check_parent
from lapha._typed import typed
from lapha.geometry import PolarPoints, dist0
from lapha.geometry.potential import potential_ratio
from lapha.shaping.segments import subtree_sum


@typed
def potential(
    points: PolarPoints,
    goal: Tensor | PolarPoints,
    eps: float = 1e-8,
    *,
    failed: Tensor | None = None,
    require_goal: bool = False,
) -> Tensor:
    """Potential V(s) = d_root / (d_root + d_goal + eps) of latents of one tree, whose root is the origin.

    `d_root` is the geodesic distance to the origin, `d_goal` that to the nearest goal. V is 0 at the root and
    exactly 1 at a goal away from the root (the formula's limit for eps → 0; no rounding error is left there).
    It does not change when all latents are rotated about the origin.

    Args:
        points: (N,) root-centred latents.
        goal: which of `points` are goals, (N,) bool: the correct terminal leaves; or (G,) other latents.
        eps: keeps the ratio finite where both distances vanish, > 0.
        failed: (N,) bool, leaves that ended without a correct answer: V is 0 there, whatever the distances say.
            None leaves every state to the geometry, which is the paper's form.
        require_goal: raise where there is no goal, rather than return zeros.

    Returns:
        (N,) in [0, 1], in the dtype of the radii; zeros where there is no goal: such a tree carries no signal.

    Raises:
        ValueError: wrong types or shapes, NaN or Inf latents, a negative radius, eps <= 0, a goal that failed, no goal
            though `require_goal`.

    Source: Latent Poincaré shaping, arXiv 2602.09375, potential of a state.
    """
    check_points(points, "points")
    check(eps > 0, "eps", "a number > 0", eps)
    targets = _goal_points(points, goal)
    if failed is not None:
        check_mask(failed, "failed", len(points))
        both = not isinstance(goal, PolarPoints) and bool((goal & failed.to(goal.device)).any())
        check(not both, "failed", "leaves that are no goal", "a goal")
    check(len(targets) > 0 or not require_goal, "goal", "at least one goal", "none")
    V = potential_core(points, targets, eps)
    return V if failed is None else V.masked_fill(failed.to(V.device), 0.0)


def potential_core(points: PolarPoints, targets: PolarPoints, eps: float) -> Tensor:
    """`potential` towards (G,) goals without checks; zeros where there are none."""
    if len(targets) == 0 or len(points) == 0:
        return torch.zeros_like(points.radius)
    d_goal, _ = kernels.nearest(points, targets)  # exactly 0 for a goal's distance to itself
    return potential_ratio(dist0(points), d_goal, eps)


def _goal_points(points: PolarPoints, goal: Tensor | PolarPoints) -> PolarPoints:
    if isinstance(goal, PolarPoints):
        check_points(goal, "goal")
        check(goal.dim == points.dim, "goal", f"dimension {points.dim}", goal.dim)
        check(goal.curvature == points.curvature, "goal", f"curvature {points.curvature}", goal.curvature)
        return goal
    check_mask(goal, "goal", len(points))
    return points[goal.to(points.device)]


def check_points(points: PolarPoints, name: str) -> None:
    """`points` must be (N,) polar latents with finite numbers and radii ≥ 0."""
    check(isinstance(points, PolarPoints), name, "PolarPoints", type(points).__name__)
    check(len(points.shape) == 1, name, "batch shape (N,)", f"shape {tuple(points.shape)}")
    check_latents(points, name)


def check_latents(points: PolarPoints, name: str) -> None:
    """Latents of any batch shape must be finite, with radii ≥ 0; the first bad one is named by its flat index."""
    if _look_good(points):
        return
    finite = torch.isfinite(points.radius) & torch.isfinite(points.direction).all(-1)
    good = finite & (points.radius >= 0)
    if bool(good.all()):
        return
    first = int((~good.flatten()).nonzero()[0, 0])
    if not bool(finite.flatten()[first]):
        raise ValueError(f"{name}: expected finite latents, got NaN or Inf, the first at index {first}")
    radius = float(points.radius.flatten()[first])
    raise ValueError(f"{name}: expected radii >= 0, got {radius}, the first at index {first}")


def _look_good(points: PolarPoints) -> bool:
    """Whether no number can be bad, by one pass over the directions: NaN and Inf show in their lengths."""
    radius = points.radius.detach()
    if radius.numel() == 0:
        return True
    length = torch.linalg.vector_norm(points.direction.detach(), dim=-1, dtype=radius.dtype)
    lowest, highest = torch.aminmax(radius)
    return float(lowest) >= 0 and float(highest) < math.inf and float(length.sum()) < math.inf


def check_mask(mask: Tensor, name: str, size: int) -> None:
    """`mask` must be (size,) bool."""
    check(isinstance(mask, Tensor), name, "a torch.Tensor", type(mask).__name__)
    check(mask.dtype == torch.bool, name, "dtype torch.bool", mask.dtype)
    check(tuple(mask.shape) == (size,), name, f"shape ({size},)", f"shape {tuple(mask.shape)}")


@typed
def success_rate(parent: Tensor, terminal: Tensor, correct: Tensor) -> Tensor:
    """Share of each node's terminal descendants (itself included) that are correct.

    Args:
        parent: (N,) integers, −1 at a root, otherwise earlier than the node's own index.
        terminal: (N,) bool.
        correct: (N,) bool; a correct node must be terminal.

    Returns:
        (N,) float32 in [0, 1]; NaN where a node has no terminal descendant.

    Raises:
        ValueError: wrong types or shapes, or a correct node that is not terminal.
    """
    check(isinstance(terminal, Tensor), "terminal", "a torch.Tensor", type(terminal).__name__)
    check(terminal.dim() == 1, "terminal", "shape (N,)", f"shape {tuple(terminal.shape)}")
    check_mask(terminal, "terminal", len(terminal))
    check_mask(correct, "correct", len(terminal))
    check_parent(parent, len(terminal))
    check_leaves(correct, terminal, "correct")
    return mean_below(correct.to(torch.float64), terminal, parent).to(torch.float32)


def check_leaves(mask: Tensor, terminal: Tensor, name: str) -> None:
    """What `mask` marks must be terminal."""
    check(not bool((mask & ~terminal).any()), name, "terminal nodes only", "a node that is not terminal")


def mean_below(score: Tensor, counted: Tensor, parent: Tensor) -> Tensor:
    """(N,) float64 mean of (N,) scores over the `counted` nodes of each subtree; NaN where there are none. Unchecked."""
    values = torch.where(counted, score.to(torch.float64), 0.0)
    sums = subtree_sum(torch.stack([values, counted.to(torch.float64)], 1), parent)
    return sums[:, 0] / sums[:, 1]  # 0/0 is the documented NaN
