"""Shaping for plain chains: sampled completions without a tree, cut into steps, for anyone's own trainer.

Chains of one question share their goals: the final states of the correct ones. Latents must be centred on that
question's own root (the prompt's h), as `lapha.latent.latent_points` does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lapha._checks import check, check_choice, check_float_tensor
from lapha.geometry import PolarPoints
from lapha.shaping.groups import grouped_advantages
from lapha.shaping.potential import check_mask, potential

NO_STEP = -1


def chain_potential(
    points: PolarPoints, boundaries: Tensor, correct: Tensor, group: Tensor, eps: float = 1e-8
) -> Tensor:
    """Potential V of every step's end, with the correct chains' last steps of the same question as goals.

    Args:
        points: (B, K) latents at the ends of the steps, centred on their question's root; padding is not read.
        boundaries: (B, K) integers: position of each step's last token, increasing, then −1 as padding.
        correct: (B,) bool, whether the chain's answer is correct.
        group: (B,) integers, which question a chain belongs to.
        eps: as for `potential`.

    Returns:
        (B, K) in [0, 1]; zeros in padding and where a question has no correct chain.

    Raises:
        ValueError: wrong types or shapes, or a correct chain without steps.
    """
    batch, steps = _check_boundaries(boundaries)
    check(tuple(points.shape) == (batch, steps), "points", f"shape ({batch}, {steps})", tuple(points.shape))
    check_mask(correct, "correct", batch)
    _check_group(group, batch)
    real = boundaries != NO_STEP
    last = real & (real.cumsum(1) == real.sum(1, keepdim=True))
    check(bool((real.any(1) | ~correct).all()), "correct", "chains that have at least one step", "one without")
    V = torch.zeros_like(points.radius)
    for question in group.unique().tolist():
        chosen = real & (group == question)[:, None]
        V[chosen] = potential(points[chosen], (last & correct[:, None])[chosen], eps)
    return V


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
    credit: str = "to_go",
    eps: float = 1e-4,
) -> Tensor:
    """Per-token advantages of plain chains from the potential at their steps' ends.

    Rewards r = ΔV of all steps of one question are normalised together: (r − mean) / (standard deviation + eps).
    A token's advantage is then its own step's normalised reward, or the sum of that and of all later ones.

    Args:
        V: (B, K) potential at the ends of the steps, as `chain_potential` gives it.
        boundaries: (B, K) integers: position of each step's last token, increasing, then −1 as padding.
        length: T, tokens of the padded completions.
        group: (B,) integers, which question a chain belongs to.
        gamma: discount in [0, 1].
        credit: ``"to_go"`` or ``"step"``.
        eps: ≥ 0.

    Returns:
        (B, T) in the dtype of V; 0 after a chain's last step and for questions whose rewards are all equal.

    Raises:
        ValueError: wrong types, shapes or ranges.

    Source: GRPO with process supervision, arXiv 2402.03300, §4.1.3, with ΔV as the step's reward.
    """
    check_choice(credit, "credit", ("to_go", "step"))
    check(eps >= 0, "eps", "a number >= 0", eps)
    rewards = chain_rewards(V, boundaries, gamma)
    _check_group(group, len(V))
    _, question = group.unique(return_inverse=True)
    real = boundaries != NO_STEP
    owner = torch.where(real, question[:, None], -1)
    advantage = grouped_advantages(rewards.flatten(), owner.flatten(), eps).view_as(rewards).nan_to_num(0.0)
    if credit == "to_go":
        advantage = advantage.flip(1).cumsum(1).flip(1)
    return steps_to_tokens(advantage, boundaries, length)


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
