"""Gold answers that no prediction could match: found when the data is read, before a model is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lapha.evaluation.grading.forms import read_form
from lapha.evaluation.grading.parsing import parsable
from lapha.evaluation.grading.verdicts import plain_verdict


def gold_fault(gold: str) -> str | None:
    """What is wrong with a gold answer, or None: it is empty, broken, or only its own spelling can match it."""
    if not gold.strip():
        return "empty"
    bare = re.sub(r"\\.", "", gold)
    if bare.count("$") % 2 or bare.count("{") != bare.count("}"):
        return "broken: a delimiter or a brace is missing"
    if re.search(r"[:=,]\s*\$?\s*$", bare):
        return "broken: it ends in the middle"
    verdict = plain_verdict(gold, gold)
    if verdict is not None and not verdict.correct:
        return "not equal to itself"
    if not read_form(gold).readings and parsable(gold) is None:
        return "not understood: only its own spelling will match it"
    return None


def gold_faults(golds: Sequence[str], *, strict: bool = False, source: str = "data") -> list[str]:
    """One line per gold answer that is at fault, such as ``"problem 17: empty"``; places count from 0.

    Args:
        golds: gold answers.
        strict: refuse them.
        source: where they are from, for the message.

    Raises:
        ValueError: `strict`, and at least one is empty or broken, or does not equal itself.
    """
    found = [(place, gold, fault) for place, gold in enumerate(golds) if (fault := gold_fault(gold)) is not None]
    lines = [f"problem {place}: {fault}" + (f" ({gold[:60]})" if gold.strip() else "") for place, gold, fault in found]
    hopeless = [line for line, (_, _, fault) in zip(lines, found) if not fault.startswith("not understood")]
    if strict and hopeless:
        raise ValueError(f"data: expected gold answers that can be matched, got in {source}: {'; '.join(hopeless[:5])}")
    return lines
