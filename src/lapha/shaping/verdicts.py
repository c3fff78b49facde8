"""Marking correct leaves: the one place where a verifier meets a tree, after the search is over."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from lapha._checks import check, check_parent
from lapha.shaping._potential import check_mask
from lapha.tree import SearchTree
from lapha.types import Status


@runtime_checkable
class Verifier(Protocol):
    """Grades an answer to a question: a reward in [0, 1] (or a bool), or None where it cannot be graded.

    Belongs to training and grading, never to a search.
    """

    def __call__(self, question: str, answer: str, /) -> float | None: ...


class Verdicts(NamedTuple):
    """What the verifier says of a tree's N nodes.

    Attributes:
        correct: (N,) bool, correct leaves.
        ungraded: how many leaves could not be graded.
        unknown: (N,) bool, which.
        score: (N,) float32 verdicts in [0, 1]: of the leaves that answer, and 0 for those that ended otherwise; NaN at
            open nodes and where a leaf could not be graded.
    """

    correct: Tensor
    ungraded: int
    unknown: Tensor
    score: Tensor


def mark_correct(tree: SearchTree, verifier: Verifier, correct_at: float = 0.5) -> Verdicts:
    """Grade the leaves that answer. Every distinct answer is graded once; pruned leaves are graded too.

    Args:
        tree: N nodes.
        verifier: see `Verifier`. An answer that cannot be graded is counted, and is no goal.
        correct_at: a reward of at least this makes a leaf correct, in (0, 1].

    Raises:
        ValueError: a verdict outside [0, 1].
    """
    check(0 < correct_at <= 1, "correct_at", "a number in (0, 1]", correct_at)
    verdicts: dict[str, float | None] = {}
    correct = torch.zeros(len(tree), dtype=torch.bool)
    unknown = torch.zeros(len(tree), dtype=torch.bool)
    ended = torch.from_numpy(tree.status != Status.OPEN)
    score = torch.where(ended, 0.0, torch.nan)
    for node, answer in enumerate(tree.answer):
        if answer is None:
            continue
        if answer not in verdicts:
            verdict = verifier(tree.question, answer)
            good = verdict is None or 0 <= float(verdict) <= 1
            check(good, "verifier", "a reward in [0, 1] or None", f"{verdict!r} for answer {answer!r}")
            verdicts[answer] = verdict
        graded = verdicts[answer]
        if graded is None:
            unknown[node] = True
            score[node] = torch.nan
        else:
            correct[node] = float(graded) >= correct_at
            score[node] = float(graded)
    return Verdicts(correct, int(unknown.sum()), unknown, score)


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
