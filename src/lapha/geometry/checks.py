"""Checks of what geometry's functions are given; the ones that look at numbers wait for the device."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lapha._checks import check, check_finite, check_float_tensor
from lapha.geometry.numerics import accumulate_dtype


def check_curvature(curvature: Any) -> float:
    """Return curvature as a float, or raise `ValueError` unless it is a finite number > 0."""
    good = isinstance(curvature, Real) and 0 < float(curvature) < math.inf
    check(good, "curvature", "a finite number > 0 (the space has curvature -c)", repr(curvature))
    return float(curvature)


def check_vectors(vectors: Any, name: str) -> None:
    """A floating point tensor of shape (…, D), D >= 1."""
    check_float_tensor(vectors, name)
    good = vectors.dim() >= 1 and vectors.shape[-1] >= 1
    check(good, name, "shape (…, D) with D >= 1", f"shape {tuple(vectors.shape)}")


def check_broadcast(x: torch.Size, y: torch.Size, name: str) -> torch.Size:
    """The shape that two batch shapes broadcast to; `ValueError` naming `name` if they do not."""
    good = all(a == b or a == 1 or b == 1 for a, b in zip(reversed(x), reversed(y), strict=False))
    check(good, name, f"a batch shape that broadcasts with {tuple(x)}", tuple(y))
    return torch.broadcast_shapes(x, y)


def check_on_hyperboloid(x: Tensor, sqrt_c: float) -> None:
    """Finite, and the time coordinate that the spatial ones call for, to the dtype's rounding."""
    check_finite(x, "x")
    wide = x.to(accumulate_dtype(x)) * sqrt_c
    time = torch.sqrt(1 + wide[..., 1:].square().sum(-1))
    off = (wide[..., 0] - time).abs() / time
    tolerance = 64 * torch.finfo(x.dtype).eps
    if off.numel() and float(off.max()) > tolerance:
        worst = float(off.max())
        raise ValueError(
            f"x: expected points on the hyperboloid (to {tolerance:.0e}), got a time coordinate off by {worst:.2e}"
        )


def check_unit_length(direction: Tensor, name: str) -> None:
    """Vectors (…, D) of length 1, to the rounding of their dtype with a margin."""
    eps = torch.finfo(direction.dtype).eps
    tolerance = eps if direction.dtype in (torch.float16, torch.bfloat16) else 64 * eps
    length = torch.linalg.vector_norm(direction.to(accumulate_dtype(direction)), dim=-1)
    off = float((length - 1).abs().max()) if length.numel() else 0.0
    check(off <= tolerance, name, f"unit vectors (to {tolerance:.0e})", f"a length off by {off:.2e}")
