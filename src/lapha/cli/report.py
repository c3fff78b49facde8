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
    gallery: Annotated[int, typer.Option(help="Trees to draw.")] = 4,
) -> None:
    """Compare runs: table, paired differences, accuracy against cost, calibration, trees. One page, opens offline."""
    from lapha._store import check_writable
    from lapha.evaluation.report import write_run_report

    page = out or runs[0] / "report.html"
    check_writable(page)
    print(write_run_report(runs, page, gallery=gallery))
