"""The page of one run, or of several side by side, as `lapha.viz` shows it: overview, problems, trees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha.evaluation.completions import read_completions
from lapha.evaluation.grading.voting import canonical_math
from lapha.evaluation.modes import Outcome
from lapha.evaluation.paired import between_runs
from lapha.evaluation.report import measured_potential, overview
from lapha.evaluation.results import GradedRun, read_graded
from lapha.evaluation.run_folder import read_problems
from lapha.viz import Page, PageRun, PageTree, TreePicture, write_page

_MOST_CHARACTERS = 30_000_000  # of completions that a page holds


def write_run_report(folders: Sequence[str | Path], path: str | Path, *, trees: int = 100) -> Path:
    """Write the page and return its path.

    Args:
        folders: graded runs, the first of which the others are compared with.
        path: the page.
        trees: most searches per run that the page holds, ≥ 0; those with right and wrong answers in balance first.

    Raises:
        ValueError: no folder, or one that holds no graded run.
    """
    return write_page(run_page(folders, trees=trees), path)


def run_page(folders: Sequence[str | Path], *, trees: int = 100) -> Page:
    """What `write_run_report` writes, as data."""
    check(len(folders) >= 1, "runs", "at least one folder", "none")
    check(trees >= 0, "trees", "an integer >= 0", trees)
    runs = {name: read_graded(folder) for name, folder in zip(_names(folders), folders)}
    first_name, first = next(iter(runs.items()))
    value = first.scores.get("value") or next(iter(first.scores.values()))
    facts = {
        "problems": len(value.correct),
        f"accuracy, {value.mode}": f"{100 * value.accuracy.mean:.1f} %",
        "tokens per problem": f"{value.tokens:.0f}",
        "ungradable": value.ungradable,
        "failed": sum(score.failed for score in first.scores.values()),
    }
    return Page(
        title="Evaluation" if len(runs) == 1 else "Comparison of runs",
        subtitle=", ".join(runs) if len(runs) > 1 else first_name,
        facts=facts,
        sections=overview(runs),
        runs=[_problems(name, run) for name, run in runs.items()],
        trees=[tree for place, run in enumerate(runs.values()) for tree in _trees(place, run, trees)],
        comparisons=_paired(list(runs.values())),
    )


def _names(folders: Sequence[str | Path]) -> list[str]:
    """Short names that tell the folders apart."""
    paths = [Path(folder).resolve() for folder in folders]
    for depth in range(1, 20):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"runs: expected different folders, got {', '.join(map(str, folders))}")


def _paired(runs: Sequence[GradedRun]) -> list[dict[str, Any]]:
    """Differences between every two runs on the problems that both asked, per mode."""
    found = []
    for (first, base), (second, other) in itertools.permutations(enumerate(runs), 2):
        for mode, difference in between_runs(base, other):
            if math.isfinite(difference.mean):
                found.append(
                    {
                        "mode": mode, "base": first, "other": second, "difference": difference.mean, "low": difference.low,
                        "high": difference.high, "count": difference.count, "verdict": difference.verdict(),
                    }
                )  # fmt: skip
    return sorted(found, key=lambda record: (record["base"], record["other"], record["mode"]))


def _problems(name: str, run: GradedRun) -> PageRun:
    """The run, problem by problem."""
    texts = read_problems(run.folder)
    if not texts:  # a run of before the texts were kept: its trees know their questions
        texts = {int(path.stem): (run.load_search(path).question, None) for path in run.search_files()}
    wrote = read_completions(run.folder)
    if sum(len(text) for found in wrote.values() for text in found) > _MOST_CHARACTERS:
        wrote = {}  # `lapha show` reads them
    return problems_of(name, run.outcomes, lambda index, answer: _correct(run, index, answer), texts, wrote)


def problems_of(
    name: str,
    outcomes: Mapping[str, Sequence[Outcome]],
    correct: Callable[[int, str], bool | None],
    texts: Mapping[int, tuple[str, str | None]],
    wrote: Mapping[tuple[str, int], Sequence[str]] | None = None,
) -> PageRun:
    """What modes made of problems, as the page lists them.

    Args:
        name: of the run.
        outcomes: mode -> outcomes.
        correct: whether an answer of a problem is right; None where nobody could tell.
        texts: problem -> (question, gold answer or None).
        wrote: (mode, problem) -> what the mode wrote, one text per answer.
    """
    numbers = sorted({outcome.index for found in outcomes.values() for outcome in found})

    def grade(index: int, answer: str | None) -> bool | None:
        return None if answer is None else correct(index, answer)

    modes: dict[str, dict[str, list[Any]]] = {}
    samples: dict[int, dict[str, list[dict[str, Any]]]] = {number: {} for number in numbers}
    for mode, found in outcomes.items():
        by_index = {outcome.index: outcome for outcome in found}
        rows = [by_index.get(number) for number in numbers]
        modes[mode] = {
            "answer": [None if row is None else row.answer for row in rows],
            "correct": [None if row is None else grade(row.index, row.answer) for row in rows],
            "value": [None if row is None else _known(row.value) for row in rows],
            "tokens": [None if row is None else row.tokens for row in rows],
            "samples": [None if row is None else len(row.answers) for row in rows],
        }
        for row in filter(None, rows):
            kept = (wrote or {}).get((mode, row.index), ())
            lines: Sequence[str | None] = kept if len(kept) == len(row.answers) else [None] * len(row.answers)
            samples[row.index][mode] = [
                {"answer": answer, "correct": grade(row.index, answer), "value": _known(value), "text": text}
                for answer, value, text in itertools.zip_longest(row.answers, row.values, lines)
            ]
    questions = [texts.get(number, (f"problem {number}", None)) for number in numbers]
    return PageRun(
        name, numbers, [text for text, _ in questions], [gold for _, gold in questions], modes, samples=samples
    )


def _correct(run: GradedRun, index: int, answer: str) -> bool | None:
    found = run.verdicts.get((index, answer))
    return None if found is None else found.correct


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)


def _trees(place: int, run: GradedRun, count: int) -> list[PageTree]:
    """At most `count` searches of a run, in question order; trees with right and wrong answers come before others."""
    files = run.search_files()
    if len(files) > count:
        balance = {path: _balance_of(run, int(path.stem)) for path in files}
        files = sorted(sorted(files, key=lambda path: (-balance[path], path.name))[:count])
    several = "" if place == 0 else f"run {place + 1}, "
    texts = read_problems(run.folder)
    found = []
    for path in files:
        index = int(path.stem)
        question = " ".join(texts[index][0].split())[:90] if index in texts else ""
        title = f"{several}problem {index}" + (f": {question}" if question else "")
        found.append(PageTree(partial(_picture, run, path), title, run=place, index=index))
    return found


def _picture(run: GradedRun, path: Path) -> TreePicture:
    result = run.load_search(path)
    measured = measured_potential(run, result)
    return TreePicture(
        result.tree,
        result.latents,
        potential=None if measured is None else measured[1],
        correct=run.goal(result),
        chosen=result.node,
        answer_key=canonical_math,
    )


def _balance_of(run: GradedRun, index: int) -> float:
    """How evenly the answers of a problem's leaves are right and wrong, from the records alone."""
    outcome = next((found for found in run.outcomes.get("value", ()) if found.index == index), None)
    graded = (
        [] if outcome is None else [_correct(run, index, answer) for answer in outcome.answers if answer is not None]
    )
    share = sum(map(bool, graded)) / len(graded) if graded else 0.0
    return share * (1 - share)
