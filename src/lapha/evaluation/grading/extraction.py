"""Finding the final answer in a completion. Strings only."""

from __future__ import annotations

import re

from lapha._typed import typed

_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox|boxed\*)(?![A-Za-z])\s*")
_BARE = re.compile(r"\\[A-Za-z]+(?:\{[^{}]*\})*|[+-]?[0-9][0-9.,]*|[^\s\\{}$]")  # what an unbraced box holds
_HASHES = re.compile(r"^\s*####\s*(.+?)\s*$", re.MULTILINE)
_MARKS = r"[*_`\s]*"
_ANSWER_IS = re.compile(
    rf"(?:\banswer{_MARKS}(?:is{_MARKS}:?|[:=]){_MARKS}|\banswer{_MARKS}\n+{_MARKS}|\banswer\s+(?=\$|\\[(\[])|答案{_MARKS}[是为:：]+{_MARKS})(?P<said>\S[^\n]*)",
    re.IGNORECASE,
)
_FINAL = re.compile(r"final answer(?:\s+is)?\s*:\s*(?P<said>(?=[^\n]*[0-9$])\S[^\n]*)", re.IGNORECASE)
_SAID = re.compile(
    r"(?:The|It|So|There|Thus|Therefore|Hence|final)\b.*?\b(?:is|are|equals)\s+(?=[^\s])(?!.*\b(?:is|are|equals)\s)(.+)",
    re.DOTALL,
)
_SENTENCE = re.compile(r"\.(?:\s+(?=\S)|\s*$)")
_WORTHLESS = re.compile(r"[*_`:\s]+")
_JOINING = re.compile(
    r"(?:[\s$,;&]|\\[,;:! ()\[\]]|\\q?quad|\\text\{\s*(?:and|or|,)\s*\}|\b(?:and|or)\b|和|或|(?<![A-Za-z])[A-Za-z](?:_\{?\w\}?)?\s*=)*"
)
_INLINE_MATH = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)


@typed
def extract_answer(text: str, *, anywhere: bool = False) -> str | None:
    """The final answer that a completion gives, or None.

    In this order: the last ``<answer>…</answer>``; the last ``\\boxed{…}`` (also ``\\fbox{…}``, ``\\boxed 5``), with those
    that stand beside it as a list; ``#### …``; what follows "answer is", "Answer:" or "答案：", Markdown around it left out.
    A box that is not closed is no answer, and no earlier one is taken in its place.

    Args:
        text: the completion.
        anywhere: where nothing marks an answer, take the last mathematics between dollar signs, or the last number.
    """
    tagged = _ANSWER_TAG.findall(text)
    if tagged:
        inside = tagged[-1].strip()
        return boxed_answer(inside) or inside or None
    if _BOX.search(text):
        last = list(_BOX.finditer(text))[-1].end()
        after = [match["said"] for match in _FINAL.finditer(text, last)]
        return (_first_sentence(after[-1]) if after else None) or boxed_answer(text)
    for found in (_HASHES.findall(text), [_said(text, match) for match in _ANSWER_IS.finditer(text)]):
        if found and (answer := _first_sentence(found[-1])):
            return answer
    return _anywhere(text) if anywhere else None


def _said(text: str, match: re.Match[str]) -> str:
    """What follows "answer is": the rest of the line, or mathematics that begins there."""
    math = _INLINE_MATH.match(text, match.start("said"))
    return math[0] if math and math.end() > match.end("said") else match["said"]


def boxed_answer(text: str) -> str | None:
    """Contents of the last box; of several boxes side by side, the list of what is in them, or the tuple."""
    boxes = [_contents(text, match.end()) for match in _BOX.finditer(text)]
    starts = [match.start() for match in _BOX.finditer(text)]
    if not boxes or boxes[-1] is None:
        return None
    chosen = [len(boxes) - 1]
    while (first := chosen[0]) > 0 and (before := boxes[first - 1]) is not None:
        between = text[before[1] : starts[first]]
        if starts[first] < before[1] or not _JOINING.fullmatch(between):
            break
        chosen.insert(0, first - 1)
    found = [(boxes[place] or ("", 0))[0] for place in chosen]
    distinct = list(dict.fromkeys(found))
    if len(distinct) == 1:
        return distinct[0] or None
    names = [_name_before(text[: starts[place]]) for place in chosen]
    if all(names):
        return ", ".join(f"{name} = {value}" for name, value in zip(names, found))
    opening, closing = text[: starts[chosen[0]]].rstrip()[-1:], text[(boxes[-1] or ("", 0))[1] :].lstrip()[:1]
    return f"({', '.join(found)})" if (opening, closing) == ("(", ")") else ", ".join(distinct)


def _name_before(text: str) -> str:
    match = re.search(r"(?<![A-Za-z])([A-Za-z](?:_\{?\w\}?)?)\s*=\s*\$?$", text[-20:])
    return match[1] if match else ""


def last_boxed(text: str) -> str | None:
    """Contents of the last box alone, or None."""
    matches = list(_BOX.finditer(text))
    found = _contents(text, matches[-1].end()) if matches else None
    return None if found is None else found[0]


def _contents(text: str, start: int) -> tuple[str, int] | None:
    """(what a box holds, where it ends); None where it is not closed."""
    if text[start : start + 1] != "{":
        match = _BARE.match(text, start)
        return None if match is None else (match[0].rstrip(".,"), match.end())
    depth, index = 0, start
    while index < len(text):
        if text[index] == "\\":
            index += 1
        elif text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : index].strip(), index + 1
        index += 1
    return None


def _first_sentence(text: str) -> str:
    """Up to the end of the sentence; full stops in numbers and inside mathematics end none."""
    text = text.strip()
    math = [match.span() for match in _INLINE_MATH.finditer(text)]
    for match in _SENTENCE.finditer(text):
        if not any(start < match.start() < end for start, end in math):
            text = text[: match.start()]
            break
    said = _SAID.fullmatch(text.strip())
    return without_marks(said[1] if said else text)


def without_marks(text: str) -> str:
    """Without Markdown's emphasis and code marks around the whole."""
    text = text.strip()
    while (match := re.fullmatch(r"(\*{1,3}|_{1,3}|`{1,3})(?!\s)(.+?)\1\.?", text, re.DOTALL)) and match[
        1
    ] not in match[2]:
        text = match[2].strip()
    return re.sub(r"^(?:\*\*|__)\s*|\s*(?:\*\*|__)\.?$", "", text).strip()


def _anywhere(text: str) -> str | None:
    pieces = [next(filter(None, groups)) for groups in _INLINE_MATH.findall(text)]
    if pieces:
        return pieces[-1].strip()
    numbers = re.findall(r"(?<![\w.])-?\\?\$?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?%?", text)
    return numbers[-1].rstrip(",") if numbers else None


def core(answer: str) -> str:
    """The answer without the words around it: the boxed part, or the only piece of inline mathematics, or all of it."""
    if _BOX.search(answer):
        boxed = boxed_answer(answer)
        return answer.strip() if boxed is None else boxed
    text = without_marks(answer)
    pieces = [next(filter(None, groups)) for groups in _INLINE_MATH.findall(text)]
    if len(pieces) == 1 and "$" not in pieces[0]:
        outside = _INLINE_MATH.sub(" ", text)
        # "3 $\pi$" is one answer; "The area is $3$." is an answer in a sentence
        if not outside.strip(" .") or _is_introduction(outside):
            return pieces[0].strip()
    return text


_DOUBTS = re.compile(
    r"(?i)\b(?:not|no|never|false|wrong|incorrect|nobody|nothing|neither|nor|unless|if|maybe|perhaps|possibly|guess|either|or|"
    r"doubt|unlikely|impossible|cannot|except|but)\b"
)


def _is_introduction(outside: str) -> bool:
    """Whether words only say that the answer comes: no other number or sign, nothing that takes it back."""
    if re.search(r"[0-9=<>+*/^()\[\]{}%\\-]", outside) or _DOUBTS.search(outside):
        return False
    return bool(
        re.fullmatch(
            r"(?i)\s*(?:so|thus|hence|therefore|then|and)?,?\s*(?:the|its|our)?\s*[A-Za-z ]*?\b(?:is|are|equals?|be|:)\s*:?\s*\.?\s*",
            outside,
        )
    )
