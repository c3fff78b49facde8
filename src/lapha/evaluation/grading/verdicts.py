"""Is a prediction the gold answer? Pure functions, for worker processes: a call of `grade_answer` may hang.

Nothing here imports torch, so that a killed worker's successor is ready soon.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapha._typed import typed
from lapha.evaluation.grading.forms import AnswerForm, read_form, same_form, same_reading


@dataclass(frozen=True)
class Verdict:
    """What grading found.

    Attributes:
        correct: whether the prediction is the gold answer; None where nobody could tell (never counted as wrong).
        method: what decided: ``"choice"``, ``"number"``, ``"string"``, ``"math"``, ``"judge"``, ``"missing"`` (no
            prediction) or ``"ungradable"``.
        detail: why, for people.
    """

    correct: bool | None
    method: str
    detail: str = ""


@typed
def grade_answer(prediction: str | None, gold: str) -> Verdict:
    """Compare one prediction with the gold answer.

    Both are read as values (`lapha.evaluation.grading.forms`). Only where one of them is not read, math-verify's parser is
    asked for its value. May take unboundedly long then: run it in `lapha.evaluation.GraderPool`.
    """
    found = plain_verdict(prediction, gold)
    return _parsed_verdict(prediction or "", gold) if found is None else found


def plain_verdict(prediction: str | None, gold: str) -> Verdict | None:
    """The part of `grade_answer` that needs no parser and cannot hang; None where a parser has to be asked."""
    from lapha.evaluation.grading.parsing import parsable

    if prediction is None or not prediction.strip():
        return Verdict(False, "missing")
    expected, got = read_form(gold), read_form(prediction)
    same = same_form(expected, got)
    if same is not None:
        return Verdict(same, _method(expected, got, same))
    unread = [text for text, form in ((gold, expected), (prediction, got)) if not form.readings]
    if "text" in (expected.kind, got.kind) or "choice" in (expected.kind, got.kind):
        return Verdict(False, "string", "one of the answers is words or a choice, and the spellings differ")
    if any(parsable(text) is None for text in unread):
        return Verdict(False, "string", "not mathematics that is understood, and the spellings differ")
    return None


def _method(expected: AnswerForm, got: AnswerForm, same: bool) -> str:
    if "choice" in (expected.kind, got.kind) and expected.kind != "text":
        return "choice"
    if expected.spelling == got.spelling or any(
        form.kind == "text" and len(form.readings) == 1 for form in (expected, got)
    ):
        return "string"
    numbers = all(
        form.key is not None and form.key[0] == "number" and form.key[1][:1] != "~" for form in (expected, got)
    )
    return "number" if numbers else "math"


def _parsed_verdict(prediction: str, gold: str) -> Verdict:
    from lapha.evaluation.grading.parsing import parsable, parsed_reading

    readings = []
    for answer in (prediction, gold):
        form = read_form(answer)
        text = None if form.readings else parsable(answer)
        found = form.readings if text is None else tuple(filter(None, [parsed_reading(text)]))
        if not found:
            return Verdict(False, "string", "not mathematics that is understood, and the spellings differ")
        readings.append(found)
    return Verdict(any(same_reading(a, b) for a in readings[0] for b in readings[1]), "math")
