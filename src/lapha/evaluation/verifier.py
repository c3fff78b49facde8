"""Verifiers for training: `(question, answer) -> reward`, by grading against gold answers in worker processes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from lapha._checks import check
from lapha.evaluation.grading.pool import GraderPool, require_math_verify
from lapha.evaluation.grading.verdicts import plain_verdict

_KEPT = 1 << 16  # verdicts
_LONGEST = 1000  # characters of an answer that is compared here


class MathVerifier:
    """1.0 for an answer that equals the question's gold answer, 0.0 for another, None where nobody can tell.

    Letters, numbers and equal strings are compared here, at once. Other mathematics is graded in a worker process
    with a hard time limit (`GraderPool`), which is started when first needed: the verifier can be pickled and used on any
    thread. Verdicts are kept. Implements `lapha.shaping.Verifier`.

    A call returns when it knows, so a tree search that asks in a hook waits with all its trees: some milliseconds for
    mathematics, some seconds while the worker starts, and `timeout` for an answer on which SymPy hangs, once.

    Args:
        gold: question -> gold answer.
        timeout: seconds that one answer may take, > 0; then nobody can tell.

    Raises:
        ValueError: no gold answers, a timeout outside its range, or math-verify is missing; on a call, a question that
            has no gold answer.
    """

    def __init__(self, gold: Mapping[str, str], timeout: float = 3.0) -> None:
        check(len(gold) > 0, "gold", "at least one question with its answer", "none")
        check(timeout > 0, "timeout", "seconds > 0", timeout)
        require_math_verify()
        self.gold = dict(gold)
        self.timeout = timeout
        self._begin()

    def _begin(self) -> None:
        self._pool: GraderPool | None = None
        self._known: dict[tuple[str, str], float | None] = {}
        self._lock = threading.Lock()

    def __call__(self, question: str, answer: str | None) -> float | None:
        if answer is None:
            return 0.0
        check(question in self.gold, "question", "one with a gold answer", repr(question[:80]))
        key = (self.gold[question], answer)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._grade(answer, self.gold[question])
                if len(self._known) > _KEPT:
                    del self._known[next(iter(self._known))]
            return self._known[key]

    def _grade(self, answer: str, gold: str) -> float | None:
        verdict = plain_verdict(answer, gold) if max(len(answer), len(gold)) <= _LONGEST else None
        if verdict is None:
            self._pool = self._pool or GraderPool(workers=1, timeout=self.timeout)
            [verdict] = self._pool.grade([(answer, gold)])
        return None if verdict.correct is None else float(verdict.correct)

    def close(self) -> None:
        """End the worker process; a later call starts another."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __getstate__(self) -> dict[str, Any]:
        return {"gold": self.gold, "timeout": self.timeout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()
