"""Is a prediction the gold answer? Pure functions, for worker processes: a call here may hang, its process may be killed.

Nothing here imports torch, so that a killed worker's successor is ready soon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from lapha.evaluation.answers import normalise, tidy
from lapha.evaluation.quick_parsing import read_quickly


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
_FRACTION = re.compile(r"([+-]?)\\frac\{([+-]?\d+)\}\{(\d+)\}|([+-]?\d+)/(\d+)")
_MIXED = re.compile(r"([+-]?)(\d+) ?(?:\\frac\{(\d+)\}\{(\d+)\}|(?<= )(\d+)/(\d+))")
_DECIMAL = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?![\d.])")
# words after a number; one letter is a unit only apart from the number, where "5 m" is metres and "5m" a product.
# Possessive: a word is taken whole or not at all, or else a long run of letters is split in every possible way.
_UNITS = re.compile(
    r"(?<=[\d}%])((?:\s*+[A-Za-z]{2,}+\.?(?:/[A-Za-z]++)?)++|\s+[msghLJNWVA])(?:\s*\^\s*\{?[23]\}?)?\s*$"
)
_NOT_UNITS = re.compile(
    r"(?i)\b(?:or|and|to|not|no|none|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|pi|sqrt|log|ln|sin|cos|tan|"
    r"squared|cubed|factorial|mod|base|over|plus|minus|times|percent|half|halves|thirds?|quarters?|fourths?|fifths?|tenths?)\b"
)
_WORDS = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z ,.'-]*")
_BASED = re.compile(r"([0-9A-Fa-f]+)_\{?(\d+)\}?")


def grade_answer(prediction: str | None, gold: str) -> Verdict:
    """Compare one prediction with the gold answer: choice letter, number, equal strings, then math-verify.

    May take unboundedly long on hostile input: run it in `lapha.evaluation.GraderPool`.
    """
    found = plain_verdict(prediction, gold)
    return _mathematics(prediction or "", gold) if found is None else found


def plain_verdict(prediction: str | None, gold: str) -> Verdict | None:
    """The part of `grade_answer` that needs no parser and cannot hang; None where mathematics has to be read."""
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
    number, other_number = exact_number(gold), exact_number(prediction)
    if number is not None and other_number is not None:
        return Verdict(_same_number(number, other_number), "number")
    return None


def _choice(text: str, prediction: str) -> str | None:
    for candidate in (text, tidy(prediction)):
        match = _CHOSEN.fullmatch(candidate.strip())
        if match:
            return match[1].upper()
    return None


def _number(text: str) -> tuple[Fraction, bool] | None:
    """(value, whether it is a percentage) of an integer, decimal or fraction of integers, exact; None for all else."""
    match = _NUMBER.fullmatch(text)
    if match:
        sign, whole, decimals, percent = match.groups()
        return Fraction(f"{sign}{whole}{decimals or ''}"), bool(percent)
    match = _FRACTION.fullmatch(text)
    if match:
        sign, top, bottom, plain_top, plain_bottom = match.groups()
        if int(bottom or plain_bottom):
            value = Fraction(int(top or plain_top), int(bottom or plain_bottom))
            return (-value if sign == "-" else value), False
    match = _MIXED.fullmatch(text)
    if match:
        sign, whole, *parts = match.groups()
        top, bottom = (int(part) for part in parts if part is not None)
        if top < bottom:  # 1 1/2 is a number, 1 3/2 is none
            value = int(whole) + Fraction(top, bottom)
            return (-value if sign == "-" else value), False
    return None


def exact_number(answer: str) -> tuple[Fraction, bool] | None:
    """(value, whether it is a percentage) of an answer that is a number, with or without a unit; None for all else."""
    return _number(_without_units(normalise(answer), answer))


def _same_number(gold: tuple[Fraction, bool], other: tuple[Fraction, bool]) -> bool:
    """Equal values; where only one side writes a percent sign, it may stand for the unit or for the hundredth."""
    if gold[0] == other[0]:
        return True
    if gold[1] and not other[1]:
        return gold[0] / 100 == other[0]
    return False


def _without_units(text: str, answer: str) -> str:
    """`text`, the normal form of `answer`, without the unit behind a number, such as "36 square units" or "12 cm^2"."""
    if _number(text) is not None:
        return text
    tidied = tidy(answer)
    unit = _UNITS.search(tidied)
    if unit is None or _NOT_UNITS.search(unit[0]):
        return text
    return normalise(tidied[: unit.start()])


def _mathematics(prediction: str, gold: str) -> Verdict:
    from math_verify import verify

    expected, got = parse_mathematics(exact_decimals(gold)), parse_mathematics(exact_decimals(prediction))
    if not expected:
        return Verdict(False, "string", "the gold answer is not mathematics, and the strings differ")
    if not got:
        return Verdict(False, "string", "the prediction is not mathematics, and the strings differ")
    same = bool(verify(list(expected), list(got), timeout_seconds=None))
    if not same and _WORDS.fullmatch(tidy(gold)):  # which were read as a product of letters
        return Verdict(False, "string", "the gold answer is words, and the strings differ")
    return Verdict(same, "math")


def exact_decimals(answer: str) -> str:
    """The answer for the parser: its unit dropped, decimals as fractions, so that 0.333 is not one third."""
    text = tidy(answer)
    unit = _UNITS.search(text)
    if unit is not None and not _NOT_UNITS.search(unit[0]):
        text = text[: unit.start()]
    return _DECIMAL.sub(lambda match: f"\\frac{{{match[1]}{match[2]}}}{{1{'0' * len(match[2])}}}", text)


@lru_cache(maxsize=4096)
def parse_mathematics(text: str) -> tuple:
    """What math-verify reads in `text`; empty where it reads nothing."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    read_quickly()
    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
    )
    config = LatexExtractionConfig(normalization_config=spelling)
    return tuple(parse(f"${text}$", [config], fallback_mode="no_fallback", parsing_timeout=None))  # type: ignore[arg-type]
