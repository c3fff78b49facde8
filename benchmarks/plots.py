"""Results as a picture: time against size, log-log, one panel a suite and dtype, the ceiling dashed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lapha._imports import require


def plot_records(records: Sequence[dict[str, Any]], output: Path) -> None:
    """Draw measurements into `output`.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: there is nothing to draw.
    """
    measured = [record for record in records if "skipped" not in record]
    if not measured:
        raise ValueError("records: expected at least one measurement, got none")
    require("matplotlib", extra="viz")
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in measured:
        panels[record["suite"], record["dtype"], record["device_name"]].append(record)
    figure = Figure(figsize=(6.4 * len(panels), 4.8), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        _panel(axes, title, rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)


def _panel(axes: Any, title: tuple[str, str, str], rows: Sequence[dict[str, Any]]) -> None:
    series: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        series[row["name"]].append(row)
    for name, points in series.items():
        points = sorted(points, key=_size)
        x, middle = [_size(point) for point in points], [point["median_ms"] for point in points]
        style = "--" if points[0].get("is_ceiling") else "-"
        (line,) = axes.plot(x, middle, style, marker="o", markersize=4, label=name)
        low, high = [point["p20_ms"] for point in points], [point["p80_ms"] for point in points]
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2)
    axes.set(xscale="log", yscale="log", xlabel=_axis(rows), ylabel="median time in ms (band: 20 % to 80 %)")
    axes.set_title(", ".join(title), fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)


def _size(record: dict[str, Any]) -> int:
    product = 1
    for size in record["shape"].values():
        product *= size
    return product


def _axis(rows: Sequence[dict[str, Any]]) -> str:
    return " × ".join(rows[0]["shape"])
