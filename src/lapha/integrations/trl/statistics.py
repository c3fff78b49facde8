"""What a batch of training trees looked like, as numbers for the trainer's log."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lapha.integrations.shaped import ShapedTree, TreeRow
from lapha.search import ANSWER_RULES, normalize_answer
from lapha.shaping import Audit


def mean(values: Iterable[float]) -> float:
    """Mean of the numbers that are not NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def leaf_accuracy(shaped: ShapedTree) -> float:
    """Share of its leaves that are correct; 0 for a tree without any, which is wrong as in an evaluation."""
    return 0.0 if math.isnan(shaped.leaf_accuracy) else shaped.leaf_accuracy


def chosen_correct(shaped: ShapedTree, rule: str) -> float:
    """1 if the answer that a rule chooses is correct, 0 if it is not or if no leaf answers."""
    choice = ANSWER_RULES[rule](shaped.tree, None, normalize_answer)
    return float(shaped.correct[choice.node]) if choice else 0.0


def rollout_statistics(trees: list[ShapedTree], rows: list[TreeRow]) -> dict[str, float]:
    """Means over this process's trees, named as they appear in the log under ``lapha/``."""
    values = [tree.value[1:] for tree in trees if tree.has_goal and len(tree.tree) > 1]
    rewards = [row.reward for row in rows]
    return {
        "leaf_accuracy": mean(leaf_accuracy(tree) for tree in trees),
        "pass_at_1": mean(chosen_correct(tree, "value") for tree in trees),
        "majority_accuracy": mean(chosen_correct(tree, "majority") for tree in trees),
        "solved_trees": mean(float(tree.has_goal) for tree in trees),
        "potential_mean": mean(float(v.mean()) for v in values),
        "potential_std": mean(float(v.std(unbiased=False)) for v in values),
        "policy_rows": mean(float(not math.isnan(reward)) for reward in rewards),
        "group_reward": mean(rewards),
        "group_variance": mean(
            float(tree.reward[group.members].var(unbiased=False)) for tree in trees for group in tree.groups
        ),
        "tree_size": mean(float(len(tree.tree)) for tree in trees),
        "tree_tokens": mean(float(tree.tree.sampled_tokens) for tree in trees),
        "pruned_share": mean(float(tree.tree.pruned.mean()) for tree in trees),
        "well_formed": mean(float(tree.tree.well_formed[1:].mean()) for tree in trees if len(tree.tree) > 1),
        "ungraded": float(sum(tree.ungraded for tree in trees)),
    }


def audit_statistics(audit: Audit) -> dict[str, float]:
    """What an audit found, as numbers for the log: does V order open siblings better than verdicts alone?"""
    return {
        "audit_pairs": float(audit.pairs),
        "audit_potential_order": audit.potential_order,
        "audit_verdict_order": audit.verdict_order,
        "audit_margin": audit.margin,
        "audit_trusts_potential": float(audit.helps),
    }
