"""Verifiers for training: `(question, answer) -> reward`, by grading against gold answers in worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lapha._checks import check
from lapha.evaluation.grader_pool import GraderPool


class MathVerifier:
    """1.0 for an answer that equals the question's gold answer, 0.0 for another, None where nobody can tell.

    Grades in a worker process with a hard time limit (`GraderPool`), which is started when first needed: the verifier
    can be pickled and used on any thread. Implements `lapha.shaping.Verifier`.

    Args:
        gold: question -> gold answer.
        timeout: seconds that one answer may take, > 0.

    Raises:
        ValueError: no gold answers; on a call, a question that has none.
    """

    def __init__(self, gold: Mapping[str, str], timeout: float = 10.0) -> None:
        check(len(gold) > 0, "gold", "at least one question with its answer", "none")
        self.gold = dict(gold)
        self.timeout = timeout
        self._pool: GraderPool | None = None
        self._known: dict[tuple[str, str], float | None] = {}

    def __call__(self, question: str, answer: str | None) -> float | None:
        if answer is None:
            return 0.0
        check(question in self.gold, "question", "one with a gold answer", repr(question[:80]))
        key = (self.gold[question], answer)
        if key not in self._known:
            self._pool = self._pool or GraderPool(workers=1, timeout=self.timeout)
            correct = self._pool.grade([(answer, self.gold[question])])[0].correct
            self._known[key] = None if correct is None else float(correct)
        return self._known[key]

    def close(self) -> None:
        """End the worker process; a later call starts another."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None, "_known": {}}
