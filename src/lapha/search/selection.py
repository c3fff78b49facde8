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
    if frontier.config.widening is not None or frontier.started[node] == 0:
        return True
    return frontier.open_below(node) == 1  # itself alone


def _worth_entering(frontier: Frontier, node: int) -> bool:
    if frontier.open_below(node) > 0:
        return True
    tree = frontier.tree
    return frontier.config.revisit_leaves and not tree.pruned[node] and tree.status[node] != _OPEN


def beam(frontier: Frontier) -> int | None:
    """The next of the `beam_width` best states of the shallowest depth whose beam is not yet expanded, by v̂.

    States that have ended take no place in a beam. When all beams are expanded, they are filled up to twice the width,
    and so on; at last the best open node is taken, so that no budget is left over while anything may be expanded.
    """
    levels = _levels(frontier)
    width, widest = frontier.config.beam_width, max(map(len, levels))
    while True:
        for level in levels:
            best = sorted(level, key=frontier.node_value, reverse=True)[:width]
            fresh = next((node for node in best if frontier.started[node] == 0), None)
            if fresh is not None:
                return fresh
            if any(frontier.in_work(node) for node in best):
                return None  # what they bring decides what comes next
        if width >= widest:
            return best_of_frontier(frontier)
        width *= 2


def diverse_subtrees(frontier: Frontier) -> int | None:
    """Diverse verifier tree search: the best children of the root each grow a line of best children, in turn.

    Source: DVTS, Beeching et al. 2024 (scaling test-time compute with open models).
    """
    tree, width = frontier.tree, frontier.config.beam_width
    if frontier.in_work(0):
        return None
    if frontier.started[0] == 0 or (len(tree.children[0]) < width and frontier.may_expand(0)):
        return 0
    roots = sorted(tree.children[0], key=frontier.node_value, reverse=True)[:width]
    tips = [(tree.columns["depth"][tip], root, tip) for root in roots if (tip := _tip(frontier, root)) is not None]
    ready = [tip for tip in sorted(tips) if not frontier.in_work(tip[2])]
    if ready:
        return int(ready[0][2])
    return None if tips else best_of_frontier(frontier)


def _levels(frontier: Frontier) -> list[list[int]]:
    """Nodes that can be, or have been, expanded, by depth."""
    depth, levels = frontier.tree.columns["depth"], [[0]]
    for node in range(1, len(frontier)):
        if frontier.started[node] or frontier.may_expand(node):
            while len(levels) <= depth[node]:
                levels.append([])
            levels[depth[node]].append(node)
    return [level for level in levels if level]


def _tip(frontier: Frontier, node: int) -> int | None:
    """Where the line of best children from `node` goes on; None where it has ended."""
    while frontier.started[node]:
        if frontier.in_work(node):
            return node
        children = [n for n in frontier.tree.children[node] if frontier.started[n] or frontier.may_expand(n)]
        if not children:
            return None
        node = max(children, key=frontier.node_value)
    return node if frontier.may_expand(node) else None


SELECTION_RULES: dict[str, SelectionRule] = {
    "frontier": best_of_frontier,
    "puct": puct_descent,
    "beam": beam,
    "dvts": diverse_subtrees,
}


def selection_rule(selection: str | SelectionRule) -> SelectionRule:
    """The rule that a `SearchConfig` names, or the function that it holds."""
    return SELECTION_RULES[selection] if isinstance(selection, str) else selection
