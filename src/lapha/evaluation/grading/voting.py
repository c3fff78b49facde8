"""When two answers are the same to a vote: one text for all spellings of a value."""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import threading

from lapha._typed import typed
from lapha.evaluation.grading.forms import LONGEST, key_text, read_form
from lapha.evaluation.grading.parsing import parsable
from lapha.evaluation.grading.pool import GraderPool

TIME_LIMIT = 2.0
"""Seconds that one answer may take in the parser; it is then told apart by its spelling."""

_KEPT = 1 << 16  # forms
_MARKED = re.compile(r"≡[^≡]*≡")  # a value that has no short name: this module's own text is not read again


@typed
def canonical_math(answer: str) -> str:
    """A text that answers of the same value share: ``1/2``, ``\\frac{2}{4}`` and ``0.5`` are one answer.

    It is made of what grading compares (`lapha.evaluation.grading.forms`): two answers with one text are equal to the
    grader too, except that a vote leaves units, percent signs and names out, since one question asks for one of them. Where
    nothing is read, math-verify's parser is asked, and where that reads nothing either, the spelling decides.

    Every text has a form, and the form of a form is itself. The parser works in a process of its own, started for the first
    answer that needs it (some seconds, in which the caller waits), for at most `TIME_LIMIT` seconds each; forms are kept.
    Where math-verify is not installed, nothing is parsed. For `lapha.search.Search(canonical=…)`; may be called on any
    thread.

    Raises:
        RuntimeError: the process does not start.
    """
    return _READER.form(answer)


class _Reader:
    """Forms by answer, and the pool that parses."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forms: dict[str, str] = {}
        self._pool: GraderPool | None = None
        self._can_parse = importlib.util.find_spec("math_verify") is not None

    def form(self, answer: str) -> str:
        with self._lock:
            known = self._forms.get(answer)
            if known is None:
                known = self._forms[answer] = self._find(answer)
                self._forms.setdefault(known, known)  # a form is its own form
                while len(self._forms) > _KEPT:
                    del self._forms[next(iter(self._forms))]
            return known

    def _find(self, answer: str) -> str:
        if len(answer) > LONGEST or _MARKED.search(answer):
            return " ".join(answer.split())
        form = read_form(answer)
        if form.key is not None:
            return key_text(form.key)
        return self._parsed(answer) or form.spelling

    def _parsed(self, answer: str) -> str | None:
        text = parsable(answer)
        if text is None or not self._can_parse:
            return None
        self._pool = self._pool or GraderPool(workers=1, timeout=TIME_LIMIT)
        return self._pool.canonical([text])[0]

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None


def _begin() -> None:
    global _READER
    _READER = _Reader()


_READER = _Reader()
atexit.register(lambda: _READER.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)  # the parent's worker is the parent's
