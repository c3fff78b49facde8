"""Curves as inline SVG: learning, accuracy against simulations or tokens, reliability. Needs the ``viz`` extra."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lapha._checks import check
from lapha._imports import require
from lapha.viz.style import FONTS, HAIRLINE, INK, MUTED, SERIES


@dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Attributes:
        x, y: same length, at least one point.
        low, high: ends of the interval around `y`, same length, or None.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check(len(self.x) >= 1, "x", "at least one point", len(self.x))
        for name in ("y", "low", "high"):
            value = getattr(self, name)
            check(value is None or len(value) == len(self.x), name, f"length {len(self.x)}", np.shape(value))


def learning_curve(curves: Mapping[str, Curve], *, ylabel: str = "", xlabel: str = "training step") -> str:
    """Curves over training steps; a curve of more than 12 points gets its running mean drawn over it.

    Raises:
        ValueError: no curve.
    """

    def draw(axes: Any) -> None:
        for (name, curve), colour in zip(curves.items(), SERIES * len(curves)):
            y = np.asarray(curve.y, np.float64)
            if len(y) > 12:
                axes.plot(curve.x, y, color=colour, alpha=0.25, linewidth=1)
                axes.plot(curve.x, _running_mean(y, max(3, len(y) // 12)), color=colour, label=name)
            else:
                axes.plot(curve.x, y, color=colour, marker="o", markersize=4, label=name)
            _band(axes, curve, colour)

    return _figure(curves, draw, xlabel, ylabel)


def accuracy_curve(
    curves: Mapping[str, Curve], *, xlabel: str = "simulations", logarithmic: bool = True, percent: bool = True
) -> str:
    """Accuracy (y in [0, 1]) against a cost, with intervals where they are given.

    Single points (a mode with one operating point) are drawn as marks with error bars.

    Raises:
        ValueError: no curve, or a cost ≤ 0 on the logarithmic axis.
    """
    if logarithmic:
        for name, curve in curves.items():
            check(min(curve.x) > 0, "x", "costs > 0 on a logarithmic axis", f"{min(curve.x)} in {name!r}")

    def draw(axes: Any) -> None:
        for (name, curve), colour in zip(curves.items(), SERIES * len(curves)):
            if len(curve.x) > 1:
                axes.plot(curve.x, curve.y, color=colour, marker="o", markersize=4, label=name)
                _band(axes, curve, colour)
                continue
            bars = None
            if curve.low is not None and curve.high is not None:
                bars = [[max(curve.y[0] - curve.low[0], 0)], [max(curve.high[0] - curve.y[0], 0)]]
            axes.errorbar(curve.x, curve.y, yerr=bars, color=colour, fmt="D", markersize=6, capsize=3, label=name)
        if logarithmic:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")

    return _figure(curves, draw, xlabel, "accuracy")


def reliability_diagram(
    predicted: Sequence[float] | np.ndarray,
    outcome: Sequence[bool] | np.ndarray,
    *,
    bins: int = 10,
    xlabel: str = "predicted v̂",
) -> str:
    """Share of correct outcomes against predicted value, in equal-width bins, over a histogram of the predictions.

    Args:
        predicted: (N,) numbers in [0, 1].
        outcome: (N,) whether each was right.
        bins: number of bins, ≥ 1.

    Raises:
        ValueError: lengths that disagree, nothing to draw, or predictions outside [0, 1].
    """
    check(bins >= 1, "bins", "an integer >= 1", bins)
    values, right = np.asarray(predicted, np.float64), np.asarray(outcome, np.float64)
    check(len(values) == len(right) and len(values) > 0, "predicted", "as many as outcomes, at least one", len(values))
    check(bool(((values >= 0) & (values <= 1)).all()), "predicted", "numbers in [0, 1]", "others")
    place = np.minimum((values * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    mean = np.bincount(place, values, bins)[filled] / count[filled]
    share = np.bincount(place, right, bins)[filled] / count[filled]
    half = 1.96 * np.sqrt(np.clip(share * (1 - share), 1e-12, None) / count[filled])

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)), label="perfect calibration")
        axes.bar((np.arange(bins) + 0.5) / bins, 0.25 * count / count.max(), width=0.92 / bins, color=HAIRLINE,
                 label="share of predictions")  # fmt: skip
        axes.errorbar(mean, share, yerr=[np.minimum(half, share), np.minimum(half, 1 - share)], color=SERIES[0],
                      marker="o", capsize=3, label="observed")  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1.02))

    return _figure({"observed": None}, draw, xlabel, "share correct", size=(4.4, 4.1))


def scatter(x: Sequence[float], y: Sequence[float], *, xlabel: str, ylabel: str) -> str:
    """Points in the unit square with the diagonal, such as V against v̂. At most 4,000 are drawn, evenly picked."""
    check(len(x) == len(y) and len(x) > 0, "x", "as many as y, at least one", len(x))
    stride = max(1, -(-len(x) // 4000))

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        axes.scatter(x[::stride], y[::stride], s=9, color=SERIES[0], alpha=0.35, linewidths=0, rasterized=len(x) > 500)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))

    return _figure({"points": None}, draw, xlabel, ylabel, size=(4.4, 4.1))


def _band(axes: Any, curve: Curve, colour: str) -> None:
    if curve.low is not None and curve.high is not None and len(curve.x) > 1:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.13, linewidth=0)


def _running_mean(y: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last `window` points (fewer at the beginning); NaN points are left out."""
    out = np.full(len(y), np.nan)
    for index in range(len(y)):
        recent = y[max(0, index - window + 1) : index + 1]
        recent = recent[np.isfinite(recent)]
        if len(recent):
            out[index] = recent.mean()
    return out


def _figure(
    curves: Mapping[str, Any],
    draw: Callable[[Any], None],
    xlabel: str,
    ylabel: str,
    size: tuple[float, float] = (5.3, 3.5),
) -> str:
    check(len(curves) >= 1, "curves", "at least one curve", len(curves))
    matplotlib = require("matplotlib", extra="viz")
    figure_module = require("matplotlib.figure", extra="viz")
    style = {
        "font.family": "DejaVu Sans", "font.size": 10.5, "text.color": INK, "axes.labelcolor": INK,
        "axes.edgecolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "axes.grid": True, "grid.color": HAIRLINE,
        "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "lines.linewidth": 2,
        "lines.solid_capstyle": "round", "legend.frameon": False, "svg.fonttype": "none", "figure.dpi": 100,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = figure_module.Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        handles, labels = axes.get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside lower center", ncols=_legend_columns(labels, size[0]))
        return _inline_svg(matplotlib, figure)


def _legend_columns(labels: Sequence[str], inches: float) -> int:
    """As many columns as fit: about 15 characters an inch, and 7 for a handle and its gap."""
    return max(1, min(len(labels), 4, int(15 * inches / (max(map(len, labels)) + 7))))


def _inline_svg(matplotlib: Any, figure: Any) -> str:
    """The figure as an ``<svg>`` element: same input, same bytes; ids unlike those of other figures on the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "lapha"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    # matplotlib styles every element with "*", which inline would reach the whole page; inheritance does the same here.
    text = re.sub(r"<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace("<svg ", '<svg role="img" stroke-linejoin="round" stroke-linecap="butt" ', 1)
    salt = hashlib.sha256(text.encode()).hexdigest()[:8]
    # Laid out in the font that matplotlib carries (it warns of every other one), shown in the page's.
    text = text.replace("'DejaVu Sans'", FONTS)
    for mark in ('id="', 'href="#', "url(#"):
        text = text.replace(mark, f"{mark}{salt}-")
    return text


__all__ = ["Curve", "accuracy_curve", "learning_curve", "reliability_diagram", "scatter"]
