"""One self-contained HTML page from plain data: no network request, everything escaped unless it is our own SVG."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha._imports import require


@dataclass(frozen=True)
class Figure:
    """A picture. `markup` is trusted HTML or SVG, made by `lapha.viz`; `caption` is text."""

    markup: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text and numbers.

    Attributes:
        columns: headings.
        rows: one sequence of cells per row, as long as `columns`; floats are shown as they format themselves.
        caption: text below.
        emphasised: indices of rows to set in bold.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    emphasised: Sequence[int] = ()

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            check(len(row) == len(self.columns), f"rows[{index}]", f"{len(self.columns)} cells", len(row))


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and figures or tables in order. Neighbouring figures stand side by side."""

    heading: str
    text: str = ""
    items: Sequence[Figure | Table] = ()


@dataclass(frozen=True)
class Report:
    """A page.

    Attributes:
        title, subtitle: text.
        facts: the figures that matter, shown large, in order.
        sections: the body.
        footer: small print, such as versions and the command.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    footer: str = ""


def render_report(report: Report) -> str:
    """The whole page as a string. Needs the ``viz`` extra (jinja2)."""
    jinja2 = require("jinja2", extra="viz")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["kind"] = lambda item: "figure" if isinstance(item, Figure) else "table"
    template = environment.from_string(_asset("report.html.jinja"))
    return template.render(report=report, style=_asset("report.css"), script=_asset("hover.js"))


def write_report(report: Report, path: str | Path) -> Path:
    """Write the page to `path`, whole or not at all, and return the path.

    Raises:
        ValueError: jinja2 is missing; `OSError` where the file cannot be written.
    """
    path = Path(path)
    text = render_report(report)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def _asset(name: str) -> str:
    return (resources.files("lapha.viz") / "templates" / name).read_text(encoding="utf-8")
