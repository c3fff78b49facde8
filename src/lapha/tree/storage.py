"""Saving and loading search trees: versioned JSON, written durably, checked when read."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapha._checks import check, check_parent
from lapha.tree.search_tree import FIELDS, SearchTree

FORMAT = "lapha-search-tree"
VERSION = 1


class FileProblem(ValueError):
    """A file that is not what it should be. Names the file, what was expected and what came."""

    def __init__(self, path: str, expected: str, got: str = "something else") -> None:
        super().__init__(f"{path}: expected {expected}, got {got}")


def tree_to_dict(tree: SearchTree) -> dict[str, Any]:
    """The whole tree as plain JSON values; NaN as None. Floats survive exactly."""
    return {
        "question": tree.question,
        "fields": {name: _to_list(getattr(tree, name)) for name in FIELDS},
        "tokens": [list(tokens) for tokens in tree.tokens],
        "logprobs": [list(values) for values in tree.logprobs],
        "text": list(tree.text),
        "answer": list(tree.answer),
        "revisits": [list(revisit) for revisit in tree.revisits],
        "stats": dict(tree.stats),
    }


def tree_from_dict(document: dict[str, Any], source: str = "document") -> SearchTree:
    """The tree that `tree_to_dict` wrote.

    Args:
        document: what `tree_to_dict` returned.
        source: names the document in messages.

    Raises:
        ValueError: a field is missing, of another length, or out of range.
    """
    try:
        columns = {name: _to_array(document["fields"][name], dtype) for name, (dtype, _) in FIELDS.items()}
        lists = {name: list(document[name]) for name in ("tokens", "logprobs", "text", "answer")}
        tree = SearchTree(document["question"], ())
        tree.revisits = [(int(simulation), int(leaf)) for simulation, leaf in document["revisits"]]
        tree.stats = dict(document["stats"])
        lists["tokens"] = [tuple(map(int, tokens)) for tokens in lists["tokens"]]
        lists["logprobs"] = [tuple(map(float, values)) for values in lists["logprobs"]]
    except (KeyError, TypeError, ValueError, OverflowError) as problem:
        raise FileProblem(source, f"a search tree ({type(problem).__name__}: {problem})") from problem
    size = len(columns["parent"])
    everything: dict[str, Sized] = {**columns, **lists}
    for name, column in everything.items():
        check(len(column) == size, f"{source}: {name}", f"length {size}", len(column))
    check(size >= 1 and columns["parent"][0] == -1, f"{source}: parent", "a root first", columns["parent"][:1])
    check_parent(torch.from_numpy(columns["parent"].astype(np.int64)), size, f"{source}: parent")
    check(bool((columns["parent"][1:] >= 0).all()), f"{source}: parent", "a single root", "several")
    tree.restore(columns, **lists)
    return tree


def save_tree(tree: SearchTree, path: str | Path) -> None:
    """Write `tree` to `path` as JSON, durably and at once or not at all.

    Raises:
        ValueError: the folder does not exist or cannot be written.
    """
    write_document(Path(path), FORMAT, VERSION, tree_to_dict(tree))


def load_tree(path: str | Path) -> SearchTree:
    """Read a tree that `save_tree` wrote.

    Raises:
        ValueError: the file is missing, foreign, truncated, or of a newer version.
    """
    return tree_from_dict(read_document(Path(path), FORMAT, VERSION), str(path))


def write_document(path: Path, kind: str, version: int, document: dict[str, Any]) -> None:
    """Write one JSON document that says what it is, durably and at once or not at all.

    Raises:
        ValueError: the folder does not exist or cannot be written.
    """
    check_writable(path)
    replace_file(path, json.dumps({"format": kind, "version": version, **document}, allow_nan=False).encode())


def read_document(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read what `write_document` wrote.

    Raises:
        ValueError: the file is missing, truncated, of another kind, or of a newer version.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as problem:
        raise FileProblem(str(path), "a readable file", str(problem)) from problem
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise FileProblem(str(path), "JSON that is not truncated", str(problem)) from problem
    found = document.get("format") if isinstance(document, dict) else None
    if found != kind:
        raise FileProblem(str(path), f"a file of format {kind!r}", repr(found))
    number = document.get("version")
    if not isinstance(number, int) or not 1 <= number <= version:
        raise FileProblem(str(path), f"version 1 to {version} of {kind!r}", repr(number))
    return document


def check_writable(path: Path) -> None:
    """Raise `ValueError` unless a file can be written at `path`; found out before there is anything to lose."""
    folder = path.parent
    check(folder.is_dir(), "path", "a file in an existing folder", str(path))
    check(os.access(folder, os.W_OK), "path", "a file in a writable folder", str(path))
    check(not path.is_dir(), "path", "a file", f"the folder {path}")


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`: readers see the old file or the new one, also after a crash."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    # readable for whom any new file is: one that tempfile makes is for its owner alone
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new files in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _to_list(column: np.ndarray) -> list[Any]:
    values = column.tolist()
    return [None if math.isnan(v) else v for v in values] if column.dtype.kind == "f" else values


def _to_array(values: list[Any], dtype: Any) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        values = [math.nan if value is None else value for value in values]
    return np.array(values, dtype=dtype)
