"""Progress on the terminal: standard error, so that standard output stays clean."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column


def console(*, stderr: bool = True, width: int | None = None) -> Console:
    """A console that prints text as it is: no markup, no emoji codes, no colors by pattern. All of lapha prints on one.

    Args:
        stderr: for everything that is not the result.
        width: at least so many columns.
    """
    options: dict[str, Any] = {"stderr": stderr, "markup": False, "emoji": False, "highlight": False}
    made = Console(**options)
    return made if width is None else Console(**options, width=max(made.width, width))


def progress_bar(**options: Any) -> Progress:
    """A progress bar with a task's live numbers (its ``status`` field) behind it."""
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, min_width=15)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", style="dim", markup=False),
        console=console(),
        **options,
    )


def quiet_libraries() -> None:
    """Keep transformers, datasets and TRL from writing over the progress bar; their errors still come through."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # lapha pins the TRL whose experimental seam it uses

    import transformers.utils.logging

    transformers_logging: Any = transformers.utils.logging  # not typed
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("trl", "datasets", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|trl|transformers|accelerate)(\.|$)")
