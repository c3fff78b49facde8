"""The potential V of a state, and the other value target: the success rate of its subtree."""

from __future__ import annotations

import torch
from torch import Tensor

from lapha import kernels
from lapha._checks import check, check_parent
from lapha.geometry import PolarPoints, dist, dist0
from lapha.geometry.potential import potential_ratio
from lapha.shaping.segments import subtree_sum


def potential(
    points: PolarPoints, goal: Tensor | PolarPoints, eps: float = 1e-8, *, require_goal: bool = False
) -> Tensor:
    """Potential V(s) = d_root / (d_root + d_goal + eps) of latents of one tree, whose root is the origin.

    `d_root` is the geodesic distance to the origin, `d_goal` that to the nearest goal. V is 0 at the root and
    exactly 1 at a goal away from the root (the formula's limit for eps → 0; no rounding error is left there).
    It does not change when all latents are rotated about the origin.

    Args:
        points: (N,) root-centred latents.
        goal: which of `points` are goals, (N,) bool: the correct terminal leaves; or (G,) other latents.
        eps: keeps the ratio finite where both distances vanish, > 0.
        require_goal: raise where there is no goal, rather than return zeros.

    Returns:
        (N,) in [0, 1], in the dtype of the radii; zeros where there is no goal: such a tree carries no signal.

    Raises:
        ValueError: wrong types or shapes, NaN or Inf latents, eps <= 0, no goal though `require_goal`.

    Source: Latent Poincaré shaping, arXiv 2602.09375, potential of a state.
    """
    check_points(points, "points")
    check(eps > 0, "eps", "a number > 0", eps)
    targets = _goal_points(points, goal)
    if len(targets) == 0:
        check(not require_goal, "goal", "at least one goal", "none")
        return torch.zeros_like(points.radius)
    if len(points) == 0:
        return torch.zeros_like(points.radius)
    with torch.no_grad():
        _, index = kernels.nearest(points.detach(), targets.detach())
    # The distance itself is taken again elementwise: its gradient, and exactly 0 for a goal's distance to itself.
    d_goal = dist(points, targets[index])
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
    """`points` must be (N,) polar latents with finite numbers."""
    check(isinstance(points, PolarPoints), name, "PolarPoints", type(points).__name__)
    check(len(points.shape) == 1, name, "batch shape (N,)", f"shape {tuple(points.shape)}")
    finite = torch.isfinite(points.radius) & torch.isfinite(points.direction).all(-1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0, 0])
        raise ValueError(f"{name}: expected finite latents, got NaN or Inf, the first at index {first}")


def check_mask(mask: Tensor, name: str, size: int) -> None:
    """`mask` must be (size,) bool."""
    check(isinstance(mask, Tensor), name, "a torch.Tensor", type(mask).__name__)
    check(mask.dtype == torch.bool, name, "dtype torch.bool", mask.dtype)
    check(tuple(mask.shape) == (size,), name, f"shape ({size},)", f"shape {tuple(mask.shape)}")


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
    check_mask(terminal, "terminal", len(terminal))
    check_mask(correct, "correct", len(terminal))
    check_parent(parent, len(terminal))
    check(not bool((correct & ~terminal).any()), "correct", "terminal nodes only", "a node that is not terminal")
    counts = subtree_sum(torch.stack([correct, terminal], 1).to(torch.float64), parent)
    return (counts[:, 0] / counts[:, 1]).to(torch.float32)  # 0/0 is the documented NaN
