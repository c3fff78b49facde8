"""When two answers are the same to a mathematician: one text for all spellings of a value, for the rules that vote.

Numbers are settled here, exactly. Other mathematics is read by math-verify's parser in a worker process, since SymPy may
take for ever; what it takes too long for, and what is no mathematics, is settled by its spelling.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import threading

from lapha.evaluation.answers import core, normalise, tidy
from lapha.evaluation.grader_pool import GraderPool
from lapha.evaluation.grading import exact_decimals, exact_number

TIME_LIMIT = 2.0
"""Seconds that one answer may take; it is then told apart by its spelling."""

_LONGEST = 200  # characters of an answer that is read as mathematics
_KEPT = 1 << 16  # forms
_CHOICE = re.compile(r"\(([A-Z])\)")
_MOVES = re.compile(r"[+-]\d+(?:\s+[+-]\d+)+")
_AND = re.compile(r"\s*,?\s+(?:and|or)\s+")
_NAMED = re.compile(r"([A-Za-z](?:\([a-z]\))?)\s*(?:=|\\in(?![a-z]))\s*([^=<>]+)")
_PADDED = re.compile(r",0\d")  # a comma that is not between elements: 1,000
_OPENING, _CLOSING = "([{", ")]}"
_PAIRS = {("(", ")"), ("(", "]"), ("[", ")"), ("[", "]")}
_COMMANDS = (
    "frac|sqrt|pi|cdot|times|div|infty|cup|cap|pm|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|exp|log|le|ge|lt|gt|in"
    "|begin|end|theta|alpha|beta|lambda|mu|phi|omega"
)
# all that the parser is given: what it knows, so that nothing is left out of what it reads
_MATHEMATICS = re.compile(
    rf"(?:\\(?:{_COMMANDS})(?![A-Za-z])|\{{[pbv]?matrix\}}|\\\\|(?<=\\log)_|[\d\s+*/^{{}}()\[\]|<>=!&-]|[a-z](?![A-Za-z]))+"
)
_MISREAD = re.compile(r"(?<!_)\d\s+\d|\de[+-]?\d")  # a list of numbers, a decimal exponent


def canonical_math(answer: str) -> str:
    """A text that answers of the same value share: ``1/2``, ``\\frac{2}{4}`` and ``0.5`` are one answer.

    In this order: exact numbers (integers, decimals, fractions; a unit behind one is left out, as in grading, and a
    percentage stays one); tuples, intervals, unions, lists and sets by their elements, where order counts in brackets
    and not in lists and sets; what math-verify's parser reads, simplified; the spelling
    (`lapha.evaluation.answers.normalise`). Signed numbers in a row, such as ``+10 +10 -1``, are moves and not a sum.

    Every text has a form. Reading takes place in a process of its own, started for the first answer that needs it (some
    seconds, in which the caller waits), for at most `TIME_LIMIT` seconds each; forms are kept. Where math-verify is not
    installed, nothing is parsed. For `lapha.search.Search(canonical=…)`; may be called on any thread.

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
                if len(self._forms) > _KEPT:
                    del self._forms[next(iter(self._forms))]
            return known

    def _find(self, answer: str) -> str:
        if len(answer) > _LONGEST:
            return " ".join(answer.split())
        text = core(answer)
        spelling = normalise(answer)
        choice = _CHOICE.fullmatch(spelling)
        if choice:
            return choice[1]
        if _MOVES.fullmatch(text):
            return " ".join(text.split())
        named = _NAMED.fullmatch(tidy(answer))
        if named:
            return self.form(named[2])
        number = exact_number(answer)
        if number is not None:
            value, percent = number
            return f"{value}%" if percent else str(value)
        return self._elements(tidy(answer)) or self._parsed(answer) or spelling

    def _elements(self, text: str) -> str | None:
        """The form of a tuple, interval, set or list; None for all else."""
        union = _split(text, "\\cup")
        if union is not None and len(union) > 1 and all(union):
            return " ∪ ".join(sorted({self.form(part) for part in union}))
        inside, kind = _AND.sub(", ", text), ("", "")
        if text.startswith("\\{") and text.endswith("\\}"):
            inside, kind = text[2:-2], ("{", "}")
        elif (text[:1], text[-1:]) in _PAIRS and _closes_at_end(text):
            inside, kind = text[1:-1], (text[0], text[-1])
        parts = _split(inside, ",")
        if parts is None or not all(parts) or _PADDED.search(inside) or (len(parts) == 1 and kind[0] != "{"):
            return None
        forms = [self.form(part) for part in parts]
        names = [named[1] if (named := _NAMED.fullmatch(part)) else "" for part in parts]
        if len({*names} - {""}) > 1:  # x=1, y=2 is not x=2, y=1
            forms = [f"{name}={form}" if name else form for name, form in zip(names, forms)]
        if kind in _PAIRS:
            return kind[0] + ", ".join(forms) + kind[1]
        return kind[0] + ", ".join(sorted(set(forms) if kind[0] else forms)) + kind[1]

    def _parsed(self, answer: str) -> str | None:
        text = _parsable(answer)
        if text is None or not self._can_parse:
            return None
        self._pool = self._pool or GraderPool(workers=1, timeout=TIME_LIMIT)
        return self._pool.canonical([text])[0]

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None


def _parsable(answer: str) -> str | None:
    """What to give to the parser, or None where it would guess."""
    text = exact_decimals(answer)
    return text if _MATHEMATICS.fullmatch(text) and not _MISREAD.search(text) else None


def _closes_at_end(text: str) -> bool:
    """Whether the bracket that opens `text` is closed by its last character."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0:
            return index == len(text) - 1
    return False


def _split(text: str, separator: str) -> list[str] | None:
    """The parts between separators that are in no bracket; None where brackets do not balance."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth < 0:
            return None
        if depth == 0 and index >= start and text.startswith(separator, index):
            parts.append(text[start:index].strip())
            start = index + len(separator)
    return None if depth else [*parts, text[start:].strip()]


def _begin() -> None:
    global _READER
    _READER = _Reader()


_READER = _Reader()
atexit.register(lambda: _READER.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)  # the parent's worker is the parent's
