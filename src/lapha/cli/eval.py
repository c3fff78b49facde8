"""``lapha eval``: modes over problems, into one resumable folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lapha.cli._flags import with_options
from lapha.cli._models import SHOWN_DEFAULTS
from lapha.evaluation.config import EvalConfig


@with_options(EvalConfig, shown=SHOWN_DEFAULTS)
def evaluate(
    given: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="The run's folder; default: runs/MODEL-DATA.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Grade this *.pred.jsonl of the reference; run no model.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Start anew in a folder that holds a run.")] = False,
) -> int:
    """Evaluate a model; interrupted or killed, the same command goes on where it was. Exit 1 if a problem failed."""
    from lapha.cli._evaluation import EvaluationCommand
    from lapha.cli._models import resolve

    if predictions is not None:
        given = {**given, "modes": ("single",)}
    config = resolve(EvalConfig, given)
    folder = out or Path("runs") / f"{(predictions or Path(config.model.model)).name}-{Path(config.data).stem}"
    command = EvaluationCommand(config, folder, force=force, predictions=predictions)
    return command.run() if predictions is None else command.score()
