"""Rollouts of a run that only wants to know whether its step works."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from lapha.integrations.shaped import ShapedTree
from lapha.integrations.trl.rollout import TreeRollout
from lapha.shaping import SiblingGroup


class DryRollout(TreeRollout):
    """Real trees with made-up rewards: a policy of random weights answers nothing, and a dry run must reach `backward`."""

    def grow(self, questions: list[str], trainer: Any) -> list[ShapedTree]:
        """As of `TreeRollout`; rewards and value targets alternate between 0 and 1."""
        return [self._rewarded(tree) for tree in super().grow(questions, trainer)]

    def _rewarded(self, tree: ShapedTree) -> ShapedTree:
        made_up = torch.arange(len(tree.tree), dtype=tree.reward.dtype) % 2
        size = self.shaping.breadth
        groups = [
            SiblingGroup(parent, torch.tensor(children[:size]))
            for parent, children in tree.tree.siblings()
            if len(children) >= size
        ][: self.shaping.max_groups]
        return dataclasses.replace(tree, reward=made_up, value_target=made_up.double(), groups=groups)
