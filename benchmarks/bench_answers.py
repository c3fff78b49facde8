"""Grading right: false positives and false negatives, beside math-verify alone, on labelled pairs of answers.

Suites:
* written: what models and books write, by kind (`benchmarks.written_answers`);
* hostile: wrong answers that a policy under reward might learn (`benchmarks.hostile_answers`);
* golds (--data): gold answers of JSONL files against themselves in other words, and each against others;
* math-verify (--math-verify): the pairs of math-verify's own tests, read from a checkout of its repository.

Both graders get the completion's extracted answer where the pair is a completion. math-verify gets dollar signs around
both, its default configuration and its own time limit.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Session
from benchmarks.hostile_answers import hostile_answers
from benchmarks.records import write_records
from benchmarks.written_answers import written_answers
from lapha.evaluation import GraderPool, extract_answer
from lapha.evaluation.grading import read_form

PROSE = "math-verify's tests"


@dataclass(frozen=True)
class Case:
    """A labelled pair: an answer or a completion, and the gold answer."""

    text: str
    gold: str
    same: bool
    kind: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="JSONL files whose 'answer' fields to use")
    parser.add_argument("--math-verify", type=Path, default=None, help="a checkout of math-verify's repository")
    parser.add_argument("--list", action="store_true", help="print every pair on which lapha is wrong")


def run(args: argparse.Namespace, session: Session) -> None:
    suites: dict[str, list[Case]] = {
        "written": [Case(w.text, w.gold, w.same, w.kind) for w in written_answers()],
        "hostile": [Case(h.answer, h.gold, False, h.kind) for h in hostile_answers()],
    }
    if args.data:
        suites["golds"] = list(_from_files(args.data))
    if args.math_verify is not None:
        suites[PROSE] = list(_from_tests(args.math_verify))
    for name, cases in suites.items():
        chosen = cases[:: 20 if args.sizes == "smoke" else 1]
        prose = name == PROSE
        answers = [_answer(case.text, prose) for case in chosen]
        for grader, verdicts in (("lapha", _lapha(chosen, answers)), ("math-verify", _math_verify(chosen, answers))):
            _report(session, name, grader, chosen, verdicts, show=args.list and grader == "lapha")


def _answer(text: str, prose: bool) -> str:
    """The answer that a completion gives; a text that is an answer is its own. In prose, the last mathematics may be it."""
    found = extract_answer(text)
    if found is None and prose and not read_form(text).readings:
        found = extract_answer(text, anywhere=True)
    return text if found is None else found


def _lapha(cases: list[Case], answers: list[str]) -> list[bool | None]:
    golds = [case.gold if len(case.gold) < 200 else _answer(case.gold, True) for case in cases]
    with GraderPool(workers=2) as pool:
        return [verdict.correct for verdict in pool.grade(list(zip(answers, golds)))]


def _math_verify(cases: list[Case], answers: list[str]) -> list[bool | None]:
    from math_verify import parse, verify

    def read(text: str) -> list[Any]:
        return parse(text if "$" in text or "\\boxed" in text else f"${text}$")

    return [bool(verify(read(case.gold), read(answer))) for case, answer in zip(cases, answers)]


def _from_files(paths: Iterable[Path]) -> Iterator[Case]:
    rng = random.Random(0)
    for path in paths:
        lines = path.read_text(encoding="utf-8").splitlines()
        golds = [gold for gold in (str(json.loads(line)["answer"]) for line in lines) if gold.strip()]
        for gold in golds:
            bare = gold.strip().removeprefix("$").removesuffix("$") if gold.count("$") == 2 else gold
            for form in ("\\boxed{{{}}}", "The answer is ${}$.", "**${}$**"):
                if "$" not in bare.replace("\\$", ""):
                    yield Case(form.format(bare), gold, True, "respelled")
        numbers = {gold: read_form(gold).key for gold in golds}
        for gold in golds:
            other = rng.choice(golds)
            if numbers[other] != numbers[gold]:
                yield Case(other, gold, False, "another gold answer")


def _from_tests(checkout: Path) -> Iterator[Case]:
    """(gold, prediction, expected) of the parametrized tests; their options are left out."""
    for path in sorted((checkout / "tests").glob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                for call in filter(_is_parametrize, function.decorator_list):
                    yield from _cases(call, function.name)  # type: ignore[arg-type]


def _is_parametrize(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and "parametrize" in ast.unparse(node.func)


def _cases(call: ast.Call, name: str) -> Iterator[Case]:
    try:
        names, rows = ast.literal_eval(call.args[0]), ast.literal_eval(call.args[1])
    except ValueError:  # not written out
        return
    names = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
    label = "result" if "result" in names else "expected"
    if {"gold", "pred", label} <= set(names):
        for row in rows:
            values = dict(zip(names, row))
            yield Case(values["pred"], values["gold"], bool(values[label]), name)


def _report(
    session: Session, suite: str, grader: str, cases: list[Case], verdicts: list[bool | None], *, show: bool
) -> None:
    wrong = [(case, verdict) for case, verdict in zip(cases, verdicts) if verdict is not case.same]
    counts: Callable[[bool], int] = lambda same: sum(case.same is same for case in cases)  # noqa: E731
    record = {
        "name": f"answers, {suite}",
        "grader": grader,
        "shape": {"same": counts(True), "different": counts(False)},
        "false_positives": sum(verdict is True for case, verdict in wrong if not case.same),
        "false_negatives": sum(verdict is not True for case, verdict in wrong if case.same),
        "ungradable": sum(verdict is None for verdict in verdicts),
        "accuracy": round(1 - len(wrong) / len(cases), 4),
        "wrong_by_kind": dict(Counter(case.kind for case, _ in wrong)),
    }
    write_records([{**session.facts, "suite": session.suite, "dtype": "text", **record}], session.output)
    print(f"{suite}, {grader}: " + ", ".join(f"{key} {record[key]}" for key in list(record)[2:]), flush=True)
    if show:
        for case, verdict in wrong:
            print(f"  {verdict} for {case.text[-120:]!r}, gold {case.gold[:80]!r}")
