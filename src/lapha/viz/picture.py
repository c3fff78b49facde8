"""One search, and what is known of it, as the page and the animation draw it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lapha._checks import check
from lapha.kernels import nearest
from lapha.search.canonical import normalize_answer
from lapha.tree import SearchTree
from lapha.types import Status
from lapha.viz.layout import DiskLayout, disk_layout

if TYPE_CHECKING:
    from lapha.geometry import PolarPoints

MAX_TEXT = 200_000
"""Most characters of one step that a page holds; a longer one says how much it leaves out."""


@dataclass(frozen=True)
class TreePicture:
    """What to draw of one search.

    Attributes:
        tree: the search tree, N nodes.
        latents: (N,) root-centered latents, node i's at index i.
        potential: (N,) V in [0, 1], or None where no goal is known.
        potential_label: what V was measured to.
        correct: (N,) bool, leaves verified correct after the search, or None where nothing was graded.
        chosen: the leaf whose answer was chosen, or None.
        title: names the tree in lists.
        answer_key: maps an answer to what makes two answers the same, for grouping leaves.

    Raises:
        ValueError: shapes that disagree.
    """

    tree: SearchTree
    latents: PolarPoints
    potential: np.ndarray | None = None
    potential_label: str = "Potential V, from the correct leaves"
    correct: np.ndarray | None = None
    chosen: int | None = None
    title: str = ""
    answer_key: Callable[[str], str] = normalize_answer

    def __post_init__(self) -> None:
        size = len(self.tree)
        check(tuple(self.latents.shape) == (size,), "latents", f"batch shape ({size},)", tuple(self.latents.shape))
        for name in ("potential", "correct"):
            value = getattr(self, name)
            check(value is None or np.shape(value) == (size,), name, f"shape ({size},)", np.shape(value))
        check(self.chosen is None or 0 <= self.chosen < size, "chosen", f"a node in [0, {size})", self.chosen)


def tree_data(picture: TreePicture, *, max_text: int = MAX_TEXT) -> dict[str, Any]:
    """The picture as plain JSON values, for the page. Numbers that are not finite become None.

    Raises:
        ValueError: `max_text` below 1.
    """
    check(max_text >= 1, "max_text", "an integer >= 1", max_text)
    tree = picture.tree
    layout = disk_layout(picture.latents, tree.parent)
    group, groups = _groups(picture)
    return {
        "question": tree.question,
        "parent": tree.parent.tolist(),
        "depth": tree.depth.tolist(),
        "status": tree.status.tolist(),
        "simulation": tree.simulation.tolist(),
        "pruned_at": np.where(tree.pruned, tree.pruned_at.clip(min=0), -1).tolist(),
        "visits": tree.visits.tolist(),
        "value": _rounded(tree.value),
        "prior": _rounded(tree.prior),
        "backed_up": _rounded(tree.backed_up),
        "revisits": [list(revisit) for revisit in tree.revisits],
        "tokens": [len(tokens) for tokens in tree.tokens],
        "text": [_shortened(text, max_text) for text in tree.text],
        "answer": list(tree.answer),
        "potential": None if picture.potential is None else _rounded(picture.potential),
        "potential_label": picture.potential_label,
        "correct": None if picture.correct is None else np.asarray(picture.correct, bool).tolist(),
        "chosen": picture.chosen,
        "merged": nearest_kept(picture).tolist(),
        "group": group,
        "groups": groups,
        **_layout_data(layout),
    }


def nearest_kept(picture: TreePicture) -> np.ndarray:
    """(N,) for every pruned node the nearest node that was kept, by hyperbolic distance; −1 for the others."""
    pruned = np.flatnonzero(picture.tree.pruned)
    kept = np.flatnonzero(~picture.tree.pruned[1:]) + 1
    found = np.full(len(picture.tree), -1)
    if len(pruned) and len(kept):
        with torch.no_grad():
            _, index = nearest(picture.latents[torch.from_numpy(pruned)], picture.latents[torch.from_numpy(kept)])
        found[pruned] = kept[index.numpy()]
    return found


def _groups(picture: TreePicture) -> tuple[list[int], list[str]]:
    """(group of every node or −1, one answer per group as it was first written)."""
    keys: dict[str, int] = {}
    shown: list[str] = []
    group = []
    for status, answer in zip(picture.tree.status.tolist(), picture.tree.answer):
        if answer is None or status != Status.ANSWERED:
            group.append(-1)
            continue
        key = picture.answer_key(answer)
        if key not in keys:
            keys[key] = len(shown)
            shown.append(answer)
        group.append(keys[key])
    return group, shown


def _layout_data(layout: DiskLayout) -> dict[str, Any]:
    return {
        "theta": [round(angle, 4) for angle in layout.theta.tolist()],
        "distance": _rounded(layout.distance, 5),
        "knots": [[float(f"{d:.6g}"), round(r, 5)] for d, r in layout.knots],
        "rings": list(layout.rings),
    }


def _rounded(values: np.ndarray, digits: int = 4) -> list[float | None]:
    return [round(v, digits) if math.isfinite(v) else None for v in np.asarray(values, np.float64).tolist()]


def _shortened(text: str, limit: int) -> str:
    return (
        text if len(text) <= limit else f"{text[:limit]}\n[… {len(text) - limit} more characters are not in this page]"
    )
