"""What is compared: how an arm rolls out and which credit its steps get."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lapha.geometry import PolarPoints
from lapha.shaping import Rollouts, ShapingConfig, TreeStates, chain_advantages, credit, potentials, shape
from lapha.shaping.audit import Auditor
from lapha.tree import SearchTree
from lapha.types import Status

Credit = Literal[
    "terminal", "leave_one_out", "sibling_verdict", "subtree_success", "tree_rl", "tree_rpo", "tree_grpo", "delta_v",
    "chain_delta_v", "auto",
]  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One arm of a study.

    Attributes:
        name: of the arm.
        rollouts: ``"chains"``, independent episodes of one question, or ``"tree"``, a searched tree.
        credit: rule of `lapha.shaping.credit`, ``"chain_delta_v"``, or ``"auto"`` (audited ΔV).
        potential: V of ΔV rules: a name of `lapha.shaping.potentials`, or ``"oracle"``.
        reward, failed_leaves: as in `ShapingConfig`.
        head: whether the value head guides the search.
        prune: whether trees are pruned.
        value_loss: whether the value head is trained along, towards the success rate.
        clip: ``"token"``, or ``"sequence"`` for the geometric mean of a step's ratios (GSPO).
    """

    name: str
    rollouts: Literal["chains", "tree"] = "tree"
    credit: Credit = "delta_v"
    potential: str = "hyperbolic"
    reward: Literal["strict", "adaptive"] = "strict"
    failed_leaves: Literal["zero", "geometry"] = "zero"
    head: bool = True
    prune: bool = False
    value_loss: bool = False
    clip: Literal["token", "sequence"] = "token"


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("grpo", "chains", "terminal"),
        Arm("rloo", "chains", "leave_one_out"),
        Arm("grpo-sequence", "chains", "terminal", clip="sequence"),
        Arm("chain-dv", "chains", "chain_delta_v"),
        Arm("tree-verdict", credit="sibling_verdict"),
        Arm("tree-success", credit="subtree_success"),
        Arm("tree-rl", credit="tree_rl"),
        Arm("tree-rpo", credit="tree_rpo"),
        Arm("tree-grpo", credit="tree_grpo"),
        *(
            Arm(f"dv-{name.replace('_', '-')}", potential=name)
            for name in (
                "hyperbolic", "euclidean", "cosine", "soft_min", "rescaled", "contrastive", "depth_centered", "mixture",
                "success_rate", "verdict", "random", "oracle",
            )
        ),
        Arm("dv-geometry", failed_leaves="geometry"),
        Arm("dv-adaptive", reward="adaptive"),
        Arm("dv-paper", reward="adaptive", failed_leaves="geometry"),
        Arm("dv-auto", credit="auto"),
        Arm("dv-no-head", head=False),
        Arm("dv-pruned", prune=True),
        Arm("dv-value-loss", value_loss=True),
        Arm("dv-sequence", clip="sequence"),
        Arm("tree-success-no-head", credit="subtree_success", head=False),
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class GradedTree:
    """One question's rollouts as a tree (chains branch at the prompt), with verdicts.

    Attributes:
        tree: N nodes.
        latents: (N,) root-centred.
        score: (N,) verdicts of leaves, NaN elsewhere.
        remaining: (N,) true distance to the goal, for the oracle.
    """

    tree: SearchTree
    latents: PolarPoints
    score: Tensor
    remaining: Tensor

    @property
    def parent(self) -> Tensor:
        return torch.from_numpy(self.tree.parent.astype("int64"))

    @property
    def terminal(self) -> Tensor:
        return torch.from_numpy(self.tree.status != Status.OPEN)

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(self.parent, self.terminal, self.score, self.latents)

    def states(self) -> TreeStates:
        correct = self.terminal & (self.score >= 0.5)
        return TreeStates(self.latents, self.parent, self.terminal, correct, self.terminal & self.score.isnan())


def advantages(
    arm: Arm, trees: Sequence[GradedTree], auditor: Auditor | None = None
) -> tuple[list[Tensor], dict[str, Any]]:
    """(N,) advantages of each tree's steps, NaN without signal; and what the audit found, where there is one."""
    config = ShapingConfig(reward=arm.reward, failed_leaves=arm.failed_leaves)
    if arm.credit == "auto":
        assert auditor is not None
        audit = auditor.update([tree.states() for tree in trees])
        found = {"audit": {"pairs": audit.pairs, "margin": audit.margin, "error": audit.error, "reward": audit.reward}}
        return [_delta_v(tree, auditor.resolved) for tree in trees], found
    if arm.credit == "delta_v":
        return [_delta_v(tree, _with_potential(config, arm.potential, tree)) for tree in trees], {}
    if arm.credit == "chain_delta_v":
        return [_chain_delta_v(tree, _with_potential(config, arm.potential, tree)) for tree in trees], {}
    rule = credit.RULES[arm.credit]
    return [rule(tree.rollouts) for tree in trees], {}


def _with_potential(config: ShapingConfig, name: str, tree: GradedTree) -> ShapingConfig:
    rule: Any = potentials.from_distance(tree.remaining) if name == "oracle" else name
    return config.replace(potential=rule)


def _delta_v(tree: GradedTree, config: ShapingConfig) -> Tensor:
    states = tree.states()
    well_formed = torch.from_numpy(tree.tree.well_formed.copy())
    shaped = shape(
        states.points,
        states.parent,
        states.terminal,
        states.correct,
        states.unknown,
        well_formed=well_formed,
        config=config,
    )
    return shaped.advantage.to(torch.float64)


def _chain_delta_v(tree: GradedTree, config: ShapingConfig) -> Tensor:
    """`chain_advantages` of a tree that branches at its root alone, one number a step."""
    states = tree.states()
    V = shape(states.points, states.parent, states.terminal, states.correct, states.unknown, config=config).potential
    chains = [tree.tree.path(node)[1:] for node, below in enumerate(tree.tree.children) if node and not below]
    width = max(map(len, chains))
    nodes = torch.full((len(chains), width), -1)
    for row, chain in enumerate(chains):
        nodes[row, : len(chain)] = torch.tensor(chain)
    real = nodes >= 0
    boundaries = torch.where(real, torch.arange(width).expand_as(nodes), -1)
    values = torch.where(real, V.double()[nodes.clamp_min(0)], 0.0)
    per_step = chain_advantages(values, boundaries, width, torch.zeros(len(chains), dtype=torch.int64))
    advantage = torch.full((len(V),), math.nan, dtype=torch.float64)
    advantage[nodes[real]] = per_step[real]
    return advantage if bool((advantage[1:] != 0).any()) else torch.full_like(advantage, math.nan)
