"""Shaping for plain chains: sampled completions without a tree, cut into steps, for anyone's own trainer.

Chains of one question share their goals: the final states of the correct ones. Latents must be centred on that
question's own root (the prompt's h), as `lapha.latent.latent_points` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lapha._checks import check, check_choice, check_float_tensor
from lapha.geometry import PolarPoints
from lapha.shaping._potential import check_latents, check_mask
from lapha.shaping.config import FailedLeaves, ShapingConfig
from lapha.shaping.groups import ADVANTAGE_EPS, MIN_RANGE
from lapha.shaping.pipeline import shape
from lapha.shaping.segments import segment_moments

NO_STEP = -1


def chain_potential(
    points: PolarPoints,
    boundaries: Tensor,
    correct: Tensor,
    group: Tensor,
    *,
    unknown: Tensor | None = None,
    config: ShapingConfig | None = None,
    failed_leaves: FailedLeaves | None = None,
) -> Tensor:
    """Potential V of every step's end, with the correct chains' last steps of the same question as goals.

    Args:
        points: (B, K) latents at the ends of the steps, centred on their question's root; padding is not read.
        boundaries: (B, K) integers: position of each step's last token, increasing, then −1 as padding.
        correct: (B,) bool, whether the chain's answer is correct.
        group: (B,) integers, which question a chain belongs to.
        unknown: (B,) bool, chains that could not be graded: neither goals nor failures. Default: none.
        config: default `ShapingConfig()`.
        failed_leaves: overrides what `config` says: ``"zero"`` makes V 0 at the end of a chain that is not correct.

    Returns:
        (B, K) in [0, 1]; zeros in padding and where a question has no correct chain.

    Raises:
        ValueError: wrong types or shapes, latents that are not finite, or a correct chain without steps.
    """
    config = _with_failed(config, failed_leaves)
    tree, place = chains_as_trees(points, boundaries, correct, group, unknown)
    return _scatter(shape(*tree, config=config).potential, place)


def _with_failed(config: ShapingConfig | None, failed_leaves: FailedLeaves | None) -> ShapingConfig:
    config = ShapingConfig() if config is None else config
    return config if failed_leaves is None else config.replace(failed_leaves=failed_leaves)


def chains_as_trees(
    points: PolarPoints, boundaries: Tensor, correct: Tensor, group: Tensor, unknown: Tensor | None = None
) -> tuple[tuple[PolarPoints, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The arguments of `shape` for chains: one tree a question, whose root (the prompt) branches into its chains.

    Returns:
        (points, parent, terminal, correct, unknown) of N states, the roots first; and (B, K) int64, which of them each
        step is, −1 in padding.
    """
    batch, steps = _check_boundaries(boundaries)
    check(isinstance(points, PolarPoints), "points", "PolarPoints", type(points).__name__)
    check(tuple(points.shape) == (batch, steps), "points", f"shape ({batch}, {steps})", tuple(points.shape))
    check_mask(correct, "correct", batch)
    unknown = torch.zeros_like(correct) if unknown is None else unknown
    check_mask(unknown, "unknown", batch)
    _check_group(group, batch)
    device = points.device
    boundaries, correct, unknown = boundaries.to(device), correct.to(device), unknown.to(device)
    real = boundaries != NO_STEP
    check(bool((real.any(1) | ~correct).all()), "correct", "chains that have at least one step", "one without")
    check_latents(points[real], "points")
    _, question = torch.unique(group.to(device), return_inverse=True)
    questions = int(question.max()) + 1 if batch else 0
    place = torch.full((batch, steps), -1, device=device)
    place[real] = questions + torch.arange(int(real.sum()), device=device)
    before = torch.cat([question[:, None], place[:, :-1]], 1)
    last = real & (real.cumsum(1) == real.sum(1, keepdim=True))
    roots = PolarPoints.origin((questions,), points.dim, points.curvature, points.dtype, device)
    none = torch.zeros(questions, dtype=torch.bool, device=device)
    states = PolarPoints.cat([roots, points[real]])
    parent = torch.cat([torch.full((questions,), -1, device=device), before[real]])
    marks = (torch.cat([none, (last & mask[:, None])[real]]) for mask in (torch.ones_like(correct), correct, unknown))
    terminal, is_goal, not_graded = marks
    return (states, parent, terminal, is_goal, not_graded), place


def _scatter(values: Tensor, place: Tensor) -> Tensor:
    """(B, K) numbers of the steps from (N,) numbers of the states; 0 in padding."""
    if not len(values):
        return values.new_zeros(place.shape)
    return torch.where(place >= 0, values[place.clamp_min(0)], 0.0)


@dataclass(frozen=True, eq=False)
class ShapedChains:
    """Numbers for B chains of K steps and T tokens, in the dtype of the latents' radii.

    Attributes:
        potential: (B, K) V in [0, 1]; 0 in padding and for questions without signal.
        reward: (B, K) process reward of each step; 0 in padding, NaN for questions without signal.
        advantage: (B, T) per-token advantages (see `chain_advantages`); 0 without signal.
    """

    potential: Tensor
    reward: Tensor
    advantage: Tensor


def shape_chains(
    points: PolarPoints,
    boundaries: Tensor,
    correct: Tensor,
    group: Tensor,
    length: int,
    *,
    unknown: Tensor | None = None,
    config: ShapingConfig | None = None,
    credit: Literal["to_go", "step"] = "to_go",
    baseline: Literal["group", "leave_one_out"] = "group",
    normalize: bool = True,
) -> ShapedChains:
    """Potentials, process rewards and per-token advantages of plain chains in one call.

    Args:
        points, boundaries, correct, group, unknown: as for `chain_potential`.
        length: T, tokens of the padded completions.
        config: default `ShapingConfig()`; its reward must be ``"strict"``.
        credit, baseline, normalize: as for `chain_advantages`.

    Raises:
        ValueError: wrong types, shapes or ranges.
    """
    config = ShapingConfig() if config is None else config
    check(config.reward == "strict", "config.reward", "'strict' for chains", repr(config.reward))
    tree, place = chains_as_trees(points, boundaries, correct, group, unknown)
    shaped = shape(*tree, config=config)
    V = _scatter(shaped.potential, place)
    advantage = chain_advantages(
        V, boundaries, length, group, gamma=config.gamma, credit=credit, baseline=baseline, normalize=normalize
    )
    return ShapedChains(V, _scatter(shaped.reward, place), advantage)


def chain_rewards(V: Tensor, boundaries: Tensor, gamma: float = 1.0) -> Tensor:
    """Process reward of every step: gamma·V(step) − V(step before); before the first step V is 0, the root's.

    Args:
        V: (B, K) potential at the ends of the steps.
        boundaries: (B, K) integers, −1 as padding after the last step.
        gamma: discount in [0, 1].

    Returns:
        (B, K) in the dtype of V; 0 in padding.

    Raises:
        ValueError: wrong types, shapes or ranges.
    """
    shape = _check_boundaries(boundaries)
    check_float_tensor(V, "V", dim=2)
    check(tuple(V.shape) == shape, "V", f"shape {shape}", tuple(V.shape))
    check(0 <= gamma <= 1, "gamma", "a number in [0, 1]", gamma)
    before = torch.cat([torch.zeros_like(V[:, :1]), V[:, :-1]], 1)
    return torch.where(boundaries != NO_STEP, gamma * V - before, torch.zeros_like(V))


def steps_to_tokens(values: Tensor, boundaries: Tensor, length: int) -> Tensor:
    """Give every token its step's value: a token belongs to the first step that ends at it or after it.

    Args:
        values: (B, K) one number a step.
        boundaries: (B, K) integers: position of each step's last token, increasing, then −1 as padding.
        length: T, tokens of the padded completions; every boundary is below it.

    Returns:
        (B, T) in the dtype of `values`; 0 after a chain's last step.

    Raises:
        ValueError: wrong types or shapes, or a boundary beyond `length`.
    """
    batch, steps = _check_boundaries(boundaries)
    check(tuple(values.shape) == (batch, steps), "values", f"shape ({batch}, {steps})", tuple(values.shape))
    check(bool((boundaries < length).all()), "boundaries", f"positions below length = {length}", int(boundaries.max()))
    ends = torch.where(boundaries == NO_STEP, length, boundaries).to(torch.int64).contiguous()
    position = torch.arange(length, device=ends.device).expand(batch, length).contiguous()
    step = torch.searchsorted(ends, position)  # K where the token lies after the last step
    padded = torch.cat([values, torch.zeros_like(values[:, :1])], 1)
    inside = torch.where(boundaries == NO_STEP, -1, boundaries).amax(1, keepdim=True) >= position
    return torch.where(inside, padded.gather(1, step), 0)


def chain_advantages(
    V: Tensor,
    boundaries: Tensor,
    length: int,
    group: Tensor,
    *,
    gamma: float = 1.0,
    credit: Literal["to_go", "step"] = "to_go",
    baseline: Literal["group", "leave_one_out"] = "group",
    normalize: bool = True,
    eps: float = ADVANTAGE_EPS,
) -> Tensor:
    """Per-token advantages of plain chains from the potential at their steps' ends.

    ΔV telescopes, so a chain's return is what its last state is worth, γᴷ·V(last), however many steps it took. The
    baseline b is the mean return of the question's chains (or of the others). A state of potential v is expected to
    end at u(v) = b + (1 − b)·v: at b where nothing is known, at 1 at a goal. A step from s to s′ then has

    * ``"to_go"``: γⁿ·V(last) − u(V(s)), n steps from s to the end. At the first token it is the return minus b:
      chains with equal returns get equal advantages there, whatever the number of their steps.
    * ``"step"``: γ·u(V(s′)) − u(V(s)), and γ·V(last) − u(V(s)) for the last step. With γ = 1 a chain's steps add up to
      its return minus b.

    Args:
        V: (B, K) potential at the ends of the steps, in [0, 1], as `chain_potential` gives it.
        boundaries: (B, K) integers: position of each step's last token, increasing, then −1 as padding. A chain
            without steps has return 0.
        length: T, tokens of the padded completions.
        group: (B,) integers, which question a chain belongs to.
        gamma: discount in [0, 1].
        credit: which of the two above; they are GAE(λ) with u as the value function, λ = 1 and λ = 0.
        baseline: ``"group"`` is the mean over all chains of the question (GRPO), ``"leave_one_out"`` over the others
            (RLOO), which leaves the gradient without bias.
        normalize: divide by the population standard deviation of the question's returns, plus `eps`.
        eps: ≥ 0.

    Returns:
        (B, T) in the dtype of V; 0 after a chain's last step, and for questions whose chains' returns are all equal.

    Raises:
        ValueError: wrong types, shapes or ranges.

    Source: arXiv 2402.03300 (group baseline), 2402.14740 (leave-one-out), 1506.02438 (GAE). GRPO's own process
    supervision (2402.03300, §4.1.3) subtracts a mean a *step*, so that a right answer is punished for each further step.
    """
    check_choice(credit, "credit", ("to_go", "step"))
    check_choice(baseline, "baseline", ("group", "leave_one_out"))
    check(eps >= 0, "eps", "a number >= 0", eps)
    check(0 <= gamma <= 1, "gamma", "a number in [0, 1]", gamma)
    shape = _check_boundaries(boundaries)
    check_float_tensor(V, "V", dim=2)
    check(tuple(V.shape) == shape, "V", f"shape {shape}", tuple(V.shape))
    _check_group(group, len(V))
    if 0 in shape:
        return V.new_zeros(len(V), length)
    real = boundaries != NO_STEP
    potential = torch.where(real, V, torch.zeros_like(V)).to(torch.float64)
    count = real.sum(1, keepdim=True)
    final = potential.gather(1, (count - 1).clamp(min=0))
    expected, scale = _baseline((gamma**count * final)[:, 0], group, baseline)
    expected = expected[:, None]
    before = expected + (1 - expected) * torch.cat([torch.zeros_like(final), potential[:, :-1]], 1)
    left = count - torch.arange(shape[1], device=V.device)  # steps from here to the end, the own one among them
    if credit == "to_go":
        advantage = gamma ** left.clamp(min=0) * final - before
    else:
        after = torch.where(left == 1, potential, expected + (1 - expected) * potential)
        advantage = gamma * after - before
    divisor = scale + eps if normalize else torch.ones_like(scale)
    advantage = torch.where(real & (scale > 0)[:, None], advantage / divisor[:, None], 0.0)
    return steps_to_tokens(advantage.to(V.dtype), boundaries, length)


def _baseline(returns: Tensor, group: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """(B,) mean return of the question's chains (or of its others); (B,) their standard deviation, 0 if degenerate."""
    _, question = torch.unique(group, return_inverse=True)
    moments = segment_moments(returns, question, len(returns))
    size, mean = moments.size[question], moments.mean[question]
    degenerate = moments.maximum[question] - moments.minimum[question] <= MIN_RANGE
    scale = torch.where(degenerate, 0.0, moments.variance[question].sqrt())
    if kind == "leave_one_out":
        mean = (size * mean - returns) / (size - 1).clamp(min=1)
    return mean, scale


def _check_boundaries(boundaries: Tensor) -> tuple[int, int]:
    check(isinstance(boundaries, Tensor), "boundaries", "a torch.Tensor", type(boundaries).__name__)
    check(
        boundaries.dim() == 2 and not boundaries.is_floating_point() and boundaries.dtype != torch.bool,
        "boundaries",
        "integers of shape (B, K)",
        f"{boundaries.dtype} of shape {tuple(boundaries.shape)}",
    )
    check(bool((boundaries >= NO_STEP).all()), "boundaries", "positions >= 0, or -1", int(boundaries.min()))
    left, right = boundaries[:, :-1], boundaries[:, 1:]
    good = (right == NO_STEP) | ((left != NO_STEP) & (right > left))
    if not bool(good.all()):
        row, step = (~good).nonzero()[0].tolist()
        raise ValueError(
            "boundaries: expected positions that increase, then -1, "
            f"got {int(left[row, step])} before {int(right[row, step])} in row {row}"
        )
    return boundaries.shape[0], boundaries.shape[1]


def _check_group(group: Tensor, batch: int) -> None:
    check(isinstance(group, Tensor), "group", "a torch.Tensor", type(group).__name__)
    good = tuple(group.shape) == (batch,) and not group.is_floating_point()
    check(good, "group", f"integers of shape ({batch},)", f"{group.dtype} of shape {tuple(group.shape)}")
