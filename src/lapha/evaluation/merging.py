"""Shards of one evaluation, put together as the run that they are parts of."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha._identity import differences
from lapha._store import read_lines, replace_file, replacing
from lapha._store.lines import encode_line
from lapha.evaluation.completions import CompletionWriter, read_completions
from lapha.evaluation.data import fingerprint, parse_shard
from lapha.evaluation.grading import Verdict
from lapha.evaluation.grading.judge import known_verdicts
from lapha.evaluation.modes import Outcome
from lapha.evaluation.results import GradedRun, grade_run, read_graded
from lapha.evaluation.run_folder import (
    JUDGEMENTS,
    TREES,
    RunFolder,
    is_set,
    outcome_of_record,
    read_config,
    refuse_changes,
)

# what a shard's settings have for itself
_OWN = ("shard", "questions", "problems")


def settings_of_whole(parts: Sequence[str | Path]) -> dict[str, Any]:
    """The settings of the run whose shards are in `parts`, without its number of problems and their fingerprint.

    Raises:
        ValueError: a folder that is no shard's, shards of different runs (names the differences), one that is missing
            or given twice.
    """
    check(len(parts) > 0, "parts", "the folders of all shards of a run", "none")
    settings = [read_config(part)["settings"] for part in parts]
    shards = [_shard(found) for found in settings]
    for part, shard in zip(parts, shards):
        check(shard is not None, "parts", "runs made with --shard i/n", str(part))
    common = [{name: value for name, value in found.items() if name not in _OWN} for found in settings]
    for part, found in zip(parts[1:], common[1:]):
        refuse_changes(common[0], found, f"parts: expected the settings of {parts[0]} in {part}")
    _check_complete(sorted(shard for shard in shards if shard is not None))
    return {**common[0], "shard": None}


def merge_shards(parts: Sequence[str | Path], out: str | Path, questions: Sequence[str]) -> GradedRun:
    """Copy outcomes, trees and verdicts of all shards into the whole run's folder and write its tables.

    Nothing is asked or graded again: the result is the one that a run without shards would have had.

    Args:
        parts: folders of the shards, in any order.
        out: folder of the whole run; a merge that was cut off goes on there.
        questions: all of the whole run's.

    Raises:
        ValueError: parts that are not all shards of one run, a shard that asked other questions or is not finished, or
            a folder that holds something else.
    """
    about = {"questions": fingerprint(list(questions)), "problems": len(questions)}
    folder = RunFolder(out, {**settings_of_whole(parts), **about})
    verdicts: dict[tuple[int, str], Verdict] = {}
    try:
        if (identity := _identity_of_whole(parts)) is not None:
            folder.identify(identity)
        for part in parts:
            verdicts |= _take_in(Path(part), folder, questions)
    finally:
        folder.close()
    _join_judgements([Path(part) for part in parts], folder.path)
    return grade_run(folder.path, lambda pairs: [verdicts[pair] for pair in pairs])


def _shard(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    return parse_shard(settings["shard"] if is_set(settings.get("shard")) else None)


def _identity_of_whole(parts: Sequence[str | Path]) -> Any:
    """What the parts say that their outcomes are of, or None where an older version did not say it."""
    told = [read_config(part).get("identity") for part in parts]
    for part, identity in zip(parts, told):
        if found := differences(told[0] or {}, identity or {}):
            expected = f"parts: expected the model and the environment of {parts[0]} in {part}"
            raise ValueError(f"{expected}, got others: {'; '.join(found)}")
    return told[0]


def _take_in(part: Path, folder: RunFolder, questions: Sequence[str]) -> dict[tuple[int, str], Verdict]:
    """Copy what one shard has; its verdicts by the whole run's indices."""
    settings = read_config(part)["settings"]
    first, count = _shard(settings) or (1, 1)
    own = list(questions[first - 1 :: count])
    check(settings["questions"] == fingerprint(own), "parts", f"shard {first}/{count} of these questions", str(part))
    graded = read_graded(part)
    _check_finished(part, graded, settings, len(own))
    here = {(outcome.mode, outcome.index): repr(outcome) for outcome in folder.outcomes}  # NaN equals NaN
    for record in graded.records:
        index = first - 1 + count * record["index"]
        outcome = dataclasses.replace(outcome_of_record(record), index=index)
        if here.get((outcome.mode, index)) != repr(outcome):  # or else a merge that was cut off has it
            if outcome.mode == "value":
                _copy_tree(part, record["index"], folder, index)
            folder.add(outcome, **_more(record))
    _copy_completions(part, folder, lambda index: first - 1 + count * index)
    return {(first - 1 + count * index, answer): verdict for (index, answer), verdict in graded.verdicts.items()}


def _copy_completions(part: Path, folder: RunFolder, place: Callable[[int], int]) -> None:
    """What the models wrote, by the whole run's indices; not twice where a merge goes on."""
    known = read_completions(folder.path)
    writer = CompletionWriter(folder.path)
    for (mode, index), texts in read_completions(part).items():
        if known.get((mode, place(index))) != texts:
            writer.add(place(index), mode, texts)
    writer.close()


def _join_judgements(parts: Sequence[Path], whole: Path) -> None:
    """What a judge has said in any shard, so that a later grading of the whole asks it nothing again."""
    files = [part / JUDGEMENTS for part in (*parts, whole) if (part / JUDGEMENTS).is_file()]
    said: dict[str, dict[str, Any]] = {}
    for file in files:
        records = read_lines(file, checked=False).records
        said |= dict(zip(known_verdicts(records, file), records))
    if said:
        lines = [encode_line({name: record[name] for name in record if name != "crc32"}) for record in said.values()]
        replace_file(whole / JUDGEMENTS, b"".join(lines))


def _check_complete(shards: Sequence[tuple[int, int]]) -> None:
    count = shards[0][1]
    wanted = [(index, count) for index in range(1, count + 1)]
    given = ", ".join(f"{index}/{of}" for index, of in shards)
    check(list(shards) == wanted, "parts", f"each of the shards 1/{count} to {count}/{count} once", given)


def _check_finished(part: Path, graded: GradedRun, settings: Mapping[str, Any], problems: int) -> None:
    missing = {mode: problems - len(graded.outcomes.get(mode, ())) for mode in settings["modes"]}
    left = ", ".join(f"{count} of {mode}" for mode, count in missing.items() if count)
    check(not left, "parts", f"a finished run in {part} (the same command goes on with it)", f"{left} to do")


def _more(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record's fields beside its outcome's."""
    known = {field.name for field in dataclasses.fields(Outcome)}
    return {name: value for name, value in record.items() if name not in known}


def _copy_tree(part: Path, index: int, folder: RunFolder, placed: int) -> None:
    for suffix in (".safetensors", ".json"):  # in the order in which a search writes them
        source = part / TREES / f"{index:05d}{suffix}"
        if source.is_file():
            with (
                replacing(folder.path / TREES / f"{placed:05d}{suffix}", sweep=False) as target,
                source.open("rb") as file,
            ):
                shutil.copyfileobj(file, target)
