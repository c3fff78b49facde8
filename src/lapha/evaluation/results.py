"""Grading a run and writing its tables. Here, after the searches, gold answers are read."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lapha._store import FileProblem, read_lines, replace_file
from lapha._store.lines import encode_line
from lapha.evaluation.comparison import Grade, ModeScore, mode_differences, score_modes
from lapha.evaluation.folders import plain
from lapha.evaluation.grading import Verdict
from lapha.evaluation.modes import MODES, Outcome
from lapha.evaluation.run_folder import (
    CONFIG,
    GRADES,
    RESULTS_CSV,
    RESULTS_JSON,
    RESULTS_MD,
    TREES,
    is_checked,
    outcome_of_record,
    read_config,
    read_records,
)
from lapha.search import SearchResult

# grades many (index, answer) pairs at once
GradeVerdicts = Callable[[Sequence[tuple[int, str]]], list[Verdict]]

JUDGED_BY_POLICY = "The judge is the model under test: it grades its own answers, so what only it could decide is no independent verdict."
BEST_BY_LOGPROB = "There is no value head, so best-of-n takes the chain with the highest mean log-probability a token."

_CSV_COLUMNS = (
    "mode", "problems", "accuracy", "low", "high", "pass_at_1", "mean_correct", "any_correct", "samples", "tokens",
    "ungradable", "judged", "failed", "auc", "brier", "ece",
)  # fmt: skip


class GradedRun:
    """A run with its verdicts.

    Attributes:
        folder: the run's.
        records: records of ``rollouts.jsonl``.
        outcomes: mode -> outcomes in question order.
        verdicts: (index, answer) -> `Verdict`.
        scores: mode -> `ModeScore`.
    """

    def __init__(self, folder: str | Path, verdicts: dict[tuple[int, str], Verdict]) -> None:
        self.folder = Path(folder)
        self.records = sorted(read_records(folder), key=lambda record: (MODES.index(record["mode"]), record["index"]))
        self.outcomes: dict[str, list[Outcome]] = {}
        for record in self.records:
            self.outcomes.setdefault(record["mode"], []).append(outcome_of_record(record))
        self.verdicts = verdicts
        self.scores: dict[str, ModeScore] = score_modes(self.outcomes, self.grade)

    def grade(self, pairs: Sequence[tuple[int, str]]) -> list[bool | None]:
        """Verdicts that the run has."""
        return [self.verdicts[pair].correct for pair in pairs]

    def notes(self) -> list[str]:
        """What a reader of the table has to know about this run."""
        ranked = {record.get("best_by") for record in self.records if record["mode"] == "best-of-n"}
        found = [BEST_BY_LOGPROB] if "logprob" in ranked else []
        return [*found, JUDGED_BY_POLICY] if self.judged_by_policy() else found

    def judged_by_policy(self) -> bool:
        """Whether the judge of what nothing else could decide is the model under test."""
        settings = read_config(self.folder)["settings"] if (self.folder / CONFIG).is_file() else {}
        judge = settings.get("judge")
        return bool(settings.get("judge_is_policy")) or (judge is not None and judge == settings.get("model"))

    def judged(self, mode: str) -> int:
        """How many of a mode's answers only the judge could decide."""
        pairs = [(outcome.index, outcome.answer) for outcome in self.outcomes[mode] if outcome.answer is not None]
        return sum(self.verdicts[pair].method == "judge" for pair in pairs)

    def search_files(self) -> list[Path]:
        """Files of the searches of value mode that were kept, in question order."""
        return sorted((self.folder / TREES).glob("*.json")) if (self.folder / TREES).is_dir() else []

    def load_search(self, path: Path) -> SearchResult:
        """One of `search_files`, under its question's index in this run."""
        result = SearchResult.load(path)
        result.index = int(path.stem)
        return result

    def goal(self, result: SearchResult) -> np.ndarray:
        """(N,) bool, a search's leaves with a right answer."""
        found = [None if answer is None else self.verdicts.get((result.index, answer)) for answer in result.tree.answer]
        return np.array([verdict is not None and bool(verdict.correct) for verdict in found])


def grade_run(folder: str | Path, grade: GradeVerdicts) -> GradedRun:
    """Grade every answer of a run, each distinct one once, and write ``grades.jsonl`` and the tables.

    The same rollouts and verdicts give the same ``results.csv``, byte for byte: it holds no times.
    """
    folder = Path(folder)
    pairs = answers_of(read_records(folder))
    verdicts = dict(zip(pairs, grade(pairs)))
    _write_grades(folder / GRADES, verdicts)
    run = GradedRun(folder, verdicts)
    replace_file(folder / RESULTS_CSV, results_csv(run).encode())
    replace_file(folder / RESULTS_MD, results_markdown(run).encode())
    replace_file(folder / RESULTS_JSON, results_json(run).encode())
    return run


def read_graded(folder: str | Path) -> GradedRun:
    """A run that has been graded before.

    Raises:
        ValueError: it has not.
    """
    from lapha._checks import check

    path = Path(folder) / GRADES
    expected = "a run that has been graded (lapha eval does it at its end)"
    check(path.is_file(), "run", expected, str(folder))
    verdicts = _read_grades(path, checked=is_checked(read_config(folder)))
    # a run that went on with what had failed, and was cut off, has answers that are newer than its grades
    new = sum(pair not in verdicts for pair in answers_of(read_records(folder)))
    check(not new, "run", expected, f"{folder}, with {new} answers that were not")
    return GradedRun(folder, verdicts)


def answers_of(records: Sequence[dict[str, Any]]) -> list[tuple[int, str]]:
    """All (index, answer) pairs that a run gave anywhere, sorted."""
    pairs = set()
    for record in records:
        for answer in (record["answer"], *record["answers"], *record.get("answers_by_simulation", ())):
            if answer is not None:
                pairs.add((record["index"], answer))
    return sorted(pairs)


def _write_grades(path: Path, verdicts: dict[tuple[int, str], Verdict]) -> None:
    lines = [
        encode_line({"index": index, "answer": answer, **plain(vars(verdict))})
        for (index, answer), verdict in verdicts.items()
    ]
    replace_file(path, b"".join(lines))


def _read_grades(path: Path, *, checked: bool) -> dict[tuple[int, str], Verdict]:
    found = {}
    for number, grade in enumerate(read_lines(path, checked=checked).records, 1):
        try:
            found[grade["index"], grade["answer"]] = Verdict(grade["correct"], grade["method"], grade["detail"])
        except (KeyError, TypeError) as error:
            raise FileProblem(f"{path}: record {number}", "a verdict", f"{grade!r:.100}") from error
    return found


def results_csv(run: GradedRun) -> str:
    """The table as CSV: one row per mode, six decimals, no times."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for mode, score in run.scores.items():
        numbers = {
            **score.summary(),
            "pass_at_1": score.pass_at(1),
            "judged": run.judged(mode),
            "problems": len(score.correct),
        }
        writer.writerow([mode, *(_cell(numbers[name]) for name in _CSV_COLUMNS[1:])])
    return buffer.getvalue()


def _cell(value: float) -> str:
    if isinstance(value, (int, np.integer)):
        return str(value)
    return "" if not np.isfinite(value) else f"{value:.6f}"


RESULT_COLUMNS = (
    "mode",
    "accuracy",
    "pass@1",
    "pass@k",
    "avg@k",
    "k",
    "tokens",
    "seconds",
    "ungradable",
    "failed",
    "AUC of v̂",
)


def result_rows(run: GradedRun) -> list[list[str]]:
    """The table for people. pass@1 and avg@k are over all of a mode's answers, accuracy over the one it chose."""
    rows = []
    for mode, score in run.scores.items():
        ungradable = f"{score.ungradable}" + (
            f" ({run.judged(mode)} judged{' by the policy' if run.judged_by_policy() else ''})"
            if run.judged(mode)
            else ""
        )
        rows.append(
            [
                mode,
                score.accuracy.percent(),
                _percent(score.pass_at(1)),
                _percent(float(score.any_correct.mean())),
                _percent(float(score.mean_correct.mean())),
                f"{score.samples:.1f}",
                f"{score.tokens:.0f}",
                f"{score.seconds:.2f}",
                ungradable,
                str(score.failed),
                f"{score.calibration.auc:.3f}" if np.isfinite(score.calibration.auc) else "–",
            ]
        )
    return rows


def results_json(run: GradedRun) -> str:
    """Everything that the tables hold, and more: pass@k and maj@k at common k, differences between the modes.

    The same rollouts and verdicts give the same text: it holds no times.
    """
    import json

    ks = common_ks(run)
    modes = {
        mode: {
            **{name: value for name, value in score.summary().items() if name != "seconds"},
            "problems": len(score.correct),
            "judged": run.judged(mode),
            "pass_at": {str(k): score.pass_at(k) for k in ks},
            "maj_at": {str(k): score.maj_at(k) for k in ks},
        }
        for mode, score in run.scores.items()
    }
    differences = {what: vars(difference) for what, difference in mode_differences(run.outcomes, run.scores)}
    document = {"modes": modes, "differences": differences, "notes": run.notes()}
    return json.dumps(plain(document), ensure_ascii=False, indent=1) + "\n"


def common_ks(run: GradedRun) -> list[int]:
    """1, 2, 4, … up to the fewest graded answers that any problem has in any mode with several: the same k for all."""
    several = [int(score.graded.min()) for score in run.scores.values() if len(score.graded) and score.samples > 1.5]
    return [1 << power for power in range(max(1, min(several, default=1)).bit_length())]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if np.isfinite(share) else "–"


def results_markdown(run: GradedRun) -> str:
    """The table as Markdown."""
    lines = ["| " + " | ".join(RESULT_COLUMNS) + " |", "|" + "---|" * len(RESULT_COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in result_rows(run)]
    note = (
        "\nAccuracy with 95 % intervals over problems (Wilson); tokens and seconds per problem. Ungradable answers count "
        "as neither right nor wrong. majority and best-of-n sample at least as many tokens as value, unless --samples says otherwise.\n"
    )
    return "\n".join(lines) + "\n" + note + "".join(f"\n{line}\n" for line in run.notes())


__all__ = [
    "Grade",
    "GradeVerdicts",
    "GradedRun",
    "answers_of",
    "grade_run",
    "read_graded",
    "result_rows",
    "results_markdown",
]
