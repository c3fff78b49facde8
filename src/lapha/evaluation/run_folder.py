"""One folder per evaluation run: its settings, its outcomes as they came, its trees."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha._imports import require
from lapha._store import replace_file
from lapha.evaluation.folders import PROBE, JsonLines, plain, prepare_folder, read_json_lines
from lapha.evaluation.modes import Outcome
from lapha.evaluation.provenance import environment_record
from lapha.search import SearchResult

CONFIG, ROLLOUTS, TREES, GRADES = "config.yaml", "rollouts.jsonl", "trees", "grades.jsonl"
JUDGEMENTS = "judge.jsonl"  # a judge's, by what it was asked: they stay good for any run
RESULTS_CSV, RESULTS_MD, REPORT = "results.csv", "results.md", "report.html"


class RunFolder:
    """A run's files.

    Opening a folder that holds another run's settings is refused, and so is one that holds other files; `force`
    empties it first.

    Args:
        path: the folder.
        settings: everything that decides the run's results, as plain values.
        force: start anew.
        may_add: names of settings that a run which had none of them may be given: they change nothing that was asked.

    Attributes:
        added: those that it was given now.

    Raises:
        ValueError: settings that differ (names the differences), or a folder that cannot be written.
    """

    def __init__(
        self, path: str | Path, settings: Mapping[str, Any], *, force: bool = False, may_add: Sequence[str] = ()
    ) -> None:
        self.path = prepare_folder(path)
        self.settings = plain(dict(settings))
        self.added: dict[str, Any] = {}
        config = self.path / CONFIG
        if force:
            self._clear()
        if config.is_file():
            self._go_on(config, may_add)
        else:
            others = sorted(entry.name for entry in self.path.iterdir() if not _may_be_there(entry.name))
            check(not others, "out", "an empty folder, or a run's own", f"{self.path} with {', '.join(others[:5])}")
            self._write_config(config, plain(environment_record()))
        (self.path / TREES).mkdir(exist_ok=True)
        self._latest = {(outcome.mode, outcome.index): outcome for outcome in read_outcomes(self.path)}
        self._repair()
        self._rollouts = JsonLines(self.path / ROLLOUTS, append=True)

    def _clear(self) -> None:
        for name in (CONFIG, ROLLOUTS, GRADES, RESULTS_CSV, RESULTS_MD, REPORT):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / TREES, ignore_errors=True)

    def _go_on(self, config: Path, may_add: Sequence[str]) -> None:
        """Compare the settings with those that the run has; write down what is added to them."""
        document = read_config(self.path)
        before = document["settings"]
        self.added = {
            name: self.settings[name] for name in may_add if self.settings.get(name) and before.get(name) is None
        }
        refuse_changes(
            {**before, **self.added},
            self.settings,
            f"out: expected the settings that the run in {self.path} was started with",
            "Use another folder, or --force to start anew.",
        )
        if self.added:
            self._write_config(config, document.get("environment"))

    def _write_config(self, path: Path, environment: Any) -> None:
        yaml = require("yaml", extra="llm")
        text = yaml.safe_dump(
            {"settings": self.settings, "environment": environment}, sort_keys=False, allow_unicode=True
        )
        replace_file(path, text.encode("utf-8"))

    def _repair(self) -> None:
        """Drop a line that a kill cut off, so that the next one does not continue it."""
        path = self.path / ROLLOUTS
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            whole = path.read_bytes().rpartition(b"\n")
            replace_file(path, whole[0] + whole[1])

    @property
    def outcomes(self) -> list[Outcome]:
        """The latest outcome of every mode and question."""
        return list(self._latest.values())

    def done(self, mode: str) -> set[int]:
        """Indices of the questions that `mode` is through with; those that failed are to be asked again."""
        return {index for (of, index), outcome in self._latest.items() if of == mode and outcome.error is None}

    def add(self, outcome: Outcome, **more: Any) -> None:
        """Append one outcome, which takes the place of an earlier one; `more` are further fields for the report."""
        self._latest[outcome.mode, outcome.index] = outcome
        self._rollouts.write({**dataclasses.asdict(outcome), **more})

    def save_tree(self, result: SearchResult, index: int) -> None:
        """Save one search under its question's index."""
        result.save(self.path / TREES / f"{index:05d}.json")

    def close(self) -> None:
        """Flush and close."""
        self._rollouts.sync()
        self._rollouts.close()


def read_config(folder: str | Path) -> dict[str, Any]:
    """A run's ``config.yaml``.

    Raises:
        ValueError: the folder is no run's.
    """
    yaml = require("yaml", extra="llm")
    path = Path(folder) / CONFIG
    check(path.is_file(), "run", "the folder of a run (with config.yaml)", str(folder))
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"run: expected YAML in {path}, got {error}") from error
    check(isinstance(document, dict) and "settings" in document, "run", f"settings in {path}", "none")
    return document


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """All records of ``rollouts.jsonl``, the last one where a (mode, question) occurs twice."""
    path = Path(folder) / ROLLOUTS
    latest = {}
    for record in read_json_lines(path) if path.is_file() else []:
        latest[record["mode"], record["index"]] = record
    return list(latest.values())


def read_outcomes(folder: str | Path) -> list[Outcome]:
    """The latest outcome of every mode and question of a run."""
    return [outcome_of_record(record) for record in read_records(folder)]


def outcome_of_record(record: Mapping[str, Any]) -> Outcome:
    """The outcome that a record holds."""
    values = {field.name: record[field.name] for field in dataclasses.fields(Outcome)}
    values["value"] = math.nan if values["value"] is None else values["value"]
    values["answers"] = tuple(values["answers"])
    values["values"] = tuple(math.nan if value is None else value for value in values["values"])
    return Outcome(**values)


def _may_be_there(name: str) -> bool:
    """Whether a run may begin beside this file: a run that was killed before it had a config left it, or a judge."""
    return name == JUDGEMENTS or name.startswith((f".{CONFIG}.", PROBE))


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], expected: str, advice: str = "") -> None:
    """Compare settings.

    Args:
        before, now: settings, nested or not.
        expected, advice: how the message begins and ends.

    Raises:
        ValueError: they differ; names the differences.
    """
    flat_before, flat_now = _flatten(before), _flatten(now)
    changed = [
        f"{name} was {flat_before.get(name)!r} and is {flat_now.get(name)!r}"
        for name in sorted({*flat_before, *flat_now})
        if flat_before.get(name) != flat_now.get(name)
    ]
    if changed:
        raise ValueError(f"{expected}, got others: {'; '.join(changed)}. {advice}".rstrip())


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value}
    return {
        name: inner
        for key, nested in value.items()
        for name, inner in _flatten(nested, f"{prefix}.{key}" if prefix else str(key)).items()
    }
