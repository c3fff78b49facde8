"""``lapha grade``: a run graded again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def grade(
    run: Annotated[Path, typer.Argument(help="Folder that `lapha eval` wrote.")],
    graders: Annotated[int, typer.Option(help="Grader processes.", min=1)] = 2,
) -> int:
    """Grade a run's answers by today's rules; the tables are written anew. No model is asked, nor a judge."""
    from lapha.cli._evaluation import print_outcome
    from lapha.cli._progress import console
    from lapha.evaluation.config import TINY
    from lapha.evaluation.regrading import grade_again
    from lapha.evaluation.run_folder import read_config
    from lapha.tiny import verify

    tiny = read_config(run)["settings"].get("data") == TINY
    graded, changes = grade_again(run, workers=graders, verify=verify if tiny else None)
    for line in changes:
        console().print(line, markup=False, highlight=False)
    console().print(f"{len(changes)} verdicts are others now", markup=False)
    return print_outcome(graded)
