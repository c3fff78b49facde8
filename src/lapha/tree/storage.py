"""Saving and loading search trees: versioned JSON, written durably, checked when read."""

from __future__ import annotations

import math
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapha._checks import check, check_parent
from lapha._store import FileProblem, read_document, write_document
from lapha.tree.search_tree import FIELDS, SearchTree

FORMAT = "lapha-search-tree"
VERSION = 2


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
        "repeats": [list(repeat) for repeat in tree.repeats],
        "prior": {"rule": tree.prior_rule, "temperature": tree.prior_temperature},
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
        columns = {name: _to_array(document["fields"][name], dtype) for name, (dtype, _) in _fields(document)}
        lists = {name: list(document[name]) for name in ("tokens", "logprobs", "text", "answer")}
        tree = SearchTree(document["question"], ())
        tree.revisits = [(int(simulation), int(leaf)) for simulation, leaf in document["revisits"]]
        tree.repeats = [(int(simulation), int(node)) for simulation, node in document.get("repeats", ())]
        prior = document.get("prior", {})
        tree.prior_rule, tree.prior_temperature = prior.get("rule", "sum"), float(prior.get("temperature", 1.0))
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


def _fields(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """The fields of the tree; trees of older versions have no rewards, which are then 0."""
    fields = document["fields"]
    if "reward" not in fields:
        fields["reward"] = [0.0] * len(fields["parent"])
    return list(FIELDS.items())


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


def _to_list(column: np.ndarray) -> list[Any]:
    values = column.tolist()
    return [None if math.isnan(v) else v for v in values] if column.dtype.kind == "f" else values


def _to_array(values: list[Any], dtype: Any) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        values = [math.nan if value is None else value for value in values]
    return np.array(values, dtype=dtype)
