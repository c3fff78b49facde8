"""Finding the final answer in a completion, and writing answers in one canonical way. Strings only, no SymPy."""

from __future__ import annotations

import re

_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_ANSWER_IS = re.compile(r"(?:final\s+)?answer\s*(?:is|:|=)\s*:?\s*(.+?)(?:\.\s|\.?\s*$)", re.IGNORECASE | re.MULTILINE)
_INLINE_MATH = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BOXED = re.compile(r"\\f?boxed\s*(?=\{)")


def extract_answer(text: str) -> str | None:
    """The final answer that a completion gives: the last ``<answer>``, ``\\boxed{…}`` or "answer is …", else None."""
    tagged = _ANSWER_TAG.findall(text)
    if tagged:
        inside = tagged[-1].strip()
        return last_boxed(inside) or inside or None
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    said = _ANSWER_IS.findall(text)
    return said[-1].strip() or None if said else None


def last_boxed(text: str) -> str | None:
    """Contents of the last ``\\boxed{…}`` whose braces balance, or None."""
    for match in reversed(list(_BOXED.finditer(text))):
        end = _closing_brace(text, match.end())
        if end is not None:
            return text[match.end() + 1 : end].strip()
    return None


def _closing_brace(text: str, start: int) -> int | None:
    depth = 0
    index = start
    while index < len(text):
        if text[index] == "\\":
            index += 1
        elif text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
        index += 1
    return None


def core(answer: str) -> str:
    """The answer without the words around it: the boxed part, or the only piece of inline mathematics, or all of it."""
    boxed = last_boxed(answer)
    if boxed is not None:
        return boxed
    pieces = [next(filter(None, groups)) for groups in _INLINE_MATH.findall(answer)]
    if len(pieces) == 1:
        outside = _INLINE_MATH.sub(" ", answer)
        # "3 $\pi$" is one answer; "The area is $3$." is an answer in a sentence
        if not re.search(r"[0-9=<>+*/^()\[\]{}-]", outside):
            return pieces[0].strip()
    return answer.strip()


_UNWRAP = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname|bf|rm)\s*\{([^{}]*)\}")
_DELETE = re.compile(
    r"\\left(?![a-z])|\\right(?![a-z])|(?<!\\)\\[!,;:> ]|\\q?quad(?![a-z])|~|\^\s*\{?\s*\\circ\s*\}?|\\degree|°"
    r"|\\displaystyle|\\limits|\\?\$"
)
_REPLACE = (
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\\(|\\\)|\\\[|\\\]"), ""),
    (re.compile(r"\{,\}"), ""),
    (re.compile(r"\\leq(?![a-z])"), r"\\le"),
    (re.compile(r"\\geq(?![a-z])"), r"\\ge"),
    (re.compile(r"\\neq(?![a-z])"), r"\\ne"),
    (re.compile(r"\\lbrace|\\\{"), r"\\{"),
    (re.compile(r"\\rbrace|\\\}"), r"\\}"),
    (re.compile(r"−|–"), "-"),
    (re.compile(r"π|(?<![\\A-Za-z])pi(?![A-Za-z])"), r"\\pi"),
    (re.compile(r"(?<![\\A-Za-z])sqrt\s*(?:\(([^()]+)\)|(\d+))"), r"\\sqrt{\1\2}"),
    (re.compile(r"∞"), r"\\infty"),
    (re.compile(r"√\s*(\d+)"), r"\\sqrt{\1}"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*\{([^{}]+)\}\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{([^{}]+)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"(?<![\d.])\.(?=\d)"), "0."),
)
_THOUSANDS = re.compile(r"-?\s?\d{1,3}(?:(?:,\d{3})+| \d{3}(?: \d{3})*)(?:\.\d+)?")
_NEEDLESS_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # between two numbers it keeps them two: "1 1/2", "2 3"
_DECIMAL_ZEROS = re.compile(r"(\d+\.\d*?)0+(?!\d)")
_NAMED = re.compile(r"[A-Za-z] ?(?:\( ?[a-z] ?\))? ?= ?([^=<>]+)")


def tidy(answer: str) -> str:
    """LaTeX with its spelling variants made one: spacing, fractions, text commands, degrees, signs."""
    text = core(answer).strip().rstrip(".")
    for _ in range(3):
        text = _UNWRAP.sub(r" \1 ", text)
    for pattern, replacement in _REPLACE:
        text = pattern.sub(replacement, text)
    return re.sub(r"\s+", " ", _DELETE.sub(" ", text)).strip().rstrip(".").strip()


def normalise(answer: str) -> str:
    """A string that two spellings of the same answer share. Equal results mean equal answers, not the reverse."""
    text = tidy(answer)
    if re.fullmatch(r"[A-Za-z][A-Za-z '-]+", text):
        return re.sub(r"\s+", " ", text).casefold()
    named = _NAMED.fullmatch(text)
    if named:
        text = named[1]
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "").replace(" ", "")
    text = _NEEDLESS_SPACE.sub("", text)
    text = _DECIMAL_ZEROS.sub(lambda match: match[1].rstrip("."), text)
    return text.rstrip(".")
