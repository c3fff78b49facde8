"""What `lapha view` was given, as a page: runs, saved searches, journals, training runs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lapha.viz import Page, PageTree

Kind = Literal["run", "search", "journal", "training"]
KEPT_TREES = "trees"
"""Folder of a training run in which the trainer keeps searches: ``trees/step-000010/00000.json``."""


def page_of(paths: Sequence[Path], *, trees: int) -> Page:
    """One page of everything in `paths`.

    Raises:
        ValueError: a path that is none of these, or that cannot be read.
    """
    kinds: dict[Kind, list[Path]] = {"run": [], "search": [], "journal": [], "training": []}
    for path in paths:
        kinds[kind_of(path)].append(path)
    page = Page("lapha", ", ".join(map(str, paths)))
    if kinds["run"]:
        from lapha.evaluation.page import run_page

        page = run_page(kinds["run"], trees=trees)
    found = [*(_saved(path) for path in kinds["search"])]
    for path in kinds["journal"]:
        found += _journal(path, trees)
    for path in kinds["training"]:
        found += _kept(path, trees)
    training = {_name(path, kinds["training"]): _metrics(path) for path in kinds["training"]}
    title = page.title
    if not kinds["run"]:
        title = found[0].title if len(found) == 1 else "Training" if kinds["training"] else "Searches"
    return dataclasses.replace(page, title=title, trees=[*page.trees, *found], training=training)


def kind_of(path: Path) -> Kind:
    """What a path is, by the files that it holds.

    Raises:
        ValueError: none of them.
    """
    if path.is_file() and path.suffix == ".json" and path.name != "trainer_state.json":
        return "search"
    if (path / "config.yaml").is_file() and ((path / "rollouts.jsonl").is_file() or (path / "grades.jsonl").is_file()):
        return "run"
    if (path / "header.json").is_file():
        return "journal"
    if _state_file(path) is not None:
        return "training"
    raise ValueError(
        f"what: expected a run of lapha eval, a saved search (.json), a journal, or a training run, got {path}"
    )


def _saved(path: Path) -> PageTree:
    from lapha.search import SearchResult

    return _page_tree(SearchResult.load(path), path.stem)


def _page_tree(result: Any, name: str, step: int | None = None) -> PageTree:
    from lapha.cli._pictures import picture_of

    words = " ".join(result.question.split())
    title = f"{name}: {words[:90]}" if name else words[:120]
    return PageTree(picture_of(result, title=title), title, step=step)


def _journal(path: Path, trees: int) -> list[PageTree]:
    from lapha.search.journal import read_journal

    return [_page_tree(result, f"{index}") for index, result in enumerate(read_journal(path, limit=trees))]


def _state_file(path: Path) -> Path | None:
    """The trainer's state of a checkpoint, or of the latest checkpoint of a training run."""
    if path.name == "trainer_state.json" and path.is_file():
        return path
    if (path / "trainer_state.json").is_file():
        return path / "trainer_state.json"
    states = path.glob("checkpoint-*/trainer_state.json")
    return max(states, key=lambda state: int(state.parent.name.rpartition("-")[2]), default=None)


def _metrics(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Metric -> (steps, values) from the trainer's log."""
    state = _state_file(path)
    assert state is not None
    try:
        history = json.loads(state.read_bytes())["log_history"]
    except (ValueError, KeyError, TypeError) as problem:
        raise ValueError(f"{state}: expected a trainer's state with log_history, got {problem!r}") from problem
    found: dict[str, tuple[list[float], list[float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name not in ("step", "epoch") and isinstance(value, (int, float)) and math.isfinite(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(entry["step"])
                values.append(float(value))
    return found


def _kept(path: Path, trees: int) -> list[PageTree]:
    """Searches that the trainer kept, at most `trees`, evenly picked over the steps."""
    from lapha.search import SearchResult

    folder = path if path.is_dir() else path.parent
    root = folder.parent if folder.name.startswith("checkpoint-") else folder
    files = sorted((root / KEPT_TREES).glob("step-*/*.json"))
    stride = max(1, -(-len(files) // trees)) if trees else len(files) + 1
    picked = files[::stride] if trees else []
    return [
        _page_tree(SearchResult.load(file), f"step {int(file.parent.name[5:])}", int(file.parent.name[5:]))
        for file in picked
    ]


def _name(path: Path, others: Sequence[Path]) -> str:
    """The shortest name that tells a training run from the others."""
    resolved = [other.resolve() for other in others]
    for depth in range(1, 20):
        names = ["/".join(other.parts[-depth:]) for other in resolved]
        if len(set(names)) == len(names):
            return "/".join(path.resolve().parts[-depth:])
    raise ValueError(f"what: expected different folders, got {path} twice")
