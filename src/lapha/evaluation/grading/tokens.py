"""The signs of an expression."""

from __future__ import annotations

import re

from lapha.evaluation.grading.exact import LimitError, UnreadError

_TOKEN = re.compile(
    r"\s*(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|\\([A-Za-z]+)|([A-Za-z]+)|(\\[{}|]|\*\*|[+\-*/^_!(){}\[\]|,]))", re.ASCII
)
FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin", "arccos": "acos",
    "arctan": "atan", "asin": "asin", "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
    "ln": "log", "exp": "exp",
}  # fmt: skip
_WORDS = {*FUNCTIONS, "log", "lg", "sqrt", "pi"}  # that need no backslash
_MOST_TOKENS = 600
_LONGEST_NUMBER = 1000


def tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) with kind ``number``, ``command`` or ``sign``."""
    found: list[tuple[str, str]] = []
    end = len(text.rstrip())
    place = 0
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            raise UnreadError(f"{text[place : place + 10]!r}")
        number, command, letters, sign = match.groups()
        if number:
            if len(number) > _LONGEST_NUMBER:
                raise UnreadError("a number too long")
            found.append(("number", number))
        elif command:
            found.append(("command", command))
        elif letters:
            found.extend(_letters(letters))
        else:
            found.append(("sign", "^" if sign == "**" else "|" if sign == "\\|" else sign.lstrip("\\")))
        place = match.end()
        if len(found) > _MOST_TOKENS:
            raise LimitError("too long")
    return found


def _letters(run: str) -> list[tuple[str, str]]:
    """A run of letters: a function's name, or a product of at most three letters."""
    if run in _WORDS:
        return [("command", run)]
    for word in ("sin", "cos", "tan", "cot", "ln"):
        if run.startswith(word) and len(run) == len(word) + 1:  # sinx
            return [("command", word), ("letter", run[-1])]
    if run.startswith("pi"):
        raise UnreadError(run)
    if len(run) > 3:
        raise UnreadError(run)
    return [("letter", letter) for letter in run]
