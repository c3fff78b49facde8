"""A grader process: JSON lines in (``[id, prediction, gold]``), JSON lines out (``[id, correct, method, detail]``).

``[id, text, null]`` asks for the canonical form of a text, which is then the reply's detail.
Run by `GraderPool` with ``python -m``; it is killed from outside when an input hangs.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from lapha.evaluation.grading.forms import key_text
from lapha.evaluation.grading.parsing import parsed_reading
from lapha.evaluation.grading.verdicts import Verdict, grade_answer

_MEMORY_LIMIT = 4 << 30


def main() -> None:
    """Answer requests until standard input ends."""
    _limit_memory()
    logging.disable(logging.CRITICAL)
    requests, replies = sys.stdin, os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not get among the replies
    parsed_reading("\\int_0^1 x dx")  # imports and caches now, not in the first problem's time
    replies.write("ready\n")
    replies.flush()
    for line in requests:
        identity, prediction, gold = json.loads(line)
        verdict = _form(prediction) if gold is None else _grade(prediction, gold)
        replies.write(json.dumps([identity, verdict.correct, verdict.method, verdict.detail]) + "\n")
        replies.flush()


def _grade(prediction: str | None, gold: str) -> Verdict:
    try:
        return grade_answer(prediction, gold)
    except Exception as error:  # noqa: BLE001 - the process boundary: counted as ungradable, with its cause
        return Verdict(None, "ungradable", f"{type(error).__name__}: {error}"[:300])


def _form(text: str) -> Verdict:
    try:
        found = parsed_reading(text)
    except Exception as error:  # noqa: BLE001 - the process boundary: logged and counted by the pool, with its cause
        return Verdict(None, "ungradable", f"{type(error).__name__}: {error}"[:300])
    return Verdict(found is not None, "canonical", "" if found is None else key_text(found.key))


def _limit_memory() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # not a Unix
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(_MEMORY_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
