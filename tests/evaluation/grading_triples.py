"""(prediction, gold, verdict) triples made from gold answers: other spellings that must pass, near misses that must fail."""

from __future__ import annotations

import re
from collections.abc import Iterator

Triple = tuple[str, str, bool]

_INTEGER = re.compile(r"-?\d+")
_FRACTION = re.compile(r"(-?)\\d?frac\{(\d+)\}\{(\d+)\}")
_TUPLE = re.compile(r"\\?(?:left)?([(\[])(.+)\\?(?:right)?([)\]])")


def bare(gold: str) -> str:
    """Gold without dollar signs around it."""
    text = gold.strip()
    return text[1:-1].strip() if text.startswith("$") and text.endswith("$") and text.count("$") == 2 else text


def triples_of(gold: str) -> Iterator[Triple]:
    """All triples of one gold answer."""
    text = bare(gold)
    if not text or text.endswith(":"):  # a blank and a garbled gold answer are in the data
        return
    if re.fullmatch(r"[A-Z]", text):
        yield from _choice(text, gold)
        return
    for prediction in (text, f"${text}$", f"\\boxed{{{text}}}", f"The answer is ${text}$.", f"  {text} ", f"{text}."):
        yield prediction, gold, True
    if _INTEGER.fullmatch(text):
        yield from _integer(int(text), gold)
    elif match := _FRACTION.fullmatch(text):
        yield from _fraction(int(match[1] + match[2]), int(match[3]), gold)
    elif _is_expression(text):
        yield from _expression(text, gold)
    elif (match := _TUPLE.fullmatch(text)) and "," in text:
        yield from _brackets(text, gold)


def _choice(letter: str, gold: str) -> Iterator[Triple]:
    other = "A" if letter != "A" else "B"
    for prediction in (
        letter,
        f"({letter})",
        f"{letter}.",
        f"\\text{{{letter}}}",
        f"\\boxed{{{letter}}}",
        f"{letter}: because",
    ):
        yield prediction, gold, True
    for prediction in (other, f"({other})", f"\\boxed{{{other}}}", f"{letter} or {other}", f"{letter}{other}", "none"):
        yield prediction, gold, False


def _integer(number: int, gold: str) -> Iterator[Triple]:
    forms = [
        f"{number}.0",
        f"\\frac{{{2 * number}}}{{2}}",
        f"{number} \\text{{ units}}",
        f"x = {number}",
        f"{number - 1}+1",
        f"0{number}",
    ]
    if abs(number) >= 1000:
        forms += [f"{number:,}", f"{number:,}".replace(",", "{,}")]
    if number < 0:
        forms.remove(f"0{number}")
    for prediction in forms:
        yield prediction, gold, True
    misses = [
        f"{number + 1}",
        f"{number - 1}",
        f"{number}.5",
        f"{number}1",
        f"{number} or {number + 1}",
        f"{number}, {number + 2}",
    ]
    misses += [
        f"\\frac{{{number}}}{{7}}",
        f"{number}x",
        f"{number}+i",
        f"\\{{{number}, {number + 1}\\}}",
        "",
        "unknown",
    ]
    if number != 0:
        misses += [
            f"{-number}",
            f"{number}^2" if number != 1 else "2^1",
            f"{number}e3",
            f"\\sqrt{{{number + 1}}}" if number not in (0, 1) else "7",
        ]
        misses.remove(f"\\frac{{{number}}}{{7}}")
        misses.append(f"\\frac{{{number}}}{{7}}")
    else:
        misses = [miss for miss in misses if miss not in ("\\frac{0}{7}", "0x")]
    for prediction in misses:
        yield prediction, gold, False


def _fraction(top: int, bottom: int, gold: str) -> Iterator[Triple]:
    forms = [
        f"{top}/{bottom}",
        f"\\dfrac{{{top}}}{{{bottom}}}",
        f"\\frac{{{3 * top}}}{{{3 * bottom}}}",
        f"x=\\frac{{{top}}}{{{bottom}}}",
    ]
    if 10**6 * top % bottom == 0:
        forms.append(f"{top / bottom:.6f}")
    for prediction in forms:
        yield prediction, gold, True
    misses = [
        f"\\frac{{{top + 1}}}{{{bottom}}}",
        f"\\frac{{{-top}}}{{{bottom}}}",
        f"\\frac{{{top}}}{{{bottom + 1}}}",
        f"{top}",
        f"{top}{bottom}",
    ]
    misses += [f"{top / bottom + 0.01:.2f}", f"({top}, {bottom})"]
    if abs(top) != bottom:
        misses.append(f"\\frac{{{bottom}}}{{{top}}}")
    if 10**6 * top % bottom:
        misses.append(f"{top / bottom:.3f}")  # a rounded value is not the exact one
    for prediction in misses:
        yield prediction, gold, False


def _is_expression(text: str) -> bool:
    if re.search(r"[,=<>]|\\(?:le|ge|in|cup|text|infty|begin|circ|quad|pm|mp|%|!|\$)|_|[(\[]$|!|:|%|\^\{?\\circ", text):
        return False
    words = re.sub(r"\\[a-zA-Z]+", "", text)
    return not re.search(r"[a-zA-Z]{2,}", words)


def _expression(text: str, gold: str) -> Iterator[Triple]:
    for prediction in (
        f"0+{text}" if not text.startswith("-") else f"0{text}",
        f"\\left({text}\\right)",
        f"{text}+1-1",
    ):
        yield prediction, gold, True
    for prediction in (f"{text}+1", f"2\\left({text}\\right)", f"-\\left({text}\\right)", f"\\left({text}\\right)^2+7"):
        yield prediction, gold, False


def _brackets(text: str, gold: str) -> Iterator[Triple]:
    inside = text.replace("\\left", "").replace("\\right", "").strip()
    if (
        "cup" in inside
        or inside[0] not in "(["
        or inside[-1] not in ")]"
        or re.search(r"[(\[{]", inside[1:-1].replace("\\frac{", ""))
    ):
        return
    parts = [part.strip() for part in inside[1:-1].split(",")]
    yield f"\\left{inside[0]}{', '.join(parts)}\\right{inside[-1]}", gold, True
    yield f"{inside[0]}{','.join(parts)}{inside[-1]}", gold, True
    if len(set(parts)) == len(parts):
        yield f"{inside[0]}{', '.join(reversed(parts))}{inside[-1]}", gold, False
    yield f"{inside[0]}{', '.join([*parts, '17'])}{inside[-1]}", gold, False
    closed = {"(": "[", "[": "("}[inside[0]]
    if len(parts) == 2 and "infty" not in parts[0]:
        yield f"{closed}{', '.join(parts)}{inside[-1]}", gold, False
