"""Pairwise distances in chunked torch: any device, extra memory bounded whatever the sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from lapha.kernels.chords import (
    Directions,
    centre_of,
    chord_product_,
    flagged_pairs,
    make_ready,
    refine_limit,
    refined_chords,
)
from lapha.kernels.precision import Precision, full_float32, refine_threshold
from lapha.kernels.radial import RadialTerms, distance_from_scaled_, pair_distance, radial_terms, scaled_square_
from lapha.kernels.valid import Latents, computing_dtype, keep_points, scattered

# Columns of one matrix product, the most rows, and how many numbers the rows' centred copy may hold (32 MiB of float32):
# the product is fastest when it is large.
COLUMNS = 4096
ROWS = 4096
_ROW_NUMBERS = 1 << 23
# Elementwise work is done on this many numbers at a time (2 MiB), which the caches hold.
TILE_ELEMENTS = 1 << 19


def spans(size: int, step: int) -> Iterator[slice]:
    """Cover range(size) with slices of `step`."""
    return (slice(first, min(first + step, size)) for first in range(0, size, step))


class Block(NamedTuple):
    """A part of the result: its chords from the product, and what is needed to finish them.

    Attributes:
        chord: (R, C) ‖u − t‖², a view that the caller may overwrite.
        x, y: directions of the rows and columns.
        x_terms, y_terms: their radii's terms, lengths divided out.
        x_limit, y_limit: (R, 1), (1, C); pairs with chord <= x_limit + y_limit must be refined.
        limit: the largest sum of the two.
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
        x = Directions(*(field[part] for field in self.x))
        return self._replace(chord=self.chord[part], x=x, x_terms=self.x_terms.take(part), x_limit=self.x_limit[part])

    def flagged(self, scratch: torch.Tensor) -> tuple[float, tuple[torch.Tensor, torch.Tensor] | None]:
        """The smallest chord, and the pairs that must be refined; `scratch` has the shape of `chord`."""
        least = float(self.chord.amin())
        # one pass is enough to see that there are none, which is the common case
        return least, None if least > self.limit else flagged_pairs(self.chord, scratch, self.x_limit, self.y_limit)


def chord_blocks(
    latents: Latents, precision: Precision, size: tuple[int, int], out: torch.Tensor | None = None
) -> Iterator[tuple[slice, slice, Block]]:
    """Products of all pairs, block by block, columns in the outer loop.

    Args:
        size: most rows and columns of a block.
        out: (N, M) to keep the chords in; without it all blocks share one buffer.
    """
    u, a, t, b, curvature = latents
    dtype = computing_dtype(u, t, a, b)
    threshold = refine_threshold(precision, dtype, u.shape[1])
    x_terms, y_terms = radial_terms(a, curvature, dtype), radial_terms(b, curvature, dtype)
    n, m = u.shape[0], t.shape[0]
    buffer = torch.empty(min(n, size[0]), min(m, size[1]), dtype=dtype, device=u.device) if out is None else out
    for columns in spans(m, size[1]):
        centre = centre_of(t[columns], dtype)
        y = make_ready(t[columns], centre, precision)
        column_terms = divide_lengths(y_terms.take(columns), y)
        y_limit = refine_limit(y, threshold)[None, :]
        y_reach = math.sqrt(curvature) * float(b[columns].max())
        for rows in spans(n, size[0]):
            x = make_ready(u[rows], centre, precision)
            chord = buffer[: x.length.numel(), : y.length.numel()] if out is None else out[rows, columns]
            chord_product_(chord, x, y)
            row_terms = divide_lengths(x_terms.take(rows), x)
            x_limit = refine_limit(x, threshold)[:, None]
            limit = float(x_limit.max() + y_limit.max())
            reach = math.sqrt(curvature) * float(a[rows].max()), y_reach
            yield rows, columns, Block(chord, x, y, row_terms, column_terms, x_limit, y_limit, limit, reach)


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
    dtype = computing_dtype(latents.u, latents.t, latents.a, latents.b)
    return torch.empty(min(n, max(1, elements // max(m, 1))) * m, dtype=dtype, device=latents.u.device)


def block_rows(latents: Latents) -> int:
    """Rows of one matrix product."""
    return max(1, min(ROWS, _ROW_NUMBERS // latents.u.shape[1]))


def pairwise_forward(latents: Latents, precision: Precision) -> torch.Tensor:
    """(N, M) geodesic distances; NaN where one of the two is no point (see `valid`)."""
    kept = keep_points(latents)
    distance = _pairwise(kept.latents, precision)
    distance = scattered(distance, kept.rows, latents.u.shape[0], math.nan)
    if kept.columns is None:
        return distance
    return scattered(distance.T, kept.columns, latents.t.shape[0], math.nan).T.contiguous()


def _pairwise(latents: Latents, precision: Precision) -> torch.Tensor:
    u, _, t, _, curvature = latents
    out = torch.empty(u.shape[0], t.shape[0], dtype=latents.dtype, device=u.device)
    scratch = scratch_for(latents, COLUMNS, TILE_ELEMENTS)
    with full_float32(u.device):
        for _, _, block in chord_blocks(latents, precision, (block_rows(latents), COLUMNS), out):
            for _, tile, spare in tiles(block, scratch):
                least, flagged = tile.flagged(spare)
                w = scaled_square_(tile.chord, spare, tile.x_terms, tile.y_terms, curvature, least)
                distance = distance_from_scaled_(w, spare, tile.x_terms, tile.y_terms, curvature, tile.reach)
                if flagged is not None:
                    i, j = flagged
                    chord = refined_chords(tile.x, tile.y, i, j)
                    exact = pair_distance(chord, tile.x_terms.radius[i], tile.y_terms.radius[j], curvature)
                    distance[i, j] = exact.to(distance.dtype)
    return out
