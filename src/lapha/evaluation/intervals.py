"""Numbers with their uncertainty: intervals that hold for few problems, exact paired tests, pass@k, maj@k, calibration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from scipy import stats

from lapha._typed import typed

_ALPHA = 0.05
_EXACT_SUBSETS = 3000
_RESAMPLES = 9999

Scores = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """A mean over problems, or a mean difference, with its interval.

    Attributes:
        mean: of the scores, in the scores' unit.
        low, high: ends of the interval.
        count: number of problems.
        p: of a difference, the p value of the exact paired test that it is 0; NaN for a mean.
    """

    mean: float
    low: float
    high: float
    count: int
    p: float = math.nan

    def percent(self) -> str:
        """Such as ``"42.0 % [35.1, 48.9]"``."""
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def points(self) -> str:
        """A difference in percentage points, such as ``"+4.0 [-1.2, +9.2]"``."""
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"

    def verdict(self) -> str:
        """A difference in words: ``"better"`` or ``"worse"`` only where the exact test finds it (p < 0.05)."""
        if math.isnan(self.mean):
            return ""
        return "not told apart" if not self.p < _ALPHA else "better" if self.mean > 0 else "worse"


_NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def mean_interval(scores: Scores, *, confidence: float = 0.95) -> Interval:
    """Interval of the mean over problems.

    For scores of 0 and 1 it is Wilson's, so that 30 of 30 is [88.6 %, 100 %]. For shares in [0, 1], such as the share of a
    problem's samples that are right, problems are the units (samples of one problem are not independent): Student's interval
    after half a problem each of score 0 and 1 twice (as Agresti and Coull do for proportions).

    Args:
        scores: (N,) in [0, 1], one number per problem, NaN where the problem could not be graded (left out).
        confidence: in (0, 1).

    Returns:
        An interval of NaN where nothing is left.

    Raises:
        ValueError: a score outside [0, 1].
    """
    values = _finite(scores)
    if len(values) == 0:
        return _NOTHING
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"scores: expected numbers in [0, 1], got {values.min():g} to {values.max():g}")
    mean, count = float(values.mean()), len(values)
    if np.isin(values, (0.0, 1.0)).all():
        found = stats.binomtest(int(values.sum()), count).proportion_ci(confidence, method="wilson")
        return Interval(mean, float(found.low), float(found.high), count)
    low, high = _smoothed(values, np.array([0.0, 1.0]), np.array([1.0, 1.0]), confidence)
    return Interval(mean, max(0.0, min(low, mean)), min(1.0, max(high, mean)), count)


def paired_interval(first: Scores, second: Scores, *, confidence: float = 0.95) -> Interval:
    """Interval of mean(second − first) over problems that both graded, with an exact paired test.

    The interval is Agresti and Min's (2005) for paired proportions: Student's or the normal one after two problems more, one
    of which is equal, and half each better and worse. The p value is McNemar's exact test for scores of 0 and 1, and a sign-flip
    permutation test for shares. One problem never tells two modes apart.

    Args:
        first, second: (N,) in [0, 1], NaN where a problem could not be graded.
        confidence: in (0, 1).

    Raises:
        ValueError: lengths that differ.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"second: expected as many scores as first ({len(a)}), got {len(b)}")
    difference = _finite(b - a)
    if len(difference) == 0:
        return _NOTHING
    mean = float(difference.mean())
    low, high = _smoothed(difference, np.array([-1.0, 0.0, 1.0]), np.array([0.5, 1.0, 0.5]), confidence)
    low, high = max(-1.0, min(low, mean)), min(1.0, max(high, mean))
    return Interval(mean, low, high, len(difference), _paired_p(difference))


def _paired_p(difference: np.ndarray) -> float:
    changed = difference[difference != 0]
    if len(changed) == 0:
        return 1.0
    if np.isin(changed, (-1.0, 1.0)).all():
        return float(stats.binomtest(int((changed > 0).sum()), len(changed)).pvalue)
    found = stats.permutation_test(
        (changed,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=_RESAMPLES, vectorized=True,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.pvalue)


def _smoothed(values: np.ndarray, more: np.ndarray, weights: np.ndarray, confidence: float) -> tuple[float, float]:
    """Student's interval of the mean of `values` and of `more`, which count with their weights."""
    everything = np.concatenate([values, more])
    weight = np.concatenate([np.ones(len(values)), weights])
    total = weight.sum()
    mean = (weight * everything).sum() / total
    variance = (weight * (everything - mean) ** 2).sum() / (total - 1)
    half = stats.t.ppf(0.5 + confidence / 2, total - 1) * math.sqrt(variance / total)
    return float(mean - half), float(mean + half)


def _finite(scores: Scores) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    return values[np.isfinite(values)]


@typed
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


def maj_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool], k: int, *, seed: int = 0) -> float:
    """Chance that the most frequent answer of k samples is right, unbiased from n samples.

    It is the mean over subsets of k samples: all of them, or 3,000 drawn where there are more. Ties share the vote.

    Args:
        answers: (n,) what makes answers the same, None for a sample without one, which has no vote.
        correct: (n,) whether each is right.
        k: in 1..n.
        seed: of the draw.

    Raises:
        ValueError: not 1 <= k <= n.
    """
    n = len(answers)
    if not 1 <= k <= n:
        raise ValueError(f"k: expected 1 <= k <= {n} samples, got {k}")
    if comb(n, k) <= _EXACT_SUBSETS:
        return float(np.mean([_majority_share(subset, answers, correct) for subset in combinations(range(n), k)]))
    rng = np.random.default_rng(seed)
    drawn = (rng.choice(n, k, replace=False) for _ in range(_EXACT_SUBSETS))
    return float(np.mean([_majority_share(subset, answers, correct) for subset in drawn]))


def _majority_share(
    subset: Sequence[int] | np.ndarray, answers: Sequence[Hashable | None], correct: Sequence[bool]
) -> float:
    votes = Counter(answers[place] for place in subset if answers[place] is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    right = {answers[place] for place in subset if correct[place]}
    winners = [answer for answer, count in votes.items() if count == most]
    return sum(answer in right for answer in winners) / len(winners)


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
        return Calibration(math.nan, math.nan, math.nan, 0)
    place = np.minimum((values * bins).astype(int), bins - 1)
    gap = np.abs(np.bincount(place, values - right, bins)).sum() / len(values)
    return Calibration(float(gap), float(np.mean((values - right) ** 2)), auc(values, right > 0.5), len(values))


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half; NaN where only one kind occurs."""
    from sklearn.metrics import roc_auc_score

    positive = np.asarray(positive, dtype=bool)
    if positive.all() or not positive.any():
        return math.nan
    return float(roc_auc_score(positive, scores))
