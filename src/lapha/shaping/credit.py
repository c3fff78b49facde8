"""Credit rules on one's own rollouts: each gives every step an advantage; one call compares them.

A rule takes `Rollouts` and returns (N,) float64: the advantage of the step that led to each state, for all of its tokens.
NaN means "no signal: give it no gradient", at prompts among others. A step that several trajectories share counts once,
with the mean of theirs.

| rule | baseline | source |
|---|---|---|
| `terminal` | mean score of the question's trajectories | GRPO, arXiv 2402.03300 |
| `leave_one_out` | mean score of the other trajectories | RLOO, 2402.14740 |
| `sibling_verdict` | mean score of the siblings that ended | verdicts alone, on trees |
| `subtree_success` | success rate of the parent | VinePPO, 2410.01679 |
| `tree_rl` | prompt and parent, by the root of the leaves | TreeRL, 2506.11902 |
| `tree_rpo` | mean of the siblings' expected scores | TreeRPO, 2506.05183 |
| `tree_grpo` | trajectories of the tree, and of the question's trees | Tree-GRPO, 2509.21240 |
| `gigpo` | trajectories, and steps from the same state | GiGPO, 2505.10978 |
| `delta_v` | mean ΔV of the siblings | LaPha, 2602.09375 |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lapha._checks import check
from lapha.shaping._potential import mean_below
from lapha.shaping.config import ShapingConfig
from lapha.shaping.groups import ADVANTAGE_EPS, MIN_RANGE, grouped_advantages
from lapha.shaping.pipeline import shape
from lapha.shaping.rollouts import Rollouts
from lapha.shaping.segments import node_depth, segment_moments, subtree_sum

CreditRule = Callable[[Rollouts], Tensor]


def terminal(rollouts: Rollouts, *, normalize: bool = True, eps: float = ADVANTAGE_EPS) -> Tensor:
    """(score − mean) / (standard deviation + eps) among the question's trajectories, the same for all of their steps.

    Questions whose scores are all equal have no signal: leaving them out is DAPO's dynamic sampling (2503.14476).
    `normalize=False` leaves out the division (Dr. GRPO, 2503.20783). Source: GRPO, arXiv 2402.03300.
    """
    return _shared(_among_trajectories(rollouts, rollouts.group, normalize, eps), rollouts)


def leave_one_out(rollouts: Rollouts) -> Tensor:
    """score − mean score of the question's *other* trajectories: no bias, no division. Source: RLOO, 2402.14740."""
    ends, group = rollouts.graded.nonzero()[:, 0], rollouts.group
    score = rollouts.score[ends].to(torch.float64)
    moments = segment_moments(score, group[ends], len(rollouts))
    size, mean = moments.size[group[ends]], moments.mean[group[ends]]
    spread = (moments.maximum - moments.minimum)[group[ends]] > MIN_RANGE
    others = (size * mean - score) / (size - 1).clamp_min(1)
    advantage = _nothing(rollouts)
    advantage[ends] = torch.where(spread, score - others, torch.nan)
    return _shared(advantage, rollouts)


def sibling_verdict(rollouts: Rollouts, *, eps: float = ADVANTAGE_EPS) -> Tensor:
    """(score − mean) / (standard deviation + eps) among the siblings that ended; steps that did not end have no signal."""
    score = torch.where(rollouts.graded, rollouts.score.to(torch.float64), torch.nan)
    return grouped_advantages(score, rollouts.parent.to(torch.int64), eps)


def subtree_success(rollouts: Rollouts) -> Tensor:
    """rate(state) − rate(parent), the mean scores of the trajectories through each. Source: VinePPO, 2410.01679.

    VinePPO samples rollouts of their own for each state; here the tree's own trajectories stand for them.
    """
    rate = _rate(rollouts)
    return torch.where(rollouts.parent < 0, torch.nan, rate - rate[_above(rollouts)])


def tree_rl(rollouts: Rollouts) -> Tensor:
    """(2·rate(state) − rate(prompt) − rate(parent)) / √(trajectories through the state). Source: TreeRL, 2506.11902, §3.3."""
    rate = _rate(rollouts)
    through = subtree_sum(rollouts.graded.to(torch.float64), rollouts.parent)
    advantage = (2 * rate - rate[rollouts.tree] - rate[_above(rollouts)]) / through.sqrt()
    return torch.where(rollouts.parent < 0, torch.nan, advantage)


def tree_rpo(rollouts: Rollouts, *, bernoulli: bool = True, eps: float = ADVANTAGE_EPS) -> Tensor:
    """(q − mean q of the siblings) / spread, q the expected score: a leaf's own, else the mean of its *children's* q.

    The spread is that of a Bernoulli variable, √(mean·(1 − mean)), or with ``bernoulli=False`` the standard deviation
    of the siblings' q plus eps. Siblings with equal q have no signal. Source: TreeRPO, 2506.05183.
    """
    q = torch.where(rollouts.graded, rollouts.score.to(torch.float64), torch.nan)
    depth, parent = node_depth(rollouts.parent), rollouts.parent.to(torch.int64)
    for level in range(int(depth.max()) if len(depth) else 0, 0, -1):
        known = ((depth == level) & ~q.isnan()).nonzero()[:, 0]
        total, count = torch.zeros_like(q), torch.zeros_like(q)
        total.index_add_(0, parent[known], q[known])
        count.index_add_(0, parent[known], torch.ones_like(q[known]))
        q = torch.where(count > 0, total / count, q)
    if not bernoulli:
        return grouped_advantages(q, parent, eps)
    members = ((parent >= 0) & ~q.isnan()).nonzero()[:, 0]
    moments = segment_moments(q[members], parent[members], len(q))
    mean = moments.mean[parent[members]]
    spread = (moments.maximum - moments.minimum)[parent[members]] > MIN_RANGE
    advantage = _nothing(rollouts)
    advantage[members] = torch.where(spread, (q[members] - mean) / (mean * (1 - mean)).sqrt(), torch.nan)
    return advantage


def tree_grpo(rollouts: Rollouts, *, intra: bool = True, inter: bool = True, eps: float = ADVANTAGE_EPS) -> Tensor:
    """GRPO's advantage among the trajectories of the tree (intra), plus that among all of the question's trees (inter).

    A part whose scores are all equal adds nothing. Trees of one question are told by `Rollouts.question`; where each
    tree has a question of its own the two parts are equal. Source: Tree-GRPO, 2509.21240, §3.3.
    """
    check(intra or inter, "intra, inter", "at least one of them", "neither")
    groups = ([rollouts.tree] if intra else []) + ([rollouts.group] if inter else [])
    parts = torch.stack([_among_trajectories(rollouts, group, True, eps) for group in groups])
    total = torch.where(parts.isnan().all(0), torch.nan, parts.nan_to_num(0.0).sum(0))
    return _shared(total, rollouts)


def gigpo(
    rollouts: Rollouts, *, weight: float = 1.0, gamma: float = 0.95, normalize: bool = True, eps: float = ADVANTAGE_EPS
) -> Tensor:
    """GRPO's advantage of the trajectory, plus `weight` times that among the steps taken from the same state (anchors).

    A step's return is gamma^(steps that follow it)·score, its mean over the trajectories through it. Anchor groups are
    the question's steps from states with one `Rollouts.state`; without such numbers, siblings. Source: GiGPO, 2505.10978.
    """
    check(0 < gamma <= 1, "gamma", "a number in (0, 1]", gamma)
    parent, depth = rollouts.parent.to(torch.int64), node_depth(rollouts.parent)
    # with D the state's depth, gamma^(d − D) over its leaves of depth d is gamma^d over gamma^D
    discount = torch.tensor(gamma, dtype=torch.float64) ** depth
    back = mean_below(rollouts.score.to(torch.float64) * discount, rollouts.graded, rollouts.parent) / discount
    place = torch.arange(len(rollouts)) if rollouts.state is None else rollouts.state.to(torch.int64)
    anchor = torch.stack([rollouts.group, place[parent.clamp_min(0)]], 1)
    ids = torch.unique(anchor, dim=0, return_inverse=True)[1]
    step = _grouped(back, torch.where(parent < 0, -1, ids), normalize, eps)
    episode = terminal(rollouts, normalize=normalize, eps=eps)
    both = episode.nan_to_num(0.0) + weight * step.nan_to_num(0.0)
    return torch.where(episode.isnan() & step.isnan(), torch.nan, both)


def delta_v(rollouts: Rollouts, *, config: ShapingConfig | None = None) -> Tensor:
    """ΔV normalised among siblings, V by `config.potential` (see `lapha.shaping.potentials`). Source: 2602.09375.

    Raises:
        ValueError: the rollouts have no latents.
    """
    config = ShapingConfig() if config is None else config
    check(rollouts.points is not None, "rollouts.points", "latents, which delta_v measures", "None")
    assert rollouts.points is not None
    correct = rollouts.graded & (rollouts.score >= config.correct_at)
    unknown = rollouts.terminal & rollouts.score.isnan()
    shaped = shape(rollouts.points, rollouts.parent, rollouts.terminal, correct, unknown, config=config)
    return shaped.advantage.to(torch.float64).cpu()


RULES: Mapping[str, CreditRule] = {
    "terminal": terminal,
    "leave_one_out": leave_one_out,
    "sibling_verdict": sibling_verdict,
    "subtree_success": subtree_success,
    "tree_rl": tree_rl,
    "tree_rpo": tree_rpo,
    "tree_grpo": tree_grpo,
    "gigpo": gigpo,
    "delta_v": delta_v,
}


def success(rollouts: Rollouts) -> Tensor:
    """(N,) float64 mean score of the trajectories through each state; NaN where there is none."""
    return _rate(rollouts)


def _nothing(rollouts: Rollouts) -> Tensor:
    return torch.full((len(rollouts),), torch.nan, dtype=torch.float64)


def _rate(rollouts: Rollouts) -> Tensor:
    return mean_below(rollouts.score, rollouts.graded, rollouts.parent)


def _above(rollouts: Rollouts) -> Tensor:
    return rollouts.parent.clamp_min(0).to(torch.int64)


def _among_trajectories(rollouts: Rollouts, group: Tensor, normalize: bool, eps: float) -> Tensor:
    """(N,) GRPO's advantage at the ends of the trajectories; NaN elsewhere and in groups of equal scores."""
    score = torch.where(rollouts.graded, rollouts.score.to(torch.float64), torch.nan)
    return _grouped(score, group, normalize, eps)


def _grouped(values: Tensor, group: Tensor, normalize: bool, eps: float) -> Tensor:
    """`grouped_advantages`, or without the division by the standard deviation."""
    if normalize:
        return grouped_advantages(values, group, eps)
    members = ((group >= 0) & ~values.isnan()).nonzero()[:, 0]
    moments = segment_moments(values[members], group[members], len(values))
    spread = (moments.maximum - moments.minimum)[group[members]] > MIN_RANGE
    result = torch.full_like(values, torch.nan)
    result[members] = torch.where(spread, values[members] - moments.mean[group[members]], torch.nan)
    return result


def _shared(at_ends: Tensor, rollouts: Rollouts) -> Tensor:
    """Each step's mean over the trajectories through it that have a number; NaN at prompts."""
    advantage = mean_below(at_ends.nan_to_num(0.0), ~at_ends.isnan(), rollouts.parent)
    return torch.where(rollouts.parent < 0, torch.nan, advantage)
