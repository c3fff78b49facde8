"""The nearest latent of a set in Triton: no N × M array; rows whose nearest the product cannot tell are looked at again.

What is compared is w·exp(2b) (see `radial`). The first pass bounds it from both sides, given the product's error: it
keeps each row's smallest upper bound, with its column, and the smallest lower bound of each row and tile of columns.
Where the error could change the winner or shows in its distance, the second pass takes direct differences, but only in
tiles of columns that could hold the winner.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from lapha.kernels.device_triton import (
    COMPLEMENT,
    GAIN,
    LENGTH,
    MARGIN,
    REMAINDER,
    SQUARE,
    WEIGHT,
    mode_of,
    split_columns,
    tile_product,
    tile_rows,
)
from lapha.kernels.precision import Precision, refine_threshold
from lapha.kernels.prepare_triton import NO_COLUMN, NO_ROW, Prepared, prepare, sample_centre
from lapha.kernels.radial import distance_of_winner, radial_terms
from lapha.kernels.refine_triton import nearest_refine_kernel, refine_blocks
from lapha.kernels.tuning import TileConfig, tile_config
from lapha.kernels.valid import Latents

# Rows of X that are prepared at a time: the copies stay below 400 MB at D = 1536.
_ROWS = 1 << 15
# Below this the compared values have lost digits: equal directions at large radii, and nothing else.
_SMALLEST = 1e-30


def nearest_forward(latents: Latents, precision: Precision) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance (N,) float32 and index (N,) int64 of the latent of (t, b) nearest to each of (u, a); M >= 1.

    NaN and −1 for a row that is no point (see `valid`), or where no column is one.
    """
    u, a, t, b, curvature = latents
    distance = torch.empty(u.shape[0], dtype=torch.float32, device=u.device)
    index = torch.empty(u.shape[0], dtype=torch.int64, device=u.device)
    centre = sample_centre(t)
    y = prepare(t, b, centre, curvature, precision, NO_COLUMN)
    y_terms = radial_terms(b, curvature, torch.float32)
    for first in range(0, u.shape[0], _ROWS):
        rows = slice(first, min(first + _ROWS, u.shape[0]))
        x = prepare(u[rows], a[rows], centre, curvature, precision, NO_ROW)
        found = _Search(x, y, b, curvature, precision).run()
        x_terms = radial_terms(a[rows], curvature, torch.float32)
        # the kernel's gain is divided by the lengths
        scale_x, scale_y = x.terms[LENGTH.value, : x.high.shape[0]], y.terms[LENGTH.value, found.index]
        winner = y_terms.take(found.index)
        plain = distance_of_winner(
            found.w,
            x_terms._replace(gain=x_terms.gain / scale_x),
            winner._replace(gain=winner.gain / scale_y),
            curvature,
        )
        exact = found.exact < torch.inf
        some = exact | (found.w < torch.inf)
        distance[rows] = torch.where(some, torch.where(exact, found.exact, plain.float()), torch.nan)
        index[rows] = torch.where(some, torch.where(exact, found.exact_index, found.index), -1)
    return distance, index


class _Search:
    """Both passes over one set of rows. After `run`: `w`, `index` of the first pass, `exact`, `exact_index` of the second."""

    def __init__(self, x: Prepared, y: Prepared, radius: torch.Tensor, curvature: float, precision: Precision) -> None:
        self.x, self.y, self.curvature, self.precision = x, y, curvature, precision
        self.n, self.m = x.high.shape[0], y.high.shape[0]
        # 1 for what is no point: it is out of reach anyway
        usable = torch.where((radius >= 0) & (radius < torch.inf), radius, torch.inf)
        scaled = torch.where(usable < torch.inf, 2 * curvature**0.5 * (usable - usable.amin()), 0)
        self.y.terms[WEIGHT.value, : self.m] = torch.exp(scaled.clamp_max(80.0))

    def run(self) -> _Search:
        sizes = (self.n, self.m, self.x.high.shape[1])
        config = tile_config("nearest", self.precision.name, sizes, self.x.terms.device, self._product)
        self._product(config)
        self._refine(config)
        return self

    def _product(self, config: TileConfig) -> None:
        """First pass."""
        device = self.x.terms.device
        tiles_n = triton.cdiv(self.m, config.block_n)
        self.w, self.at_most = (torch.empty(self.n, dtype=torch.float32, device=device) for _ in range(2))
        self.index = torch.empty(self.n, dtype=torch.int64, device=device)
        self.at_least = torch.empty(tiles_n, self.n, dtype=torch.float32, device=device)
        # what a chord² may be off by, relative to the centred squares: see `Precision`
        dim = self.x.stored.shape[1]
        error = self.precision.tolerance * refine_threshold(self.precision, torch.float32, dim)
        nearest_kernel[(triton.cdiv(self.n, config.block_m),)](
            self.x.high,
            self.x.low,
            self.y.high,
            self.y.low,
            self.x.terms,
            self.y.terms,
            self.y.margin,
            self.w,
            self.index,
            self.at_most,
            self.at_least,
            self.n,
            self.m,
            self.x.high.shape[1],
            self.x.terms.shape[1],
            self.y.terms.shape[1],
            error,
            BLOCK_M=config.block_m,
            BLOCK_N=config.block_n,
            BLOCK_K=config.block_k,
            MODE=mode_of(self.precision),
            SECTION=config.section,
            num_warps=config.warps,
            num_stages=config.stages,
        )

    def _refine(self, config: TileConfig) -> None:
        """Second pass: exact distances in tiles that could hold the nearest latent of a doubtful row."""
        least = self.at_least.amin(0)
        # the winner's own error shows, or another column could be nearer, or values are lost at the end of float32
        doubtful = (self.at_most > least * (1 + 4 * self.precision.tolerance)) | (least < _SMALLEST)
        bound = torch.where(doubtful, self.at_most, -1.0)
        tiles_n = self.at_least.shape[0]
        best = torch.full((tiles_n, self.n), torch.inf, dtype=torch.float32, device=bound.device)
        where = torch.zeros(tiles_n, self.n, dtype=torch.int32, device=bound.device)
        block, depth = refine_blocks()
        nearest_refine_kernel[(triton.cdiv(self.n, block) * tiles_n,)](
            self.x.stored,
            self.y.stored,
            self.x.terms,
            self.y.terms,
            bound,
            self.at_least,
            best,
            where,
            self.n,
            self.m,
            self.x.stored.shape[1],
            self.x.terms.shape[1],
            self.y.terms.shape[1],
            self.x.stored.stride(0),
            self.y.stored.stride(0),
            self.curvature**-0.5,
            BLOCK_N=config.block_n,
            BLOCK=block,
            BLOCK_K=depth,
        )
        self.exact, tile = best.min(0)
        self.exact_index = where.gather(0, tile[None])[0].long()


@triton.jit
def nearest_kernel(
    x_high,
    x_low,
    y_high,
    y_low,
    x_terms,
    y_terms,
    y_margin,
    w_out,
    index_out,
    at_most_out,
    at_least_out,
    N,
    M,
    K,
    x_width,
    y_width,
    error,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MODE: tl.constexpr,
    SECTION: tl.constexpr,
):
    """A few rows and all columns a program."""
    first_row = tl.program_id(0) * BLOCK_M
    x_start = first_row.to(tl.int64) * K
    row = first_row + tl.arange(0, BLOCK_M)
    i = row
    at_most = tl.full((BLOCK_M,), float("inf"), tl.float32)
    index = tl.zeros((BLOCK_M,), tl.int32)
    # MARGIN is 2e6 times the square of what a length is off by
    margin = 2e-6 * (tl.load(x_terms + MARGIN * x_width + i) + tl.load(y_margin))
    for first in range(0, M, BLOCK_N):
        y_start = tl.cast(first, tl.int64) * K
        product = tile_product(
            x_high + x_start,
            x_low + x_start,
            y_high + y_start,
            y_low + y_start,
            tile_rows(first_row, N, BLOCK_M),
            tile_rows(first, M, BLOCK_N),
            K,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            MODE,
            SECTION,
        )
        column = first + tl.arange(0, BLOCK_N)
        if MODE == 0:
            least, at_most, index = _look_at(
                product, x_terms, y_terms, i, column, margin, M, x_width, y_width, error, at_most, index, MODE
            )
        else:
            # a quarter of the columns at a time: the terms of all of them together would not fit the registers
            quarter: tl.constexpr = BLOCK_N // 4
            column = first + tl.arange(0, quarter)
            left, right = split_columns(product)
            part_0, part_1 = split_columns(left)
            part_2, part_3 = split_columns(right)
            least, at_most, index = _look_at(
                part_0, x_terms, y_terms, i, column, margin, M, x_width, y_width, error, at_most, index, MODE
            )
            tl.debug_barrier()  # keeps the compiler from doing several at once
            other, at_most, index = _look_at(
                part_1, x_terms, y_terms, i, column + quarter, margin, M, x_width, y_width, error, at_most, index, MODE
            )
            least = tl.minimum(least, other)
            tl.debug_barrier()
            other, at_most, index = _look_at(
                part_2,
                x_terms,
                y_terms,
                i,
                column + 2 * quarter,
                margin,
                M,
                x_width,
                y_width,
                error,
                at_most,
                index,
                MODE,
            )
            least = tl.minimum(least, other)
            tl.debug_barrier()
            other, at_most, index = _look_at(
                part_3,
                x_terms,
                y_terms,
                i,
                column + 3 * quarter,
                margin,
                M,
                x_width,
                y_width,
                error,
                at_most,
                index,
                MODE,
            )
            least = tl.minimum(least, other)
        tl.store(at_least_out + (first // BLOCK_N) * N + row, least, mask=row < N)
    # back from the upper bound to the value itself
    square = tl.load(x_terms + SQUARE * x_width + i) + tl.load(y_terms + SQUARE * y_width + index)
    gain = tl.load(x_terms + GAIN * x_width + i) * tl.load(y_terms + GAIN * y_width + index)
    w = at_most / tl.load(y_terms + WEIGHT * y_width + index) - gain * (error * square + margin)
    tl.store(w_out + row, tl.maximum(w, 0.0), mask=row < N)
    tl.store(index_out + row, index.to(tl.int64), mask=row < N)
    tl.store(at_most_out + row, at_most, mask=row < N)


@triton.jit
def _look_at(
    product, x_terms, y_terms, i, column, margin, M, x_width, y_width, error, at_most, index, MODE: tl.constexpr
):
    """Least possible value of each row among some columns, and the smallest upper bound so far with its column."""
    square = tl.load(x_terms + SQUARE * x_width + i)[:, None] + tl.load(y_terms + SQUARE * y_width + column)[None, :]
    chord = square - 2.0 * product
    off = error * square + margin[:, None]
    gap = (
        tl.load(y_terms + COMPLEMENT * y_width + column)[None, :] - tl.load(x_terms + COMPLEMENT * x_width + i)[:, None]
    )
    if MODE < 2:  # beyond what bfloat16 directions can show
        gap -= tl.load(x_terms + REMAINDER * x_width + i)[:, None]
        gap += tl.load(y_terms + REMAINDER * y_width + column)[None, :]
    gap = gap * gap
    gain = tl.load(x_terms + GAIN * x_width + i)[:, None] * tl.load(y_terms + GAIN * y_width + column)[None, :]
    scale = tl.load(y_terms + WEIGHT * y_width + column)[None, :]
    # columns past the end are out of reach
    inside = (column < M)[None, :]
    lower = tl.where(inside, (gap + gain * tl.maximum(chord - off, 0.0)) * scale, float("inf"))
    upper = tl.where(inside, (gap + gain * tl.maximum(chord + off, 0.0)) * scale, float("inf"))
    best, where = tl.min(upper, axis=1, return_indices=True)
    closer = best < at_most
    index = tl.where(closer, tl.min(column, axis=0) + where, index)
    return tl.min(lower, axis=1), tl.where(closer, best, at_most), index
