"""Argument checks: every message names the argument, what was expected, and what came."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import torch

from lapha.errors import ArgumentError


def check(condition: bool, name: str, expected: str, got: Any) -> None:
    """Raise `ArgumentError` in the one form all of lapha uses, unless `condition` holds."""
    if not condition:
        raise ArgumentError(f"{name}: expected {expected}, got {got}")


def check_choice(value: str, name: str, choices: Iterable[str]) -> None:
    """`value` must be one of `choices`."""
    options = sorted(choices)
    if value in options:  # nothing to look up, and nothing that a compiler cannot trace
        return
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    check(False, name, "one of " + ", ".join(repr(option) for option in options), f"{value!r}{hint}")


def check_float_tensor(tensor: Any, name: str, dim: int | None = None) -> None:
    """`tensor` must be a floating point tensor, with `dim` dimensions where that is given."""
    check(isinstance(tensor, torch.Tensor), name, "a torch.Tensor", type(tensor).__name__)
    check(tensor.is_floating_point(), name, "a floating point dtype", tensor.dtype)
    if dim is not None:
        check(tensor.dim() == dim, name, f"{dim} dimension(s)", f"shape {tuple(tensor.shape)}")


def check_finite(tensor: torch.Tensor, name: str) -> None:
    """No NaN and no infinity. Synchronises with the device."""
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        where = (~finite).nonzero()[0].tolist()
        raise ArgumentError(
            f"{name}: expected finite numbers, got {int((~finite).sum())} NaN or Inf, the first at {where}"
        )


def check_parent(parent: torch.Tensor, size: int, name: str = "parent") -> None:
    """`parent` must be (N,) integers, −1 at roots, and every other entry earlier than its own index."""
    check(isinstance(parent, torch.Tensor), name, "a torch.Tensor", type(parent).__name__)
    check(parent.dim() == 1 and parent.shape[0] == size, name, f"shape ({size},)", f"shape {tuple(parent.shape)}")
    whole = not (parent.is_floating_point() or parent.is_complex() or parent.dtype == torch.bool)
    check(whole, name, "an integer dtype", parent.dtype)
    index = torch.arange(size, device=parent.device)
    bad = (parent >= index) | (parent < -1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0, 0])
        raise ArgumentError(
            f"{name}: expected an index earlier than the node's own (or -1 at a root), "
            f"got {name}[{first}] = {int(parent[first])}"
        )
