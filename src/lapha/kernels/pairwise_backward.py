"""Gradients of pairwise distances, in chunked torch on any device: chords are computed again rather than kept."""

from __future__ import annotations

import math

import torch

from lapha.geometry.numerics import accumulate_dtype, distance_partials
from lapha.kernels.chords import refined_chords
from lapha.kernels.pairwise_torch import (
    COLUMNS,
    TILE_ELEMENTS,
    Block,
    block_rows,
    chord_blocks,
    scratch_for,
    tiles,
)
from lapha.kernels.precision import PRECISIONS, full_float32
from lapha.kernels.valid import Latents, keep_points


def pairwise_backward(
    latents: Latents, distance: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients with respect to u, a, t and b.

    Args:
        distance: (N, M) what the forward pass returned.
        grad: (N, M) gradient of the loss with respect to it.

    A direction's gradient is tangential (moving along u changes nothing), and 0 between coincident latents. At the
    origin it follows the convention of `lapha.geometry`, which gives tangent vectors their right gradient there. What is
    no point (see `valid`) has a gradient of NaN, 0 where nothing comes back to it, and no part in the others'.
    """
    kept = keep_points(latents)
    if kept.rows is None and kept.columns is None:
        return _backward(latents, distance, grad)
    every_row, every_column = (torch.arange(size, device=grad.device) for size in grad.shape)
    rows = every_row if kept.rows is None else kept.rows
    columns = every_column if kept.columns is None else kept.columns
    block = rows[:, None], columns
    found = _backward(kept.latents, distance[block], grad[block])
    by_row, by_column = (grad != 0).any(1), (grad != 0).any(0)
    places = (rows, by_row), (rows, by_row), (columns, by_column), (columns, by_column)
    grad_u, grad_a, grad_t, grad_b = (_filled(part, *place) for part, place in zip(found, places, strict=True))
    return grad_u, grad_a, grad_t, grad_b


def _filled(part: torch.Tensor, place: torch.Tensor, reached: torch.Tensor) -> torch.Tensor:
    """(size, …) with `part` at `place`; elsewhere NaN where a gradient comes back, else 0."""
    full = part.new_zeros(reached.shape[0], *part.shape[1:])
    full[reached] = math.nan
    full[place] = part
    return full


def _backward(
    latents: Latents, distance: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of latents that all count."""
    u, a, t, b, curvature = latents
    dtype = latents.dtype
    grad_u, grad_t = (torch.zeros(z.shape, dtype=dtype, device=z.device) for z in (u, t))
    grad_a, grad_b = (torch.zeros(z.shape, dtype=dtype, device=z.device) for z in (a, b))
    scratch = scratch_for(latents, COLUMNS, TILE_ELEMENTS)
    with full_float32(u.device):
        for rows, columns, block in chord_blocks(latents, PRECISIONS["ieee"], (block_rows(latents), COLUMNS)):
            for part, tile, spare in tiles(block, scratch):
                here = slice(rows.start + part.start, rows.start + part.stop)
                chord, cancels = _unit_chords(tile, spare)
                by_a, by_b, by_chord = distance_partials(
                    tile.x_terms.radius[:, None],
                    tile.y_terms.radius[None, :],
                    chord,
                    distance[here, columns].to(dtype),
                    curvature,
                )
                upstream = grad[here, columns].to(dtype)
                grad_a[here] += (upstream * by_a).sum(1)
                grad_b[columns] += (upstream * by_b).sum(0)
                weight = torch.where(chord > 0, upstream * by_chord / chord, 0)
                _add_pulls(grad_u[here], grad_t[columns], weight, tile, cancels)
    return _tangential(grad_u, u), grad_a.to(a.dtype), _tangential(grad_t, t), grad_b.to(b.dtype)


def _unit_chords(tile: Block, spare: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Chord lengths of unit directions, and whether differences u − t of close pairs cancel in a product."""
    _, flagged = tile.flagged(spare)
    chord = tile.chord.div_(tile.x.length[:, None]).div_(tile.y.length[None, :]).clamp_(0, 4)
    if flagged is None:
        return chord.sqrt_(), False
    refined = refined_chords(tile.x, tile.y, *flagged)
    chord[flagged] = refined.to(chord.dtype)
    # a pair of equal directions pulls nowhere, so a matrix of a set with itself is no reason to go slowly
    return chord.sqrt_(), bool((refined > 0).any())


def _add_pulls(grad_u: torch.Tensor, grad_t: torch.Tensor, weight: torch.Tensor, tile: Block, cancels: bool) -> None:
    """Add Σ_j w_ij (u_i − t_j) to `grad_u` and Σ_i w_ij (t_j − u_i) to `grad_t`."""
    a, b = tile.x.centred, tile.y.centred
    if cancels:
        wide = accumulate_dtype(weight)
        a, b, weight = tile.x.stored.to(wide), tile.y.stored.to(wide), weight.to(wide)
    grad_u += (weight.sum(1)[:, None] * a - weight @ b).to(grad_u.dtype)
    grad_t += (weight.sum(0)[:, None] * b - weight.T @ a).to(grad_t.dtype)


def _tangential(grad: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Remove the part of a gradient along its direction, and divide by the direction's length."""
    stored = direction.to(grad.dtype)
    length = torch.linalg.vector_norm(stored, dim=1, keepdim=True)
    unit = stored / length
    return ((grad - unit * torch.linalg.vecdot(unit, grad)[:, None]) / length).to(direction.dtype)
