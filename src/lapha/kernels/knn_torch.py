"""The k nearest latents of a set in chunked torch: no N × M array is ever held."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lapha.kernels.pairwise_torch import pairwise_forward, spans
from lapha.kernels.precision import Precision
from lapha.kernels.valid import Latents, computing_dtype

# Rows and columns whose distances are held at a time. A GPU wants more of them (256 MiB) than a CPU's caches hold.
_ROWS = 1024
_COLUMNS = 1024
_KNN_SIDE = {"cuda": 8192}


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
