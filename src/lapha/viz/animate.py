"""A search as a moving picture: the disk fills simulation by simulation, and the answer's path comes last.

SVG needs nothing; GIF needs pillow and MP4 also imageio-ffmpeg (``pip install 'lapha[viz]'``).
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lapha._checks import check, check_choice
from lapha._imports import require
from lapha._store import check_writable, replace_file
from lapha.types import Status
from lapha.viz.layout import DiskLayout, disk_layout, geodesic_arc
from lapha.viz.picture import TreePicture

FORMATS = ("gif", "mp4", "svg")
WIDTH, HEIGHT = 960, 720
_RADIUS = 285
_CENTER = (WIDTH / 2, 372.0)
_INK, _MUTED, _LINE, _ACCENT, _PAPER, _DISK = "#16202c", "#5b6875", "#cfd5dc", "#c2255c", "#ffffff", "#fafbfd"
_VIRIDIS = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26",
    "#fde725",
)  # fmt: skip


@dataclass(frozen=True)
class _Scene:
    """What every format draws.

    Attributes:
        layout, xy: the layout and pixel positions, (N, 2).
        born, gone: (N,) times in seconds at which a node appears and is pruned (inf: never).
        color: (N,) fill colors.
        path: edges of the answer's path, from the root.
        seconds, answer_at: length of the film, and when the path is drawn.
    """

    picture: TreePicture
    layout: DiskLayout
    xy: np.ndarray
    born: np.ndarray
    gone: np.ndarray
    color: list[str]
    path: list[int]
    seconds: float
    answer_at: float


def write_animation(picture: TreePicture, path: str | Path, *, seconds: float = 8.0) -> Path:
    """Write the search as a moving picture, and return the path. The suffix chooses the format: gif, mp4, svg.

    Nodes are colored by V where it is known and by v̂ elsewhere. The question stands above the disk, the answer below.

    Args:
        picture: the search.
        path: file to write.
        seconds: how long the search takes in the film, in (0, 120]; the answer is shown for 3 seconds more.

    Raises:
        ValueError: an unknown suffix, `seconds` out of range, a missing package, or a folder that cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    check_choice(kind, "path suffix", FORMATS)
    check(0 < seconds <= 120, "seconds", "a number in (0, 120]", seconds)
    check_writable(path)
    scene = _scene(picture, seconds)
    if kind == "svg":
        replace_file(path, _svg(scene).encode())
    else:
        _write_frames(scene, path, kind)
    return path


def _scene(picture: TreePicture, seconds: float) -> _Scene:
    tree = picture.tree
    layout = disk_layout(picture.latents, tree.parent)
    xy = np.array(_CENTER) + _RADIUS * layout.xy * np.array([1.0, -1.0])
    last = max(1, int(tree.simulation.max(initial=0)))
    born = seconds * tree.simulation.astype(np.float64) / last
    gone = np.where(tree.pruned, seconds * tree.pruned_at.astype(np.float64) / last + 0.15, np.inf)
    values = tree.value if picture.potential is None else picture.potential
    color = [_viridis(float(value)) for value in values]
    path = [] if picture.chosen is None else tree.path(picture.chosen)[1:]
    return _Scene(picture, layout, xy, born, gone, color, path, seconds + 3.0, seconds + 0.3)


def _viridis(fraction: float) -> str:
    if math.isnan(fraction):
        return "#9aa4af"
    place = min(max(fraction, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    low = min(int(place), len(_VIRIDIS) - 2)
    a, b = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in _VIRIDIS[low : low + 2])
    return "#" + "".join(f"{round(c):02x}" for c in a + (place - low) * (b - a))


def _captions(picture: TreePicture) -> tuple[str, str]:
    """The question and the answer, each on one line."""
    chosen = picture.chosen
    answer = "no leaf answers" if chosen is None else f"answer: {picture.tree.answer[chosen]}"
    if chosen is not None and picture.correct is not None:
        answer += " (right)" if picture.correct[chosen] else " (wrong)"
    return _one_line(picture.tree.question, 88), _one_line(answer, 60)


def _one_line(text: str, limit: int) -> str:
    flat = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _svg(scene: _Scene) -> str:
    tree = scene.picture.tree
    total = scene.seconds

    def when(start: float, end: float = math.inf) -> str:
        """Opacity over the film, which repeats: hidden, shown from `start`, faint from `end`."""
        a = min(max(start / total, 0.0), 0.999)
        b = min(end / total, 1.0)
        steps = [(0.0, 0.0), (a, 0.0), (min(a + 0.01, 1.0), 1.0)] if a > 0 else [(0.0, 1.0)]
        steps += [(b, 1.0), (min(b + 0.02, 1.0), 0.12)] if b < 0.98 else []
        steps.append((1.0, steps[-1][1]))
        times, values = (";".join(f"{s[i]:.4g}" for s in steps) for i in (0, 1))
        return f'<animate attributeName="opacity" dur="{total:g}s" repeatCount="indefinite" keyTimes="{times}" values="{values}"/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f"<title>{html.escape(_captions(scene.picture)[0])}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{_PAPER}"/>',
        f'<circle cx="{_CENTER[0]}" cy="{_CENTER[1]}" r="{_RADIUS}" fill="{_DISK}" stroke="{_LINE}"/>',
    ]
    for ring in scene.layout.rings:
        radius = _RADIUS * float(scene.layout.radius(ring))
        parts.append(f'<circle cx="{_CENTER[0]}" cy="{_CENTER[1]}" r="{radius:.1f}" fill="none" stroke="{_LINE}"/>')
    for node in range(1, len(tree)):
        style = f'fill="none" stroke="{_MUTED}" stroke-opacity="0.6"'
        parts.append(f'<path d="{_edge_path(scene, node)}" {style}>{when(scene.born[node], scene.gone[node])}</path>')
    for node in scene.path:
        style = f'fill="none" stroke="{_ACCENT}" stroke-width="4"'
        parts.append(f'<path d="{_edge_path(scene, node)}" {style}>{when(scene.answer_at)}</path>')
    for node in range(len(tree)):
        x, y = scene.xy[node]
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in _shape(scene, node, x, y))
        parts.append(
            f'<polygon points="{points}" fill="{scene.color[node]}" stroke="{_INK}" stroke-width="0.7">'
            f"{when(scene.born[node], scene.gone[node])}</polygon>"
        )
    question, answer = map(html.escape, _captions(scene.picture))
    middle = f'x="{WIDTH / 2}" text-anchor="middle"'
    parts.append(f'<text {middle} y="46" font-size="23" fill="{_INK}">{question}</text>')
    parts.append(
        f'<text {middle} y="{HEIGHT - 22}" font-size="25" font-weight="bold" fill="{_ACCENT}">{answer}{when(scene.answer_at)}</text>'
    )
    return "".join(parts) + "</svg>\n"


def _edge_path(scene: _Scene, node: int) -> str:
    parent = int(scene.picture.tree.parent[node])
    (x0, y0), (x1, y1) = scene.xy[parent], scene.xy[node]
    arc = geodesic_arc(*scene.layout.xy[[parent, node]])
    if arc.radius is None or arc.radius > 50:
        return f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"
    radius = _RADIUS * arc.radius  # SVG's y points down, as its sweep flag expects of "clockwise"
    return f"M{x0:.1f} {y0:.1f}A{radius:.1f} {radius:.1f} 0 0 {int(arc.clockwise)} {x1:.1f} {y1:.1f}"


def _shape(scene: _Scene, node: int, x: float, y: float) -> list[tuple[float, float]]:
    """Corners of a node's mark: a star for a right answer, a square for another, a triangle without one, a disk."""
    tree, correct = scene.picture.tree, scene.picture.correct
    size = 7.0 if len(tree) <= 80 else 5.5 if len(tree) <= 300 else 4.0
    status = int(tree.status[node])
    reach: tuple[float, ...]
    if correct is not None and correct[node]:
        corners, turn, reach = 10, -90.0, (2.0, 0.9)
    elif status == Status.ANSWERED:
        corners, turn, reach = 4, 45.0, (1.35,)
    elif status != Status.OPEN:
        corners, turn, reach = 3, -90.0, (1.3,)
    else:
        corners, turn, reach = 16, 0.0, (1.5 if node == 0 else 1.0,)
    angles = np.radians(turn + 360 * np.arange(corners) / corners)
    radii = size * np.array([reach[index % len(reach)] for index in range(corners)])
    return list(zip(x + radii * np.cos(angles), y + radii * np.sin(angles)))


def _write_frames(scene: _Scene, path: Path, kind: str) -> None:
    rate = 25 if kind == "mp4" else 12
    frames = (_frame(scene, number / rate) for number in range(int(rate * scene.seconds)))
    partial = path.with_name(f".{path.stem}.partial.{kind}")
    try:
        if kind == "gif":
            small = (frame.quantize(128) for frame in frames)
            first = next(small)
            first.save(
                partial, save_all=True, append_images=list(small), duration=round(1000 / rate), loop=0, optimize=True
            )
        else:
            _write_mp4(frames, partial, rate)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_mp4(frames: Iterator[Any], path: Path, rate: int) -> None:
    ffmpeg = require("imageio_ffmpeg", extra="viz")
    writer = ffmpeg.write_frames(str(path), (WIDTH, HEIGHT), fps=rate, codec="libx264", macro_block_size=16)
    writer.send(None)
    for frame in frames:
        writer.send(frame.tobytes())
    writer.close()


def _frame(scene: _Scene, second: float) -> Any:
    """One frame, drawn at twice its size and scaled down for smooth edges."""
    image_module, draw_module = require("PIL.Image", extra="viz"), require("PIL.ImageDraw", extra="viz")
    scale = 2
    image = image_module.new("RGB", (scale * WIDTH, scale * HEIGHT), _PAPER)
    pen = draw_module.Draw(image)
    cx, cy = scale * _CENTER[0], scale * _CENTER[1]
    for radius, fill in ((1.0, _DISK), *((float(scene.layout.radius(ring)), None) for ring in scene.layout.rings)):
        r = scale * _RADIUS * radius
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill, outline=_LINE, width=scale)
    tree = scene.picture.tree
    alive = [node for node in range(len(tree)) if scene.born[node] <= second]
    for node in alive[1:]:
        faint = second >= scene.gone[node]
        pen.line(_polyline(scene, node, scale), fill=_LINE if faint else "#9aa4af", width=scale)
    if second >= scene.answer_at:
        for node in scene.path:
            pen.line(_polyline(scene, node, scale), fill=_ACCENT, width=4 * scale, joint="curve")
    for node in alive:
        x, y = scale * scene.xy[node]
        corners = _shape(scene, node, 0.0, 0.0)
        points = [(x + scale * px, y + scale * py) for px, py in corners]
        gone = second >= scene.gone[node]
        pen.polygon(points, fill=_DISK if gone else scene.color[node], outline=_LINE if gone else _INK)
    question, answer = _captions(scene.picture)
    _write_text(pen, question, 34 * scale, 23 * scale, _INK)
    if second >= scene.answer_at:
        _write_text(pen, answer, (HEIGHT - 34) * scale, 25 * scale, _ACCENT)
    return image.resize((WIDTH, HEIGHT), image_module.Resampling.LANCZOS)


def _polyline(scene: _Scene, node: int, scale: int) -> list[tuple[float, float]]:
    """The edge to a node as points along its geodesic."""
    start, end = scene.layout.xy[[int(scene.picture.tree.parent[node]), node]]
    arc = geodesic_arc(start, end)
    if arc.radius is None or arc.radius > 50:
        points = np.stack([start, end])
    else:
        a, b = (1 + start @ start) / 2, (1 + end @ end) / 2
        center = np.array([a * end[1] - b * start[1], b * start[0] - a * end[0]])
        center /= start[0] * end[1] - start[1] * end[0]
        first, last = (math.atan2(*(point - center)[::-1]) for point in (start, end))
        turn = (last - first + math.pi) % (2 * math.pi) - math.pi
        angles = first + turn * np.linspace(0, 1, 12)
        points = center + arc.radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    placed = scale * (np.array(_CENTER) + _RADIUS * points * np.array([1.0, -1.0]))
    return [(float(x), float(y)) for x, y in placed]


def _write_text(pen: Any, text: str, y: float, size: int, fill: str) -> None:
    font = require("PIL.ImageFont", extra="viz").load_default(size)
    width = WIDTH * 2
    while size > 12 and pen.textlength(text, font=font) > 0.95 * width:
        size -= 2
        font = require("PIL.ImageFont", extra="viz").load_default(size)
    pen.text((width / 2, y), text, font=font, fill=fill, anchor="mm")
