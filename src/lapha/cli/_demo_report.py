"""The demo's table and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lapha.evaluation.intervals import paired_interval

_WORDS = {
    "single": "one greedy chain",
    "react": "one sampled chain",
    "value": "value-guided search",
    "majority": "majority vote, same tokens",
    "best-of-n": "best of n by v̂, same tokens",
}
_COLUMNS = ("mode", "what it does", "before", "after", "change", "any right", "answers", "tokens/problem", "s/problem")


def table_rows(before: Any, after: Any) -> list[list[str]]:
    """One row per mode; without `after` (interrupted) its cells are empty."""
    rows = []
    for mode, first in before.scores.items():
        last = after.scores[mode] if after is not None else None
        shown = last or first
        rows.append(
            [
                mode,
                _WORDS[mode],
                first.accuracy.percent(),
                last.accuracy.percent() if last is not None else "",
                _change(first, last),
                f"{100 * shown.any_correct.mean():.1f} %",
                f"{shown.samples:.1f}",
                f"{shown.tokens:.0f}",
                f"{shown.seconds:.2f}",
            ]
        )
    return rows


def print_table(before: Any, after: Any) -> None:
    """The table on standard output, narrow enough for 80 columns."""
    from rich.table import Table

    from lapha.cli._progress import console

    table = Table(title="Accuracy on held-out problems, in %, with 95 % intervals", title_justify="left", box=None)
    for column in ("mode", "before", "after", "change", "tokens", "seconds"):
        table.add_column(column, justify="left" if column == "mode" else "right", no_wrap=True)
    for mode, first in before.scores.items():
        last = after.scores[mode] if after is not None else None
        shown = last or first
        table.add_row(
            mode,
            _short(first.accuracy),
            _short(last.accuracy) if last is not None else "",
            _change(first, last),
            f"{shown.tokens:.0f}",
            f"{shown.seconds:.2f}",
            style="bold" if mode == "value" else None,
        )
    console(stderr=False).print(table)
    console(stderr=False).print(
        "tokens and seconds per problem; majority and best-of-n get at least the tokens of value", style="dim"
    )


def _short(interval: Any) -> str:
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def _change(first: Any, last: Any) -> str:
    """The paired difference; empty without a second evaluation."""
    if last is None:
        return ""
    found = paired_interval(first.correct, last.correct)
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.0f}, {100 * found.high:+.0f}]"


def write_demo_report(
    path: Path,
    settings: Any,
    before: Any,
    after: Any,
    history: list[dict[str, float]],
    grade: Any,
    minutes: float,
) -> Path:
    """Write the demo's page and return its path."""
    from lapha.evaluation.provenance import environment_record
    from lapha.viz import Page, Section, Table, write_page

    last = after or before
    rows = table_rows(before, after)
    sections = [
        Section(
            "Accuracy before and after training",
            "Every mode answers the same held-out problems. Majority vote and best-of-n sample independent chains until "
            "they have used at least the tokens that the search used on the same problem.",
            [
                Table(
                    _COLUMNS,
                    rows,
                    "“any right”: share of problems with a right answer among all that the mode produced. "
                    "“any right”, answers, tokens and seconds are those of the last evaluation.",
                    emphasized=[index for index, row in enumerate(rows) if row[0] == "value"],
                )
            ],
        ),
        *_learning(history),
        Section("Accuracy against cost", "", _cost_curves(before, after)),
        _value_section(last),
    ]
    versions = ", ".join(f"{name} {value}" for name, value in environment_record().items() if value is not None)
    value = last.scores["value"].accuracy
    facts = {
        "single, before": _percent(before.scores["single"].accuracy.mean),
        "single, after": _percent(after.scores["single"].accuracy.mean) if after is not None else "–",
        "search, before": _percent(before.scores["value"].accuracy.mean),
        "search, after": _percent(value.mean) if after is not None else "–",
        "minutes": f"{minutes:.1f}",
    }
    subtitle = (
        f"An embedded policy trained with tree rollouts and shaped rewards: {len(history)} steps of {settings.trees} trees, "
        f"{settings.problems} held-out problems, {settings.simulations} simulations, seed {settings.seed}."
    )
    phases = {"before": before} | ({"after": after} if after is not None else {})
    page = Page(
        "lapha demo",
        subtitle,
        facts,
        sections,
        runs=[_problems(name, phase, grade) for name, phase in phases.items()],
        trees=_trees(last, grade, len(phases) - 1),
        training={"demo": _metrics(history)} if history else {},
        footer=versions,
    )
    return write_page(page, path)


def _problems(name: str, phase: Any, grade: Any) -> Any:
    from lapha.evaluation.page import problems_of

    texts = {index: (question, None) for index, question in enumerate(phase.questions)}
    return problems_of(name, phase.outcomes, lambda index, answer: grade([(index, answer)])[0], texts)


def _metrics(history: list[dict[str, float]]) -> dict[str, tuple[list[float], list[float]]]:
    names = dict.fromkeys(name for entry in history for name in entry if name != "step")
    return {
        name: ([e["step"] for e in history if name in e], [e[name] for e in history if name in e]) for name in names
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _learning(history: list[dict[str, float]]) -> list[Any]:
    from lapha.viz import Curve, Section, learning_curve

    def curves(names: dict[str, str]) -> dict[str, Any]:
        found = {}
        for key, name in names.items():
            points = [(entry["step"], entry[key]) for entry in history if np.isfinite(entry.get(key, np.nan))]
            if points:
                found[name] = Curve(*zip(*points))
        return found

    accuracy = curves(
        {
            "lapha/leaf_accuracy": "leaves that are right",
            "lapha/pass_at_1": "pass@1 by v̂",
            "lapha/solved_trees": "trees with a right leaf",
        }
    )
    losses = curves({"lapha/value_loss": "value loss (MSE)", "lapha/potential_std": "spread of V"})
    charts = [learning_curve(group, ylabel=label) for group, label in ((accuracy, "share"), (losses, "")) if group]
    if not charts:
        return []
    return [Section("Learning curve", "Training trees, running means over the steps.", charts)]


def _cost_curves(before: Any, after: Any) -> list[Any]:
    from lapha.viz import Curve, accuracy_curve

    phases = {"before": before} | ({"after": after} if after is not None else {})
    by_simulations = {
        f"search, {phase}": Curve(
            found.simulations,
            [i.mean for i in found.accuracy],
            [i.low for i in found.accuracy],
            [i.high for i in found.accuracy],
        )
        for phase, found in phases.items()
    }
    last = after or before
    by_tokens = {"search": Curve(last.tokens, [i.mean for i in last.accuracy])}
    for mode in ("single", "react", "majority", "best-of-n"):
        score = last.scores[mode]
        by_tokens[mode] = Curve([score.tokens], [score.accuracy.mean], [score.accuracy.low], [score.accuracy.high])
    rewound = "From one search per problem, rewound to fewer simulations; bands are 95 % intervals."
    spent = "The last evaluation, at the tokens that each mode sampled."
    return [
        accuracy_curve(by_simulations, caption=rewound),
        accuracy_curve(by_tokens, xlabel="tokens per problem", caption=spent),
    ]


def _trees(last: Any, grade: Any, run: int, count: int = 24) -> list[Any]:
    """Searches that show most: right and wrong answers in balance, and found by the head."""
    from lapha.cli._pictures import picture_of
    from lapha.shaping import mark_correct
    from lapha.viz import PageTree

    found = []
    for result in telling_trees(last.results, grade)[:count]:
        right = mark_correct(
            result.tree, lambda question, answer, index=result.index: float(bool(grade([(index, answer)])[0]))
        )
        title = f"problem {result.index}: {result.question}"
        picture = picture_of(result, correct=right.correct, title=title)
        found.append(PageTree(picture, title, run=run, index=result.index))
    return found


def telling_trees(results: list[Any], grade: Any) -> list[Any]:
    """Searches that found a right answer; those that show most come first."""
    scored = []
    for result in results:
        answers = [result.tree.answer[leaf] for leaf in result.tree.answered()]
        if result.latents is None or not answers:
            continue
        right = float(np.mean([bool(verdict) for verdict in grade([(result.index, answer) for answer in answers])]))
        chosen = bool(grade([(result.index, result.answer)])[0])
        if right > 0:
            scored.append((-(right * (1 - right) + 0.1 * chosen), result.index, result))
    return [result for _, _, result in sorted(scored, key=lambda entry: entry[:2])]


def _value_section(last: Any) -> Any:
    from lapha.viz import Section, reliability_diagram

    score = last.scores["value"]
    if not len(score.predicted):
        return Section("How far v̂ can be trusted", "No search of this run answered.")
    found = score.calibration
    text = (
        f"Over {found.count} answers of the searches: AUC {found.auc:.3f} (0.5 is chance), Brier score {found.brier:.3f}, "
        f"expected calibration error {found.ece:.3f}."
    )
    chart = reliability_diagram(score.predicted, score.outcome, caption="Share of right answers by v̂ of the leaf.")
    return Section("How far v̂ can be trusted", text, [chart])
