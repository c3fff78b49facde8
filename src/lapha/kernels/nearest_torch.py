"""The nearest latent of a set, and the k nearest, in chunked torch: no N × M array is ever held."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from lapha.kernels.chords import refined_chords
from lapha.kernels.pairwise_torch import (
    Block,
    chord_blocks,
    pairwise_forward,
    scratch_for,
    spans,
    tiles,
)
from lapha.kernels.precision import Precision, full_float32
from lapha.kernels.radial import RadialTerms, pair_distance, scaled_square_
from lapha.kernels.valid import Kept, Latents, computing_dtype, keep_points, scattered

# A product's columns and rows, and what is done elementwise at a time: all of it. Extra memory stays below 64 MB at
# D = 1536.
_COLUMNS = 1024
_ROWS = 1024
_TILE_ELEMENTS = _ROWS * _COLUMNS
_GROUP = 64
# k nearest: distances held at a time. A GPU wants more of them (256 MiB) than a CPU's caches hold.
_KNN_SIDE = {"cuda": 8192}


def nearest_forward(latents: Latents, precision: Precision) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance (N,) and index (N,) int64 of the latent of (t, b) that is nearest to each of (u, a); M >= 1.

    NaN and −1 for a row that is no point (see `valid`), or where no column is one.
    """
    kept = keep_points(latents)
    return restored(kept, latents, *_nearest(kept.latents, precision))


def restored(
    kept: Kept, latents: Latents, distance: torch.Tensor, index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Results for the latents that count, in the places and with the indices of all: NaN and −1 elsewhere."""
    if kept.columns is not None:
        if kept.columns.numel() == 0:
            distance, index = torch.full_like(distance, math.nan), torch.full_like(index, -1)
        else:
            index = kept.columns[index]
    size = latents.u.shape[0]
    return scattered(distance, kept.rows, size, math.nan), scattered(index, kept.rows, size, -1)


def _nearest(latents: Latents, precision: Precision) -> tuple[torch.Tensor, torch.Tensor]:
    """Of latents that all count; Inf without a column."""
    u, a, t, b, curvature = latents
    dtype = computing_dtype(u, t, a, b)
    distance = torch.full((u.shape[0],), torch.inf, dtype=dtype, device=u.device)
    index = torch.zeros(u.shape[0], dtype=torch.int64, device=u.device)
    scratch = scratch_for(latents, _COLUMNS, _TILE_ELEMENTS)
    with full_float32(u.device):
        for rows, columns, block in chord_blocks(latents, precision, (_ROWS, _COLUMNS)):
            here, where = _block_nearest(block, scratch, curvature)
            closer = here < distance[rows]
            distance[rows] = torch.where(closer, here, distance[rows])
            index[rows] = torch.where(closer, where + columns.start, index[rows])
    return distance, index


def _block_nearest(block: Block, scratch: torch.Tensor, curvature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance and column of the nearest latent of each row of a block."""
    radius = block.y_terms.radius
    # exp(2b) orders the columns; it is taken relative to the smallest so that it fits the dtype
    weight = torch.exp((2 * math.sqrt(curvature) * (radius - radius.min())).clamp_max_(80.0))
    distances, indices = [], []
    for _, tile, spare in tiles(block, scratch):
        smallest, flagged = tile.flagged(spare)
        w = scaled_square_(tile.chord, spare, tile.x_terms, tile.y_terms, curvature, smallest).mul_(weight)
        if flagged is not None:
            w[flagged] = torch.inf
        least, where = row_minimum(w)
        plain = distance_of_winner(least / weight[where], tile.x_terms, tile.y_terms.take(where), curvature)
        distance = torch.where(least < torch.inf, plain, torch.inf)
        if flagged is not None:
            distance, where = _nearer(distance, where, *_nearest_flagged(tile, *flagged, curvature))
        distances.append(distance)
        indices.append(where)
    return torch.cat(distances).to(scratch.dtype), torch.cat(indices)


def _nearest_flagged(
    tile: Block, i: torch.Tensor, j: torch.Tensor, curvature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance and column of the nearest among flagged pairs, for each row of a tile; Inf where a row has none."""
    chord = refined_chords(tile.x, tile.y, i, j)
    distance = pair_distance(chord, tile.x_terms.radius[i], tile.y_terms.radius[j], curvature)
    rows = tile.chord.shape[0]
    best = torch.full((rows,), torch.inf, dtype=distance.dtype, device=distance.device)
    best.scatter_reduce_(0, i, distance, "amin")
    winner = distance == best[i]
    column = torch.full((rows,), tile.chord.shape[1], dtype=torch.int64, device=distance.device)
    column.scatter_reduce_(0, i[winner], j[winner], "amin")
    return best, column


def _nearer(
    distance: torch.Tensor, index: torch.Tensor, other: torch.Tensor, other_index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearer of two candidates of each row, the first of them where they are equally near."""
    other = other.to(distance.dtype)
    take = (other < distance) | ((other == distance) & (other_index < index))
    return torch.where(take, other, distance), torch.where(take, other_index, index)


def distance_of_winner(w: torch.Tensor, x: RadialTerms, y: RadialTerms, curvature: float) -> torch.Tensor:
    """Distance from w, by way of the chord: what the radii alone explain is then exact at any radius."""
    root = math.sqrt(curvature)
    smaller = torch.minimum(x.radius, y.radius)
    gap = torch.exp(-2 * root * smaller) * torch.expm1(-2 * root * (x.radius - y.radius).abs())
    gain = x.gain * y.gain
    chord = torch.where(gain > 0, (w - gap.square()) / gain, torch.zeros_like(gain))
    return pair_distance(chord.clamp(0, 4), x.radius, y.radius, curvature)


def row_minimum(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest entry of each row of (N, M) and the first column that holds it.

    Halving groups of columns onto themselves is a vectorised pass over memory; on the CPU torch's own argmin takes as
    long as a fifth of the matrix product.
    """
    n, m = values.shape
    if values.device.type != "cpu" or m % _GROUP:
        return values.min(dim=1)
    groups = values.view(n, m // _GROUP, _GROUP)
    width = _GROUP // 2
    folded = torch.minimum(groups[:, :, :width], groups[:, :, width:])
    while width > 1:
        width //= 2
        folded = torch.minimum(folded[:, :, :width], folded[:, :, width:])
    least, group = folded[:, :, 0].min(dim=1)
    members = groups[torch.arange(n), group]
    return least, members.argmin(dim=1) + group * _GROUP


def knn_forward(
    latents: Latents,
    k: int,
    precision: Precision,
    pairwise: Callable[[Latents, Precision], torch.Tensor] = pairwise_forward,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances (N, k), ascending, and indices (N, k) int64 of the k nearest of (t, b); 1 <= k <= M.

    NaN and −1 where there is no such point: in the last places, or in the whole row of what is none itself.

    Args:
        pairwise: what computes the distances of a block; NaN where one of the two is no point.
    """
    u, a, t, b, curvature = latents
    parts = [
        _knn_rows(Latents(u[rows], a[rows], t, b, curvature), k, precision, pairwise)
        for rows in spans(u.shape[0], _KNN_SIDE.get(u.device.type, _ROWS))
    ]
    if not parts:
        empty = torch.empty(0, k, dtype=computing_dtype(u, t, a, b), device=u.device)
        return empty, empty.long()
    distance, index = torch.cat([distance for distance, _ in parts]), torch.cat([index for _, index in parts])
    return distance, torch.where(distance.isnan(), -1, index)  # NaN sorts last


def _knn_rows(
    latents: Latents, k: int, precision: Precision, pairwise: Callable[[Latents, Precision], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """`knn_forward` of a few rows: the best so far are merged with those of each block of columns."""
    u, a, t, b, curvature = latents
    best = torch.empty(u.shape[0], 0, dtype=computing_dtype(u, t, a, b), device=u.device)
    where = torch.empty(u.shape[0], 0, dtype=torch.int64, device=u.device)
    for columns in spans(t.shape[0], max(_KNN_SIDE.get(u.device.type, _COLUMNS), 4 * k)):
        block = pairwise(Latents(u, a, t[columns], b[columns], curvature), precision)
        near, which = block.topk(min(k, block.shape[1]), dim=1, largest=False)
        # by index first, then stably by distance: equal distances come in index order
        which, order = which.sort(dim=1)
        best = torch.cat((best, near.gather(1, order)), dim=1)
        where = torch.cat((where, which + columns.start), dim=1)
        best, order = best.sort(dim=1, stable=True)
        best, where = best[:, :k], where.gather(1, order)[:, :k]
    return best, where
