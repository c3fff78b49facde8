"""From outcomes to a table: accuracy with intervals, pass@k, tokens and seconds per mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lapha.evaluation.grading.spelling import normalize_answer
from lapha.evaluation.intervals import (
    Calibration,
    Interval,
    calibration,
    maj_at_k,
    mean_interval,
    paired_interval,
    pass_at_k,
)
from lapha.evaluation.modes import Outcome, answers_by_simulation, tokens_by_simulation
from lapha.search import SearchResult
from lapha.search.answers import Canonical

# (question's index, answer) pairs -> whether each is right, None where nobody could tell
Grade = Callable[[Sequence[tuple[int, str]]], list[bool | None]]


@dataclass(frozen=True)
class ModeScore:
    """How one mode did.

    Attributes:
        mode: its name.
        accuracy: of the one answer per problem, with its 95 % interval.
        correct: (N,) 1 right, 0 wrong or unanswered, NaN ungradable.
        any_correct: (N,) whether any of a problem's answers is right: the ceiling of choosing among them. Here and below,
            a problem without any answer counts as one wrong answer.
        mean_correct: (N,) share of a problem's answers that are right.
        samples: mean number of answers per problem, the k of pass@k and avg@k.
        tokens, seconds: means per problem.
        ungradable: how many of the N answers could not be graded.
        failed: how many problems ended with an error.
        calibration: of v̂ for the correctness of every graded answer.
        predicted, outcome: the pairs behind `calibration`.
        graded: (N,) how many of a problem's answers were graded, the n of pass@k.
        votes: per problem, what makes its graded answers the same (None without one), and whether each is right.
    """

    mode: str
    accuracy: Interval
    correct: np.ndarray
    any_correct: np.ndarray
    mean_correct: np.ndarray
    samples: float
    tokens: float
    seconds: float
    ungradable: int
    failed: int
    calibration: Calibration
    predicted: np.ndarray
    outcome: np.ndarray
    graded: np.ndarray
    votes: list[tuple[list[str | None], list[bool]]]

    def pass_at(self, k: int) -> float:
        """Unbiased pass@k over problems that have at least k answers; NaN without any (see `intervals.pass_at_k`)."""
        counts = np.round(self.mean_correct * self.graded).astype(int)
        usable = [(int(n), int(c)) for n, c in zip(self.graded, counts) if n >= k]
        return float(np.mean([pass_at_k(n, c, k) for n, c in usable])) if usable else float("nan")

    def maj_at(self, k: int) -> float:
        """Unbiased maj@k over problems that have at least k graded answers; NaN without any (see `intervals.maj_at_k`)."""
        usable = [(keys, right) for keys, right in self.votes if len(keys) >= k]
        return float(np.mean([maj_at_k(keys, right, k) for keys, right in usable])) if usable else float("nan")

    def summary(self) -> dict[str, float]:
        """The numbers of a table's row, by name."""
        return {
            "accuracy": self.accuracy.mean,
            "low": self.accuracy.low,
            "high": self.accuracy.high,
            "any_correct": float(self.any_correct.mean()),
            "mean_correct": float(self.mean_correct.mean()),
            "samples": self.samples,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "ungradable": self.ungradable,
            "failed": self.failed,
            "auc": self.calibration.auc,
            "brier": self.calibration.brier,
            "ece": self.calibration.ece,
        }


def _votes(outcome: Outcome, rights: np.ndarray, canonical: Canonical) -> tuple[list[str | None], list[bool]]:
    graded = [(a, r > 0.5) for a, r in zip(outcome.answers or (None,), rights) if np.isfinite(r)]
    return [None if answer is None else canonical(answer) for answer, _ in graded], [bool(right) for _, right in graded]


def score_mode(
    mode: str, outcomes: Sequence[Outcome], grade: Grade, canonical: Canonical = normalize_answer
) -> ModeScore:
    """Grade a mode's outcomes. Every distinct answer of a problem is graded once.

    Args:
        mode: its name.
        outcomes: one per problem.
        grade: verdicts of (index, answer) pairs.
        canonical: what makes two answers the same, for maj@k.
    """
    verdicts = _verdicts(outcomes, grade)

    def verdict(outcome: Outcome, answer: str | None) -> float:
        if answer is None:
            return 0.0
        found = verdicts[outcome.index, answer]
        return float("nan") if found is None else float(found)

    correct = np.array([verdict(outcome, outcome.answer) for outcome in outcomes])
    # a problem without any answer counts as one wrong answer, or pass@1 would be of the answered problems alone
    every = [np.array([verdict(outcome, answer) for answer in outcome.answers or (None,)]) for outcome in outcomes]
    known = [values[np.isfinite(values)] for values in every]
    pairs = [
        (value, right)
        for outcome, rights in zip(outcomes, every)
        for answer, value, right in zip(outcome.answers, outcome.values, rights)
        if answer is not None and np.isfinite(right) and np.isfinite(value)
    ]
    predicted, outcome_ = np.array([p for p, _ in pairs]), np.array([r > 0.5 for _, r in pairs], dtype=bool)
    return ModeScore(
        mode=mode,
        accuracy=mean_interval(correct),
        correct=correct,
        any_correct=np.array([float((values > 0.5).any()) for values in known]),
        mean_correct=np.array([values.mean() if len(values) else 0.0 for values in known]),
        samples=float(np.mean([len(outcome.answers) for outcome in outcomes])),
        tokens=float(np.mean([outcome.tokens for outcome in outcomes])),
        seconds=float(np.mean([outcome.seconds for outcome in outcomes])),
        ungradable=int(np.isnan(correct).sum()),
        failed=sum(outcome.error is not None for outcome in outcomes),
        calibration=calibration(predicted, outcome_),
        predicted=predicted,
        outcome=outcome_,
        graded=np.array([len(values) for values in known]),
        votes=[_votes(outcome, rights, canonical) for outcome, rights in zip(outcomes, every)],
    )


def score_modes(outcomes: Mapping[str, Sequence[Outcome]], grade: Grade) -> dict[str, ModeScore]:
    """`score_mode` of every mode."""
    return {mode: score_mode(mode, results, grade) for mode, results in outcomes.items()}


_OF_INTEREST = ("value", "best-of-n", "majority", "react", "single")


def mode_differences(
    outcomes: Mapping[str, Sequence[Outcome]], scores: Mapping[str, ModeScore]
) -> list[tuple[str, Interval]]:
    """(``"value − best-of-n"``, difference) of the modes of one run: does the search beat what the same tokens buy?"""
    present = [mode for mode in _OF_INTEREST if mode in scores]
    if not present:
        return []
    base, *others = present
    accuracy = by_index(outcomes, scores, base)
    return [(f"{base} − {mode}", paired_interval(by_index(outcomes, scores, mode), accuracy)) for mode in others]


def by_index(outcomes: Mapping[str, Sequence[Outcome]], scores: Mapping[str, ModeScore], mode: str) -> np.ndarray:
    """(N,) correctness of a mode by a question's index, NaN where it has not asked it; N is the same for all modes."""
    size = 1 + max((outcome.index for each in outcomes.values() for outcome in each), default=-1)
    found = np.full(size, np.nan)
    found[[outcome.index for outcome in outcomes[mode]]] = scores[mode].correct
    return found


def accuracy_by_simulations(
    results: Sequence[SearchResult],
    simulations: Sequence[int],
    rule: str,
    grade: Grade,
    canonical: Canonical = normalize_answer,
) -> tuple[list[Interval], list[float]]:
    """Accuracy, and mean tokens, that the searches had after each number of simulations."""
    answers = [answers_by_simulation(result, simulations, rule, canonical) for result in results]
    pairs = sorted({(r.index, a) for r, row in zip(results, answers) for a in row if a is not None})
    verdicts = dict(zip(pairs, grade(pairs)))
    tokens = np.array([tokens_by_simulation(result, simulations) for result in results])
    intervals = []
    for column in range(len(simulations)):
        chosen = [(result.index, row[column]) for result, row in zip(results, answers)]
        found = [False if answer is None else verdicts[index, answer] for index, answer in chosen]
        intervals.append(mean_interval([float("nan") if v is None else float(v) for v in found]))
    return intervals, tokens.mean(axis=0).tolist()


def powers_of_two(limit: int) -> list[int]:
    """1, 2, 4, … and `limit` itself, ≤ limit."""
    numbers = [1 << power for power in range(limit.bit_length()) if 1 << power <= limit]
    return numbers if numbers[-1] == limit else [*numbers, limit]


def _verdicts(outcomes: Sequence[Outcome], grade: Grade) -> dict[tuple[int, str], bool | None]:
    pairs = {(outcome.index, answer) for outcome in outcomes for answer in (outcome.answer, *outcome.answers)}
    known = sorted((index, answer) for index, answer in pairs if answer is not None)
    return dict(zip(known, grade(known)))
