"""``lapha train``: tree rollouts, shaped rewards and the joint value loss, from one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lapha.cli._flags import with_options
from lapha.integrations.train_config import TrainConfig


@with_options(TrainConfig, file=False)
def train(
    config: Annotated[Path, typer.Option(help="YAML file: model, data, and any option below or LaPhaConfig argument.")],
    given: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Output folder; overrides output_dir of the file.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the output folder.")] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Build everything with a random-weight miniature of the model, take one step."),
    ] = False,
    trainer: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of any LaPhaConfig argument; may be repeated.")
    ] = None,
) -> int:
    """Train a policy and its value head. Under `accelerate launch`, every process searches its own questions."""
    from lapha._imports import require

    require("trl", extra="trl")
    from lapha.cli._training_run import TrainingRun, read_settings

    settings = read_settings(config, output_dir=out, dry_run=dry_run, given=given, trainer=trainer or ())
    run = TrainingRun(settings)
    run.train(resume=resume)
    return 0
