"""Marking correct leaves: the one place where a verifier meets a tree, after the search is over."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lapha._checks import check_parent
from lapha.shaping.potential import check_mask
from lapha.tree import SearchTree


@runtime_checkable
class Verifier(Protocol):
    """Says whether an answer to a question is correct. Belongs to training and grading, never to a search."""

    def __call__(self, question: str, answer: str) -> bool: ...


def mark_correct(tree: SearchTree, verifier: Verifier) -> Tensor:
    """Which nodes are terminal leaves with a correct answer.

    Every distinct answer is verified once. Pruned leaves are marked too: they are true all the same.

    Returns:
        (N,) bool: the goal set of `potential`.

    Raises:
        ValueError: the verifier returned something other than a truth value.
    """
    verdicts: dict[str, bool] = {}
    correct = torch.zeros(len(tree), dtype=torch.bool)
    for node, answer in enumerate(tree.answer):
        if answer is None:
            continue
        if answer not in verdicts:
            verdict = verifier(tree.question, answer)
            if not isinstance(verdict, (bool, np.bool_)):
                raise ValueError(f"verifier: expected a bool, got {verdict!r} for answer {answer!r}")
            verdicts[answer] = bool(verdict)
        correct[node] = verdicts[answer]
    return correct


def leaf_accuracy(parent: Tensor, terminal: Tensor, correct: Tensor) -> float:
    """Share of a tree's terminal leaves that are correct; NaN where it has none.

    Raises:
        ValueError: wrong types or shapes.
    """
    check_parent(parent, len(parent))
    check_mask(terminal, "terminal", len(parent))
    check_mask(correct, "correct", len(parent))
    leaves = terminal & (parent >= 0)
    count = int(leaves.sum())
    return int((correct & leaves).sum()) / count if count else float("nan")
