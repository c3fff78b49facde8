"""A progress bar with live figures; rich is imported only when one is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lapha._imports import require
from lapha.search.result import SearchResult

if TYPE_CHECKING:
    from lapha.search.scheduler import Search


@contextmanager
def progress_bar(wanted: bool, questions: Any, search: Search) -> Iterator[Callable[[SearchResult], None]]:
    """A callable to call with every result as it comes; does nothing unless a bar is wanted.

    Raises:
        MissingExtraError: a bar is wanted and rich is not installed.
    """
    if not wanted:
        yield lambda result: None
        return
    progress = require("rich.progress", extra="llm")
    bar = progress.Progress(
        progress.TextColumn("search", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[figures]}", markup=False),
        progress.TimeElapsedColumn(),
    )
    with bar:
        total = len(questions) if isinstance(questions, Sized) else None
        task = bar.add_task("search", total=total, figures="")
        answered = 0

        def show(result: SearchResult) -> None:
            nonlocal answered
            answered += result.answer is not None
            meter = search.meter
            figures = f"{answered} answered, {meter.nodes} nodes, {meter.tokens} tokens"
            bar.update(task, advance=1, figures=figures + (f", {meter.failed} failed" if meter.failed else ""))

        yield show
