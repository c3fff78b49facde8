"""Numbers and expressions with their units, ratios, times, numbers in a base."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from lapha.evaluation.grading.evaluating import evaluate
from lapha.evaluation.grading.exact import ZERO, UnreadError, divide, real, value_key
from lapha.evaluation.grading.expression import read_expression
from lapha.evaluation.grading.meaning import Read, Reading
from lapha.evaluation.grading.structure import split
from lapha.evaluation.grading.units import CURRENCIES, Unit, read_unit

_THOUSANDS = re.compile(r"([+-]?\s?)([0-9]{1,3}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?:\.[0-9]+)?)(?![0-9])")
_SCIENTIFIC = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]{1,3})")
_REPEATING = re.compile(
    r"(?<![0-9.])([0-9]*)\.([0-9]*)\s*(?:\\(?:overline|bar|dot)\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))(?:[0-9]*\\dot\s*\{?([0-9])\}?)?)(?![0-9])"
)
_TWO_DOTS = re.compile(r"(?<![0-9.])([0-9]*)\.([0-9]*)\s*\\dot\s*\{?([0-9])\}?([0-9]*)\\dot\s*\{?([0-9])\}?(?![0-9])")
_MIXED = re.compile(r"([0-9]+) ([0-9]+) ?/ ?([0-9]+)")
_BASED = re.compile(r"\(?([0-9A-Fa-f]+)\)?\s*_\s*(?:\{\s*([0-9]+|[a-z]+)\s*\}|([0-9]+)|\s([a-z]+))")
_BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}
_RATIO = re.compile(r":")
_TIME = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?\s*([ap])\.?\s*m\.?", re.IGNORECASE)
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})")
_UNIT_START = re.compile(r"(?<=[0-9}\])!%])\s*(?=[A-Za-z\u4e00-\u9fff¢])|\s+(?=[A-Za-z\u4e00-\u9fff¢])")
_MONEY = re.compile(r"([+-]?)\s*(dollar |[$€£¥])\s*(-?)\s*(.+)")
_DEGREE, _RADIAN = Unit("angle"), Unit("radian")


def special_number(text: str) -> tuple[Reading, ...]:
    """Thousands, scientific notation, times, numbers in a base."""
    if _THOUSANDS.fullmatch(text):
        return (constant(Fraction(re.sub(r"[, ]", "", text))),)
    if match := _SCIENTIFIC.fullmatch(text):
        return (constant(Fraction(match[1]) * Fraction(10) ** int(match[2])),)
    if match := _TIME.fullmatch(text):
        return (Reading(("time", match[1].lstrip("0"), match[2] or "00", match[3].lower())),)
    if match := _BASED.fullmatch(text):
        base = match[2] or match[3] or match[4]
        base = str(_BASES.get(base, base))
        if base.isdecimal() and 2 <= int(base) <= 36 and all(int(digit, 16) < int(base) for digit in match[1]):
            digits = match[1].upper().lstrip("0") or "0"
            bare = Reading(("digits", digits)) if not digits.isdecimal() else constant(Fraction(digits))
            return (Reading(("base", digits, base)), replace(bare, name="base " + base))
    return ()


def constant(value: Fraction, unit: Unit | None = None) -> Reading:
    """A rational number."""
    return Reading(("number", value_key(real(value))), unit, None, real(value))


def quantity(text: str, read: Read) -> tuple[Reading, ...]:
    """A number or expression, with its unit; a ratio."""
    money = _MONEY.fullmatch(text)
    if money:
        unit = read_unit(CURRENCIES.get(money[2].strip(), money[2].strip()), apart=True)
        sign = "-" if "-" in (money[1], money[3]) else ""
        amount = re.sub(r"\s+dollars?$", "", money[4])
        return tuple(replace(reading, unit=reading.unit or unit) for reading in read(sign + amount))
    found = _with_unit(text, read)
    try:
        plain = _expression(text)
    except UnreadError:
        plain = None
    if found is not None and plain is not None and found.unit == _DEGREE:
        plain = replace(plain, unit=_RADIAN)  # 30° is \\pi/6
    readings = tuple(reading for reading in (found, plain) if reading is not None)
    if readings:
        return readings
    return _ratio(text)


def is_amount(text: str) -> bool:
    """Whether a text is money with thousands in it, and no list."""
    money = _MONEY.fullmatch(text)
    return money is not None and _THOUSANDS.fullmatch(re.sub(r"\s+dollars?$", "", money[4])) is not None


def _with_unit(text: str, read: Read) -> Reading | None:
    """A number with a unit behind it; None where there is none."""
    if text.endswith("%"):
        unit: Unit | None = Unit("percent")
        value = text[:-1].strip()
    elif re.search(r"\^\{\\circ\}(?:\s*[CF])?$", text):
        unit, value = _DEGREE, re.sub(r"\s*\^\{\\circ\}(?:\s*[CF])?$", "", text)
    else:
        for match in _UNIT_START.finditer(text):
            if not text[: match.start()].strip():
                continue
            unit = read_unit(text[match.end() :], apart=match.end() > match.start())
            if unit is not None:
                value = text[: match.start()]
                break
        else:
            return None
    try:
        inner = read(value.strip())[0]
    except UnreadError:
        return None
    return (
        replace(inner, unit=unit)
        if inner.unit is None and inner.key[0] in ("number", "function", "function of integers")
        else None
    )


def _expression(text: str) -> Reading:
    expression = read_expression(_repeating(_MIXED.sub(r"\1\\frac{\2}{\3}", text)))
    key, value = expression.evaluated()
    return Reading(key, value=value)


def _repeating(text: str) -> str:
    """Repeating decimals as fractions."""

    def fraction(whole: str, fixed: str, period: str) -> str:
        nines = int("9" * len(period)) * 10 ** len(fixed)
        number = Fraction(int((whole or "0") + fixed + period) - int((whole or "0") + fixed), nines)
        return f"\\frac{{{number.numerator}}}{{{number.denominator}}}"

    text = _TWO_DOTS.sub(lambda m: fraction(m[1], m[2], m[3] + m[4] + m[5]), text)
    return _REPEATING.sub(lambda m: fraction(m[1], m[2], m[3] or m[4]), text)


def _ratio(text: str) -> tuple[Reading, ...]:
    parts = [part for _, part in split(text, _RATIO)]
    if len(parts) < 2 or not all(parts):
        raise UnreadError("not understood")
    values = []
    for part in parts:
        expression = read_expression(part)
        if expression.symbols:
            return (Reading(("ratio", *(read_expression(part).evaluated()[0] for part in parts))),)
        values.append(evaluate(expression.node, {}))
    clock = _CLOCK.fullmatch(text)
    readings = []
    if clock and int(clock[1]) < 24 and int(clock[2]) < 60:
        readings.append(Reading(("time", clock[1].lstrip("0"), clock[2])))
    if ZERO not in values:
        readings.append(Reading(("ratio", *(value_key(divide(value, values[0])) for value in values))))
    if not readings:
        raise UnreadError("a ratio to zero")
    return tuple(readings)
