"""Grading a run again, after a change of the rules: from what it keeps, without the data and without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lapha._checks import check
from lapha.evaluation.grading.pool import GraderPool
from lapha.evaluation.grading.verdicts import Verdict
from lapha.evaluation.results import GradedRun, grade_run, read_graded
from lapha.evaluation.run_folder import read_problems


def grade_again(
    folder: str | Path, *, workers: int = 2, verify: Callable[[str, str], bool] | None = None
) -> tuple[GradedRun, list[str]]:
    """Grade a run's answers by today's rules and write its tables anew.

    Verdicts of a judge stay: it is not asked again.

    Args:
        folder: a graded run, with its ``problems.jsonl``.
        workers: grader processes.
        verify: (question, answer) -> whether it is right, for problems without a gold answer.

    Returns:
        (run, changes), a line per verdict that is another one now.

    Raises:
        ValueError: no graded run, or one that keeps no gold answers.
    """
    before = read_graded(folder)
    problems = read_problems(folder)
    check(bool(problems), "run", "a run that keeps its problems (problems.jsonl)", str(folder))
    judged = {pair for pair, verdict in before.verdicts.items() if verdict.method == "judge"}

    def grade(pairs: Sequence[tuple[int, str]]) -> list[Verdict]:
        if verify is not None:
            return [Verdict(verify(problems[index][0], answer), "exact") for index, answer in pairs]
        asked = [pair for pair in pairs if pair not in judged]
        golds = {index: gold for index, (_, gold) in problems.items()}
        with GraderPool(workers) as pool:
            fresh = dict(zip(asked, pool.grade([(answer, golds[index] or "") for index, answer in asked])))
        return [fresh.get(pair) or before.verdicts[pair] for pair in pairs]

    after = grade_run(folder, grade)
    changes = [
        f"problem {pair[0]}: {_word(before.verdicts[pair])} -> {_word(verdict)}: {pair[1][:80]}"
        for pair, verdict in after.verdicts.items()
        if pair in before.verdicts and before.verdicts[pair].correct != verdict.correct
    ]
    return after, changes


def _word(verdict: Verdict) -> str:
    return {True: "right", False: "wrong", None: "ungradable"}[verdict.correct]
