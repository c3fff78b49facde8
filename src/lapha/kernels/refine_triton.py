"""Second passes in Triton: pairs that a product cannot tell are computed again by direct differences."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from lapha.kernels.device_triton import (
    COMPLEMENT,
    GAIN,
    LENGTH,
    REMAINDER,
    ROOT_GROWTH,
    SCALE,
    SCALED_RADIUS,
    direct_chords,
    exact_distance,
    radial_gap,
)
from lapha.kernels.prepare_triton import Prepared
from lapha.kernels.registry import interpreting


def refine_blocks() -> tuple[int, int]:
    """Side of a tile, which divides those of the first pass, and depth; tile × tile × depth numbers are in registers."""
    return (32, 128) if interpreting() else (16, 32)


def refine_pairs(
    x: Prepared, y: Prepared, out: torch.Tensor, flags: torch.Tensor, curvature: float, tile: tuple[int, int]
) -> None:
    """Overwrite the marked (negative) entries of `out` (N, M); `flags` says which of the tiles hold one."""
    n, m = out.shape
    block, depth = refine_blocks()
    refine_kernel[(triton.cdiv(n, block), triton.cdiv(m, block))](
        x.stored,
        y.stored,
        x.terms,
        y.terms,
        out,
        flags,
        n,
        m,
        x.stored.shape[1],
        x.terms.shape[1],
        y.terms.shape[1],
        x.stored.stride(0),
        y.stored.stride(0),
        flags.shape[1],
        curvature**-0.5,
        ROWS_A_FLAG=tile[0] // block,
        COLUMNS_A_FLAG=tile[1] // block,
        BLOCK=block,
        BLOCK_K=depth,
    )


@triton.jit
def direct_distances(
    x_stored,
    y_stored,
    x_terms,
    y_terms,
    i,
    j,
    D,
    x_width,
    y_width,
    x_stride,
    y_stride,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """√c times the distances of points i and j, (BLOCK, BLOCK), by direct differences."""
    x_length, y_length = tl.load(x_terms + LENGTH * x_width + i), tl.load(y_terms + LENGTH * y_width + j)
    chord = direct_chords(
        x_stored,
        y_stored,
        i,
        j,
        tl.load(x_terms + SCALE * x_width + i),
        tl.load(y_terms + SCALE * y_width + j),
        x_length,
        y_length,
        D,
        x_stride,
        y_stride,
        BLOCK,
        BLOCK,
        BLOCK_K,
    )
    gap = radial_gap(
        tl.load(x_terms + COMPLEMENT * x_width + i),
        tl.load(x_terms + REMAINDER * x_width + i),
        tl.load(y_terms + COMPLEMENT * y_width + j),
        tl.load(y_terms + REMAINDER * y_width + j),
    )
    return exact_distance(
        chord,
        gap,
        tl.load(x_terms + SCALED_RADIUS * x_width + i),
        tl.load(y_terms + SCALED_RADIUS * y_width + j),
        # the gain is divided by the length, which these chords do not contain
        tl.load(x_terms + GAIN * x_width + i) * x_length,
        tl.load(y_terms + GAIN * y_width + j) * y_length,
        tl.load(x_terms + ROOT_GROWTH * x_width + i),
        tl.load(y_terms + ROOT_GROWTH * y_width + j),
    )


@triton.jit
def refine_kernel(
    x_stored,
    y_stored,
    x_terms,
    y_terms,
    out,
    flags,
    N,
    M,
    D,
    x_width,
    y_width,
    x_stride,
    y_stride,
    flag_stride,
    inv_sqrt_c,
    ROWS_A_FLAG: tl.constexpr,
    COLUMNS_A_FLAG: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One small tile a program, which has nothing to do unless the first pass marked a pair in it."""
    tile_m, tile_n = tl.program_id(0), tl.program_id(1)
    if tl.load(flags + (tile_m // ROWS_A_FLAG) * flag_stride + tile_n // COLUMNS_A_FLAG) == 0:
        return
    row, column = tile_m * BLOCK + tl.arange(0, BLOCK), tile_n * BLOCK + tl.arange(0, BLOCK)
    inside = (row < N)[:, None] & (column < M)[None, :]
    target = out + row.to(tl.int64)[:, None] * M + column[None, :]
    doubtful = (tl.load(target, mask=inside, other=0.0) < 0) & inside
    if tl.max(tl.max(doubtful.to(tl.int32), axis=1), axis=0) == 0:
        return
    i, j = row % N, column % M
    distance = direct_distances(
        x_stored, y_stored, x_terms, y_terms, i, j, D, x_width, y_width, x_stride, y_stride, BLOCK, BLOCK_K
    )
    tl.store(target, distance * inv_sqrt_c, mask=doubtful)


@triton.jit
def nearest_refine_kernel(
    x_stored,
    y_stored,
    x_terms,
    y_terms,
    bound,
    at_least,
    best_out,
    where_out,
    N,
    M,
    D,
    x_width,
    y_width,
    x_stride,
    y_stride,
    inv_sqrt_c,
    BLOCK_N: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A few rows and one tile of columns a program; most have nothing to do."""
    tile = tl.program_id(1)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i = row % N
    wanted = (tl.load(at_least + tile * N + i) <= tl.load(bound + i)) & (row < N)
    if tl.max(wanted.to(tl.int32), axis=0) == 0:
        return
    best = tl.full((BLOCK,), float("inf"), tl.float32)
    where = tl.zeros((BLOCK,), tl.int32)
    for first in range(tile * BLOCK_N, tl.minimum((tile + 1) * BLOCK_N, M), BLOCK):
        column = first + tl.arange(0, BLOCK)
        j = column % M
        distance = direct_distances(
            x_stored, y_stored, x_terms, y_terms, i, j, D, x_width, y_width, x_stride, y_stride, BLOCK, BLOCK_K
        )
        distance = tl.where((column < M)[None, :], distance * inv_sqrt_c, float("inf"))
        tile_best, tile_where = tl.min(distance, axis=1, return_indices=True)
        closer = tile_best < best
        where = tl.where(closer, first + tile_where, where)
        best = tl.where(closer, tile_best, best)
    tl.store(best_out + tile * N + row, best, mask=wanted)
    tl.store(where_out + tile * N + row, where, mask=wanted)
