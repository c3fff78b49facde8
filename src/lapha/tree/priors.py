"""P(n): how likely the policy finds a step among its siblings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lapha.tree.search_tree import SearchTree


def prior_logits(tree: SearchTree, nodes: Sequence[int]) -> np.ndarray:
    """(K,) float64 logits of the priors of `nodes`, before their multiplicity.

    ``"sum"`` takes the step's cumulative log-probability (the paper), ``"mean"`` its mean a token, so that long steps are
    not at a disadvantage, ``"uniform"`` 0; divided by the temperature. −∞ stays −∞: an impossible step has prior 0.
    """
    total = tree.logprob[np.asarray(nodes, dtype=np.int64)].astype(np.float64)
    if tree.prior_rule == "mean":
        total = total / np.array([max(len(tree.logprobs[node]), 1) for node in nodes])
    elif tree.prior_rule == "uniform":
        total = np.where(np.isneginf(total), -np.inf, 0.0)
    return total / tree.prior_temperature


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax of a vector, in float64; 0 for −∞, also where all are."""
    top = float(logits.max())
    if top == -np.inf:
        return np.zeros(len(logits))
    shifted = np.exp(logits.astype(np.float64) - top)
    return shifted / shifted.sum()
