"""Sums over sibling groups and over subtrees, without a Python loop over nodes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Statistics of each segment, (S,) float64 except `size`: (S,) int64. Empty segments have size 0."""

    size: Tensor
    mean: Tensor
    variance: Tensor
    minimum: Tensor
    maximum: Tensor


def segment_moments(values: Tensor, segment: Tensor, segments: int) -> Moments:
    """Count, mean, population variance and range of each segment, in float64 and in two passes.

    Args:
        values: (M,) numbers.
        segment: (M,) int64 in [0, segments).
        segments: S.
    """
    data = values.to(torch.float64)
    zeros = data.new_zeros(segments)
    size = torch.zeros(segments, dtype=torch.int64, device=data.device).index_add(0, segment, torch.ones_like(segment))
    divisor = size.clamp_min(1)
    mean = zeros.index_add(0, segment, data) / divisor
    variance = zeros.index_add(0, segment, (data - mean[segment]) ** 2) / divisor
    minimum = zeros.scatter_reduce(0, segment, data, "amin", include_self=False)
    maximum = zeros.scatter_reduce(0, segment, data, "amax", include_self=False)
    return Moments(size, mean, variance, minimum, maximum)


def node_depth(parent: Tensor) -> Tensor:
    """(N,) int64 number of edges between each node and its root; `parent` must have been checked."""
    depth = torch.zeros_like(parent, dtype=torch.int64)
    ancestor = parent.to(torch.int64)
    while bool((ancestor >= 0).any()):
        below = ancestor >= 0
        depth += below
        ancestor = torch.where(below, parent.to(torch.int64)[ancestor.clamp_min(0)], ancestor)
    return depth


def subtree_sum(values: Tensor, parent: Tensor) -> Tensor:
    """(N, …) sum of `values` over each node and all of its descendants; `parent` must have been checked."""
    total = values.clone()
    depth = node_depth(parent)
    for level in range(int(depth.max()) if len(depth) else 0, 0, -1):
        nodes = (depth == level).nonzero()[:, 0]
        total.index_add_(0, parent[nodes].to(torch.int64), total[nodes])
    return total


def families(parent: Tensor) -> list[Tensor]:
    """The children of each state that has at least two, as arrays of nodes; −1 marks states that are nobody's child."""
    children = (parent >= 0).nonzero()[:, 0]
    owner = parent[children].to(torch.int64)
    order = owner.argsort(stable=True)
    if not len(order):
        return []
    sizes = torch.unique_consecutive(owner[order], return_counts=True)[1].tolist()
    return [family for family in torch.split(children[order], sizes) if len(family) > 1]
