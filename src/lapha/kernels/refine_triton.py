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

# Programs that share the flagged tiles: a few for each multiprocessor of the largest devices.
_PROGRAMS = 2048


def refine_blocks() -> tuple[int, int]:
    """Side of a tile, which divides those of the first pass, and depth; tile × tile × depth numbers are in registers."""
    return (32, 128) if interpreting() else (16, 32)


def refine_pairs(
    x: Prepared, y: Prepared, out: torch.Tensor, flags: torch.Tensor, curvature: float, tile: tuple[int, int]
) -> None:
    """Overwrite the marked (negative) entries of `out` (N, M); `flags` (tiles,) is 1 where a tile holds one, else 0."""
    n, m = out.shape
    block, depth = refine_blocks()
    parts = (tile[0] // block) * (tile[1] // block)
    # a list of the flagged tiles that stays on the device: the programs share what is on it, and no more are started
    flagged, count = torch.argsort(flags, descending=True).int(), flags.sum(dtype=torch.int32)
    refine_kernel[(min(_PROGRAMS, flags.numel() * parts),)](
        x.stored,
        y.stored,
        x.terms,
        y.terms,
        out,
        flagged,
        count,
        n,
        m,
        x.stored.shape[1],
        x.terms.shape[1],
        y.terms.shape[1],
        x.stored.stride(0),
        y.stored.stride(0),
        curvature**-0.5,
        TILE_M=tile[0],
        TILE_N=tile[1],
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
    tiles,
    count,
    N,
    M,
    D,
    x_width,
    y_width,
    x_stride,
    y_stride,
    inv_sqrt_c,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Small parts of the listed tiles, one after the other: as many programs as keep a device busy share the list."""
    ACROSS: tl.constexpr = TILE_N // BLOCK
    PARTS: tl.constexpr = (TILE_M // BLOCK) * ACROSS
    tiles_n = tl.cdiv(M, TILE_N)
    for item in range(tl.program_id(0), tl.load(count) * PARTS, tl.num_programs(0)):
        tile = tl.load(tiles + item // PARTS)
        part = item % PARTS
        row = (tile // tiles_n) * TILE_M + (part // ACROSS) * BLOCK + tl.arange(0, BLOCK)
        column = (tile % tiles_n) * TILE_N + (part % ACROSS) * BLOCK + tl.arange(0, BLOCK)
        inside = (row < N)[:, None] & (column < M)[None, :]
        target = out + row.to(tl.int64)[:, None] * M + column[None, :]
        doubtful = (tl.load(target, mask=inside, other=0.0) < 0) & inside
        if tl.max(tl.max(doubtful.to(tl.int32), axis=1), axis=0) != 0:
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
    program = tl.program_id(0)
    groups = tl.cdiv(N, BLOCK)
    tile = program // groups
    row = (program % groups) * BLOCK + tl.arange(0, BLOCK)
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
        # what is no point has a complement of −Inf
        reachable = (column < M) & (tl.load(y_terms + COMPLEMENT * y_width + j) > -1.0)
        distance = tl.where(reachable[None, :], distance * inv_sqrt_c, float("inf"))
        tile_best, tile_where = tl.min(distance, axis=1, return_indices=True)
        closer = tile_best < best
        where = tl.where(closer, first + tile_where, where)
        best = tl.where(closer, tile_best, best)
    tl.store(best_out + tile * N + row, best, mask=wanted)
    tl.store(where_out + tile * N + row, where, mask=wanted)
