"""``lapha plot``: a saved search as a page or as a moving picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    search: Annotated[Path, typer.Argument(help="What `lapha search --save` wrote.")],
    page: Annotated[Path | None, typer.Argument(help="HTML file to write; default: beside the search.")] = None,
    out: Annotated[Path | None, typer.Option(help="The same, as other commands have it.")] = None,
    animate: Annotated[Path | None, typer.Option(help="Write a moving picture instead: .gif, .mp4 or .svg.")] = None,
    seconds: Annotated[float, typer.Option(help="How long the search takes in the moving picture.")] = 8.0,
) -> None:
    """Draw a saved search: one self-contained HTML page, or with --animate the disk filling step by step."""
    from lapha._checks import check
    from lapha._store import check_writable
    from lapha.cli._pictures import picture_of
    from lapha.search import SearchResult
    from lapha.viz import write_animation, write_tree_page

    check(page is None or out is None, "page", "one HTML file to write", "two")
    target = animate or page or out or search.with_suffix(".html")
    if animate is None:
        check(target.suffix.lower() in (".html", ".htm"), "page", "a file ending in .html (or --animate)", target)
    check_writable(target)
    picture = picture_of(SearchResult.load(search))
    print(write_tree_page(picture, target) if animate is None else write_animation(picture, target, seconds=seconds))
