"""When two answers count as the same: a light, library-free normal form. `lapha.evaluation` has a mathematical one."""

from __future__ import annotations

import re

from lapha._typed import typed

_WRAPPERS = re.compile(r"^\\(?:boxed|text|mathrm|textbf|mbox)\s*\{(.*)\}$", re.DOTALL)
_MATH = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")]
_SPACING = re.compile(r"\\[,;:! ]|\\(?:left|right|displaystyle|quad|qquad)(?![a-zA-Z])|\s+")
_FRACTION = re.compile(r"\\[dt]frac(?![a-zA-Z])")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?:\D|$))")


@typed
def normalize_answer(text: str) -> str:
    """A normal form of a short answer: no spaces, no maths delimiters, no ``\\boxed``, lower case, plain fractions.

    Never raises: text that it does not understand stays, without its spaces.
    """
    answer = text.strip()
    while True:
        before = answer
        for left, right in _MATH:
            if len(answer) > len(left) + len(right) and answer.startswith(left) and answer.endswith(right):
                answer = answer[len(left) : -len(right)].strip()
        wrapped = _WRAPPERS.match(answer)
        if wrapped and _balanced(wrapped.group(1)):
            answer = wrapped.group(1).strip()
        if answer == before:
            break
    answer = _FRACTION.sub(r"\\frac", answer)
    answer = _SPACING.sub("", answer)
    while (shorter := _THOUSANDS.sub("", answer)) != answer:
        answer = shorter
    answer = answer.rstrip(".").lower()
    return answer[1:] if re.fullmatch(r"\+\d.*", answer) else answer


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
