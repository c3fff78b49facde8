"""``lapha train``: tree rollouts, shaped rewards and the joint value loss, from one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    config: Annotated[Path, typer.Option(help="YAML file: model, data, verifier, and any LaPhaConfig argument.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; overrides output_dir of the file.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the output folder.")] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Build everything with a random-weight miniature of the model, take one step."),
    ] = False,
) -> int:
    """Train a policy and its value head. Under `accelerate launch`, every process searches its own questions."""
    from lapha._imports import require

    require("trl", extra="trl")
    from lapha.cli._training_run import TrainingRun, read_settings

    settings = read_settings(config, output_dir=out, dry_run=dry_run)
    run: Any = TrainingRun(settings)
    run.train(resume=resume)
    return 0
