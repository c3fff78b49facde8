"""Taking texts apart: brackets, separators, names."""

from __future__ import annotations

import re

_OPENING, _CLOSING = "([{", ")]}"
_SEPARATOR = re.compile(r"[,;]\s*(?:and|or)\b|[,;]|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|[和或]")


def depths(text: str) -> list[int] | None:
    """How many brackets each character is in; None where they do not balance."""
    found, depth = [], 0
    for character in text:
        depth -= character in _CLOSING
        if depth < 0:
            return None
        found.append(depth)
        depth += character in _OPENING
    return None if depth else found


def split(text: str, separator: re.Pattern[str]) -> list[tuple[str, str]]:
    """(separator before it, part) of the parts between separators that are in no bracket; one where none balance."""
    depth = depths(text)
    if depth is None:
        return [("", text.strip())]
    parts, start, before = [], 0, ""
    for match in separator.finditer(text):
        if depth[match.start()] == 0 and match.start() >= start:
            parts.append((before, text[start : match.start()].strip()))
            start, before = match.end(), match[0].strip()
    return [*parts, (before, text[start:].strip())]


def items(text: str) -> list[str]:
    """The elements of a list: what stands between commas, semicolons, "and" and "or"."""
    return [part for _, part in split(text, _SEPARATOR)]


def closes_at_end(text: str) -> bool:
    """Whether the bracket that opens `text` is closed by its last character."""
    depth = depths(text)
    return depth is not None and len(text) > 1 and 0 not in depth[1:-1] and depth[-1] == 0 and text[-1] in _CLOSING


_LETTER = r"(?:[A-Za-z]|\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|varphi|psi|omega|Delta|Gamma|Omega|Phi|Sigma|Theta|ell|eta|xi|kappa))"
_SUBSCRIPT = r"(?:\s*_\s*(?:\{[^{}]*\}|\\?[A-Za-z0-9]+))?"
_ARGUMENT = rf"(?:{_LETTER}|-?[0-9]+|[A-Za-z]\s*[=<>]\s*-?[0-9]+|[A-Z]\s*(?:\\cap|\\cup|\|)\s*[A-Z])"
_POINTS = r"[A-Z](?:'|_\{?[0-9]\}?)?"
_NAMES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_LETTER}{_SUBSCRIPT}'*",
        rf"[fghpqrsuvwyA-Z]{_SUBSCRIPT}'*\s*(?:\^\s*\{{\s*(?:-1|\([0-9]\))\s*\}})?\s*\(\s*{_ARGUMENT}(?:\s*,\s*{_ARGUMENT})*\s*\)",
        rf"(?:{_POINTS}\s*){{2,4}}",
        rf"\|\s*(?:{_POINTS}\s*){{2}}\|",
        rf"\\(?:overline|overrightarrow|vec|widehat|hat)\s*\{{\s*(?:{_POINTS}\s*|[a-z]\s*){{1,2}}\}}",
        rf"(?:m\s*)?\\(?:angle|triangle)\s*(?:{_POINTS}\s*|[0-9]\s*){{1,3}}",
        rf"\[\s*(?:{_POINTS}\s*){{3,6}}\]",
        r"\\(?:sin|cos|tan)\s*(?:\\angle\s*)?(?:[A-Z]|\{[A-Z]\})(?:\s*[A-Z]){0,2}",
        rf"\\frac\s*\{{\s*(?:{_POINTS}\s*){{2}}\}}\s*\{{\s*(?:{_POINTS}\s*){{2}}\}}",
        rf"[A-Z]{_SUBSCRIPT}\s*:\s*[A-Z]{_SUBSCRIPT}",
        r"\\frac\s*\{\s*d\s*[a-z]\s*\}\s*\{\s*d\s*[a-z]\s*\}",
    )
)
_WORDS = re.compile(r"(?:[A-Za-z]{2,}[ '-]+){0,4}[A-Za-z]{3,}(?:\s+of\s+[A-Za-z ]+)?")
_NO_NAMES = re.compile(
    r"(?i)\b(?:not|no|never|nor|false|wrong|or|and|either|neither|if|unless|than|plus|minus|times|sin|cos|tan|log|sqrt)\b"
)


def name_of(text: str) -> str | None:
    """`text` as the name of a quantity, without spaces and braces: ``x``, ``a_n``, ``f(x)``, ``AB``, ``\\angle A``, words."""
    text = text.strip()
    if any(pattern.fullmatch(text) for pattern in _NAMES):
        return re.sub(r"[\s{}]|\\angle|^m(?=\\angle)", "", text)
    if _WORDS.fullmatch(text) and not _NO_NAMES.search(text):
        return text.casefold()
    return None


def names_agree(first: str | None, second: str | None, in_letters: bool) -> bool:
    """Whether two names may be those of one quantity.

    Args:
        first, second: names, or None.
        in_letters: whether what they name is an expression in letters: then y, f(x) and C(x) may be the same.
    """
    if first is None or second is None or first == second:
        return True
    if _WORDS.fullmatch(first) or _WORDS.fullmatch(second):
        return True
    bases = [name.partition("(")[0].rstrip("'") for name in (first, second)]
    if bases[0] == bases[1]:
        return True
    return in_letters and any("(" in name or name == "y" for name in (first, second))
