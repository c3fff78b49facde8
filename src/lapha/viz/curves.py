"""Charts as data: the page draws them, in its own colors, light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lapha._checks import check


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        x, y: same length, at least one point; y that is not finite is left out.
        low, high: ends of the interval around `y`, same length, or None.
        size: how much each point stands for, same length, or None.

    Raises:
        ValueError: lengths that disagree.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    size: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check(len(self.x) >= 1, "x", "at least one point", len(self.x))
        for name in ("y", "low", "high", "size"):
            value = getattr(self, name)
            check(value is None or len(value) == len(self.x), name, f"length {len(self.x)}", np.shape(value))


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        curves: name -> curve, in the order of the legend.
        mark: ``"line"``, ``"point"`` (a cloud of points), or ``"calibration"`` (points by `Curve.size`, no line).
        xlabel, ylabel, caption: text.
        log: whether x has a logarithmic axis (base 2); points with x ≤ 0 are refused.
        percent: whether y is a share, shown in percent from 0 to 100.
        unit: whether both axes are [0, 1].
        diagonal: whether to draw y = x.

    Raises:
        ValueError: no curve, or a cost ≤ 0 on a logarithmic axis.
    """

    curves: Mapping[str, Curve]
    mark: Literal["line", "point", "calibration"] = "line"
    xlabel: str = ""
    ylabel: str = ""
    caption: str = ""
    log: bool = False
    percent: bool = False
    unit: bool = False
    diagonal: bool = field(default=False)

    def __post_init__(self) -> None:
        check(len(self.curves) >= 1, "curves", "at least one curve", len(self.curves))
        if self.log:
            for name, curve in self.curves.items():
                check(min(curve.x) > 0, "x", "costs > 0 on a logarithmic axis", f"{min(curve.x)} in {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as the page reads them."""
        return {
            "kind": "chart",
            "mark": self.mark,
            "series": [_series(name, curve) for name, curve in self.curves.items()],
            "xlabel": self.xlabel,
            "ylabel": self.ylabel,
            "caption": self.caption,
            "log": self.log,
            "percent": self.percent,
            "unit": self.unit,
            "diagonal": self.diagonal,
        }


def learning_curve(
    curves: Mapping[str, Curve], *, ylabel: str = "", xlabel: str = "training step", caption: str = ""
) -> Chart:
    """Curves over training steps; one of more than 12 points is drawn as its running mean.

    Raises:
        ValueError: no curve.
    """
    smooth = {
        name: Curve(curve.x, _running_mean(np.asarray(curve.y, np.float64), max(3, len(curve.y) // 12)).tolist())
        if len(curve.y) > 12
        else curve
        for name, curve in curves.items()
    }
    return Chart(smooth, xlabel=xlabel, ylabel=ylabel, caption=caption)


def accuracy_curve(
    curves: Mapping[str, Curve], *, xlabel: str = "simulations", log: bool = True, caption: str = ""
) -> Chart:
    """Accuracy (y in [0, 1]) against a cost, with intervals where they are given.

    Raises:
        ValueError: no curve, or a cost ≤ 0 on the logarithmic axis.
    """
    return Chart(curves, xlabel=xlabel, ylabel="accuracy", log=log, percent=True, caption=caption)


def reliability_diagram(
    predicted: Sequence[float] | np.ndarray,
    outcome: Sequence[bool] | np.ndarray,
    *,
    bins: int = 10,
    xlabel: str = "predicted v̂",
    caption: str = "",
) -> Chart:
    """Share of correct outcomes against predicted value, in bins of equal width; a point's area is its share.

    Intervals are Wilson's at 95 %.

    Args:
        predicted: (N,) numbers in [0, 1].
        outcome: (N,) whether each was right.
        bins: number of bins, ≥ 1.
        xlabel, caption: text.

    Raises:
        ValueError: lengths that disagree, nothing to draw, or predictions outside [0, 1].
    """
    from scipy.stats import binomtest

    check(bins >= 1, "bins", "an integer >= 1", bins)
    values, right = np.asarray(predicted, np.float64), np.asarray(outcome, np.float64)
    check(len(values) == len(right) and len(values) > 0, "predicted", "as many as outcomes, at least one", len(values))
    check(bool(((values >= 0) & (values <= 1)).all()), "predicted", "numbers in [0, 1]", "others")
    place = np.minimum((values * bins).astype(int), bins - 1)
    x, y, low, high, size = [], [], [], [], []
    for index in np.unique(place):
        inside = place == index
        count, hits = int(inside.sum()), int(right[inside].sum())
        interval = binomtest(hits, count).proportion_ci(method="wilson")
        x.append(float(values[inside].mean()))
        y.append(hits / count)
        low.append(float(interval.low))
        high.append(float(interval.high))
        size.append(count)
    return Chart(
        {"observed": Curve(x, y, low, high, size)}, mark="calibration", xlabel=xlabel, ylabel="share correct", unit=True,
        diagonal=True, caption=caption,
    )  # fmt: skip


def scatter(x: Sequence[float], y: Sequence[float], *, xlabel: str, ylabel: str, caption: str = "") -> Chart:
    """Points in the unit square with the diagonal, such as V against v̂. At most 4,000 are drawn, evenly picked."""
    check(len(x) == len(y) and len(x) > 0, "x", "as many as y, at least one", len(x))
    stride = max(1, -(-len(x) // 4000))
    points = Curve(list(x[::stride]), list(y[::stride]))
    return Chart(
        {"points": points}, mark="point", xlabel=xlabel, ylabel=ylabel, unit=True, diagonal=True, caption=caption
    )


def _series(name: str, curve: Curve) -> dict[str, Any]:
    series: dict[str, Any] = {"name": name, "x": [float(x) for x in curve.x], "y": _numbers(curve.y)}
    for key in ("low", "high", "size"):
        values = getattr(curve, key)
        if values is not None:
            series[key] = _numbers(values)
    return series


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [float(f"{float(v):.6g}") if math.isfinite(v) else None for v in values]


def _running_mean(y: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last `window` points (fewer at the beginning); points that are not finite are left out."""
    out = np.full(len(y), np.nan)
    for index in range(len(y)):
        recent = y[max(0, index - window + 1) : index + 1]
        recent = recent[np.isfinite(recent)]
        if len(recent):
            out[index] = recent.mean()
    return out


__all__ = ["Chart", "Curve", "accuracy_curve", "learning_curve", "reliability_diagram", "scatter"]
