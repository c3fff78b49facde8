"""Gradients of pairwise distances, in chunked torch on any device: chords are computed again rather than kept."""

from __future__ import annotations

import math

import torch

from lapha.geometry.numerics import accumulate_dtype, distance_partials
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
from lapha.kernels.refine_torch import Groups, refine_
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
            groups = _refined(block, scratch)
            for part, tile, _ in tiles(block, scratch):
                here = slice(rows.start + part.start, rows.start + part.stop)
                chord = tile.chord.div_(tile.x.length[:, None]).div_(tile.y.length[None, :]).clamp_(0, 4).sqrt_()
                partials = distance_partials(
                    tile.x_terms.radius[:, None],
                    tile.y_terms.radius[None, :],
                    chord,
                    distance[here, columns].to(dtype),
                    curvature,
                )
                upstream = grad[here, columns].to(dtype)
                grad_a[here] += (upstream * partials[0]).sum(1)
                grad_b[columns] += (upstream * partials[1]).sum(0)
                # in the place of the chords, which are no longer needed
                tile.chord.copy_(torch.where(chord > 0, upstream * partials[2] / chord, 0))
            _add_pulls(grad_u[rows], grad_t[columns], block, groups)
    return _tangential(grad_u, u), grad_a.to(a.dtype), _tangential(grad_t, t), grad_b.to(b.dtype)


def _refined(block: Block, scratch: torch.Tensor) -> tuple[torch.Tensor, Groups] | None:
    """Refine a block's chords; which pairs are near, and their groups, or None without any."""
    near = None
    for rows, tile, spare in tiles(block, scratch):
        if float(tile.chord.amin()) <= block.limit:
            if near is None:
                near = torch.zeros(block.chord.shape, dtype=torch.bool, device=block.chord.device)
            near[rows] = tile.near(spare)
    if near is None:
        return None
    groups = Groups(near)
    refine_(block.chord, block.x, block.y, groups)
    return near, groups


def _add_pulls(
    grad_u: torch.Tensor, grad_t: torch.Tensor, block: Block, found: tuple[torch.Tensor, Groups] | None
) -> None:
    """Add Σ_j w_ij (u_i − t_j) to `grad_u` and Σ_i w_ij (t_j − u_i) to `grad_t`; the weights are in `block.chord`.

    In a product the difference of near directions cancels: those are taken in float64, or by differences.
    """
    weight, x, y = block.chord, block.x, block.y
    if found is not None:
        near, groups = found
        for rows, columns in groups.dense:
            part = torch.where(near[rows][:, columns], weight[rows[:, None], columns], 0)
            wide = accumulate_dtype(part)
            u, t, part = x.stored[rows].to(wide), y.stored[columns].to(wide), part.to(wide)
            grad_u[rows] += (part.sum(1)[:, None] * u - part @ t).to(grad_u.dtype)
            grad_t[columns] += (part.sum(0)[:, None] * t - part.T @ u).to(grad_t.dtype)
        _add_strays(grad_u, grad_t, block, groups.stray)
        weight.masked_fill_(near, 0)
    grad_u += weight.sum(1)[:, None] * x.centred - weight @ y.centred
    grad_t += weight.sum(0)[:, None] * y.centred - weight.T @ x.centred


def _add_strays(
    grad_u: torch.Tensor, grad_t: torch.Tensor, block: Block, stray: tuple[torch.Tensor, torch.Tensor]
) -> None:
    step = max(1, TILE_ELEMENTS // max(1, grad_u.shape[1]))
    for first in range(0, stray[0].numel(), step):
        row, column = (index[first : first + step] for index in stray)
        pull = (block.x.stored[row] - block.y.stored[column]) * block.chord[row, column][:, None]
        grad_u.index_add_(0, row, pull)
        grad_t.index_add_(0, column, pull, alpha=-1)


def _tangential(grad: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Remove the part of a gradient along its direction, and divide by the direction's length."""
    stored = direction.to(grad.dtype)
    length = torch.linalg.vector_norm(stored, dim=1, keepdim=True)
    unit = stored / length
    return ((grad - unit * torch.linalg.vecdot(unit, grad)[:, None]) / length).to(direction.dtype)
