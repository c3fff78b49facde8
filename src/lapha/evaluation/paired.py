"""Differences in accuracy between runs, on the problems that both asked."""

from __future__ import annotations

import numpy as np

from lapha.evaluation.comparison import by_index
from lapha.evaluation.intervals import Interval, paired_interval
from lapha.evaluation.results import GradedRun
from lapha.evaluation.run_folder import read_config, read_problems


def between_runs(base: GradedRun, other: GradedRun) -> list[tuple[str, Interval]]:
    """(mode, difference other − base) of the modes that both runs have, on the problems that both asked."""
    places = common_problems(base, other)
    found = []
    for mode in other.scores:
        if mode in base.scores:
            first, second = _of_mode(base, mode), _of_mode(other, mode)
            pairs = [(a, b) for a, b in places if a < len(first) and b < len(second)]
            interval = paired_interval([first[a] for a, _ in pairs], [second[b] for _, b in pairs])
            found.append((mode, interval))
    return found


def common_problems(base: GradedRun, other: GradedRun) -> list[tuple[int, int]]:
    """(index in base, index in other) of the questions that both runs asked; of equal ones, the first to the first."""
    if asked(base) == asked(other):
        size = max((outcome.index for outcomes in base.outcomes.values() for outcome in outcomes), default=-1) + 1
        return [(index, index) for index in range(size)]
    places: dict[str, list[int]] = {}
    for index, (question, _) in sorted(read_problems(base.folder).items()):
        places.setdefault(question, []).append(index)
    found = []
    for index, (question, _) in sorted(read_problems(other.folder).items()):
        if places.get(question):
            found.append((places[question].pop(0), index))
    return found


def asked(run: GradedRun) -> object:
    """What tells the questions of a run from others."""
    return read_config(run.folder)["settings"].get("questions")


def _of_mode(run: GradedRun, mode: str) -> np.ndarray:
    return by_index(run.outcomes, run.scores, mode)
