"""Pooling in chunked torch: one pass over the hidden states, and no float32 copy of all of them.

Also the gradient, which is the same for every backend.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from lapha.geometry.autograd import ToPolar
from lapha.geometry.numerics import origin_radius

# Hidden numbers that are widened at a time (4 MiB of float32).
_ELEMENTS = 1 << 20
# On a CPU: what its cache holds, and runs of tokens a row beyond which a filled copy costs less than slices.
_CACHED = 1 << 18
_MOST_RUNS = 8


class PoolInputs(NamedTuple):
    """Arguments of pooling.

    Attributes:
        hidden: (B, L, H), or (T, H) with `cu_seqlens`.
        mask: (B, L) bool or None.
        cu_seqlens: (B + 1,) integers or None.
        root: (H,), (B, H) or None.
        running_sum, running_count: (B, H) and (B,) int64, or None.
    """

    hidden: Tensor
    mask: Tensor | None
    cu_seqlens: Tensor | None
    root: Tensor | None
    running_sum: Tensor | None
    running_count: Tensor | None


class Pooled(NamedTuple):
    """Results of pooling: see `api.PooledLatents`. Direction (B, H) and radius (B,) are None without a root."""

    sum: Tensor
    tokens: Tensor
    mean: Tensor
    direction: Tensor | None
    radius: Tensor | None


def summing_dtype(hidden: Tensor) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def pool_forward(inputs: PoolInputs) -> Pooled:
    """Sums, counts, means, and with a root the latents' directions and radii."""
    if inputs.cu_seqlens is None:
        total, tokens = _sum_padded(inputs.hidden, inputs.mask)
    else:
        total, tokens = _sum_packed(inputs.hidden, inputs.cu_seqlens), inputs.cu_seqlens.diff().long()
    if inputs.running_sum is not None and inputs.running_count is not None:
        total, tokens = total + inputs.running_sum, tokens + inputs.running_count
    mean = total / tokens.clamp_min(1)[:, None]
    if inputs.root is None:
        return Pooled(total, tokens, mean, None, None)
    tangent = (mean - inputs.root.to(mean.dtype)) / math.sqrt(mean.shape[1])
    direction, radius = ToPolar.forward(torch.where(tokens[:, None] > 0, tangent, 0))
    return Pooled(total, tokens, mean, direction, radius)


def _sum_padded(hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sums (B, H) over the tokens that count, and their number (B,)."""
    batch, length, size = hidden.shape
    on_cpu = hidden.device.type == "cpu"
    if mask is None:
        count = torch.full((batch,), length, dtype=torch.int64, device=hidden.device)
        if not on_cpu:
            return hidden.sum(1, dtype=summing_dtype(hidden)), count
        total = torch.zeros(batch, size, dtype=summing_dtype(hidden))
        for row in range(batch):
            _add_rows_(total[row], hidden[row])
        return total, count
    if not on_cpu:
        return _sum_filled(hidden, mask), mask.sum(1)
    total = torch.zeros(batch, size, dtype=summing_dtype(hidden))
    # runs of tokens that count: where the mask changes, row by row
    edges = torch.nn.functional.pad(mask, (1, 1)).to(torch.int8).diff(dim=1)
    rows, first = (edges == 1).nonzero(as_tuple=True)
    last = (edges == -1).nonzero(as_tuple=True)[1]
    if rows.numel() > _MOST_RUNS * batch:
        return _sum_filled(hidden, mask), mask.sum(1)
    for row, start, stop in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True):
        _add_rows_(total[row], hidden[row, start:stop])
    return total, mask.sum(1)


def _sum_filled(hidden: Tensor, mask: Tensor) -> Tensor:
    """Sums (B, H) over the tokens that count, by a copy without the others, a part at a time."""
    batch, length, size = hidden.shape
    total = torch.zeros(batch, size, dtype=summing_dtype(hidden), device=hidden.device)
    step = max(1, _ELEMENTS // max(1, batch * size))
    for first in range(0, length, step):
        # filled, not multiplied: padding may hold NaN, and NaN · 0 is NaN
        part = hidden[:, first : first + step].masked_fill(~mask[:, first : first + step, None], 0)
        total += part.sum(1, dtype=total.dtype)
    return total


def _add_rows_(total: Tensor, rows: Tensor) -> None:
    """Add the rows (L, H) of a CPU tensor to `total` (H,), widened a cache's worth at a time."""
    step = max(1, _CACHED // max(1, rows.shape[1]))
    for first in range(0, rows.shape[0], step):
        total += rows[first : first + step].sum(0, dtype=total.dtype)


def _sum_packed(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Sums (B, H) over the tokens of each sequence."""
    dtype = summing_dtype(hidden)
    total = torch.zeros(cu_seqlens.shape[0] - 1, hidden.shape[1], dtype=dtype, device=hidden.device)
    if hidden.device.type == "cpu":
        bounds = cu_seqlens.tolist()
        for row, (start, stop) in enumerate(itertools.pairwise(bounds)):
            _add_rows_(total[row], hidden[start:stop])
        return total
    sequence = sequence_of_token(cu_seqlens, hidden.shape[0])
    step = max(1, _ELEMENTS // max(1, hidden.shape[1]))
    for first in range(0, hidden.shape[0], step):
        part = slice(first, first + step)
        inside = sequence[part] >= 0
        total.index_add_(0, sequence[part][inside], hidden[part][inside].to(dtype))
    return total


def offsets_within(cu_seqlens: Tensor, tokens: int) -> Tensor:
    """`cu_seqlens` that never leave [0, tokens] and never decrease: what there is, is summed and counted."""
    return cu_seqlens.clamp(0, tokens).cummax(0).values


def sequence_of_token(cu_seqlens: Tensor, tokens: int) -> Tensor:
    """(T,) which sequence each token belongs to; −1 before the first and after the last."""
    position = torch.arange(tokens, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens.long(), position, right=True) - 1
    return torch.where(sequence < cu_seqlens.shape[0] - 1, sequence, -1)


def pool_backward(
    pooled: Pooled, grad_sum: Tensor, grad_mean: Tensor, grad_direction: Tensor | None, grad_radius: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients with respect to the sums, (B, H), and to the centre h_root of each sequence, (B, H).

    As in `lapha.geometry`, a direction's gradient is divided by a radius of at least `origin_radius`.
    """
    count = pooled.tokens.clamp_min(1)[:, None]
    grad_centre = None
    if pooled.direction is not None and pooled.radius is not None:
        assert grad_direction is not None
        assert grad_radius is not None
        along = (pooled.direction * grad_direction).sum(1, keepdim=True)
        tangential = grad_direction - pooled.direction * along
        least = origin_radius(pooled.radius.dtype)
        grad_tangent = pooled.direction * grad_radius[:, None] + tangential / pooled.radius[:, None].clamp_min(least)
        grad_tangent = torch.where(pooled.tokens[:, None] > 0, grad_tangent, 0) / math.sqrt(grad_mean.shape[1])
        grad_mean = grad_mean + grad_tangent
        grad_centre = -grad_tangent
    return grad_sum + grad_mean / count, grad_centre
