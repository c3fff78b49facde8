"""Numbers with their uncertainty: bootstrap intervals over problems, pass@k, calibration and ranking of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over problems and its bootstrap interval.

    Attributes:
        mean: of the scores, in the scores' unit.
        low, high: ends of the interval.
        count: number of problems.
    """

    mean: float
    low: float
    high: float
    count: int

    def percent(self) -> str:
        """Such as ``"42.0 % [35.1, 48.9]"``."""
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def bootstrap(
    scores: Sequence[float] | np.ndarray, *, confidence: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of the mean over problems; the same scores give the same interval.

    Args:
        scores: (N,) one number per problem, NaN where the problem could not be graded (left out).
        confidence: in (0, 1).
        resamples: number of resamples, ≥ 1.

    Returns:
        An interval of NaN where nothing is left.
    """
    values = _finite(scores)
    if len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    means = _resampled_means(values, resamples, seed)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def paired_bootstrap(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Interval of mean(second − first) over problems that both runs graded, resampled in pairs.

    Raises:
        ValueError: lengths that differ.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"second: expected as many scores as first ({len(a)}), got {len(b)}")
    return bootstrap(b - a, confidence=confidence, resamples=resamples, seed=seed)


def _finite(scores: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    return values[np.isfinite(values)]


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chunk = max(1, 2_000_000 // len(values))
    means = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        means.append(values[rng.integers(len(values), size=(rows, len(values)))].mean(axis=1))
    return np.concatenate(means)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that at least one of k samples is right, unbiased from n samples of which c are (Chen et al., 2021).

    Raises:
        ValueError: not 1 <= k <= n or not 0 <= c <= n.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k: expected 1 <= k <= {samples} samples, got {k}")
    if not 0 <= correct <= samples:
        raise ValueError(f"correct: expected 0..{samples}, got {correct}")
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


@dataclass(frozen=True)
class Calibration:
    """How well predicted values say what comes true.

    Attributes:
        ece: expected calibration error in 10 equal-width bins, in [0, 1], smaller is better.
        brier: mean squared error against the outcomes, in [0, 1], smaller is better.
        auc: chance that a true outcome is valued above a false one, 0.5 is chance; NaN where only one kind occurs.
        count: number of predictions.
    """

    ece: float
    brier: float
    auc: float
    count: int


def calibration(
    predicted: Sequence[float] | np.ndarray, outcome: Sequence[bool] | np.ndarray, bins: int = 10
) -> Calibration:
    """Calibration of predictions in [0, 1]; pairs with a NaN prediction are left out.

    Raises:
        ValueError: lengths that differ.
    """
    values, right = np.asarray(predicted, np.float64), np.asarray(outcome, np.float64)
    if values.shape != right.shape:
        raise ValueError(f"outcome: expected as many as predictions ({len(values)}), got {len(right)}")
    known = np.isfinite(values)
    values, right = values[known], right[known]
    if len(values) == 0:
        return Calibration(float("nan"), float("nan"), float("nan"), 0)
    place = np.minimum((values * bins).astype(int), bins - 1)
    gap = np.abs(np.bincount(place, values - right, bins)).sum() / len(values)
    return Calibration(float(gap), float(np.mean((values - right) ** 2)), auc(values, right > 0.5), len(values))


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve from ranks, ties counted half."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((rank[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
