"""Methods on many points, a few thousand rows at a time: float64 copies of coordinates then stay in a core's cache."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

# Coordinates that are computed with at a time where no graph is kept: float64 copies of them stay in a core's cache.
_BLOCK = 1 << 17

Method = TypeVar("Method", bound=Callable[..., Tensor])


def in_blocks(method: Method) -> Method:
    """A method whose points lie along the last dimension, a few thousand rows at a time where that changes nothing."""

    @functools.wraps(method)
    def blocked(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        if torch.compiler.is_compiling():
            return method(self, *args, **kwargs)
        tensors = [z for z in args if isinstance(z, Tensor)]
        rows = _rows_to_split(tensors, kwargs)
        if rows is None:
            return method(self, *args, **kwargs)
        count, size = rows
        parts = []
        for first in range(0, count, size):
            part = [_some_rows(z, first, size, count, tensors) for z in args]
            parts.append(method(self, *part, **kwargs))
        return torch.cat(parts)

    return cast(Method, blocked)


def _rows_to_split(tensors: list[Tensor], kwargs: dict[str, Any]) -> tuple[int, int] | None:
    """How many rows there are, and how many to take at a time; None where all are to be taken together."""
    largest = max(tensors, key=Tensor.numel)
    if largest.dim() < 2 or largest.numel() <= 2 * _BLOCK or largest.device.type != "cpu":
        return None
    if any(_needs_all(z) for z in tensors):
        return None
    if kwargs.get("dim", -1) != -1 or any(isinstance(z, Tensor) for z in kwargs.values()):
        return None
    dims, count = max(z.dim() for z in tensors), largest.shape[0]
    if largest.dim() < dims or any(z.dim() == dims and z.shape[0] not in (1, count) for z in tensors):
        return None
    return count, max(1, _BLOCK * count // largest.numel())


def _needs_all(tensor: Tensor) -> bool:
    grad = torch.is_grad_enabled() and tensor.requires_grad
    return (
        grad
        or type(tensor) not in (Tensor, torch.nn.Parameter)
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def _some_rows(argument: Any, first: int, size: int, count: int, tensors: list[Tensor]) -> Any:
    dims = max(z.dim() for z in tensors)
    whole = not isinstance(argument, Tensor) or argument.dim() < dims or argument.shape[0] != count
    return argument if whole else argument[first : first + size]
