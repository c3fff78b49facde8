"""Rewards from latents: one pipeline (`shape`), its adapters for trees and chains, and its parts.

`lapha.integrations.shape_rollouts` is the adapter for flat records of one's own rollouts. `lapha.shaping.potentials` holds
what V may be, `lapha.shaping.credit` the credit rules of other methods for comparison.
"""

from lapha.shaping._potential import potential, success_rate
from lapha.shaping.audit import Audit, Auditor, audit_potential
from lapha.shaping.chains import (
    ShapedChains,
    chain_advantages,
    chain_potential,
    chain_rewards,
    shape_chains,
    steps_to_tokens,
)
from lapha.shaping.compare import Comparison, RuleReport, compare_credit
from lapha.shaping.config import ShapingConfig
from lapha.shaping.groups import SiblingGroup, choose_sibling_groups, sibling_advantages
from lapha.shaping.pipeline import Shaped, shape
from lapha.shaping.potentials import TreeStates
from lapha.shaping.rewards import AdaptiveWeights, adaptive_process_reward, adaptive_weights, process_reward
from lapha.shaping.rollouts import Rollouts
from lapha.shaping.trees import ShapedTree, TreeRow, rows_of_group, shape_tree, shape_trees
from lapha.shaping.verdicts import Verdicts, Verifier, leaf_accuracy, mark_correct

__all__ = [
    "AdaptiveWeights",
    "Audit",
    "Auditor",
    "Comparison",
    "Rollouts",
    "RuleReport",
    "Shaped",
    "ShapedChains",
    "ShapedTree",
    "ShapingConfig",
    "SiblingGroup",
    "TreeRow",
    "TreeStates",
    "Verdicts",
    "Verifier",
    "adaptive_process_reward",
    "adaptive_weights",
    "audit_potential",
    "chain_advantages",
    "chain_potential",
    "chain_rewards",
    "choose_sibling_groups",
    "compare_credit",
    "leaf_accuracy",
    "mark_correct",
    "potential",
    "process_reward",
    "rows_of_group",
    "shape",
    "shape_chains",
    "shape_tree",
    "shape_trees",
    "sibling_advantages",
    "steps_to_tokens",
    "success_rate",
]
