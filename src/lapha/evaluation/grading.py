"""Is a prediction the gold answer? Pure functions, for worker processes: a call here may hang, its process may be killed.

Nothing here imports torch, so that a killed worker's successor is ready soon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from lapha.evaluation.answers import normalise, tidy


@dataclass(frozen=True)
class Verdict:
    """What grading found.

    Attributes:
        correct: whether the prediction is the gold answer; None where nobody could tell (never counted as wrong).
        method: what decided: ``"choice"``, ``"number"``, ``"string"``, ``"math"``, ``"judge"``, ``"missing"`` (no
            prediction) or ``"ungradable"``.
        detail: why, for people.
    """

    correct: bool | None
    method: str
    detail: str = ""


_CHOICE = re.compile(r"\(?([A-Z])\)?")
_CHOSEN = re.compile(
    r"(?:option|choice|answer(?:\s+is)?)?\s*:?\s*\(?([A-Za-z])\)?\s*(?:[.:)].*)?", re.IGNORECASE | re.DOTALL
)
_NUMBER = re.compile(r"([+-]?)(\d+)(\.\d+)?(%?)")
_UNITS = re.compile(r"(?<=[\d}])\s*(?:\\?[A-Za-z]+\.?(?:\s+[A-Za-z]+\.?)*)\s*(?:\^\{?[23]\}?)?$")
_BASED = re.compile(r"([0-9A-Fa-f]+)_\{?(\d+)\}?")


def grade_answer(prediction: str | None, gold: str) -> Verdict:
    """Compare one prediction with the gold answer: choice letter, number, equal strings, then math-verify.

    May take unboundedly long on hostile input: run it in `lapha.evaluation.GraderPool`.
    """
    if prediction is None or not prediction.strip():
        return Verdict(False, "missing")
    expected, got = normalise(gold), normalise(prediction)
    if _CHOICE.fullmatch(gold.strip().strip("$").replace("\\text", "").strip("{} .")):
        return Verdict(_choice(got, prediction) == expected.strip("()").upper(), "choice")
    if expected == got:
        return Verdict(True, "string")
    base = _BASED.fullmatch(expected)
    if base:
        other = _BASED.fullmatch(got)
        same = (other[1].lower(), other[2]) == (base[1].lower(), base[2]) if other else got.lower() == base[1].lower()
        return Verdict(same, "number")
    number, other_number = _number(expected), _number(_without_units(got, prediction))
    if number is not None and other_number is not None:
        return Verdict(_same_number(number, other_number), "number")
    return _mathematics(prediction, gold)


def _choice(text: str, prediction: str) -> str | None:
    for candidate in (text, tidy(prediction)):
        match = _CHOSEN.fullmatch(candidate.strip())
        if match:
            return match[1].upper()
    return None


def _number(text: str) -> tuple[Fraction, bool] | None:
    """(value, whether it is a percentage), exact, or None."""
    match = _NUMBER.fullmatch(text)
    if not match:
        return None
    sign, whole, decimals, percent = match.groups()
    return Fraction(f"{sign}{whole}{decimals or ''}"), bool(percent)


def _same_number(gold: tuple[Fraction, bool], other: tuple[Fraction, bool]) -> bool:
    """Equal values; where only one side writes a percent sign, it may stand for the unit or for the hundredth."""
    if gold[0] == other[0]:
        return True
    if gold[1] and not other[1]:
        return gold[0] / 100 == other[0]
    return False


def _without_units(text: str, prediction: str) -> str:
    """`text` without trailing words, such as "36 square units" or "12 cm^2"."""
    if _NUMBER.fullmatch(text):
        return text
    bare = _UNITS.sub("", tidy(prediction)).lstrip("\\$ ")
    return normalise(bare) if bare else text


def _mathematics(prediction: str, gold: str) -> Verdict:
    from math_verify import LatexExtractionConfig, parse, verify

    def read(text: str) -> list:
        found = parse(
            "$" + tidy(text) + "$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
        )  # type: ignore[arg-type]
        return found

    expected, got = read(gold), read(prediction)
    if not expected:
        return Verdict(False, "string", "the gold answer is not mathematics, and the strings differ")
    if not got:
        return Verdict(False, "string", "the prediction is not mathematics, and the strings differ")
    return Verdict(bool(verify(expected, got, timeout_seconds=None)), "math")
