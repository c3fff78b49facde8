"""Sums of hidden states over the tokens that count, in chunked torch: one pass, no float32 copy of the whole input."""

from __future__ import annotations

import torch

# Hidden numbers that are widened at a time (16 MiB of float32).
_ELEMENTS = 1 << 22


def summing_dtype(hidden: torch.Tensor) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def pool_sum_forward(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, L, H) hidden states and (B, L) bool → (B, H) sums over the tokens where `mask` is true."""
    batch, length, size = hidden.shape
    dtype = summing_dtype(hidden)
    total = torch.zeros(batch, size, dtype=dtype, device=hidden.device)
    step = max(1, _ELEMENTS // max(1, batch * size))
    for first in range(0, length, step):
        part = slice(first, first + step)
        # filled, not multiplied: padding may hold NaN, and NaN · 0 is NaN
        kept = hidden[:, part].masked_fill(~mask[:, part, None], 0)
        total += kept.sum(1, dtype=dtype)
    return total


def pool_sum_packed_forward(hidden: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """(T, H) hidden states of B sequences end to end, which start at cu_seqlens (B + 1,) → (B, H) sums."""
    dtype = summing_dtype(hidden)
    batch = cu_seqlens.shape[0] - 1
    total = torch.zeros(batch, hidden.shape[1], dtype=dtype, device=hidden.device)
    sequence = sequence_of_token(cu_seqlens, hidden.shape[0])
    step = max(1, _ELEMENTS // max(1, hidden.shape[1]))
    for first in range(0, hidden.shape[0], step):
        part = slice(first, first + step)
        inside = sequence[part] >= 0
        total.index_add_(0, sequence[part][inside], hidden[part][inside].to(dtype))
    return total


def sequence_of_token(cu_seqlens: torch.Tensor, tokens: int) -> torch.Tensor:
    """(T,) which sequence each token belongs to; −1 before the first and after the last."""
    position = torch.arange(tokens, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens.long(), position, right=True) - 1
    return torch.where(sequence < cu_seqlens.shape[0] - 1, sequence, -1)
