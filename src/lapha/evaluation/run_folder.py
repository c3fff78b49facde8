"""One folder per evaluation run: its settings, its outcomes as they came, its trees."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha._identity import differences
from lapha._imports import require
from lapha._store import FolderLock, LineFile, read_lines, remove_leftovers, replace_file
from lapha._store.lines import encode_line
from lapha.evaluation.folders import PROBE, plain, prepare_folder
from lapha.evaluation.modes import MODES, Outcome
from lapha.evaluation.provenance import environment_record
from lapha.search import SearchResult

CONFIG, ROLLOUTS, TREES, GRADES = "config.yaml", "rollouts.jsonl", "trees", "grades.jsonl"
JUDGEMENTS = "judge.jsonl"  # a judge's, by what it was asked: they stay good for any run
NOT_SET = "none"
FORMAT = 2  # from which on every line and the settings have a checksum
_ADVICE = "Use another folder, or --force to start anew."
PROBLEMS = "problems.jsonl"  # questions and gold answers, written when the run is graded
RESULTS_CSV, RESULTS_MD, RESULTS_JSON, REPORT = "results.csv", "results.md", "results.json", "report.html"
COMPLETIONS = "completions"  # what the models wrote, a compressed file per mode and sitting


class RunFolder:
    """A run's files; one process at a time.

    Opening a folder that holds another run's settings is refused, and so is one that holds other files; `force`
    empties it first.

    Args:
        path: the folder.
        settings: everything that decides the run's results, resolved, as plain values; what is not set (None) is
            written down as ``none``, so that another default of a later version is no other run in disguise.
        force: start anew.
        may_add: names of settings that a run which had none of them may be given: they change nothing that was asked.

    Attributes:
        added: those that it was given now.

    Raises:
        ValueError: settings that differ (names the differences), a folder that cannot be written, that another process
            has open, or that holds a damaged file (names it).
        OSError: a full disk, for instance; names the file.
    """

    def __init__(
        self, path: str | Path, settings: Mapping[str, Any], *, force: bool = False, may_add: Sequence[str] = ()
    ) -> None:
        self.path = prepare_folder(path)
        self.settings: dict[str, Any] = without_nulls(plain(dict(settings)))
        self.added: dict[str, Any] = {}
        self._lock = FolderLock(self.path, "a run's folder")
        try:
            self._open(force, may_add)
        except (ValueError, OSError):
            self._lock.release()
            raise

    def _open(self, force: bool, may_add: Sequence[str]) -> None:
        config = self.path / CONFIG
        if force:
            self._clear()
        if config.is_file():
            self._go_on(may_add)
        else:
            others = sorted(entry.name for entry in self.path.iterdir() if not _may_be_there(entry.name))
            check(not others, "out", "an empty folder, or a run's own", f"{self.path} with {', '.join(others[:5])}")
            self._document = {"format": FORMAT, "settings": self.settings, "environment": plain(environment_record())}
            write_config(config, self._document)
        (self.path / TREES).mkdir(exist_ok=True)
        for folder in (self.path, self.path / TREES):
            remove_leftovers(folder)
        self._rollouts = LineFile(self.path / ROLLOUTS, checked=is_checked(self._document))
        self._latest = {(o.mode, o.index): o for o in _outcomes(self._rollouts.found.records, self.path / ROLLOUTS)}

    def _clear(self) -> None:
        for name in (
            ROLLOUTS,
            GRADES,
            PROBLEMS,
            RESULTS_CSV,
            RESULTS_MD,
            RESULTS_JSON,
            REPORT,
            CONFIG,
        ):  # the settings last: they name the rest
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / TREES, ignore_errors=True)
        shutil.rmtree(self.path / COMPLETIONS, ignore_errors=True)

    def _go_on(self, may_add: Sequence[str]) -> None:
        """Compare the settings with those that the run has; write down what is added to them."""
        self._document = read_config(self.path)
        before = self._document["settings"]
        self.added = {
            name: self.settings[name]
            for name in may_add
            if self.settings.get(name, NOT_SET) != NOT_SET and before.get(name, NOT_SET) in (None, NOT_SET)
        }
        refuse_changes(
            {**before, **self.added},
            self.settings,
            f"out: expected the settings that the run in {self.path} was started with",
            _ADVICE,
        )
        if self.added:
            self._document["settings"] = self.settings
            write_config(self.path / CONFIG, self._document)

    def identify(self, identity: Mapping[str, Any]) -> None:
        """Say what else determines the outcomes: the model, its weights, the environment (see `Search.identity`).

        Raises:
            ValueError: the folder's outcomes are of another identity (names the differences), or of one that an older
                version did not write down.
        """
        own = without_nulls(json.loads(json.dumps(plain(identity))))
        known = self._document.get("identity")
        if known is None:
            expected = f"out: expected a run that says which model and environment its outcomes in {self.path} are of"
            if self._latest:
                raise ValueError(f"{expected}, got one of an older version. {_ADVICE}")
            self._document["identity"] = own
            write_config(self.path / CONFIG, self._document)
        elif found := differences(known, own):
            expected = f"out: expected the model and the environment that the run in {self.path} was started with"
            raise ValueError(f"{expected}, got others: {'; '.join(found)}. {_ADVICE}")

    @property
    def outcomes(self) -> list[Outcome]:
        """The latest outcome of every mode and question."""
        return list(self._latest.values())

    def done(self, mode: str) -> set[int]:
        """Indices of the questions that `mode` is through with; those that failed are to be asked again."""
        return {index for (of, index), outcome in self._latest.items() if of == mode and outcome.error is None}

    def add(self, outcome: Outcome, **more: Any) -> None:
        """Append one outcome, durably; it takes the place of an earlier one. `more` are further fields for the report.

        Raises:
            OSError: a full disk, for instance; names the file, which then holds what it held before.
        """
        self._rollouts.append(plain({**dataclasses.asdict(outcome), **more}), sync=True)
        self._latest[outcome.mode, outcome.index] = outcome

    def save_tree(self, result: SearchResult, index: int) -> None:
        """Save one search under its question's index."""
        result.save(self.path / TREES / f"{index:05d}.json", sweep=False)

    def close(self) -> None:
        """Let other processes open the folder."""
        self._rollouts.close()
        self._lock.release()


def without_nulls(value: Any) -> Any:
    """Settings with a word for what is not set."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items()}
    return NOT_SET if value is None else value


def is_set(value: Any) -> bool:
    """Whether a run's setting says something; older versions wrote null where it does not."""
    return value is not None and value != NOT_SET


def write_config(path: Path, document: Mapping[str, Any]) -> None:
    """Write a run's ``config.yaml``, whose last line is a checksum of all before it."""
    yaml = require("yaml", extra="llm")
    text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True).encode()
    replace_file(path, text + b"checksum: %08x\n" % zlib.crc32(text))


def is_checked(document: Mapping[str, Any]) -> bool:
    """Whether a run's files have checksums in every line."""
    return bool(document.get("format", 1) >= FORMAT)


def read_config(folder: str | Path) -> dict[str, Any]:
    """A run's ``config.yaml``.

    Raises:
        ValueError: the folder is no run's, or the file is damaged.
    """
    yaml = require("yaml", extra="llm")
    path = Path(folder) / CONFIG
    check(path.is_file(), "run", "the folder of a run (with config.yaml)", str(folder))
    content = path.read_bytes()
    try:
        document = yaml.safe_load(content.decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"run: expected YAML in {path}, got {' '.join(str(error).split())}") from error
    told = isinstance(document, dict) and isinstance(document.get("settings"), dict)
    check(told, "run", f"settings in {path}", "none")
    number = document.get("format", 1)
    good = isinstance(number, int) and 1 <= number <= FORMAT
    check(good, "run", f"a run of format 1 to {FORMAT} in {path}", repr(number))
    text, _, last = content.removesuffix(b"\n").rpartition(b"\n")
    if is_checked(document) and last != b"checksum: none" and last != b"checksum: %08x" % zlib.crc32(text + b"\n"):
        raise ValueError(
            f"run: expected {path} as it was written, got one whose checksum does not fit: it is damaged, or was changed "
            "by hand. Where that was on purpose, let its last line be 'checksum: none'"
        )
    document.pop("checksum", None)
    return document


def write_problems(folder: str | Path, problems: Mapping[int, tuple[str, str | None]]) -> None:
    """Write what a reader of the run needs beside its records: number -> (question, gold answer).

    Called when a run is graded, after its searches: nothing that searches reads it.
    """
    lines = [
        encode_line({"index": index, "question": q, "gold": gold}) for index, (q, gold) in sorted(problems.items())
    ]
    replace_file(Path(folder) / PROBLEMS, b"".join(lines))


def read_problems(folder: str | Path) -> dict[int, tuple[str, str | None]]:
    """What `write_problems` wrote; empty where there is none."""
    path = Path(folder) / PROBLEMS
    records = read_lines(path, checked=True).records if path.is_file() else []
    return {record["index"]: (record["question"], record["gold"]) for record in records}


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """All records of ``rollouts.jsonl``, the last one where a (mode, question) occurs twice.

    Raises:
        ValueError: a damaged line before a good one, or a record that lacks a field; names the file.
    """
    path = Path(folder) / ROLLOUTS
    if not path.is_file():
        return []
    records = read_lines(path, checked=is_checked(read_config(folder))).records
    outcomes = _outcomes(records, path)
    return list({(outcome.mode, outcome.index): record for outcome, record in zip(outcomes, records)}.values())


def read_outcomes(folder: str | Path) -> list[Outcome]:
    """The latest outcome of every mode and question of a run."""
    return [outcome_of_record(record) for record in read_records(folder)]


def _outcomes(records: Sequence[Mapping[str, Any]], path: Path) -> list[Outcome]:
    return [outcome_of_record(record, f"{path}: record {number}") for number, record in enumerate(records, 1)]


def outcome_of_record(record: Mapping[str, Any], source: str = "record") -> Outcome:
    """The outcome that a record holds.

    Raises:
        ValueError: a field is missing or of another type; names it, after `source`.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Outcome):
        if field.name not in record and field.default is not dataclasses.MISSING:
            continue
        found = record.get(field.name)
        good = field.name in record and _FIELDS.get(field.name, _anything)(found)
        check(good, source, f"an outcome with {field.name}", f"{found!r:.60}" if field.name in record else "none")
        values[field.name] = tuple(found) if isinstance(found, list) else found
    check(len(values["answers"]) == len(values["values"]), source, "as many values as answers", len(values["values"]))
    values["value"] = math.nan if values["value"] is None else values["value"]
    values["values"] = tuple(math.nan if value is None else value for value in values["values"])
    return Outcome(**values)


def _anything(value: Any) -> bool:
    return True


def _text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "index": _count,
    "mode": lambda value: value in MODES,
    "answer": _text,
    "value": _number,
    "answers": lambda value: isinstance(value, list) and all(map(_text, value)),
    "values": lambda value: isinstance(value, list) and all(map(_number, value)),
    "tokens": _count,
    "seconds": lambda value: value is not None and _number(value),
    "error": _text,
}


def _may_be_there(name: str) -> bool:
    """Whether a run may begin beside this file: a run that was killed before it had a config left it, or a judge."""
    return name in (JUDGEMENTS, ".lock") or name.startswith((f".{CONFIG}.", f".{JUDGEMENTS}.", PROBE))


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
