"""Pairwise distances in Triton: a tile product with the distance as its epilogue, and a pass over flagged tiles."""

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
    ROOT_GROWTH,
    SCALE,
    SCALED_RADIUS,
    SQUARE,
    direct_chords,
    double_asinh,
    exact_distance,
    mode_of,
    radial_gap,
    split_columns,
    tile_product,
    tile_rows,
)
from lapha.kernels.pairwise_torch import Latents
from lapha.kernels.precision import Precision, refine_threshold
from lapha.kernels.prepare_triton import Prepared, prepare, sample_centre
from lapha.kernels.registry import interpreting
from lapha.kernels.tuning import TileConfig, tile_config

# Tiles of the second pass, which divide those of the first; its arrays are tile × tile × depth, in registers.
_REFINE, _REFINE_DEPTH = 16, 32
# Rows of tiles that are computed together, so that the columns' operands are read from the L2 cache.
_GROUP = 8


def pairwise_forward(latents: Latents, precision: Precision) -> torch.Tensor:
    """(N, M) geodesic distances, float32."""
    u, a, t, b, curvature = latents
    out = torch.empty(u.shape[0], t.shape[0], dtype=torch.float32, device=u.device)
    if out.numel() == 0:
        return out
    centre = sample_centre(t)
    x = prepare(u, a, centre, curvature, precision)
    y = prepare(t, b, centre, curvature, precision)
    sizes = (u.shape[0], t.shape[0], x.high.shape[1])
    config = tile_config(
        "pairwise", precision.name, sizes, u.device, lambda config: _product(x, y, out, curvature, precision, config)
    )
    flags = _product(x, y, out, curvature, precision, config)
    _refine(x, y, out, flags, curvature, config)
    return out


def _product(
    x: Prepared, y: Prepared, out: torch.Tensor, curvature: float, precision: Precision, config: TileConfig
) -> torch.Tensor:
    """First pass. Writes −1 where a pair must be refined; returns which tiles hold one."""
    n, m = out.shape
    tiles = triton.cdiv(n, config.block_m), triton.cdiv(m, config.block_n)
    flags = torch.empty(tiles, dtype=torch.int32, device=out.device)
    pairwise_kernel[(tiles[0] * tiles[1],)](
        x.high,
        x.low,
        y.high,
        y.low,
        x.terms,
        y.terms,
        y.margin,
        out,
        flags,
        n,
        m,
        x.high.shape[1],
        refine_threshold(precision, torch.float32, x.stored.shape[1]),
        curvature**-0.5,
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        GROUP=_GROUP,
        MODE=mode_of(precision),
        SECTION=config.section,
        num_warps=config.warps,
        num_stages=config.stages,
    )
    return flags


def _refine(
    x: Prepared, y: Prepared, out: torch.Tensor, flags: torch.Tensor, curvature: float, config: TileConfig
) -> None:
    """Second pass, over the pairs that the first marked."""
    n, m = out.shape
    block, depth = (32, 128) if interpreting() else (_REFINE, _REFINE_DEPTH)
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
        x.stored.stride(0),
        y.stored.stride(0),
        flags.shape[1],
        curvature**-0.5,
        ROWS_A_FLAG=config.block_m // block,
        COLUMNS_A_FLAG=config.block_n // block,
        BLOCK=block,
        BLOCK_K=depth,
    )


@triton.jit
def pairwise_kernel(
    x_high,
    x_low,
    y_high,
    y_low,
    x_terms,
    y_terms,
    y_margin,
    out,
    flags,
    N,
    M,
    K,
    threshold,
    inv_sqrt_c,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    MODE: tl.constexpr,
    SECTION: tl.constexpr,
):
    """One tile of distances a program."""
    program = tl.program_id(0)
    tiles_m, tiles_n = tl.cdiv(N, BLOCK_M), tl.cdiv(M, BLOCK_N)
    first = (program // (GROUP * tiles_n)) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    tile_m = first + (program % (GROUP * tiles_n)) % height
    tile_n = (program % (GROUP * tiles_n)) // height
    first_m, first_n = tile_m * BLOCK_M, tile_n * BLOCK_N
    x_start, y_start = first_m.to(tl.int64) * K, first_n.to(tl.int64) * K
    product = tile_product(
        x_high + x_start,
        x_low + x_start,
        y_high + y_start,
        y_low + y_start,
        tile_rows(first_m, N, BLOCK_M),
        tile_rows(first_n, M, BLOCK_N),
        K,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
        MODE,
        SECTION,
    )
    row, column = first_m + tl.arange(0, BLOCK_M), first_n + tl.arange(0, BLOCK_N)
    if MODE == 0:
        found = _finish_columns(
            product, x_terms, y_terms, y_margin, out, row, column, N, M, threshold, inv_sqrt_c, MODE
        )
    else:
        # half of the columns at a time: the terms of all of them together would not fit the registers
        half: tl.constexpr = BLOCK_N // 2
        column = first_n + tl.arange(0, half)
        left, right = split_columns(product)
        found = _finish_columns(left, x_terms, y_terms, y_margin, out, row, column, N, M, threshold, inv_sqrt_c, MODE)
        tl.debug_barrier()  # keeps the compiler from doing both halves at once
        column += half
        found |= _finish_columns(right, x_terms, y_terms, y_margin, out, row, column, N, M, threshold, inv_sqrt_c, MODE)
    tl.store(flags + tile_m * tiles_n + tile_n, found)


@triton.jit
def _finish_columns(
    product, x_terms, y_terms, y_margin, out, row, column, N, M, threshold, inv_sqrt_c, MODE: tl.constexpr
):
    """Write the distances of some columns of a tile, −1 where a pair must be refined; returns whether there is one."""
    i, j = row % N, column % M
    square = tl.load(x_terms + SQUARE * N + i)[:, None] + tl.load(y_terms + SQUARE * M + j)[None, :]
    chord = square - 2.0 * product
    margin = tl.load(x_terms + MARGIN * N + i) + tl.load(y_margin)
    doubtful = chord <= 0.5 * threshold * square + margin[:, None]
    gap = tl.load(y_terms + COMPLEMENT * M + j)[None, :] - tl.load(x_terms + COMPLEMENT * N + i)[:, None]
    if MODE < 2:  # beyond what bfloat16 directions can show
        gap -= tl.load(x_terms + REMAINDER * N + i)[:, None]
        gap += tl.load(y_terms + REMAINDER * M + j)[None, :]
    gain = tl.load(x_terms + GAIN * N + i)[:, None] * tl.load(y_terms + GAIN * M + j)[None, :]
    root = tl.sqrt(gap * gap + gain * tl.maximum(chord, 0.0))
    root = root * tl.load(x_terms + ROOT_GROWTH * N + i)[:, None] * tl.load(y_terms + ROOT_GROWTH * M + j)[None, :]
    doubtful |= root > 1e38
    distance = tl.where(doubtful, -1.0, double_asinh(root) * inv_sqrt_c)
    inside = (row < N)[:, None] & (column < M)[None, :]
    tl.store(out + row.to(tl.int64)[:, None] * M + column[None, :], distance, mask=inside)
    return tl.max(tl.max((doubtful & inside).to(tl.int32), axis=1), axis=0)


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
    chord = direct_chords(
        x_stored,
        y_stored,
        i,
        j,
        tl.load(x_terms + SCALE * N + i),
        tl.load(y_terms + SCALE * M + j),
        tl.load(x_terms + LENGTH * N + i),
        tl.load(y_terms + LENGTH * M + j),
        D,
        x_stride,
        y_stride,
        BLOCK,
        BLOCK,
        BLOCK_K,
    )
    gap = radial_gap(
        tl.load(x_terms + COMPLEMENT * N + i),
        tl.load(x_terms + REMAINDER * N + i),
        tl.load(y_terms + COMPLEMENT * M + j),
        tl.load(y_terms + REMAINDER * M + j),
    )
    distance = exact_distance(
        chord,
        gap,
        tl.load(x_terms + SCALED_RADIUS * N + i),
        tl.load(y_terms + SCALED_RADIUS * M + j),
        # the gain is divided by the length, which these chords do not contain
        tl.load(x_terms + GAIN * N + i) * tl.load(x_terms + LENGTH * N + i),
        tl.load(y_terms + GAIN * M + j) * tl.load(y_terms + LENGTH * M + j),
        tl.load(x_terms + ROOT_GROWTH * N + i),
        tl.load(y_terms + ROOT_GROWTH * M + j),
    )
    tl.store(target, distance * inv_sqrt_c, mask=doubtful)
