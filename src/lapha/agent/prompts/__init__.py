"""Prompts as data: text files beside this one, read by name."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def load(name: str) -> str:
    """The text of prompt `name` (a file ``name.txt`` of this folder), without its last newline.

    Raises:
        FileNotFoundError: there is no such prompt.
    """
    return resources.files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")
