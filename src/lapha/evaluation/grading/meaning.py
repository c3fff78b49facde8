"""The meaning of an answer, and the forms in which several rooms write it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lapha.evaluation.grading.units import Unit


@dataclass(frozen=True)
class Reading:
    """One meaning of an answer.

    Attributes:
        key: equal for equal values, nested tuples of strings.
        unit: that of a number, or None.
        name: of the quantity whose value it is said to be, or None.
        value: of a number: an exact or computed number of `lapha.evaluation.grading.exact`; None for all else.
    """

    key: tuple
    unit: Unit | None = None
    name: str | None = None
    value: Any = None


Read = Callable[[str], tuple[Reading, ...]]
"""Reads a part of a text."""

INFINITE = {"\\infty": "inf", "+\\infty": "inf", "-\\infty": "-inf"}
RELATION = re.compile(r"\\(?:le|ge|ne)(?![a-z])|[<>]")
EQUAL = re.compile(r"=")


def interval(opening: str, low: Any, high: Any, closing: str) -> Reading:
    """The interval between two keys, or ``"inf"`` and ``"-inf"``, which no bracket includes."""
    opening, closing = "(" if low == "-inf" else opening, ")" if high == "inf" else closing
    return Reading(("tuple", opening + closing, low, high))


def joined(keys: Sequence[tuple]) -> Reading:
    """The union of what has these keys."""
    flat = {inner for key in keys for inner in (key[1:] if key[0] == "union" else [key])}
    ordered = sorted(flat, key=repr)
    return Reading(ordered[0] if len(ordered) == 1 else ("union", *ordered))
