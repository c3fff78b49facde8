"""``lapha view``: problems, trees and training on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    what: Annotated[
        list[Path],
        typer.Argument(
            help="Runs of `lapha eval`, saved searches, journals, or folders of training runs and checkpoints."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default: view.html beside the first.")] = None,
    serve: Annotated[
        bool, typer.Option(help="Serve the page on loopback until Ctrl-C, instead of writing it.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of --serve; 0 takes a free one.")] = 0,
    trees: Annotated[int, typer.Option(help="Most trees per run, journal or training run.")] = 100,
) -> None:
    """Read problems, trees and training on one page that needs no network. Several runs are compared."""
    from lapha._checks import check
    from lapha._store import check_writable
    from lapha.cli._view_sources import page_of
    from lapha.viz import render_page, write_page

    check(trees >= 0, "trees", "an integer >= 0", trees)
    check(out is None or not serve, "out", "either --out or --serve", "both")
    for path in what:
        check(path.exists(), "what", "an existing file or folder", str(path))
    if serve:
        from lapha.cli._view_server import serve_page

        serve_page(render_page(page_of(what, trees=trees)), port)
        return
    target = out or (what[0] / "view.html" if what[0].is_dir() else what[0].with_suffix(".html"))
    check_writable(target)
    print(write_page(page_of(what, trees=trees), target))
