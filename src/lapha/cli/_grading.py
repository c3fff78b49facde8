"""Grading for the command line: while a run goes on, and at its end."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha.evaluation.data import Selection, load_problems, load_records
from lapha.evaluation.grading import Verdict
from lapha.evaluation.modes import Outcome


def sameness(of: str) -> Callable[[str], str]:
    """What makes two answers the same, for the rules that vote.

    Args:
        of: the problems, or the model; ``"tiny"`` is the embedded one, whose answers are lists of moves: two are the same
            if they are the same moves. All others' are mathematics.
    """
    from lapha.evaluation.grading.spelling import normalize_answer
    from lapha.evaluation.grading.voting import canonical_math

    return normalize_answer if of == "tiny" else canonical_math


class Grader:
    """Verdicts on (index, answer) pairs. It alone reads gold answers, and no search ever sees it.

    Args:
        data, selection, questions: the run's problems.
        workers: grader processes.
        folder: the run's, for the judge's cache.
        judge_url, judge_model: the judge, or None.
        verifier: scores (answer, record) in place of gold answers, or None.
        strict: refuse empty and broken gold answers.
    """

    def __init__(
        self,
        data: str,
        selection: Selection,
        questions: Sequence[str],
        workers: int,
        folder: Path,
        judge_url: str | None = None,
        judge_model: str = "",
        verifier: Any = None,
        strict: bool = False,
    ) -> None:
        from lapha.evaluation.grading.pool import GraderPool

        self.questions = list(questions)
        self._verifier = verifier
        self._records = [] if verifier is None else load_records(data, selection)
        without = data == "tiny" or verifier is not None
        self._gold = [] if without else [problem.answer for problem in load_problems(data, selection)]
        _tell_of_golds(self._gold, data, strict)
        self._pool = None if without else GraderPool(workers)
        self._known: dict[tuple[int, str], Verdict] = {}
        self._lock = threading.Lock()
        self._judge: Any = None
        if judge_url is not None:
            from lapha.evaluation.grading.judge import Judge
            from lapha.evaluation.run_folder import JUDGEMENTS

            self._judge = Judge(judge_url, judge_model, folder / JUDGEMENTS, key=os.environ.get("LAPHA_JUDGE_KEY"))

    def problems(self) -> dict[int, tuple[str, str | None]]:
        """Number -> (question, gold answer; None where a problem has many right answers)."""
        return {
            index: (question, self._gold[index] if self._gold else None)
            for index, question in enumerate(self.questions)
        }

    def verdicts(self, pairs: Sequence[tuple[int, str]]) -> list[Verdict]:
        """Final verdicts, with the judge's where nothing else can decide."""
        self.quick(pairs)
        found = [self._known[pair] for pair in pairs]
        if self._judge is None:
            return found
        from lapha.evaluation.grading.judge import grade_with_judge

        return grade_with_judge(found, [(answer, self._gold[index]) for index, answer in pairs], self._judge)

    def quick(self, pairs: Sequence[tuple[int, str]]) -> list[Verdict]:
        """Verdicts without the judge. May be called on any thread."""
        with self._lock:
            new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
            if self._verifier is not None:
                fresh = [self._scored(index, answer) for index, answer in new]
            elif self._pool is None:
                from lapha.tiny import verify

                fresh = [Verdict(verify(self.questions[index], answer), "exact") for index, answer in new]
            else:
                fresh = self._pool.grade([(answer, self._gold[index]) for index, answer in new])
            self._known.update(zip(new, fresh))
            return [self._known[pair] for pair in pairs]

    def _scored(self, index: int, answer: str) -> Verdict:
        score = self._verifier(answer, self._records[index])
        if score is None:
            return Verdict(None, "ungradable", "the verifier cannot tell")
        check(0 <= score <= 1, "verifier", "a score from 0 to 1, or None", score)
        return Verdict(score >= 0.5, "verifier", f"score {float(score):g}")

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
        if self._judge is not None:
            self._judge.close()


def _tell_of_golds(golds: Sequence[str], source: str, strict: bool) -> None:
    """List on standard error the gold answers that no prediction can match, or only one spelling."""
    import sys

    from lapha.evaluation.grading.golds import gold_faults

    for line in gold_faults(golds, strict=strict, source=source):
        print(f"{source}: gold answer of {line}", file=sys.stderr)


def _finished(folder: Any) -> int:
    return sum(outcome.error is None for outcome in folder.outcomes)


class LiveProgress:
    """A progress bar with accuracy so far, tokens a second and the time left. Grading happens on a thread of its own.

    Args:
        folder: the run's; what it holds counts as done.
        total: outcomes in all.
        grader: gives verdicts.
    """

    def __init__(self, folder: Any, total: int, grader: Grader) -> None:
        from lapha.cli._progress import progress_bar

        self._bar = progress_bar()
        self._task = self._bar.add_task("evaluate", total=total, completed=_finished(folder), status="")
        self._grader = grader
        self._waiting: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._grade, name="lapha-grading", daemon=True)
        self._started = time.monotonic()
        self._tokens = 0
        self._right: dict[str, list[bool]] = {}

    def __enter__(self) -> LiveProgress:
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._waiting.put(None)
        self._thread.join(timeout=30)
        self._bar.stop()

    def show(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self._tokens += outcome.tokens
        self._bar.update(self._task, advance=1)
        self._waiting.put(outcome)

    def _grade(self) -> None:
        while (outcome := self._waiting.get()) is not None:
            correct: bool | None = False
            if outcome.answer is not None:
                correct = self._grader.quick([(outcome.index, outcome.answer)])[0].correct
            if correct is not None:
                self._right.setdefault(outcome.mode, []).append(correct)
            shares = ", ".join(f"{mode} {100 * sum(r) / len(r):.0f} %" for mode, r in self._right.items())
            rate = self._tokens / max(1e-9, time.monotonic() - self._started)
            self._bar.update(self._task, status=f"{shares}; {rate:.0f} tokens/s")
