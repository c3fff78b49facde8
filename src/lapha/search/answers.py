"""Choosing the answer from a finished tree. Every rule reads the same saved tree: they compare at equal cost.

A rule is a function of (tree, latents, canonical) and returns an `AnswerChoice`, or None where no live leaf answers.
`canonical` maps an answer's text to what makes two answers the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lapha._checks import check, check_choice
from lapha.search.canonical import normalize_answer
from lapha.search.config import AnswerRule
from lapha.search.features import FEATURES, leaf_features, mean_logprob, standardize
from lapha.tree import SearchTree

if TYPE_CHECKING:
    from lapha.geometry import PolarPoints

Canonical = Callable[[str], str]

# of the soft vote, in the order of FEATURES; the reference implementation's
VOTE_WEIGHTS = dict(zip(FEATURES, (1.0, 0.8, 0.4, 0.3, 0.3, 0.4, 0.2)))
VOTE_TEMPERATURE = 0.8
SUPPORT_BONUS = 0.05  # per log(1 + leaves) of an answer: breaks ties towards the answer with more leaves


@dataclass(frozen=True, slots=True)
class AnswerChoice:
    """What a rule chose.

    Attributes:
        answer: the chosen leaf's answer as it was written.
        canonical: its normal form.
        node: the chosen leaf.
        score: by which it won; its meaning is the rule's.
    """

    answer: str
    canonical: str
    node: int
    score: float


def value_top1(
    tree: SearchTree, latents: PolarPoints | None = None, canonical: Canonical = normalize_answer
) -> AnswerChoice | None:
    """The leaf with the highest v̂ (best-of-n by v̂); the oldest among equals. The paper's rule, and the default."""
    leaves = _candidates(tree)
    return _best_leaf(tree, leaves, _estimates(tree, leaves), canonical)


def best_by_logprob(
    tree: SearchTree, latents: PolarPoints | None = None, canonical: Canonical = normalize_answer
) -> AnswerChoice | None:
    """The leaf whose path has the highest mean log-probability a token (best-of-n by the policy itself)."""
    leaves = _candidates(tree)
    return _best_leaf(tree, leaves, mean_logprob(tree, leaves), canonical)


def majority(
    tree: SearchTree, latents: PolarPoints | None = None, canonical: Canonical = normalize_answer
) -> AnswerChoice | None:
    """The answer with the most leaves; among equals the one that came first. Its leaf with the highest v̂."""
    leaves = _candidates(tree)
    return _vote(tree, leaves, tree.multiplicity()[leaves].astype(float), _estimates(tree, leaves), canonical, _total)


def value_weighted_vote(
    tree: SearchTree, latents: PolarPoints | None = None, canonical: Canonical = normalize_answer
) -> AnswerChoice | None:
    """The answer whose leaves have the largest sum of v̂; its leaf with the highest v̂."""
    leaves = _candidates(tree)
    estimates = _estimates(tree, leaves)
    weights = np.where(np.isneginf(estimates), 0.0, estimates) * tree.multiplicity()[leaves]
    return _vote(tree, leaves, weights, estimates, canonical, _total)


def soft_vote(
    tree: SearchTree,
    latents: PolarPoints | None = None,
    canonical: Canonical = normalize_answer,
    *,
    weights: dict[str, float] | None = None,
    temperature: float = VOTE_TEMPERATURE,
    neighbours: int = 5,
) -> AnswerChoice | None:
    """Seven standardized features, weighted; the answer with the largest log-sum-exp(logit/temperature) over its leaves.

    Then the leaf of that answer with the largest logit.

    Args:
        tree: N nodes.
        latents: (N, H) root-centred latents, for the density; None leaves density out.
        canonical: what makes two answers the same.
        weights: of the features by name (`FEATURES`), in place of `VOTE_WEIGHTS`; a feature that is absent weighs 0.
        temperature: > 0.
        neighbours: k of the density, ≥ 1.

    Raises:
        ValueError: an unknown feature, temperature ≤ 0, or another number of latents than nodes.

    Source: the reference implementation of arXiv 2602.09375.
    """
    weights = VOTE_WEIGHTS if weights is None else weights
    unknown = sorted(set(weights) - set(FEATURES))
    check(not unknown, "weights", "features among " + ", ".join(FEATURES), unknown)
    check(temperature > 0, "temperature", "a number > 0", temperature)
    leaves = _candidates(tree)
    if not len(leaves):
        return None
    features = standardize(leaf_features(tree, latents, leaves, neighbours))
    logits = features @ np.array([weights.get(name, 0.0) for name in FEATURES])
    copies = tree.multiplicity()[leaves].astype(float)

    def evidence(rows: np.ndarray) -> float:
        scaled = logits[rows.astype(int)] / temperature
        counts = copies[rows.astype(int)]
        top = float(scaled.max())
        return (
            top + float(np.log((counts * np.exp(scaled - top)).sum())) + SUPPORT_BONUS * float(np.log1p(counts.sum()))
        )

    return _vote(tree, leaves, np.arange(len(leaves)), logits, canonical, evidence)


ANSWER_RULES: dict[str, AnswerRule] = {
    "value": value_top1,
    "vote": soft_vote,
    "value_vote": value_weighted_vote,
    "majority": majority,
    "logprob": best_by_logprob,
}


def answer_rule(answer: str | AnswerRule) -> AnswerRule:
    """The rule that a `SearchConfig` names, or the function that it holds.

    Raises:
        ValueError: no rule of that name.
    """
    if isinstance(answer, str):
        check_choice(answer, "rule", ANSWER_RULES)
    return ANSWER_RULES[answer] if isinstance(answer, str) else answer


def _candidates(tree: SearchTree) -> np.ndarray:
    """Live leaves with an answer that is not blank."""
    return np.array([n for n in tree.answered().tolist() if (tree.answer[n] or "").strip()], dtype=np.int64)


def _estimates(tree: SearchTree, leaves: np.ndarray) -> np.ndarray:
    """v̂ of the leaves; −inf where it is unknown."""
    values = tree.value[leaves].astype(np.float64)
    return np.where(np.isnan(values), -np.inf, values)


def _best_leaf(tree: SearchTree, leaves: np.ndarray, scores: np.ndarray, canonical: Canonical) -> AnswerChoice | None:
    if not len(leaves):
        return None
    row = int(scores.argmax())
    node = int(leaves[row])
    text = tree.answer[node] or ""
    return AnswerChoice(text, canonical(text), node, float(scores[row]))


def _total(weights: np.ndarray) -> float:
    return float(weights.sum())


def _vote(
    tree: SearchTree,
    leaves: np.ndarray,
    weights: np.ndarray,
    ranks: np.ndarray,
    canonical: Canonical,
    evidence: Callable[[np.ndarray], float],
) -> AnswerChoice | None:
    """The answer with the most evidence from its leaves' weights, and of its leaves the one with the highest rank."""
    groups: dict[str, list[int]] = {}
    for row, leaf in enumerate(leaves.tolist()):
        groups.setdefault(canonical(tree.answer[leaf] or ""), []).append(row)
    if not groups:
        return None
    scores = {answer: evidence(weights[rows]) for answer, rows in groups.items()}
    winner = max(scores, key=scores.__getitem__)  # the first among equals
    rows = groups[winner]
    node = int(leaves[rows[int(ranks[rows].argmax())]])
    return AnswerChoice(tree.answer[node] or "", winner, node, scores[winner])
