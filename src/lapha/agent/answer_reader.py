"""Reading a final answer from what a model wrote in its own way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

_BOXED = re.compile(r"\\boxed\s*\{")
_MARKED = re.compile(r"^\s*####\s*(.+?)\s*$", re.MULTILINE)
_TAGGED = re.compile(r"<answer>\s*(.+?)\s*(?:</answer>|$)", re.IGNORECASE | re.DOTALL)
_SAID = re.compile(
    r"\banswer(?:\s+to\s+[^.\n]{1,60}?)?\s*(?:is|:|=)\s*(?:\*\*|:)?\s*([^\n]{1,80}?)\s*(?:\*\*)?\s*(?:\.(?=\s|$)|\n|$)",
    re.IGNORECASE,
)


def read_answer(text: str) -> str | None:
    """The final answer in `text`, or None where it gives none.

    In this order, of each kind the last: ``\\boxed{…}``, ``<answer>…</answer>`` (closed or not, any case), a line
    ``#### …``, a JSON object with the key ``answer``, and "the answer is …".
    """
    for read in (_boxed, _last(_TAGGED), _last(_MARKED), _json, _last(_SAID)):
        answer = read(text)
        if answer is not None and answer.strip():
            return answer.strip().strip("*").strip()
    return None


def _last(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    def read(text: str) -> str | None:
        found = pattern.findall(text)
        return found[-1] if found else None

    return read


def _boxed(text: str) -> str | None:
    """The last box whose braces close, without them."""
    for opening in reversed(list(_BOXED.finditer(text))):
        depth = 1
        for place in range(opening.end(), len(text)):
            depth += (text[place] == "{") - (text[place] == "}")
            if depth == 0:
                return text[opening.end() : place]
    return None


def _json(text: str) -> str | None:
    for start in (match.start() for match in reversed(list(re.finditer(r"\{", text))[-20:])):
        try:
            value, _ = json.JSONDecoder().raw_decode(text[start:])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and "answer" in value:
            answer = value["answer"]
            return answer if isinstance(answer, str) else json.dumps(answer)
    return None
