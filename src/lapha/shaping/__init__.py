"""Rewards from latents: potential, process rewards, sibling groups, and the same for plain chains."""

from lapha.shaping._potential import potential, success_rate
from lapha.shaping.chains import chain_advantages, chain_potential, chain_rewards, steps_to_tokens
from lapha.shaping.groups import SiblingGroup, choose_sibling_groups, sibling_advantages
from lapha.shaping.rewards import AdaptiveWeights, adaptive_process_reward, adaptive_weights, process_reward
from lapha.shaping.verdicts import Verdicts, Verifier, leaf_accuracy, mark_correct

__all__ = [
    "AdaptiveWeights",
    "SiblingGroup",
    "Verdicts",
    "Verifier",
    "adaptive_process_reward",
    "adaptive_weights",
    "chain_advantages",
    "chain_potential",
    "chain_rewards",
    "choose_sibling_groups",
    "leaf_accuracy",
    "mark_correct",
    "potential",
    "process_reward",
    "sibling_advantages",
    "steps_to_tokens",
    "success_rate",
]
