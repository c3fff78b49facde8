"""The potential as a ratio of two distances: the one formula that shaping and the latent bank share."""

from __future__ import annotations

import torch
from torch import Tensor


def potential_ratio(d_root: Tensor, d_goal: Tensor, eps: float = 1e-8) -> Tensor:
    """V = d_root / (d_root + d_goal + eps), and exactly 1 at a goal away from the root (the limit for eps → 0).

    Args:
        d_root: (…,) distances from the root, ≥ 0.
        d_goal: (…,) distances to the nearest goal, ≥ 0; exactly 0 at a goal.
        eps: > 0, keeps the ratio finite where both vanish: V is 0 at the root.

    Returns:
        (…,) in [0, 1].

    Source: Latent Poincaré shaping, arXiv 2602.09375, potential of a state.
    """
    ratio = d_root / (d_root + d_goal + eps)
    return torch.where((d_goal == 0) & (d_root > 0), torch.ones_like(ratio), ratio)
