"""``lapha merge``: the shards of an evaluation as one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Folders of all shards that `lapha eval --shard i/n` wrote.")],
    out: Annotated[Path, typer.Option(help="The whole run's folder.")],
) -> int:
    """Put the shards of an evaluation together: one table, one report. Nothing is asked or graded again."""
    from lapha.cli._evaluation import load_selected, print_outcome, recorded
    from lapha.evaluation.merging import merge_shards, settings_of_whole

    return print_outcome(merge_shards(parts, out, load_selected(recorded(settings_of_whole(parts)))))
