"""Sibling groups: which children of one state train the policy, and their advantages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lapha._checks import check, check_float_tensor, check_parent
from lapha._typed import typed
from lapha.shaping.segments import segment_moments

MIN_RANGE = 1e-12  # of the rewards in a group, below which it teaches nothing
MIN_POTENTIAL = 1e-8
ADVANTAGE_EPS = 1e-4  # added to the standard deviation of a group


@dataclass(frozen=True, slots=True)
class SiblingGroup:
    """Children of one state that train the policy together: they continue the same tokens.

    Attributes:
        parent: index of their parent.
        members: (breadth,) int64 indices of the children, by ascending reward.
    """

    parent: int
    members: Tensor


@typed
def sibling_advantages(r: Tensor, parent: Tensor, eps: float = ADVANTAGE_EPS) -> Tensor:
    """Advantage of each node among its siblings: (r − mean) / (population standard deviation + eps).

    Args:
        r: (N,) rewards; NaN means "cannot be scored": left out of its group's statistics.
        parent: (N,) integers, −1 at a root, otherwise earlier than the node's own index.
        eps: ≥ 0.

    Returns:
        (N,) in the dtype of r. NaN at roots, where the reward is NaN, and in degenerate groups (a single scored
        member, or rewards that differ by no more than 1e-12): these give no gradient.

    Raises:
        ValueError: wrong types, shapes or ranges, or infinite rewards.

    Source: GRPO, arXiv 2402.03300, with siblings of a tree as the group.
    """
    check_float_tensor(r, "r", dim=1)
    check_parent(parent, len(r))
    check(eps >= 0, "eps", "a number >= 0", eps)
    check(not bool(torch.isinf(r).any()), "r", "no infinite rewards", "Inf")
    return grouped_advantages(r, parent, eps)


def grouped_advantages(r: Tensor, group: Tensor, eps: float) -> Tensor:
    """`sibling_advantages` for any (N,) group ids in [−1, N); −1 belongs to no group."""
    scored = (group >= 0) & ~torch.isnan(r)
    result = torch.full_like(r, torch.nan)
    if not bool(scored.any()):
        return result
    ids = group[scored].to(torch.int64)
    moments = segment_moments(r[scored].detach(), ids, len(r))
    good = (moments.size > 1) & (moments.maximum - moments.minimum > MIN_RANGE)
    advantage = (r[scored] - moments.mean[ids]) / (moments.variance[ids].sqrt() + eps)
    result[scored] = torch.where(good[ids], advantage, torch.nan).to(r.dtype)
    return result


@typed
def choose_sibling_groups(
    r: Tensor, V: Tensor, parent: Tensor, breadth: int, max_groups: int = 2
) -> list[SiblingGroup]:
    """The sibling groups of one tree that train the policy.

    A group is used if it has at least `breadth` scored members, a reward range > 1e-12 and a member with
    V > 1e-8. A larger group gives, of its members in order of reward, the `breadth` consecutive ones with the
    largest variance. Where more than `max_groups` are left, those with the largest variance are taken, the earlier
    parent first among equals.

    Args:
        r: (N,) rewards; members with NaN are left out.
        V: (N,) potential.
        parent: (N,) integers, −1 at a root, otherwise earlier than the node's own index.
        breadth: members of a group, ≥ 2.
        max_groups: most groups, ≥ 1.

    Returns:
        At most `max_groups` groups, by index of the parent.

    Raises:
        ValueError: wrong types, shapes or ranges.
    """
    check_float_tensor(r, "r", dim=1)
    check_float_tensor(V, "V", dim=1)
    check(len(V) == len(r), "V", f"shape ({len(r)},)", f"shape {tuple(V.shape)}")
    check_parent(parent, len(r))
    check(breadth >= 2, "breadth", "an integer >= 2", breadth)
    check(max_groups >= 1, "max_groups", "an integer >= 1", max_groups)
    return choose_core(r, V, parent, breadth, max_groups)


def choose_core(r: Tensor, V: Tensor, parent: Tensor, breadth: int, max_groups: int) -> list[SiblingGroup]:
    """`choose_sibling_groups` without checks."""
    scored = ((parent >= 0) & ~torch.isnan(r)).nonzero()[:, 0].cpu()
    owner = parent.cpu()[scored].to(torch.int64)
    candidates: list[tuple[float, SiblingGroup]] = []
    reward, potential = r.detach().cpu().to(torch.float64), V.detach().cpu()
    for node in torch.unique(owner).tolist():
        members = scored[owner == node]
        if len(members) < breadth or not bool((potential[members] > MIN_POTENTIAL).any()):
            continue
        members = members[reward[members].argsort(stable=True)]
        if float(reward[members[-1]] - reward[members[0]]) <= MIN_RANGE:
            continue
        variance = reward[members].unfold(0, breadth, 1).var(1, correction=0)
        start = int(variance.argmax())
        window = members[start : start + breadth].to(r.device)
        candidates.append((float(variance[start]), SiblingGroup(int(node), window)))
    best = sorted(candidates, key=lambda candidate: -candidate[0])[:max_groups]
    return sorted((group for _, group in best), key=lambda group: group.parent)
