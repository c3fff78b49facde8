"""Searched trees: from a `SearchTree` and the verifier's verdicts to shaped numbers and training rows.

This is where the gold answer enters, and the only way is through verdicts on leaves: nothing here is used at
inference, and nothing here knows a trainer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lapha._checks import check
from lapha._typed import typed
from lapha.geometry import PolarPoints
from lapha.shaping._potential import success_rate
from lapha.shaping.audit import Auditor, resolve
from lapha.shaping.config import ShapingConfig
from lapha.shaping.groups import ADVANTAGE_EPS, SiblingGroup, choose_core, grouped_advantages
from lapha.shaping.pipeline import shape
from lapha.shaping.potentials import TreeStates
from lapha.shaping.verdicts import Verdicts, Verifier, leaf_accuracy, mark_correct
from lapha.tree import SearchTree
from lapha.types import Status


@dataclass
class ShapedTree:
    """A searched tree with its verdicts and everything that follows from them; N nodes.

    Attributes:
        tree: the tree.
        correct: (N,) bool, leaves verified correct.
        value: (N,) potential V in [0, 1]; all zero if the tree carries no signal (no leaf is correct).
        reward: (N,) process reward of the edge that leads to each node; 0 at the root; NaN throughout without signal.
        advantage: (N,) advantage among all siblings; NaN where they are degenerate. A `SiblingGroup` may hold fewer:
            `rows_of_group` normalises within the group.
        value_target: (N,) what the value head should learn; NaN where there is nothing to learn from.
        groups: sibling groups chosen for the policy loss.
        leaf_accuracy: share of terminal leaves that are correct; NaN without leaves.
        ungraded: how many answers the verifier could not grade.
    """

    tree: SearchTree
    correct: Tensor
    value: Tensor
    reward: Tensor
    advantage: Tensor
    value_target: Tensor
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


@typed
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
    return _shaped(tree, latents, mark_correct(tree, verifier, config.correct_at), config)


def shape_trees(
    trees: Sequence[SearchTree],
    latents: Sequence[PolarPoints],
    verifier: Verifier,
    config: ShapingConfig,
    auditor: Auditor | None = None,
) -> list[ShapedTree]:
    """`shape_tree` for a batch. ``reward="auto"`` is decided once, on these trees and those the auditor has seen.

    Args:
        trees, latents: as for `shape_tree`, one of each a tree.
        verifier, config: as for `shape_tree`.
        auditor: keeps the latest trees of a training, and what its audit found; None audits this batch alone.

    Raises:
        ValueError: see `shape_tree`; numbers of trees and latents that differ.
    """
    check(len(latents) == len(trees), "latents", f"one a tree ({len(trees)})", len(latents))
    verdicts = [mark_correct(tree, verifier, config.correct_at) for tree in trees]
    for tree, points in zip(trees, latents):
        check(len(points) == len(tree), "latents", f"one per node ({len(tree)})", len(points))
    if config.reward == "auto":
        auditor = Auditor(config) if auditor is None else auditor
        auditor.update([_states(*parts) for parts in zip(trees, latents, verdicts)])
        config = resolve(config, auditor.audit)
    return [_shaped(*parts, config) for parts in zip(trees, latents, verdicts)]


def _states(tree: SearchTree, latents: PolarPoints, verdicts: Verdicts) -> TreeStates:
    parent = torch.from_numpy(tree.parent.astype("int64")).to(latents.device)
    terminal = torch.from_numpy(tree.status != Status.OPEN).to(latents.device)
    correct, unknown = verdicts.correct.to(latents.device), verdicts.unknown.to(latents.device)
    return TreeStates(latents, parent, terminal, correct, unknown)


def _shaped(tree: SearchTree, latents: PolarPoints, verdicts: Verdicts, config: ShapingConfig) -> ShapedTree:
    correct = verdicts.correct
    parent = torch.from_numpy(tree.parent.astype("int64"))
    terminal = torch.from_numpy(tree.status != Status.OPEN)
    well_formed = torch.from_numpy(tree.well_formed.copy())
    shaped = shape(latents, parent, terminal, correct, verdicts.unknown, well_formed=well_formed, config=config)
    value, reward, advantage = shaped.potential.cpu(), shaped.reward.cpu(), shaped.advantage.cpu()
    accuracy = leaf_accuracy(parent, terminal, correct)
    scored = bool((value != 0).any())
    usable = scored and (config.easy_accuracy == 1 or accuracy < config.easy_accuracy)
    rate = success_rate(parent, terminal, correct).to(value.dtype)
    return ShapedTree(
        tree=tree,
        correct=correct,
        value=value,
        reward=reward,
        advantage=advantage,
        value_target=_value_target(value, rate, scored, config.value_target),
        groups=choose_core(reward, value, parent, config.breadth, config.max_groups) if usable else [],
        leaf_accuracy=accuracy,
        ungraded=verdicts.ungraded,
    )


def _value_target(value: Tensor, rate: Tensor, scored: bool, kind: str) -> Tensor:
    """The success rate is known in a tree without goals (it is 0 there); the potential is not."""
    if kind == "success_rate":
        return rate
    if not scored:
        return torch.full_like(value, math.nan)
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
    advantages = grouped_advantages(rewards, torch.zeros(len(members), dtype=torch.int64), ADVANTAGE_EPS)
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
