"""``lapha checkpoint``: wrapper checkpoints apart and together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

checkpoint = typer.Typer(
    help="Split a wrapper checkpoint into a policy and a value head, or merge them.", rich_markup_mode=None
)


@checkpoint.command()
def split(
    source: Annotated[Path, typer.Argument(help="Folder of a checkpoint that holds both.")],
    out: Annotated[Path, typer.Argument(help="Folder for the policy, with its value head in it.")],
) -> None:
    """Write a policy that transformers and vLLM load, with the value head beside it."""
    from lapha.evaluation.reference import split_checkpoint

    head = split_checkpoint(source, out)
    print(
        f"{out}: policy"
        + (f" and a value head of {head.hidden_size} numbers" if head is not None else ", no value head")
    )


@checkpoint.command()
def merge(
    policy: Annotated[Path, typer.Argument(help="Folder of a causal LM.")],
    value_head: Annotated[Path, typer.Argument(help="Folder of a value head, or a head's file (.pt).")],
    out: Annotated[Path, typer.Argument(help="Folder for the wrapper checkpoint.")],
) -> None:
    """Write one wrapper checkpoint, as the reference implementation loads it."""
    from lapha.evaluation.reference import merge_checkpoint

    merge_checkpoint(policy, value_head, out)
    print(f"{out}: policy and value head in one checkpoint")
