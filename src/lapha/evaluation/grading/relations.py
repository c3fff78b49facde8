"""Equations and inequalities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lapha.evaluation.grading.evaluating import Expression
from lapha.evaluation.grading.exact import ZERO, UnreadError, divide, real, value_key
from lapha.evaluation.grading.expression import read_expression
from lapha.evaluation.grading.meaning import EQUAL, INFINITE, RELATION, Read, Reading, interval, joined
from lapha.evaluation.grading.structure import closes_at_end, items, name_of, split

_FLIP = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}


def _difference(left: Expression, right: Expression) -> tuple[list[Any], bool]:
    """(left − right at the points, whether letters are in it)."""
    both = Expression(("add", left.node, ("negate", right.node)), left.symbols | right.symbols)
    return both.values(), bool(both.symbols)


def _zeros(values: Sequence[Any], positive: bool) -> tuple:
    """Values up to a factor: what has the same zeros and, with a positive factor, the same signs."""
    first = values[0]
    if first == ZERO:
        raise UnreadError("no difference")
    if positive and not isinstance(first, tuple):
        size = abs(first)
    elif positive:
        size = real(abs(first.re)) if first.im == 0 else first
    else:
        size = first
    return tuple(value_key(divide(value, size)) for value in values)


def relation(text: str, read: Read) -> tuple[Reading, ...]:
    """Inequalities: in one letter between constants, the interval; else by the difference of their sides."""
    parts = split(text, RELATION)
    if len(parts) == 1 or EQUAL.search(text):
        return ()
    signs = [sign for sign, _ in parts[1:]]
    sides = [side for _, side in parts]
    names = [name_of(side) for side in sides]
    if len(sides) == 2 and signs == ["\\ne"] and names[0] and not names[1]:
        key = read(sides[1])[0].key
        return (joined([interval("(", "-inf", key, ")").key, interval("(", key, "inf", ")").key]),)
    if "\\ne" in signs:
        raise UnreadError("several, or no value")
    if len(sides) == 2 and names[1] and not names[0]:
        sides, names, signs = sides[::-1], names[::-1], [_FLIP[signs[0]]]
    if len(sides) == 2 and names[0]:
        bound = _end(sides[1], read)
        if bound is not None:
            closed = signs[0] in ("\\le", "\\ge")
            down = signs[0] in ("<", "\\le")
            ends = ("(", "-inf", bound, "]" if closed else ")") if down else ("[" if closed else "(", bound, "inf", ")")
            return (interval(*ends), *_inequality(sides, signs[0]))
    if len(sides) == 3 and names[1]:
        low, high = _end(sides[0], read), _end(sides[2], read)
        if low is not None and high is not None:
            if {*signs} <= {">", "\\ge"}:
                low, high, signs = high, low, [_FLIP[sign] for sign in signs[::-1]]
            if {*signs} <= {"<", "\\le"}:
                brackets = ["[" if signs[0] == "\\le" else "(", "]" if signs[1] == "\\le" else ")"]
                return (interval(brackets[0], low, high, brackets[1]),)
    if len(sides) != 2:
        raise UnreadError("a chain of inequalities")
    found = _inequality(sides, signs[0])
    if not found:
        raise UnreadError("no inequality in letters")
    return tuple(found)


def _inequality(sides: Sequence[str], sign: str) -> list[Reading]:
    """An inequality by the difference of its sides, up to a positive factor; none where it holds no letters."""
    if sign in (">", "\\ge"):
        sides, sign = sides[::-1], _FLIP[sign]
    try:
        values, letters = _difference(*map(read_expression, sides))
        return [Reading(("inequality", sign, *_zeros(values, positive=True)))] if letters else []
    except UnreadError:
        return []


def _end(text: str, read: Read) -> Any:
    """An end of an interval: a key, or an infinity; None where letters are in it."""
    if text.replace(" ", "") in INFINITE:
        return INFINITE[text.replace(" ", "")]
    key = read(text)[0].key
    return key if key[0] == "number" else None


def equation(text: str, read: Read) -> tuple[Reading, ...]:
    """A named value, a chain of equal sides, or an equation in unknowns: which is equal to equations alone."""
    sides = [side for _, side in split(text, EQUAL)]
    if len(sides) == 1:
        return ()
    if not all(sides) or any(RELATION.search(side) for side in sides) or "!=" in text:
        raise UnreadError("an open equation, or an inequality")
    if (
        sides[0].startswith("(")
        and closes_at_end(sides[0])
        and len(sides) == 2
        and all(map(name_of, items(sides[0][1:-1])))
    ):
        return read(sides[1])
    names = [name_of(side) for side in sides]
    if len(sides) == 2 and names[1] and not names[0]:
        sides, names = sides[::-1], names[::-1]
    start = 0
    while start < len(sides) - 1 and names[start]:
        start += 1
    found = [read(side) for side in sides[start:]]
    if len({readings[0].key for readings in found}) == 1 and not _mentions(sides[start:], names[:start]):
        value = next((reading for readings in found for reading in readings[:1] if reading.unit), found[-1][0])
        readings = [replace(value, name=names[0]) if start else value]
        if start == 1 and str(value.key[0]).startswith("function"):
            readings += _unknowns(sides[0], sides[1])
        return tuple(readings)
    if len(sides) != 2:
        raise UnreadError("a chain of unequal sides")
    readings = _unknowns(*sides)
    if not readings:
        raise UnreadError("a false equation")
    return tuple(readings)


def _mentions(sides: Sequence[str], names: Sequence[str | None]) -> bool:
    """Whether a letter stands for itself and more: x = x + 5."""
    letters = [name for name in names if name and len(name) == 1]
    for side in sides:
        try:
            symbols = read_expression(side).symbols
        except UnreadError:
            continue
        if any(letter in symbols for letter in letters):
            return True
    return False


def _unknowns(left: str, right: str) -> list[Reading]:
    """An equation by its zeros; none where it holds no letters."""
    try:
        values, letters = _difference(read_expression(left), read_expression(right))
    except UnreadError:
        return []
    return [Reading(("equation", *_zeros(values, positive=False)))] if letters else []
