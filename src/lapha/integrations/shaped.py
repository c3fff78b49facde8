"""From a searched tree and the verifier's verdicts to potentials, process rewards and training rows.

This is where the gold answer enters, and the only way is through verdicts on leaves: nothing here is used at
inference, and nothing here knows a trainer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lapha._checks import check, check_choice
from lapha.geometry import PolarPoints
from lapha.shaping import (
    SiblingGroup,
    Verifier,
    adaptive_process_reward,
    choose_sibling_groups,
    leaf_accuracy,
    mark_correct,
    potential,
    process_reward,
    sibling_advantages,
    success_rate,
)
from lapha.tree import SearchTree
from lapha.types import Status


@dataclass(frozen=True)
class ShapingConfig:
    """How verdicts become rewards, value targets and groups (method: LaPha, arXiv 2602.09375).

    Attributes:
        reward: ``"strict"`` is r = γV(j) − V(i); ``"adaptive"`` adds the weighted formatting bonus.
        gamma: discount γ in (0, 1].
        breadth: members of a sibling group, ≥ 2.
        max_groups: groups taken from one tree, ≥ 1.
        value_target: ``"potential"`` (the paper's V), ``"success_rate"`` of the subtree's terminal leaves, or
            ``"mixed"``, their mean. Where a subtree has no terminal leaf the success rate falls back to nothing
            (NaN, left out of the loss), never to a number.
        easy_accuracy: trees whose leaf accuracy is at least this feed the value loss alone; 1 for none of them.
        correct_at: a verdict of at least this makes a leaf a goal.
        failed_leaves: potential of leaves that ended without a correct answer. ``"geometry"`` is the paper's: whatever
            the distances say, which is high for a wrong answer, because it looks like a right one. ``"zero"`` sets it
            to 0, so that the step into such a leaf loses what its path had gained (a departure from the paper: see
            `docs/training.md` for what it changes). Leaves that could not be graded keep the geometry's value.

    Raises:
        ValueError: a value outside its range.
    """

    reward: str = "adaptive"
    gamma: float = 1.0
    breadth: int = 6
    max_groups: int = 2
    value_target: str = "potential"
    easy_accuracy: float = 0.8
    correct_at: float = 0.5
    failed_leaves: str = "zero"

    def __post_init__(self) -> None:
        check_choice(self.reward, "reward", ("strict", "adaptive"))
        check_choice(self.failed_leaves, "failed_leaves", ("zero", "geometry"))
        check_choice(self.value_target, "value_target", ("potential", "success_rate", "mixed"))
        check(0 < self.gamma <= 1, "gamma", "a number in (0, 1]", self.gamma)
        check(self.breadth >= 2, "breadth", "an integer >= 2", self.breadth)
        check(self.max_groups >= 1, "max_groups", "an integer >= 1", self.max_groups)
        check(0 < self.easy_accuracy <= 1, "easy_accuracy", "a number in (0, 1]", self.easy_accuracy)
        check(0 < self.correct_at <= 1, "correct_at", "a number in (0, 1]", self.correct_at)


@dataclass
class ShapedTree:
    """A searched tree with its verdicts and everything that follows from them; N nodes.

    Attributes:
        tree: the tree.
        correct: (N,) bool, leaves verified correct.
        value: (N,) potential V in [0, 1]; all zero if no leaf is correct.
        reward: (N,) process reward of the edge that leads to each node; 0 at the root.
        advantage: (N,) advantage within the sibling group; NaN where the group is degenerate.
        value_target: (N,) what the value head should learn; NaN where there is nothing to learn from.
        groups: sibling groups chosen for the policy loss.
        leaf_accuracy: share of terminal leaves that are correct; NaN without leaves.
        ungraded: how many answers the verifier could not grade.
    """

    tree: SearchTree
    correct: torch.Tensor
    value: torch.Tensor
    reward: torch.Tensor
    advantage: torch.Tensor
    value_target: torch.Tensor
    groups: list[SiblingGroup]
    leaf_accuracy: float
    ungraded: int

    @property
    def has_goal(self) -> bool:
        """Whether some leaf is correct: without one the tree carries no signal."""
        return bool(self.correct.any())


@dataclass
class TreeRow:
    """One training row: a sampled step in the context that it was sampled from.

    Attributes:
        prompt_ids: the parent's context and the bridge, as token ids.
        completion_ids: the sampled tokens.
        logprobs: their log-probabilities when sampled (temperature 1).
        reward: process reward of the step, or NaN if the row is there for the value loss alone.
        advantage: advantage within its sibling group, or NaN.
        value_ends: lengths (in tokens) of the states on the path to this step, its own last.
        value_targets: their value targets, same length; NaN entries are left out of the loss.
        question: the question of the tree.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    reward: float
    advantage: float
    value_ends: list[int]
    value_targets: list[float]
    question: str


def shape_tree(tree: SearchTree, latents: PolarPoints, verifier: Verifier, config: ShapingConfig) -> ShapedTree:
    """Verify a tree's answers, then compute potentials, process rewards, value targets and sibling groups.

    Args:
        tree: a searched tree of N nodes.
        latents: (N, H) root-centred latents, node i ↔ latent i.
        verifier: ``(question, answer) -> reward in [0, 1]`` or None where it cannot grade.
        config: see `ShapingConfig`.

    Raises:
        ValueError: the number of latents differs from the number of nodes, or a verdict is not in [0, 1].
    """
    check(len(latents) == len(tree), "latents", f"one per node ({len(tree)})", len(latents))
    correct, ungraded, unknown = mark_correct(tree, verifier, config.correct_at)
    parent = torch.from_numpy(tree.parent.astype("int64"))
    terminal = torch.from_numpy(tree.status != Status.OPEN)
    value = potential(latents, goal=correct.to(latents.device)).double().cpu()
    if config.failed_leaves == "zero":
        value[terminal & ~correct & ~unknown] = 0.0
    rate = success_rate(parent, terminal, correct).double()
    if config.reward == "adaptive":
        well_formed = torch.from_numpy(tree.well_formed.copy())
        reward = adaptive_process_reward(value, parent, well_formed, terminal, correct, gamma=config.gamma)
    else:
        reward = process_reward(value, parent, gamma=config.gamma)
    accuracy = leaf_accuracy(parent, terminal, correct)
    has_goal = bool(correct.any())
    usable = has_goal and (config.easy_accuracy == 1 or accuracy < config.easy_accuracy)
    groups = choose_sibling_groups(reward, value, parent, config.breadth, config.max_groups) if usable else []
    return ShapedTree(
        tree=tree,
        correct=correct,
        value=value,
        reward=reward,
        advantage=sibling_advantages(reward, parent),
        value_target=_value_target(value, rate, has_goal, config.value_target),
        groups=groups,
        leaf_accuracy=accuracy,
        ungraded=ungraded,
    )


def _value_target(value: torch.Tensor, rate: torch.Tensor, has_goal: bool, kind: str) -> torch.Tensor:
    """The success rate is known in a tree without goals (it is 0 there); the potential is not."""
    nothing = torch.full_like(value, math.nan)
    if kind == "success_rate":
        return rate
    if not has_goal:
        return nothing
    return value if kind == "potential" else (value + rate) / 2


def rows_of_group(shaped: ShapedTree, group: SiblingGroup, *, policy: bool = True) -> list[TreeRow]:
    """The training rows of one sibling group, advantages normalised within the group.

    Args:
        shaped: the tree.
        group: children of one node; all rows share the prompt tokens.
        policy: False leaves reward and advantage NaN: the rows then feed the value loss alone.
    """
    tree = shaped.tree
    members = [int(member) for member in group.members]
    rewards = shaped.reward[torch.tensor(members)]
    advantages = (rewards - rewards.mean()) / (rewards.std(unbiased=False) + 1e-4)
    path = tree.path(int(group.parent))
    context = [token for node in path for token in tree.tokens[node]]
    ends, length = [], 0
    for node in path:
        length += len(tree.tokens[node])
        ends.append(length)
    targets = [float(shaped.value_target[node]) for node in path]
    rows = []
    for member, reward, advantage in zip(members, rewards.tolist(), advantages.tolist(), strict=True):
        bridge = int(tree.bridge_length[member])
        own = list(tree.tokens[member])
        rows.append(
            TreeRow(
                prompt_ids=context + own[:bridge],
                completion_ids=own[bridge:],
                logprobs=list(tree.logprobs[member]),
                reward=reward if policy else math.nan,
                advantage=advantage if policy else math.nan,
                value_ends=[*ends, length + len(own)],
                value_targets=[*targets, float(shaped.value_target[member])],
                question=tree.question,
            )
        )
    return rows
