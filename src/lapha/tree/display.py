"""A search tree as text: for a terminal, a notebook, and `repr`."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from lapha._imports import require
from lapha.types import Status

if TYPE_CHECKING:
    from lapha.tree.search_tree import SearchTree

MOST = 400
"""Most nodes that a picture in text shows; the rest are counted."""

_TAG = re.compile(r"</?(?:think|tool_call|tool_response|answer)>|^STEP-\d+:", re.MULTILINE)


def describe(tree: SearchTree) -> str:
    """What `repr` says: the question and how large the tree is."""
    pruned = int(tree.pruned.sum())
    parts = [
        f"{len(tree)} nodes",
        f"depth {int(tree.depth.max(initial=0))}",
        f"{len(tree.answered())} answers",
        *([f"{pruned} pruned"] if pruned else []),
        f"{tree.sampled_tokens} tokens",
    ]
    return f"SearchTree({one_line(tree.question, 60)!r}, {', '.join(parts)})"


def shown_nodes(tree: SearchTree, chosen: int | None, most: int = MOST) -> set[int]:
    """At most about `most` nodes to show: the chosen path, then the most visited ones with what leads to them."""
    if len(tree) <= most:
        return set(range(len(tree)))
    shown = set(tree.path(chosen)) if chosen is not None else {0}
    order = sorted(range(1, len(tree)), key=lambda node: (-int(tree.visits[node]), node))
    for node in order:
        if len(shown) >= most:
            break
        shown.update(tree.path(node))
    return shown


def outline_html(tree: SearchTree, chosen: int | None = None) -> str:
    """A foldable outline as HTML, for notebooks. All text is escaped; the chosen path is open and bold."""
    shown = shown_nodes(tree, chosen)
    path = set(tree.path(chosen)) if chosen is not None else {0}

    items: dict[int, str] = {}
    for node in sorted(shown, reverse=True):  # children before parents
        label = html.escape(_label(tree, node))
        if node in path:
            label = f"<b>{label}</b>"
        kids = [child for child in tree.children[node] if child in shown]
        hidden = len(tree.children[node]) - len(kids)
        below = "".join(items.pop(kid) for kid in kids) + (f"<li>… {hidden} more</li>" if hidden else "")
        opened = " open" if node in path else ""
        folded = f"<details{opened}><summary>{label}</summary><ul>{below}</ul></details>"
        items[node] = f"<li>{folded if below else label}</li>"
    return f'<div><p>{html.escape(describe(tree))}</p><ul style="list-style: none">{items[0]}</ul></div>'


def rich_tree(tree: SearchTree, chosen: int | None = None) -> Any:
    """A `rich.tree.Tree`, for terminals. Text of the tree is never read as markup; the chosen path is bold.

    Raises:
        ValueError: rich is missing.
    """
    make_tree, make_text = require("rich.tree", extra="llm").Tree, require("rich.text", extra="llm").Text
    shown = shown_nodes(tree, chosen)
    path = set(tree.path(chosen)) if chosen is not None else set()

    def style(node: int) -> str:
        if node in path:
            return "bold green"
        return "dim" if tree.pruned[node] else ""

    root = make_tree(make_text(_label(tree, 0), style=style(0)))
    branches = {0: root}
    for node in sorted(shown - {0}):
        branches[node] = branches[int(tree.parent[node])].add(make_text(_label(tree, node), style=style(node)))
    for node in sorted(shown):
        hidden = sum(child not in shown for child in tree.children[node])
        if hidden:
            branches[node].add(make_text(f"… {hidden} more", style="dim"))
    return root


def one_line(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters; what cannot be seen becomes U+FFFD."""
    flat = " ".join(text.split())
    seen = "".join("\ufffd" if unicodedata.category(char)[0] == "C" else char for char in flat[: 2 * limit])
    return seen if len(flat) <= limit else seen[: limit - 1] + "…"


def _label(tree: SearchTree, node: int) -> str:
    if node == 0:
        return one_line(tree.question, 100)
    answer, status = tree.answer[node], Status(int(tree.status[node]))
    words = one_line(_TAG.sub(" ", tree.text[node]), 80)
    if answer is not None:
        words = f"answer: {one_line(answer, 60)}"
    facts = [f"v̂ {tree.value[node]:.2f}"] if math.isfinite(tree.value[node]) else []
    facts.append(f"{int(tree.visits[node])} visits")
    if tree.pruned[node]:
        facts.append("pruned")
    elif status not in (Status.OPEN, Status.ANSWERED):
        facts.append(status.name.lower().replace("_", " "))
    return f"{words}  [{', '.join(facts)}]"
