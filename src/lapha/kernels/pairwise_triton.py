"""Pairwise distances in Triton: a tile product with the distance as its epilogue, and a pass over flagged tiles."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from lapha.kernels.device_triton import (
    COMPLEMENT,
    GAIN,
    MARGIN,
    REMAINDER,
    ROOT_GROWTH,
    SQUARE,
    double_asinh,
    mode_of,
    split_columns,
    tile_product,
    tile_rows,
)
from lapha.kernels.precision import Precision, refine_threshold
from lapha.kernels.prepare_triton import Prepared, prepare, sample_centre
from lapha.kernels.refine_triton import refine_pairs
from lapha.kernels.tuning import TileConfig, tile_config
from lapha.kernels.valid import Latents

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
    refine_pairs(x, y, out, flags, curvature, (config.block_m, config.block_n))
    return out


def _product(
    x: Prepared, y: Prepared, out: torch.Tensor, curvature: float, precision: Precision, config: TileConfig
) -> torch.Tensor:
    """First pass. Writes −1 where a pair must be refined; returns which tiles hold one, (tiles,) int32, 0 or 1."""
    n, m = out.shape
    tiles = triton.cdiv(n, config.block_m), triton.cdiv(m, config.block_n)
    flags = torch.empty(tiles[0] * tiles[1], dtype=torch.int32, device=out.device)
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
        x.terms.shape[1],
        y.terms.shape[1],
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
    x_width,
    y_width,
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
    target = out + first_m.to(tl.int64) * M + first_n
    # a part of the columns at a time: the terms of all of them together would not fit the registers
    PARTS: tl.constexpr = 1 if MODE == 0 else (4 if MODE == 1 else 2)
    WIDTH: tl.constexpr = BLOCK_N // PARTS
    local_column = tl.arange(0, WIDTH)
    if PARTS == 1:
        found = _finish_columns(
            product,
            x_terms,
            y_terms,
            y_margin,
            target,
            first_m,
            first_n,
            local_column,
            N,
            M,
            x_width,
            y_width,
            threshold,
            inv_sqrt_c,
            MODE,
        )
    else:
        left, right = split_columns(product)
        found = _finish_half(
            left,
            x_terms,
            y_terms,
            y_margin,
            target,
            first_m,
            first_n,
            local_column,
            N,
            M,
            x_width,
            y_width,
            threshold,
            inv_sqrt_c,
            MODE,
            WIDTH,
        )
        tl.debug_barrier()  # keeps the compiler from doing both halves at once
        local_column += BLOCK_N // 2
        found |= _finish_half(
            right,
            x_terms,
            y_terms,
            y_margin,
            target,
            first_m,
            first_n,
            local_column,
            N,
            M,
            x_width,
            y_width,
            threshold,
            inv_sqrt_c,
            MODE,
            WIDTH,
        )
    tl.store(flags + tile_m * tiles_n + tile_n, found)


@triton.jit
def _finish_half(
    product,
    x_terms,
    y_terms,
    y_margin,
    target,
    first_m,
    first_n,
    local_column,
    N,
    M,
    x_width,
    y_width,
    threshold,
    inv_sqrt_c,
    MODE: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """`_finish_columns`, in one go or in two: three-pass TF32 keeps twice the sums, and has fewer registers left."""
    if MODE == 1:
        left, right = split_columns(product)
        found = _finish_columns(
            left,
            x_terms,
            y_terms,
            y_margin,
            target,
            first_m,
            first_n,
            local_column,
            N,
            M,
            x_width,
            y_width,
            threshold,
            inv_sqrt_c,
            MODE,
        )
        tl.debug_barrier()
        found |= _finish_columns(
            right,
            x_terms,
            y_terms,
            y_margin,
            target,
            first_m,
            first_n,
            local_column + WIDTH,
            N,
            M,
            x_width,
            y_width,
            threshold,
            inv_sqrt_c,
            MODE,
        )
    else:
        found = _finish_columns(
            product,
            x_terms,
            y_terms,
            y_margin,
            target,
            first_m,
            first_n,
            local_column,
            N,
            M,
            x_width,
            y_width,
            threshold,
            inv_sqrt_c,
            MODE,
        )
    return found


@triton.jit
def _finish_columns(
    product,
    x_terms,
    y_terms,
    y_margin,
    target,
    first_m,
    first_n,
    local_column,
    N,
    M,
    x_width,
    y_width,
    threshold,
    inv_sqrt_c,
    MODE: tl.constexpr,
):
    """Write the distances of some columns of a tile, −1 where a pair must be refined; returns whether there is one.

    `target` is where the tile's first distance goes, and `local_column` counts from there.
    """
    local_row = tl.arange(0, product.shape[0])
    i, j = first_m + local_row, first_n + local_column
    square = tl.load(x_terms + SQUARE * x_width + i)[:, None] + tl.load(y_terms + SQUARE * y_width + j)[None, :]
    chord = square - 2.0 * product
    margin = tl.load(x_terms + MARGIN * x_width + i) + tl.load(y_margin)
    doubtful = chord <= 0.5 * threshold * square + margin[:, None]
    gap = tl.load(y_terms + COMPLEMENT * y_width + j)[None, :] - tl.load(x_terms + COMPLEMENT * x_width + i)[:, None]
    if MODE < 2:  # beyond what bfloat16 directions can show
        gap -= tl.load(x_terms + REMAINDER * x_width + i)[:, None]
        gap += tl.load(y_terms + REMAINDER * y_width + j)[None, :]
    gain = tl.load(x_terms + GAIN * x_width + i)[:, None] * tl.load(y_terms + GAIN * y_width + j)[None, :]
    root = tl.sqrt(gap * gap + gain * tl.maximum(chord, 0.0))
    root = (
        root
        * tl.load(x_terms + ROOT_GROWTH * x_width + i)[:, None]
        * tl.load(y_terms + ROOT_GROWTH * y_width + j)[None, :]
    )
    doubtful |= root > 1e38
    distance = tl.where(doubtful, -1.0, double_asinh(root) * inv_sqrt_c)
    inside = (local_row < N - first_m)[:, None] & (local_column < M - first_n)[None, :]
    tl.store(target + (local_row[:, None] * M + local_column[None, :]), distance, mask=inside)
    return tl.max(tl.max((doubtful & inside).to(tl.int32), axis=1), axis=0)
