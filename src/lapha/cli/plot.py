"""``lapha plot``: a saved search as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    search: Annotated[Path, typer.Argument(help="What `lapha search --save` wrote.")],
    page: Annotated[Path | None, typer.Argument(help="HTML file to write; or say --out.")] = None,
    out: Annotated[Path | None, typer.Option(help="The same, as other commands have it.")] = None,
    angle: Annotated[str, typer.Option(help="'tree' keeps subtrees together, 'pca' projects directions.")] = "tree",
) -> None:
    """Draw a saved search on the Poincaré disk: one self-contained HTML page."""
    from lapha._checks import check
    from lapha._store import check_writable
    from lapha.cli._pictures import picture_of
    from lapha.search import SearchResult
    from lapha.viz import write_tree_page

    check((page is None) != (out is None), "page", "one HTML file to write", "none" if page is None else "two")
    page = page or out
    assert page is not None
    check_writable(page)
    result = SearchResult.load(search)
    write_tree_page(picture_of(result), page, angle=angle)
    print(page)
