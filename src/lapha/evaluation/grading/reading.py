"""What a text means: numbers with units, tuples, intervals, sets, lists, matrices, equations, inequalities."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from lapha.evaluation.grading.exact import UnreadError, add, computed, negate
from lapha.evaluation.grading.meaning import EQUAL, INFINITE, RELATION, Read, Reading, interval, joined
from lapha.evaluation.grading.quantities import constant, is_amount, quantity, special_number
from lapha.evaluation.grading.relations import equation, relation
from lapha.evaluation.grading.structure import closes_at_end, items, name_of, split

_DEEPEST = 60
_REALS = re.compile(r"(?:[a-z]\s*\\in\s*)?\\mathbb\s*\{R\}|(?:all\s+)?real\s+numbers", re.IGNORECASE)
_EMPTY = re.compile(r"\\emptyset|\\\{\s*\\\}")
_BELONGS = re.compile(r"([A-Za-z](?:\([a-z]\))?|\\[a-z]+)\s*\\in(?![a-z])\s*(.+)")
_MATRIX = re.compile(r"\\begin\s*\{([pbvBV]?matrix|array)\}\s*(?:\{[clr| ]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)
_BUILDER = re.compile(
    r"\\\{\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?[|:]\s*(.+?)(?:,\s*\1\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*\\\}"
)
_ABOUT = re.compile(r"\\approx(?![a-z])")
_CUP = re.compile(r"\\cup(?![a-z])")
_OR = re.compile(r",?\s*(?<![A-Za-z\\])or(?![A-Za-z])|[或]")
_PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_INNER_THOUSANDS = re.compile(r"(?<![0-9,.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_APPROXIMATELY = re.compile(
    r"(?i)^\\approx\s*|^(?:approximately|about|approx\.?)\s+|\s*\(?\s*(?:approximately|approx\.?)\s*\)?$"
)


def read(text: str) -> tuple[Reading, ...]:
    """The meanings of a text in plain LaTeX, the most likely first.

    Raises:
        UnreadError: it is not understood, to its last character.
    """
    text = text.strip()
    joined = _INNER_THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    if joined != text and not re.search(r"[,;()\[\]{}]", joined):  # x = 1,200 and 1,200 m are no lists
        text = joined
    return _read(text, 0)


def _read(text: str, depth: int) -> tuple[Reading, ...]:
    if depth > _DEEPEST or not text:
        raise UnreadError("nothing, or too deep")

    def inner(part: str) -> tuple[Reading, ...]:
        return _read(part, depth + 1)

    if _PLAIN.fullmatch(text) and len(text) < 1000:
        return (constant(Fraction(text)),)
    if is_amount(text):
        return quantity(text, inner)
    for attempt in (special_number, _known_set, lambda text: _in_a_set(text, inner)):
        found = attempt(text)
        if found:
            return found
    for mark, structure in _STRUCTURES:
        if mark.search(text) and (found := structure(text, inner)):
            return found
    return quantity(text, inner)


def _known_set(text: str) -> tuple[Reading, ...]:
    if _REALS.fullmatch(text):
        return (interval("(", "-inf", "inf", ")"),)
    return (Reading(("set",)),) if _EMPTY.fullmatch(text) else ()


def _in_a_set(text: str, read: Read) -> tuple[Reading, ...]:
    """x ∈ …, and {x | …} where the condition is an interval."""
    belongs = _BELONGS.fullmatch(text)
    if belongs:
        where = re.sub(r"^\{(.*)\}$", r"\\{\1\\}", belongs[2])
        return tuple(replace(reading, name=belongs[1]) for reading in read(where))
    builder = _BUILDER.fullmatch(text)
    if builder is None:
        return ()
    found = read(builder[2])
    if found[0].key[0] not in ("tuple", "union"):
        raise UnreadError("a set that is no interval")
    return found


def _both_signs(text: str, read: Read) -> tuple[Reading, ...]:
    """±: two values."""
    signs = (("+", "-"), ("-", "+"))
    found = [read(text.replace("\\pm", one).replace("\\mp", other))[0] for one, other in signs]
    return (_collection([reading.key for reading in found]),)


def _about(text: str, read: Read) -> tuple[Reading, ...]:
    """≈: a value said to be about another, where it is that to the digits written; either may be meant."""
    trimmed = _APPROXIMATELY.sub("", text).strip()
    if trimmed != text and trimmed:
        return read(trimmed)
    sides = [side for _, side in split(text, _ABOUT)]
    if len(sides) != 2:
        return ()
    exact, near = read(sides[0]), read(sides[1])
    if exact[0].value is None:
        return near if name_of(sides[0]) else ()
    digits = re.search(r"\.([0-9]+)$", re.sub(r"[^0-9.]+$", "", sides[1]))
    allowed = Fraction(51, 100) / 10 ** (len(digits[1]) if digits else 0)
    if near[0].value is None or abs(computed(add([exact[0].value, negate(near[0].value)]))) > float(allowed):
        raise UnreadError("not nearly equal")
    return (*exact, *near)


def _union(text: str, read: Read) -> tuple[Reading, ...]:
    parts = [part for _, part in split(text, _CUP)]
    if len(parts) == 1:
        parts = [part for _, part in split(text, _OR)]
        if len(parts) == 1 or not all(map(_is_range, parts)):
            return ()
    return (joined([read(part)[0].key for part in parts]),)


def _is_range(text: str) -> bool:
    """Whether a text is no pair of numbers, but an inequality, or an interval by its brackets or its ends."""
    bracketed = text[:1] in ("(", "[") and text[-1:] in (")", "]")
    return bool(RELATION.search(text)) or (bracketed and ("\\infty" in text or text[0] + text[-1] != "()"))


def _list(text: str, read: Read) -> tuple[Reading, ...]:
    parts = items(text)
    if len(parts) == 1:
        return ()
    if not all(parts) or any(re.match(r"0[0-9]", part) for part in parts[1:]):  # 1, 000 is no list
        raise UnreadError("an empty or padded element")
    if any(RELATION.search(part) for part in parts):
        raise UnreadError("several inequalities")
    found = [read(part)[0] for part in parts]
    keys = [reading.key for reading in found]
    names = [reading.name for reading in found]
    if all(re.fullmatch(r"[A-Za-z]+", part) for part in parts):  # b, a, c is an order of things
        return (Reading(("letters", *parts)),)
    if all(names) and len(set(names)) > 1:
        named = tuple(sorted(zip(map(str, names), keys)))
        return (
            Reading(("named", *named)),
            Reading(("ordered", *keys), name="in order"),
            Reading(("ordered tuple", *keys)),
        )
    if all(key[0] == "tuple" for key in keys):  # solutions: one that is said twice is one
        return (_collection(keys, braces=True),)
    if len(set(keys)) == 1 and len(set(names)) == 1:
        return (Reading(("list", *keys)),)
    return (_collection(keys), Reading(("ordered", *keys)))


def _collection(keys: Sequence[tuple], braces: bool = False) -> Reading:
    """A list, or a set. Where all elements are different, a list is the set of them."""
    flat = [inner for key in keys for inner in (key[1:] if key[0] == "set" and not braces and len(key) > 2 else [key])]
    if braces or len(set(flat)) == len(flat):
        return Reading(("set", *sorted(set(flat), key=repr)))
    return Reading(("list", *sorted(flat, key=repr)))


def _bracketed(text: str, read: Read) -> tuple[Reading, ...]:
    """Tuples, intervals, sets."""
    if text.startswith("\\{") and text.endswith("\\}") and closes_at_end(text[1:].removesuffix("\\}") + "}"):
        parts = items(text[2:-2].strip())
        keys = [read(part)[0].key for part in parts]
        flat = [inner for key in keys for inner in (key[1:] if key[0] == "set" and "\\pm" in text else [key])]
        return (_collection(flat, braces=True),)
    if text[:1] == "{" and text[-1:] == "}" and closes_at_end(text) and len(items(text[1:-1])) > 1:
        return _bracketed("\\" + text[:-1] + "\\}", read)
    if re.fullmatch(r"\][^\[\]]*\[", text):  # ]1, 2[ as the French write it
        text = f"({text[1:-1]})"
    if text[:1] not in ("(", "[") or text[-1:] not in (")", "]") or not closes_at_end(text):
        return ()
    inner = text[1:-1].strip()
    parts = items(inner)
    if len(parts) == 1:
        return () if RELATION.search(inner) is None and EQUAL.search(inner) is None else read(inner)
    if not all(parts):
        raise UnreadError("an empty element")
    ends = [INFINITE.get(part.replace(" ", "")) for part in parts]
    if len(parts) == 2 and any(ends):
        low, high = (end or read(part)[0].key for end, part in zip(ends, parts))
        return (interval(text[0], low, high, text[-1]),)
    keys = [read(part)[0].key for part in parts]
    found = Reading(("tuple", text[0] + text[-1], *keys))
    return (found, Reading(("ordered tuple", *keys))) if text[0] + text[-1] == "()" else (found,)


def _matrix(text: str, read: Read) -> tuple[Reading, ...]:
    match = _MATRIX.fullmatch(re.sub(r"^[(\[]\s*(\\begin.*?)\s*[)\]]$", r"\1", text, flags=re.DOTALL))
    if match is None:
        return ()
    rows = [row.strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr(?![a-z])", match[2]) if row.strip()]
    cells = [[read(cell.strip())[0].key for cell in row.split("&")] for row in rows]
    if not cells or len({len(row) for row in cells}) != 1:
        raise UnreadError("rows of different lengths")
    if len(cells[0]) == 1 and len(cells) > 1 and match[1] != "vmatrix":
        keys = [row[0] for row in cells]
        return (Reading(("tuple", "()", *keys)), Reading(("ordered tuple", *keys)))
    return (Reading(("matrix", match[1] in ("vmatrix", "Vmatrix"), *map(tuple, cells))),)


# what a text has to hold for it to be worth an attempt, in the order in which they are made
_STRUCTURES: tuple[tuple[re.Pattern[str], Callable[[str, Read], tuple[Reading, ...]]], ...] = (
    (re.compile(r"(?i)approx|about"), _about),
    (re.compile(r"\\cup|or|[或]"), _union),
    (re.compile(r"[,;]|and|or|[和或]"), _list),
    (re.compile(r"[(\[{\]]"), _bracketed),
    (re.compile(r"\\begin"), _matrix),
    (re.compile(r"\\(?:le|ge|ne)|[<>]"), relation),
    (re.compile(r"="), equation),
    (re.compile(r"\\pm|\\mp"), _both_signs),
)
