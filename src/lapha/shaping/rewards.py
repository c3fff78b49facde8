"""Process rewards: differences of potential along the edges of a tree."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lapha._checks import check, check_finite, check_float_tensor, check_parent
from lapha._typed import typed
from lapha.shaping._potential import check_mask

MIN_VARIANCE = 1e-12  # of ΔV over a tree, below which its potential carries no signal
MIN_SUM = 1e-9


@typed
def process_reward(V: Tensor, parent: Tensor, gamma: float = 1.0) -> Tensor:
    """Strict process reward r(i, j) = gamma·V(j) − V(i) of the edge that ends in each node.

    With gamma = 1, rewards along a path sum to V(end) − V(root): no policy gains by a detour.

    Args:
        V: (N,) potential; NaN is allowed and gives NaN rewards ("cannot be scored").
        parent: (N,) integers, −1 at a root, otherwise earlier than the node's own index.
        gamma: discount in [0, 1].

    Returns:
        (N,) in the dtype of V; 0 at roots.

    Raises:
        ValueError: wrong types, shapes or ranges, or Inf in V.

    Source: potential-based shaping, Ng, Harada and Russell 1999; arXiv 2602.09375, process reward.
    """
    check_float_tensor(V, "V", dim=1)
    check(not bool(torch.isinf(V).any()), "V", "no infinite numbers", "Inf")
    check_parent(parent, len(V))
    check(0 <= gamma <= 1, "gamma", "a number in [0, 1]", gamma)
    return process_core(V, parent, gamma)


def process_core(V: Tensor, parent: Tensor, gamma: float) -> Tensor:
    """`process_reward` without checks."""
    edge = parent >= 0
    before = V[parent.clamp_min(0).to(torch.int64)]
    return torch.where(edge, gamma * V - before, torch.zeros_like(V))


class AdaptiveWeights(NamedTuple):
    """Weights of one tree's potential difference and of its formatting bonus; each in [0, 1], sum ≤ 1."""

    value: float
    format: float


def adaptive_weights(
    delta: Tensor,
    parent: Tensor,
    well_formed: Tensor,
    terminal: Tensor,
    correct: Tensor,
    *,
    alpha_v: float = 1.0,
    alpha_f: float = 1.0,
) -> AdaptiveWeights:
    """How much one tree's ΔV and formatting bonus weigh in `adaptive_process_reward`.

    raw_f = (1 − share of well-formed edges)^alpha_f; raw_v = (1 − share of terminal leaves that are correct)^alpha_v,
    or 0 where ΔV has variance ≤ 1e-12 or sum ≤ 1e-9 over the tree's edges; both divided by raw_f + raw_v + 1e-8.

    Args:
        delta: (N,) ΔV, as `process_reward` gives it; roots are not read.
        parent, well_formed, terminal, correct: as for `adaptive_process_reward`.

    Raises:
        ValueError: wrong types, shapes or ranges.
    """
    check_float_tensor(delta, "delta", dim=1)
    check_finite(delta, "delta")
    _check_adaptive(len(delta), parent, well_formed, terminal, correct, alpha_v, alpha_f)
    return _weights_core(delta, parent, well_formed, terminal, correct, alpha_v, alpha_f)


def _check_adaptive(
    size: int, parent: Tensor, well_formed: Tensor, terminal: Tensor, correct: Tensor, alpha_v: float, alpha_f: float
) -> None:
    check_parent(parent, size)
    for name, mask in (("well_formed", well_formed), ("terminal", terminal), ("correct", correct)):
        check_mask(mask, name, size)
    for name, alpha in (("alpha_v", alpha_v), ("alpha_f", alpha_f)):
        check(0 <= alpha < math.inf, name, "a finite number >= 0", alpha)


def _weights_core(
    delta: Tensor,
    parent: Tensor,
    well_formed: Tensor,
    terminal: Tensor,
    correct: Tensor,
    alpha_v: float,
    alpha_f: float,
) -> AdaptiveWeights:
    """`adaptive_weights` without checks."""
    edge = parent >= 0
    edges = max(int(edge.sum()), 1)
    raw_format = (1.0 - int((well_formed & edge).sum()) / edges) ** alpha_f
    gain = delta[edge].to(torch.float64)
    informative = len(gain) > 0 and float(gain.var(correction=0)) > MIN_VARIANCE and float(gain.sum()) > MIN_SUM
    leaves = terminal & edge
    accuracy = int((correct & leaves).sum()) / max(int(leaves.sum()), 1)
    raw_value = (1.0 - accuracy) ** alpha_v if informative else 0.0
    total = raw_format + raw_value + 1e-8
    return AdaptiveWeights(value=raw_value / total, format=raw_format / total)


@typed
def adaptive_process_reward(
    V: Tensor,
    parent: Tensor,
    well_formed: Tensor,
    terminal: Tensor,
    correct: Tensor,
    *,
    gamma: float = 1.0,
    alpha_v: float = 1.0,
    alpha_f: float = 1.0,
) -> Tensor:
    """Process reward of one tree with the formatting bonus b: clip(w_v·max(0, ΔV) + w_f·b, 0, 1).

    The rarer a virtue is in the tree, the more it weighs: see `adaptive_weights`.

    Args:
        V: (N,) finite potential of one tree.
        parent: (N,) integers, −1 at the root, otherwise earlier than the node's own index.
        well_formed: (N,) bool, formatting bonus b of each step; roots are not read.
        terminal: (N,) bool.
        correct: (N,) bool.
        gamma: discount in [0, 1].
        alpha_v, alpha_f: how sharply the weights fall as the tree masters answers and format, ≥ 0.

    Returns:
        (N,) in [0, 1], in the dtype of V; 0 at the root.

    Raises:
        ValueError: wrong types, shapes or ranges, or NaN or Inf in V.

    Source: arXiv 2602.09375 and its reference implementation, which trains with this form.
    """
    check_float_tensor(V, "V", dim=1)
    check_finite(V, "V")
    check(0 <= gamma <= 1, "gamma", "a number in [0, 1]", gamma)
    _check_adaptive(len(V), parent, well_formed, terminal, correct, alpha_v, alpha_f)
    return adaptive_core(V, parent, well_formed, terminal, correct, gamma=gamma, alpha_v=alpha_v, alpha_f=alpha_f)


def adaptive_core(
    V: Tensor,
    parent: Tensor,
    well_formed: Tensor,
    terminal: Tensor,
    correct: Tensor,
    *,
    gamma: float,
    alpha_v: float = 1.0,
    alpha_f: float = 1.0,
) -> Tensor:
    """`adaptive_process_reward` without checks."""
    delta = process_core(V, parent, gamma)
    weights = _weights_core(delta, parent, well_formed, terminal, correct, alpha_v, alpha_f)
    reward = (weights.value * delta.clamp_min(0) + weights.format * well_formed.to(V.dtype)).clamp(0, 1)
    return torch.where(parent >= 0, reward, torch.zeros_like(reward))
