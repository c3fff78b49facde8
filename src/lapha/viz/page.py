"""One self-contained HTML page: problems, trees, training and comparisons of runs. It makes no network request.

The page is `assets/viewer.js` (built from ``viewer/``) and its data, as gzip-compressed JSON in base64 that is decoded when
it is looked at. Text never becomes markup: it reaches the page inside base64, and the script shows it as text.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha._store import replace_file
from lapha._text import visible
from lapha.viz.curves import Chart
from lapha.viz.picture import MAX_TEXT, TreePicture, tree_data

FORMAT = "lapha-view"
VERSION = 1
_SAMPLES_PER_BLOB = 100  # problems whose completions are decoded together


@dataclass(frozen=True)
class Table:
    """A table of text and numbers.

    Attributes:
        columns: headings.
        rows: one sequence of cells per row, as long as `columns`.
        caption: text below.
        emphasized: indices of rows to set in bold.

    Raises:
        ValueError: a row of another length.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    emphasized: Sequence[int] = ()

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            check(len(row) == len(self.columns), f"rows[{index}]", f"{len(self.columns)} cells", len(row))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as the page reads them."""
        return {
            "kind": "table",
            "columns": list(self.columns),
            "rows": [[None if cell is None else str(cell) for cell in row] for row in self.rows],
            "caption": self.caption,
            "emphasized": list(self.emphasized),
        }


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and tables or charts in order. Neighboring charts stand side by side."""

    heading: str
    text: str = ""
    items: Sequence[Table | Chart] = ()


@dataclass(frozen=True)
class PageTree:
    """A search in a page.

    Attributes:
        picture: the search, or a function that reads it when the page is written.
        title: its name in the list.
        run, index: place of its run in `Page.runs` and of its question in that run, or None.
        step: training step, or None.
        nodes: number of nodes, for the list.
    """

    picture: TreePicture | Callable[[], TreePicture]
    title: str
    run: int | None = None
    index: int | None = None
    step: int | None = None


@dataclass(frozen=True)
class PageRun:
    """A run of an evaluation in a page: P problems, one column of each list per problem.

    Attributes:
        name: its name.
        index: (P,) numbers of the problems.
        question: (P,) questions.
        gold: (P,) gold answers or None.
        modes: mode -> columns ``answer``, ``correct``, ``value``, ``tokens``, ``samples``, each (P,).
        samples: problem number -> mode -> records with ``answer``, ``correct``, ``value``, ``text``.
    """

    name: str
    index: Sequence[int]
    question: Sequence[str]
    gold: Sequence[str | None]
    modes: Mapping[str, Mapping[str, Sequence[Any]]]
    samples: Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """What a page shows. Every part may be empty.

    Attributes:
        title, subtitle, footer: text.
        facts: the figures that matter, shown large, in order.
        sections: tables and charts of the overview.
        runs: evaluations, problem by problem.
        trees: searches.
        training: name -> metric -> (steps, values).
        comparisons: records with ``mode``, ``base``, ``other`` (places in `runs`), ``difference``, ``low``, ``high``,
            ``count``, ``verdict``.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    runs: Sequence[PageRun] = ()
    trees: Sequence[PageTree] = ()
    training: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]] = field(default_factory=dict)
    comparisons: Sequence[Mapping[str, Any]] = ()
    footer: str = ""


def render_page(page: Page, *, max_text: int = MAX_TEXT) -> str:
    """The whole page as text.

    Raises:
        ValueError: what a tree's picture refuses.
    """
    blobs: list[tuple[str, str]] = []

    def add(name: str, content: Any) -> str:
        blobs.append((name, encode(content)))
        return name

    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "title": page.title,
        "subtitle": page.subtitle,
        "footer": page.footer,
        "facts": [[name, str(value)] for name, value in page.facts.items()],
        "sections": [
            {"heading": s.heading, "text": s.text, "items": [item.to_dict() for item in s.items]} for s in page.sections
        ],
        "runs": [_run(number, run, add) for number, run in enumerate(page.runs)],
        "trees": [_tree(number, tree, add, max_text) for number, tree in enumerate(page.trees)],
        "training": [{"name": name, "metrics": _metrics(metrics)} for name, metrics in page.training.items()],
        "comparisons": [dict(record) for record in page.comparisons],
    }
    blobs.insert(0, ("manifest", encode(manifest)))
    data = "\n".join(f'<script type="text/plain" id="blob-{name}">{content}</script>' for name, content in blobs)
    return _PAGE.format(
        title=html.escape(visible(page.title)),
        style=_asset("viewer.css"),
        script=_asset("viewer.js"),
        data=data,
        policy=_POLICY,
    )


def write_page(page: Page, path: str | Path, *, max_text: int = MAX_TEXT) -> Path:
    """Write the page to `path`, whole or not at all, and return the path.

    Raises:
        ValueError: what `render_page` refuses; `OSError` where the file cannot be written.
    """
    path = Path(path)
    replace_file(path, render_page(page, max_text=max_text).encode())
    return path


def tree_page(picture: TreePicture) -> Page:
    """A page of one search."""
    tree = picture.tree
    facts: dict[str, Any] = {
        "nodes": len(tree),
        "leaves with an answer": len(tree.answered()),
        "pruned": int(tree.pruned.sum()),
        "tokens sampled": tree.sampled_tokens,
    }
    if picture.chosen is not None:
        facts["answer"] = tree.answer[picture.chosen]
    summary = " · ".join(f"{name} {value}" for name, value in facts.items())
    return Page(picture.title or "Search tree", summary, trees=[PageTree(picture, picture.title or "Search tree")])


def write_tree_page(picture: TreePicture, path: str | Path) -> Path:
    """Write a page of one search and return its path.

    Raises:
        ValueError: what `render_page` refuses; `OSError` where the file cannot be written.
    """
    return write_page(tree_page(picture), path)


def encode(content: Any) -> str:
    """Plain JSON values as gzip-compressed base64; the same content gives the same text."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def decode(text: str) -> Any:
    """What `encode` was given."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def read_page(path: str | Path) -> dict[str, Any]:
    """Everything that a page holds, decoded: ``manifest``, ``problems-0``, ``samples-0-0``, ``tree-0``, and so on.

    Raises:
        ValueError: not a page that `write_page` wrote.
    """
    found = _BLOB.findall(Path(path).read_text(encoding="utf-8"))
    check(bool(found), "path", "a page of lapha", str(path))
    return {name: decode(content) for name, content in found}


def _run(number: int, run: PageRun, add: Callable[[str, Any], str]) -> dict[str, Any]:
    problems = {
        "index": list(run.index),
        "question": list(run.question),
        "gold": list(run.gold),
        "modes": {mode: {key: list(v) for key, v in columns.items()} for mode, columns in run.modes.items()},
    }
    chunks = []
    if run.samples:
        for start in range(0, len(run.index), _SAMPLES_PER_BLOB):
            part = {str(i): run.samples[i] for i in run.index[start : start + _SAMPLES_PER_BLOB] if i in run.samples}
            chunks.append(add(f"samples-{number}-{start // _SAMPLES_PER_BLOB}", part))
    return {
        "name": run.name,
        "modes": list(run.modes),
        "problems": len(run.index),
        "blob": add(f"problems-{number}", problems),
        "samples": chunks,
        "chunk": _SAMPLES_PER_BLOB,
    }


def _tree(number: int, tree: PageTree, add: Callable[[str, Any], str], max_text: int) -> dict[str, Any]:
    picture = tree.picture() if callable(tree.picture) else tree.picture
    return {
        "blob": add(f"tree-{number}", tree_data(picture, max_text=max_text)),
        "title": tree.title,
        "run": tree.run,
        "index": tree.index,
        "step": tree.step,
        "nodes": len(picture.tree),
    }


def _metrics(metrics: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> dict[str, Any]:
    from lapha.viz.curves import _numbers

    return {name: {"x": [float(x) for x in steps], "y": _numbers(values)} for name, (steps, values) in metrics.items()}


def _asset(name: str) -> str:
    return (resources.files("lapha.viz") / "assets" / name).read_text(encoding="utf-8")


_BLOB = re.compile(r'<script type="text/plain" id="blob-([\w-]+)">([^<]*)</script>')
# no network: nothing is fetched, whatever the data holds
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<div id="app">Reading the page…</div>
{data}
<script>{script}</script>
</body>
</html>
"""
