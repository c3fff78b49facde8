"""Selection rules: plain callables that say which node the next simulation works on."""

from __future__ import annotations

import numpy as np

from lapha.search.config import SelectionRule
from lapha.search.frontier import Frontier
from lapha.types import Status

_OPEN = int(Status.OPEN)


def best_of_frontier(frontier: Frontier) -> int | None:
    """The open node of the whole tree with the best score; the oldest among equals.

    Source: where to expand, arXiv 2602.09375 and its reference implementation, with scores that are never stale.
    """
    scores = frontier.scores()
    best = int(scores.argmax())
    return best if scores[best] != -np.inf else None


def puct_descent(frontier: Frontier) -> int | None:
    """Descend from the root by PUCT to a node without children, or to one that may and should be expanded again.

    A node that has children is expanded again where progressive widening asks for it; without widening, only once
    nothing below it may be expanded any more. Branches without anything to expand are not entered; leaves that have
    ended are if `revisit_leaves` is set.

    Source: PUCT, Silver et al. 2017.
    """
    if frontier.open_below(0) == 0:
        return None
    tree, node = frontier.tree, 0
    while True:
        if frontier.may_expand(node) and _expand_here(frontier, node):
            return node
        children = [child for child in tree.children[node] if _worth_entering(frontier, child)]
        node = children[int(frontier.child_scores(node, children).argmax())]
        if tree.columns["status"][node] != _OPEN:
            return node


def _expand_here(frontier: Frontier, node: int) -> bool:
    if frontier.config.widening is not None:
        return True
    return frontier.open_below(node) == 1  # itself alone


def _worth_entering(frontier: Frontier, node: int) -> bool:
    if frontier.open_below(node) > 0:
        return True
    tree = frontier.tree
    return frontier.config.revisit_leaves and not tree.pruned[node] and tree.status[node] != _OPEN


SELECTION_RULES: dict[str, SelectionRule] = {"frontier": best_of_frontier, "puct": puct_descent}


def selection_rule(selection: str | SelectionRule) -> SelectionRule:
    """The rule that a `SearchConfig` names, or the function that it holds."""
    return SELECTION_RULES[selection] if isinstance(selection, str) else selection
