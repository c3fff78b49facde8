"""From a search to its picture."""

from __future__ import annotations

import torch

from lapha.evaluation.grading.spelling import normalize_answer
from lapha.search import SearchResult
from lapha.shaping import potential
from lapha.viz import TreePicture


def picture_of(result: SearchResult, correct: torch.Tensor | None = None, title: str = "") -> TreePicture:
    """A search as `lapha.viz` draws it.

    Without verdicts nobody knows the goal: V is then measured to the leaves that give the chosen answer, and the
    caption says so.

    Args:
        result: a search with latents.
        correct: (N,) bool from `lapha.shaping.mark_correct`, or None where nothing was verified.
        title: caption.

    Raises:
        ValueError: the result has no latents.
    """
    if result.latents is None:
        raise ValueError("search: expected one with latents, got one that failed before its root was evaluated")
    tree, label = result.tree, "potential V, from the correct leaves"
    goal = correct
    if goal is None and result.answer is not None:
        chosen = normalize_answer(result.answer)
        goal = torch.tensor([answer is not None and normalize_answer(answer) == chosen for answer in tree.answer])
        label = "V to leaves with the chosen answer (unverified)"
    known = None if goal is None or not bool(goal.any()) else potential(result.latents, goal).numpy()
    return TreePicture(
        tree,
        result.latents,
        potential=known,
        potential_label=label,
        correct=None if correct is None else correct.numpy(),
        chosen=result.node,
        title=title,
    )
