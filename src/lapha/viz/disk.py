"""One search tree on the Poincaré disk, twice: coloured by the potential V and beside it by the head's value v̂."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lapha._checks import check
from lapha.tree import SearchTree
from lapha.types import Status
from lapha.viz.layout import DiskLayout, disk_layout, geodesic_arc
from lapha.viz.style import VIRIDIS, viridis

if TYPE_CHECKING:
    from lapha.geometry import PolarPoints

_SIZE, _RADIUS = 470, 210
_CENTRE = _SIZE / 2
_NICE = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)


@dataclass(frozen=True)
class TreePicture:
    """What to draw of one search.

    Attributes:
        tree: the search tree.
        latents: (N,) root-centred latents, node i's at index i.
        potential: (N,) V in [0, 1], or None where no goal is known (then only v̂ is drawn).
        potential_label: what V was measured to, for the caption of its disk.
        correct: (N,) bool, leaves verified correct after the search, or None where nothing was graded.
        chosen: the leaf whose answer was chosen, or None.
        title: caption.
    """

    tree: SearchTree
    latents: PolarPoints
    potential: np.ndarray | None = None
    potential_label: str = "potential V, from the correct leaves"
    correct: np.ndarray | None = None
    chosen: int | None = None
    title: str = ""

    def __post_init__(self) -> None:
        size = len(self.tree)
        for name in ("potential", "correct"):
            value = getattr(self, name)
            check(value is None or np.shape(value) == (size,), name, f"shape ({size},)", np.shape(value))
        check(self.chosen is None or 0 <= self.chosen < size, "chosen", f"a node in [0, {size})", self.chosen)


def tree_figure(picture: TreePicture, *, angle: str = "tree", scale: float | None = None, max_text: int = 1200) -> str:
    """An HTML ``<figure>`` with one disk by V (where it is known) and one by v̂.

    The page that holds it must carry `lapha.viz.report`'s style and hover script. All text of the tree is escaped.

    Args:
        picture: the tree and what is known of it.
        angle, scale: see `lapha.viz.layout.disk_layout`.
        max_text: characters of a step's text that the hover shows, ≥ 1.

    Raises:
        ValueError: shapes that disagree, or an unknown `angle`.
    """
    check(max_text >= 1, "max_text", "an integer >= 1", max_text)
    layout = disk_layout(picture.latents, picture.tree.parent, angle=angle, scale=scale)
    disks = []
    if picture.potential is not None:
        disks.append(_disk(picture, layout, np.asarray(picture.potential, np.float64), picture.potential_label, "V"))
    disks.append(_disk(picture, layout, picture.tree.value.astype(np.float64), "value head v̂", "v̂"))
    caption = f"<figcaption>{html.escape(picture.title)}</figcaption>" if picture.title else ""
    return (
        f'<figure class="tree">{caption}<div class="disks">{"".join(disks)}</div>'
        f'{_legend(picture, layout)}<script type="application/json">{_hover_data(picture, max_text)}</script></figure>'
    )


def write_tree_page(picture: TreePicture, path: str | Path, **options: Any) -> Path:
    """Write one self-contained HTML page with the tree's figure. Needs the ``viz`` extra.

    Raises:
        ValueError: what `tree_figure` refuses; `OSError` where the file cannot be written.
    """
    from lapha.viz.report import Figure, Report, Section, write_report

    figure = Figure(tree_figure(picture, **options))
    tree = picture.tree
    facts: dict[str, Any] = {
        "nodes": len(tree),
        "leaves that answer": len(tree.answered()),
        "pruned": int(tree.pruned.sum()),
        "tokens sampled": tree.sampled_tokens,
    }
    if picture.chosen is not None:
        facts["chosen answer"] = tree.answer[picture.chosen]
    return write_report(
        Report(title="Search tree", subtitle=tree.question, facts=facts, sections=[Section("", items=[figure])]), path
    )


def node_kind(picture: TreePicture, node: int) -> str:
    """``"root"``, ``"pruned"``, ``"correct"``, ``"answered"``, ``"ended"`` (terminal without an answer) or ``"open"``."""
    tree = picture.tree
    if node == 0:
        return "root"
    if tree.pruned[node]:
        return "pruned"
    if picture.correct is not None and picture.correct[node]:
        return "correct"
    if tree.status[node] == Status.ANSWERED:
        return "answered"
    return "ended" if tree.status[node] != Status.OPEN else "open"


def _place(xy: np.ndarray) -> tuple[float, float]:
    return _CENTRE + _RADIUS * xy[0], _CENTRE - _RADIUS * xy[1]


def _disk(picture: TreePicture, layout: DiskLayout, values: np.ndarray, label: str, symbol: str) -> str:
    low, high = _colour_range(values)
    path = set(picture.tree.path(picture.chosen)) if picture.chosen is not None else set()
    parts = [
        f'<svg class="disk" viewBox="0 0 {_SIZE} {_SIZE + 52}" role="img" aria-label="{html.escape(label)}">',
        f'<circle class="rim" cx="{_CENTRE}" cy="{_CENTRE}" r="{_RADIUS}"/>',
        *_rings(layout),
        *_edges(picture, layout, path),
        *_nodes(picture, layout, values, low, high),
        *_colour_bar(label, symbol, low, high),
        "</svg>",
    ]
    return "".join(parts)


def _colour_range(values: np.ndarray) -> tuple[float, float]:
    """(0, 1), or the data's own range where the values are too close to tell apart on the whole scale."""
    known = values[1:][np.isfinite(values[1:])]
    if len(known) == 0 or known.max() - known.min() > 0.3 or known.max() == known.min():
        return 0.0, 1.0
    return float(known.min()), float(known.max())


def _rings(layout: DiskLayout) -> list[str]:
    farthest = float(layout.distance.max(initial=0.0))
    if farthest == 0:
        return []
    step = next((nice for nice in _NICE if farthest / nice <= 5), farthest / 4)
    parts = []
    for index in range(1, int(farthest / step + 1e-9) + 1):
        radius = _RADIUS * float(layout.disk_radius(index * step))
        if radius > 0.985 * _RADIUS:
            break
        x, y = _CENTRE + radius * np.cos(np.pi / 3), _CENTRE - radius * np.sin(np.pi / 3)
        parts.append(f'<circle class="ring" cx="{_CENTRE}" cy="{_CENTRE}" r="{radius:.1f}"/>')
        parts.append(f'<text class="ring-label" x="{x:.1f}" y="{y:.1f}">{index * step:g}</text>')
    return parts


def _edges(picture: TreePicture, layout: DiskLayout, chosen_path: set[int]) -> list[str]:
    tree = picture.tree
    order = sorted(range(1, len(tree)), key=lambda node: (node in chosen_path, not tree.pruned[node]))
    parts = []
    for node in order:
        start, end = layout.xy[tree.parent[node]], layout.xy[node]
        (x0, y0), (x1, y1) = _place(start), _place(end)
        arc = geodesic_arc(start, end)
        if arc.radius is None or arc.radius > 50:
            line = f"L{x1:.1f} {y1:.1f}"
        else:  # the picture's y points down, as SVG's sweep flag expects of "clockwise"
            radius = _RADIUS * arc.radius
            line = f"A{radius:.1f} {radius:.1f} 0 0 {int(arc.clockwise)} {x1:.1f} {y1:.1f}"
        kind = "edge chosen" if node in chosen_path else "edge pruned" if tree.pruned[node] else "edge"
        parts.append(f'<path class="{kind}" data-e="{node}" d="M{x0:.1f} {y0:.1f}{line}"/>')
    return parts


_LAYERS = {"pruned": 0, "open": 1, "ended": 2, "answered": 3, "root": 4, "correct": 5}


def _nodes(picture: TreePicture, layout: DiskLayout, values: np.ndarray, low: float, high: float) -> list[str]:
    size = len(picture.tree)
    radius = 5.5 if size <= 80 else 4.4 if size <= 300 else 3.4
    kinds = [node_kind(picture, node) for node in range(size)]
    parts = []
    for node in sorted(range(size), key=lambda index: (index == picture.chosen, _LAYERS[kinds[index]], index)):
        x, y = _place(layout.xy[node])
        fill = "none" if kinds[node] == "pruned" else viridis((values[node] - low) / (high - low))
        if node == picture.chosen:
            parts.append(f'<circle class="halo" cx="{x:.1f}" cy="{y:.1f}" r="{radius * 2.1:.1f}"/>')
        parts.append(
            f'<path class="n {kinds[node]}" data-n="{node}" fill="{fill}" d="{_mark(kinds[node], x, y, radius)}"/>'
        )
    return parts


def _mark(kind: str, x: float, y: float, radius: float) -> str:
    if kind in ("answered", "ended"):
        corners = {"answered": (45, 4, 1.35), "ended": (30, 3, 1.25)}[kind]
        turn = 0 if kind == "answered" else -90
        return _polygon(x, y, radius * corners[2], corners[1], turn)
    if kind == "correct":
        points = []
        for index in range(10):
            reach = radius * (1.9 if index % 2 == 0 else 0.85)
            angle = np.radians(-90 + 36 * index)
            points.append(f"{x + reach * np.cos(angle):.1f} {y + reach * np.sin(angle):.1f}")
        return "M" + "L".join(points) + "Z"
    reach = radius * {"pruned": 0.75, "root": 1.35, "open": 1.0}[kind]
    return f"M{x - reach:.1f} {y:.1f}a{reach:.1f} {reach:.1f} 0 1 0 {2 * reach:.1f} 0a{reach:.1f} {reach:.1f} 0 1 0 {-2 * reach:.1f} 0Z"


def _polygon(x: float, y: float, reach: float, corners: int, turn: float) -> str:
    angles = np.radians(turn + np.arange(corners) * 360 / corners)
    return "M" + "L".join(f"{x + reach * np.cos(a):.1f} {y + reach * np.sin(a):.1f}" for a in angles) + "Z"


def _colour_bar(label: str, symbol: str, low: float, high: float) -> list[str]:
    width, top = 200, _SIZE + 26
    left = _CENTRE - width / 2
    cell = width / 40
    cells = [
        f'<rect x="{left + index * cell:.1f}" y="{top}" width="{cell + 0.3:.1f}" height="9" shape-rendering="crispEdges" fill="{viridis((index + 0.5) / 40)}"/>'
        for index in range(40)
    ]
    return [
        f'<text class="disk-label" x="{_CENTRE}" y="{_SIZE + 14}">{html.escape(label)}</text>',
        *cells,
        f'<text class="bar-label" x="{left - 8}" y="{top + 8.5}" text-anchor="end">{symbol} = {low:.2g}</text>',
        f'<text class="bar-label" x="{left + width + 8}" y="{top + 8.5}">{high:.2g}</text>',
    ]


_LEGEND = {
    "root": "root",
    "open": "step",
    "answered": "leaf that answers",
    "correct": "correct answer",
    "ended": "leaf without an answer",
    "pruned": "pruned",
}


def _legend(picture: TreePicture, layout: DiskLayout) -> str:
    present = {node_kind(picture, node) for node in range(len(picture.tree))}
    items = []
    for kind, words in _LEGEND.items():
        if kind in present:
            fill = "none" if kind == "pruned" else VIRIDIS[5]
            mark = (
                f'<svg viewBox="0 0 24 20"><path class="n {kind}" fill="{fill}" d="{_mark(kind, 12, 10, 5.2)}"/></svg>'
            )
            items.append(f"<span>{mark}{words}</span>")
    if picture.chosen is not None:
        items.append('<span><svg viewBox="0 0 24 20"><circle class="halo" cx="12" cy="10" r="7.5"/></svg>chosen</span>')
    if layout.scale == 1:
        radius = "Disk radius = tanh of the latent's tangent norm"
    else:
        radius = f"Disk radius = tanh of {layout.scale:.3g} × the latent's tangent norm"
    note = f"{radius}; ring labels are true distances from the root; edges are geodesics of the disk; the angle is a projection."
    return f'<div class="legend">{"".join(items)}</div><p class="note">{note}</p>'


def _hover_data(picture: TreePicture, max_text: int) -> str:
    tree, potential = picture.tree, picture.potential
    nodes = []
    for node in range(len(tree)):
        text = tree.text[node]
        if len(text) > max_text:
            text = text[:max_text] + " …"
        status = Status(int(tree.status[node])).name.lower().replace("_", " ")
        kind = node_kind(picture, node)
        nodes.append(
            {
                "p": int(tree.parent[node]),
                "h": f"node {node} · depth {tree.depth[node]} · {kind if kind in ('root', 'pruned', 'correct') else status}",
                "V": None if potential is None else _number(potential[node]),
                "v": _number(tree.value[node]),
                "N": int(tree.visits[node]),
                "t": text,
                "a": tree.answer[node],
            }
        )
    encoded = json.dumps(nodes, ensure_ascii=False, separators=(",", ":"))
    # "</script>" or "<!--" in a model's text must not end the element; in JSON these characters occur in strings only.
    for character in "<>&\u2028\u2029":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return encoded


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
