"""Points that are none: what is not finite affects its own row or column, and nothing else.

A latent counts if its direction has a finite length above 0 and its radius is finite and >= 0. Distances of any other are
NaN. A mean, a minimum or a product over all latents would carry one NaN into the rest, or lose it in a comparison:
so those latents are left out before anything is computed, and their places are filled afterwards.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Latents(NamedTuple):
    """The two sets of a call: directions u (N, D) and t (M, D), radii a (N,) and b (M,), curvature −c."""

    u: Tensor
    a: Tensor
    t: Tensor
    b: Tensor
    curvature: float

    @property
    def of_one_set(self) -> bool:
        """Whether rows and columns are the same memory: distances are then symmetric."""
        return _same(self.u, self.t) and _same(self.a, self.b)

    @property
    def dtype(self) -> torch.dtype:
        """What distances are computed in: float64 where any input is, else float32."""
        return computing_dtype(*self[:4])

    @property
    def in_float32_on_cpu(self) -> bool:
        """Where a float64 product is at hand that is better than what is asked for."""
        return self.u.device.type == "cpu" and self.dtype == torch.float32


def computing_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where any input is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _same(x: Tensor, y: Tensor) -> bool:
    if x is y:
        return True
    return x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride() and x.dtype == y.dtype


def lengths(direction: Tensor) -> Tensor:
    """(N,) ‖direction‖, float32 (float64 for float64); not finite where a number is not."""
    return torch.linalg.vector_norm(direction, dim=1, dtype=computing_dtype(direction))


def are_points(length: Tensor, radius: Tensor) -> Tensor:
    """(N,) bool: which latents count, from the lengths of their directions and their radii."""
    return (length > 0) & (length < math.inf) & (radius >= 0) & (radius < math.inf)


class Kept(NamedTuple):
    """The latents of a call that count, and where they were: (K,) int64, or None where all do."""

    latents: Latents
    rows: Tensor | None
    columns: Tensor | None


def keep_points(latents: Latents) -> Kept:
    """Leave out what is no point. Waits for the device once a set."""
    u, a, t, b, curvature = latents
    rows = _kept(u, a)
    columns = rows if latents.of_one_set else _kept(t, b)
    if rows is not None:
        u, a = u.index_select(0, rows), a.index_select(0, rows)
    if latents.of_one_set:
        t, b = u, a
    elif columns is not None:
        t, b = t.index_select(0, columns), b.index_select(0, columns)
    return Kept(Latents(u, a, t, b, curvature), rows, columns)


def _kept(direction: Tensor, radius: Tensor) -> Tensor | None:
    good = are_points(lengths(direction), radius)
    return None if bool(good.all()) else good.nonzero()[:, 0]


def scattered(values: Tensor, place: Tensor | None, size: int, fill: float) -> Tensor:
    """(size, …) with `values` at `place` along the first dimension, and `fill` elsewhere."""
    if place is None:
        return values
    full = values.new_full((size, *values.shape[1:]), fill)
    full[place] = values
    return full


def restored(kept: Kept, latents: Latents, distance: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest of the latents that count, in the places and with the indices of all: NaN and −1 elsewhere."""
    if kept.columns is not None and kept.columns.numel():
        index = kept.columns[index]
    size = latents.u.shape[0]
    return scattered(distance, kept.rows, size, math.nan), scattered(index, kept.rows, size, -1)
