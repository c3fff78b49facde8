"""``lapha report``: runs side by side, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders that `lapha eval` wrote; differences are against the first.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; default: report.html in the first folder.")
    ] = None,
    trees: Annotated[int, typer.Option(help="Most trees per run that the page holds.")] = 100,
) -> None:
    """Compare runs on one page that opens offline: tables, problems, trees, paired differences."""
    from lapha._store import check_writable
    from lapha.evaluation.page import write_run_report
    from lapha.evaluation.run_folder import read_config

    for run in runs:
        read_config(run)  # what is missing is named, before the page's own path is looked at

    page = out or runs[0] / "report.html"
    check_writable(page)
    print(write_run_report(runs, page, trees=trees))
