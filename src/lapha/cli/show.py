"""``lapha show``: a run read in the terminal."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

_MARKS = {True: "right", False: "wrong", None: "ungradable"}


def show(
    run: Annotated[Path, typer.Argument(help="Folder that `lapha eval` wrote.")],
    problem: Annotated[int | None, typer.Argument(help="A problem's number; none for the list of all.")] = None,
    mode: Annotated[str | None, typer.Option(help="This mode alone.")] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="Only problems that a mode got wrong.")] = False,
) -> int:
    """Read a run: its problems with each mode's verdict, or one problem with everything that was written for it."""
    from lapha._checks import check
    from lapha.evaluation.results import read_graded

    graded = read_graded(run)
    modes = [name for name in graded.scores if mode in (None, name)]
    check(bool(modes), "mode", "one of " + ", ".join(graded.scores), mode)
    lines = _list(graded, modes, wrong) if problem is None else _problem(graded, modes, problem)
    typer.echo("\n".join(lines))
    return 0


def _list(graded: Any, modes: list[str], wrong: bool) -> list[str]:
    from lapha.evaluation.run_folder import read_problems

    problems = read_problems(graded.folder)
    verdicts = {(m, o.index): _verdict(graded, o) for m in modes for o in graded.outcomes[m]}
    lines = ["  ".join(["problem", *(f"{m:>10}" for m in modes), "question"])]
    for index in sorted({index for _, index in verdicts}):
        row = [verdicts.get((m, index), "–") for m in modes]
        if not wrong or "wrong" in row:
            question = " ".join(problems.get(index, ("", None))[0].split())
            lines.append("  ".join([f"{index:>7}", *(f"{word:>10}" for word in row), textwrap.shorten(question, 60)]))
    return lines


def _verdict(graded: Any, outcome: Any) -> str:
    if outcome.error is not None:
        return "failed"
    if outcome.answer is None:
        return "no answer"
    return _MARKS[graded.verdicts[outcome.index, outcome.answer].correct]


def _problem(graded: Any, modes: list[str], problem: int) -> list[str]:
    from lapha._checks import check
    from lapha.evaluation.completions import read_completions
    from lapha.evaluation.run_folder import read_problems

    texts = read_completions(graded.folder)
    question, gold = read_problems(graded.folder).get(problem, ("", None))
    chosen = [(m, o) for m in modes for o in graded.outcomes[m] if o.index == problem]
    check(bool(chosen), "problem", "the number of a problem of this run", problem)
    lines = [
        f"problem {problem}",
        "",
        question,
        "",
        f"gold answer: {gold if gold is not None else 'any that is right'}",
    ]
    for name, outcome in chosen:
        lines += ["", f"== {name}: {outcome.answer} ({_verdict(graded, outcome)}), {outcome.tokens} tokens"]
        lines += [outcome.error] if outcome.error else []
        written = texts.get((name, problem), [])
        for place, text in enumerate(written):
            answer = outcome.answers[place] if place < len(outcome.answers) else None
            said = graded.verdicts.get((problem, answer)) if answer is not None else None
            lines += [
                "",
                f"-- {place + 1} of {len(written)}: {answer} ({_MARKS[said.correct] if said else 'no answer'})",
            ]
            lines += [text.strip()]
    return lines
