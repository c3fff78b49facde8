"""One notion of an answer's value, for grading and for voting: what an answer says, read exactly, or not at all."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from lapha.evaluation.grading.exact import UnreadError, forget_limits, multiply, real, value_key, was_limited
from lapha.evaluation.grading.extraction import core
from lapha.evaluation.grading.meaning import Reading
from lapha.evaluation.grading.reading import read
from lapha.evaluation.grading.spelling import plain_latex, spelled, visible
from lapha.evaluation.grading.structure import names_agree
from lapha.evaluation.grading.units import comparable

Kind = Literal["choice", "value", "text", "unread"]
LONGEST = 1000
"""Characters of an answer that is read; a longer one is compared by its spelling."""

_PLAIN_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_MOVES = re.compile(r"[+-][0-9]+(?:\s+[+-][0-9]+)+")
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)?")
_OPTION = re.compile(r"(?i:option|choice|answer(?:\s+is)?)\s*:?\s*\(?([A-Z])\)?")
_EXPLAINED = re.compile(r"(?:(?i:option|choice)\s*)?(?:\(([A-Z])\)|([A-Z])\s*[.:)])\s*(\S.*)", re.DOTALL)
_OTHER_CHOICE = re.compile(
    r"\([A-Z]\)|(?<![A-Za-z])[B-HJ-Z](?![A-Za-z])|(?<![A-Za-z])[AI]\s*[.:)]|\b(?:or|and|not)\s+[A-Z]\b"
)
_SEVERAL = re.compile(r"\(?([A-H])\)?(?:\s*(?:,|and|or)?\s*\(?([A-H])\)?)+")
_WORDS = re.compile(r"(?=.*[A-Za-z]{2})[A-Za-z][A-Za-z ,.;:'\"!?()-]*")
_CHINESE = re.compile(r"[\u3400-\u9fff][\u3400-\u9fff ,.;:!?]*")
_LETTERS = re.compile(r"[A-Za-z]{2,3}")
_SMALL_WORDS = {"no", "if", "up", "on", "in", "yes", "two", "one", "six", "ten", "odd", "red"}


@dataclass(frozen=True)
class AnswerForm:
    """An answer, read.

    Attributes:
        spelling: `normalize_answer` of it.
        kind: ``"choice"``, a letter or several; ``"value"``, mathematics; ``"text"``, words; ``"unread"``, none of these, or
            mathematics that is not understood here: only a parser can tell.
        readings: what it may mean, the most likely first; empty where unread.
        limited: unread because it would take too long.
    """

    spelling: str
    kind: Kind
    readings: tuple[Reading, ...] = field(default=())
    limited: bool = False

    @property
    def key(self) -> tuple | None:
        """What equal answers share; None where unread."""
        return self.readings[0].key if self.readings else None


@lru_cache(maxsize=8192)
def read_form(answer: str) -> AnswerForm:
    """Read an answer. Takes some milliseconds at most, whatever is in it."""
    if len(answer) > LONGEST:
        return AnswerForm(" ".join(answer.split()), "unread")
    if _PLAIN_NUMBER.fullmatch(answer):
        return AnswerForm(answer, "value", read(answer))
    seen = visible(core(answer))
    if seen is None:
        return AnswerForm(" ".join(answer.split()), "unread")
    inner = core(seen) if seen != answer or "$" in seen or "\\" in seen else seen
    spelling = spelled(plain_latex(inner))
    text = _unfinished(plain_latex(_with_currency(inner)) if "$" in inner else plain_latex(inner))
    if text is None:
        return AnswerForm(spelling, "unread")
    if _MOVES.fullmatch(text):  # a list of moves is no sum
        return AnswerForm(spelling, "text", (Reading(("text", text)),))
    letters = _choices(text)
    if letters is not None:
        return AnswerForm(spelling, "choice", (Reading(("choice", letters)),))
    words = _in_words(text)
    forget_limits()
    try:
        readings = read(text)
    except (UnreadError, RecursionError):
        readings = ()
    if words is not None and (not readings or _LETTERS.fullmatch(text)):
        return AnswerForm(spelling, "text", (Reading(("text", words)), *readings))
    return AnswerForm(spelling, "value" if readings else "unread", readings, not readings and was_limited())


def _with_currency(text: str) -> str:
    """A dollar sign before a number as a word; others are delimiters of mathematics."""
    text = re.sub(r"\\\$\s*(?=[0-9.])", r"\\text{ dollar }", text)
    return re.sub(r"^(-?)\s*\$\s*(-?[0-9.][^$]*)$", r"\1\\text{ dollar }\2", text)


def _unfinished(text: str) -> str | None:
    """Without the full stop at the end; None where an answer goes on, "0.333…"."""
    if text.endswith("..") or text.endswith("\\ldots"):
        return None
    text = text.removesuffix(".").strip()
    return re.sub(r"^(?:\\therefore|:)\s*", "", text.removesuffix(",").removesuffix(";").strip())


def _choices(text: str) -> str | None:
    """The letter or letters of a multiple choice."""
    for pattern in (_CHOICE, _OPTION):
        if match := pattern.fullmatch(text):
            return match[1]
    if (match := _EXPLAINED.fullmatch(text)) and not _OTHER_CHOICE.search(match[3]):
        return match[1] or match[2]
    if _SEVERAL.fullmatch(text):
        letters = re.findall(r"[A-H]", re.sub(r"and|or", "", text))
        if letters == sorted(set(letters)):
            return "".join(letters)
    return None


def _in_words(text: str) -> str | None:
    """Words in one spelling."""
    if text in ("pi", "ln", "lg"):
        return None
    if _LETTERS.fullmatch(text):
        return text.casefold() if text.casefold() in _SMALL_WORDS else text
    if _WORDS.fullmatch(text) or _CHINESE.fullmatch(text):
        return re.sub(r"[\s.]+", " ", text).strip().casefold()
    return None


def same_form(first: AnswerForm, second: AnswerForm) -> bool | None:
    """Whether two answers say the same; None where one of them is unread and their spellings differ. Symmetric."""
    if first.spelling == second.spelling and first.spelling:
        return True
    if not first.readings or not second.readings:
        return None
    return any(same_reading(a, b) for a in first.readings for b in second.readings)


def same_reading(first: Reading, second: Reading) -> bool:
    """Whether two readings are one value: names and units that both have agree, and a percentage is also a hundredth."""
    in_letters = str(first.key[0]).startswith("function")
    if not names_agree(first.name, second.name, in_letters):
        return False
    ratio = comparable(first.unit, second.unit)
    if ratio is None:
        return False
    if ratio == 1 and first.key == second.key:
        return True
    for one, other in ((first, second), (second, first)):
        if one.unit is not None and one.unit.kind == "percent" and other.unit is None and one.value is not None:
            return _scaled(one, Fraction(1, 100)) == other.key
    return ratio != 1 and first.value is not None and _scaled(first, ratio) == second.key


def _scaled(reading: Reading, factor: Fraction) -> tuple:
    return ("number", value_key(multiply(reading.value, real(factor))))


def key_text(key: tuple) -> str:
    """A value's key as a text: short and readable where it can be, marked and hashed where not."""
    kind, parts = key[0], key[1:]
    if kind in ("choice", "text"):
        return str(parts[0])
    if kind == "number" and len(parts[0]) < 200 and parts[0][0] != "~" and not parts[0].endswith("i"):
        return str(parts[0])
    if kind == "tuple":
        return parts[0][0] + ", ".join(_end_text(part) for part in parts[1:]) + parts[0][1]
    if kind == "set":
        return "\\{" + ", ".join(sorted(map(key_text, parts))) + "\\}"
    if kind == "base":
        return "_".join(parts)
    if kind == "union":
        return " ∪ ".join(sorted(map(key_text, parts)))
    digest = hashlib.blake2b(repr(key).encode(), digest_size=12).hexdigest()
    shown = parts[0][1:10] if kind == "number" else kind
    return f"≡{shown} {digest}≡"


def _end_text(part: Any) -> str:
    return part.replace("inf", "∞") if isinstance(part, str) else key_text(part)
