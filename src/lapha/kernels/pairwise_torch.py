"""Pairwise distances in chunked torch: any device, extra memory bounded whatever the sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from lapha.kernels.chords import (
    Directions,
    centre_of,
    chord_by_coordinates_,
    chord_product_,
    make_ready,
    refine_limit,
    select,
    unit_rows,
)
from lapha.kernels.precision import Precision, full_float32, refine_threshold
from lapha.kernels.radial import RadialTerms, distance_from_scaled_, pair_distance, radial_terms, scaled_square_
from lapha.kernels.refine_torch import TINY, Groups, near_copies, refine_
from lapha.kernels.valid import Latents, keep_points, scattered

# Columns of one matrix product, the most rows, and how many numbers the rows' centred copy may hold (32 MiB of float32):
# the product is fastest when it is large.
COLUMNS = 4096
ROWS = 4096
_ROW_NUMBERS = 1 << 23
# Elementwise work is done on this many numbers at a time (2 MiB), which the caches hold.
TILE_ELEMENTS = 1 << 19
# Up to this dimension, differences coordinate by coordinate cost less than a product and what repairs it.
FEW_COORDINATES = 8
# Up to this many multiplications a float64 product costs less than looking twice; it is good to 1e-8 of chord² from
# the second number on.
_SMALL = 1 << 24
_DOUBLE_TRUST = 1e-7
# Rows of a strip of a symmetric matrix: half of it is computed, and a strip's own square twice.
_STRIPS = (128, 256, 512)


def spans(size: int, step: int) -> Iterator[slice]:
    """Cover range(size) with slices of `step`."""
    return (slice(first, min(first + step, size)) for first in range(0, size, step))


class Block(NamedTuple):
    """A part of the result: its chords, and what is needed to finish them.

    Attributes:
        chord: (R, C) ‖u − t‖² of directions as stored, a view that the caller may overwrite.
        x, y: directions of the rows and columns.
        x_terms, y_terms: their radii's terms, lengths divided out.
        x_limit, y_limit: (R, 1), (1, C); pairs with chord <= x_limit + y_limit must be refined.
        limit: the largest sum of the two; −1 where none has to be.
        reach: the largest √c·radius of the rows and of the columns.
    """

    chord: torch.Tensor
    x: Directions
    y: Directions
    x_terms: RadialTerms
    y_terms: RadialTerms
    x_limit: torch.Tensor
    y_limit: torch.Tensor
    limit: float
    reach: tuple[float, float]

    def rows(self, part: slice) -> Block:
        """Some rows of the block."""
        x, x_terms = select(self.x, part), self.x_terms.take(part)
        return self._replace(chord=self.chord[part], x=x, x_terms=x_terms, x_limit=self.x_limit[part])

    def near(self, scratch: torch.Tensor) -> torch.Tensor:
        """(R, C) bool, the pairs that must be refined; `scratch` has the shape of `chord`."""
        return torch.sub(self.chord, self.x_limit, out=scratch).sub_(self.y_limit) <= 0


def chord_blocks(
    latents: Latents,
    precision: Precision,
    size: tuple[int, int],
    out: torch.Tensor | None = None,
    symmetric: bool = False,
    by_coordinates: bool = False,
) -> Iterator[tuple[slice, slice, Block]]:
    """Chords of all pairs, block by block, columns in the outer loop.

    Args:
        size: most rows and columns of a block.
        out: (N, M) to keep the chords in; without it all blocks share one buffer.
        symmetric: only blocks that begin on the diagonal or lie above it, with 4 on the diagonal.
        by_coordinates: take differences where there are few coordinates: then nothing but near-duplicates is left to refine.
    """
    u, a, t, b, curvature = latents
    dtype, root = latents.dtype, math.sqrt(curvature)
    threshold = refine_threshold(precision, dtype, u.shape[1])
    x_terms, y_terms = radial_terms(a, curvature, dtype), radial_terms(b, curvature, dtype)
    n, m = u.shape[0], t.shape[0]
    step = min(size[0], next((rows for rows in _STRIPS if n <= 4 * rows), _STRIPS[-1])) if symmetric else size[0]
    buffer = torch.empty(min(n, step), min(m, size[1]), dtype=dtype, device=u.device) if out is None else out
    for columns in spans(m, size[1]):
        centre = centre_of(t[columns], dtype)
        y_all = make_ready(t[columns], centre, precision)
        for rows in spans(n, step):
            if symmetric and rows.start >= columns.stop:
                break
            on_diagonal = symmetric and rows.start >= columns.start
            here = slice(rows.start, columns.stop) if on_diagonal else columns
            y = select(y_all, slice(here.start - columns.start, None))
            x = make_ready(u[rows], centre, precision)
            chord = buffer[: x.length.numel(), : y.length.numel()] if out is None else out[rows, here]
            few = by_coordinates and u.shape[1] <= FEW_COORDINATES and precision.name == "ieee"
            (chord_by_coordinates_ if few else chord_product_)(chord, x, y)
            if on_diagonal:
                chord.diagonal().fill_(4)
            x_limit, y_limit = refine_limit(x, threshold)[:, None], refine_limit(y, threshold)[None, :]
            yield (
                rows,
                here,
                Block(
                    chord,
                    x,
                    y,
                    divide_lengths(x_terms.take(rows), x),
                    divide_lengths(y_terms.take(here), y),
                    torch.full_like(x_limit, 0.5 * TINY) if few else x_limit,
                    torch.full_like(y_limit, 0.5 * TINY) if few else y_limit,
                    TINY if few else float(x_limit.max() + y_limit.max()),
                    (root * float(a[rows].max()), root * float(b[here].max())),
                ),
            )


def divide_lengths(terms: RadialTerms, directions: Directions) -> RadialTerms:
    """The product is of directions as stored; dividing its factor by their lengths makes it one of unit vectors."""
    return terms._replace(gain=terms.gain / directions.length)


def tiles(block: Block, scratch: torch.Tensor) -> Iterator[tuple[slice, Block, torch.Tensor]]:
    """A few rows of a block at a time, such that they fit the cache, each with a buffer of their shape."""
    height, width = block.chord.shape
    for rows in spans(height, max(1, scratch.numel() // width)):
        tile = block.rows(rows)
        yield rows, tile, scratch[: tile.chord.numel()].view(tile.chord.shape)


def scratch_for(latents: Latents, columns: int, elements: int) -> torch.Tensor:
    """A buffer of about `elements` numbers for `tiles` of blocks of at most `columns` columns."""
    n, m = latents.u.shape[0], min(columns, latents.t.shape[0])
    return torch.empty(min(n, max(1, elements // max(m, 1))) * m, dtype=latents.dtype, device=latents.u.device)


def block_rows(latents: Latents) -> int:
    """Rows of one matrix product."""
    return max(1, min(ROWS, _ROW_NUMBERS // latents.u.shape[1]))


def pairwise_forward(latents: Latents, precision: Precision) -> torch.Tensor:
    """(N, M) geodesic distances; NaN where one of the two is no point (see `valid`).

    Of one set with itself (the same tensors), exactly symmetric with a diagonal of 0, for half of the work.
    """
    kept = keep_points(latents)
    distance = _pairwise(kept.latents, precision)
    distance = scattered(distance, kept.rows, latents.u.shape[0], math.nan)
    if kept.columns is None:
        return distance
    return scattered(distance.T, kept.columns, latents.t.shape[0], math.nan).T.contiguous()


def _pairwise(latents: Latents, precision: Precision) -> torch.Tensor:
    u, _, t, _, curvature = latents
    if 0 < u.shape[0] * t.numel() <= _SMALL and precision.name == "ieee" and latents.in_float32_on_cpu:
        return _pairwise_small(latents)
    symmetric = latents.of_one_set
    out = torch.empty(u.shape[0], t.shape[0], dtype=latents.dtype, device=u.device)
    scratch = scratch_for(latents, COLUMNS, TILE_ELEMENTS)
    with full_float32(u.device):
        size = block_rows(latents), COLUMNS
        for rows, columns, block in chord_blocks(latents, precision, size, out, symmetric, by_coordinates=True):
            _finish_block(block, scratch, curvature)
            if symmetric:
                _mirror(out, rows, columns)
    return out


def _pairwise_small(latents: Latents) -> torch.Tensor:
    """By one float64 product, which leaves only near-duplicates to refine."""
    u, a, t, b, curvature = latents
    symmetric, dtype, root = latents.of_one_set, latents.dtype, math.sqrt(latents.curvature)
    x = unit_rows(u)
    y = x if symmetric else unit_rows(t)
    x_terms = radial_terms(a, curvature, dtype)
    y_terms = x_terms if symmetric else radial_terms(b, curvature, dtype)
    product = x.centred @ y.centred.T
    if symmetric:
        product.fill_diagonal_(-1)
    chord = product.mul_(-2).add_(2)
    tiny = None
    if float(chord.amin()) < _DOUBLE_TRUST:
        near = chord < _DOUBLE_TRUST
        if symmetric:
            near.fill_diagonal_(True)  # so that the members of a group agree on their first
        (row, column), exact = near_copies(x.stored, y.stored, x.length, y.length, near)
        chord[row, column] = exact
        tiny = row, column, exact
    out = chord.to(dtype)
    w = scaled_square_(out, torch.empty_like(out), x_terms, y_terms, curvature, 0.0)
    reach = root * float(a.max()), root * float(b.max())
    distance_from_scaled_(w, torch.empty_like(out), x_terms, y_terms, curvature, reach)
    if tiny is not None:
        row, column, exact = (part[tiny[2] < TINY] for part in tiny)
        out[row, column] = pair_distance(exact, x_terms.radius[row], y_terms.radius[column], curvature).to(dtype)
    if symmetric:
        _mirror(out, slice(0, len(out)), slice(0, len(out)))
    return out


def _finish_block(block: Block, scratch: torch.Tensor, curvature: float) -> None:
    """Turn a block's chords into distances, in place."""
    near, later = None, []
    for rows, tile, spare in tiles(block, scratch):
        least = float(tile.chord.amin())
        # one pass is enough to see that nothing is near, which is the common case
        if least > block.limit:
            _finish(tile, spare, least, curvature)
            continue
        if near is None:
            near = torch.zeros(block.chord.shape, dtype=torch.bool, device=block.chord.device)
        near[rows] = tile.near(spare)
        later.append(rows)
    if near is None:
        return
    row, column, chord = refine_(block.chord, block.x, block.y, Groups(near))
    for rows in later:
        tile = block.rows(rows)
        _finish(tile, scratch[: tile.chord.numel()].view(tile.chord.shape), 0.0, curvature)
    exact = pair_distance(chord, block.x_terms.radius[row], block.y_terms.radius[column], curvature)
    block.chord[row, column] = exact.to(block.chord.dtype)


def _finish(tile: Block, spare: torch.Tensor, least: float, curvature: float) -> None:
    w = scaled_square_(tile.chord, spare, tile.x_terms, tile.y_terms, curvature, least)
    distance_from_scaled_(w, spare, tile.x_terms, tile.y_terms, curvature, tile.reach)


def _mirror(out: torch.Tensor, rows: slice, columns: slice) -> None:
    """Copy a block above the diagonal below it; its own square keeps what is above, and 0 on the diagonal."""
    if columns.start != rows.start:
        out[columns, rows] = out[rows, columns].T
        return
    square = torch.triu(out[rows, rows], 1)
    out[rows, rows] = square + square.T
    out[rows.stop : columns.stop, rows] = out[rows, rows.stop : columns.stop].T
