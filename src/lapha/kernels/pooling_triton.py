"""Pooling in Triton: hidden states are read once, in their own dtype, and nothing of their size is written."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from lapha.kernels.pooling_torch import Pooled, PoolInputs
from lapha.kernels.registry import interpreting

# Numbers of a row that one program sums, and rows that it loads at a time.
_COLUMNS, _ROWS = 512, 16
# Programs to aim for: enough to fill any device a few times over.
_PROGRAMS = 2048
# Parts that a sequence is summed in at most, a power of two.
_MOST_PARTS = 64


class _Layout(NamedTuple):
    """Where the tokens of a sequence are: padded or packed, the kernel sees the same thing."""

    batch: int
    longest: int
    size: int
    sequence_stride: int
    token_stride: int


def pool_forward(inputs: PoolInputs) -> Pooled:
    """See `pooling_torch.pool_forward`."""
    hidden = inputs.hidden if inputs.hidden.stride(-1) == 1 else inputs.hidden.contiguous()
    layout = _layout(hidden, inputs.cu_seqlens)
    device, batch, size = hidden.device, layout.batch, layout.size
    columns = 64 if interpreting() else min(_COLUMNS, triton.next_power_of_2(size))
    parts = _parts(layout, triton.cdiv(size, columns))
    partial = torch.empty(parts, batch, size, dtype=torch.float32, device=device)
    counts = torch.empty(parts, batch, dtype=torch.int64, device=device)
    mask, starts = inputs.mask, inputs.cu_seqlens
    if batch > 0:
        sum_kernel[(batch, triton.cdiv(size, columns), parts)](
            hidden,
            hidden if mask is None else mask.view(torch.uint8),
            hidden if starts is None else starts,
            partial,
            counts,
            batch,
            layout.longest,
            size,
            parts,
            layout.sequence_stride,
            layout.token_stride,
            0 if mask is None else mask.stride(0),
            0 if mask is None else mask.stride(1),
            MASKED=mask is not None,
            PACKED=starts is not None,
            ROWS=_ROWS,
            COLUMNS=columns,
            num_warps=4,
        )
    return _finish(inputs, partial, counts)


def _layout(hidden: torch.Tensor, cu_seqlens: torch.Tensor | None) -> _Layout:
    if cu_seqlens is None:
        batch, length, size = hidden.shape
        return _Layout(batch, length, size, hidden.stride(0), hidden.stride(1))
    return _Layout(cu_seqlens.shape[0] - 1, hidden.shape[0], hidden.shape[1], 0, hidden.stride(0))


def _parts(layout: _Layout, column_programs: int) -> int:
    """In how many parts a sequence is summed."""
    wanted = triton.cdiv(_PROGRAMS, max(1, layout.batch * column_programs))
    return max(1, min(wanted, triton.cdiv(max(1, layout.longest), 4 * _ROWS), _MOST_PARTS))


def _finish(inputs: PoolInputs, partial: torch.Tensor, counts: torch.Tensor) -> Pooled:
    """Add up the parts and the running sum, and centre."""
    parts, batch, size = partial.shape
    device = partial.device
    total, mean, direction = (torch.empty(batch, size, dtype=torch.float32, device=device) for _ in range(3))
    count = torch.empty(batch, dtype=torch.int64, device=device)
    radius = torch.empty(batch, dtype=torch.float32, device=device)
    root, running = inputs.root, inputs.running_sum
    root_kept = None if root is None else root.float().contiguous()
    running_kept = None if running is None else running.contiguous()
    if batch > 0:
        finish_kernel[(batch,)](
            partial,
            counts,
            total if running_kept is None else running_kept,
            count if inputs.running_count is None else inputs.running_count.contiguous(),
            total if root_kept is None else root_kept,
            total,
            count,
            mean,
            direction,
            radius,
            batch,
            size,
            parts,
            size if root is not None and root.dim() == 2 else 0,
            size**-0.5,
            RUNNING=running is not None,
            CENTRED=root is not None,
            MOST_PARTS=_MOST_PARTS,
            COLUMNS=min(1024, triton.next_power_of_2(size)),
        )
    if root is None:
        return Pooled(total, count, mean, None, None)
    return Pooled(total, count, mean, direction, radius)


@triton.jit
def sum_kernel(
    hidden,
    mask,
    starts,
    partial,
    counts,
    B,
    L,
    H,
    parts,
    sequence_stride,
    token_stride,
    mask_stride_b,
    mask_stride_l,
    MASKED: tl.constexpr,
    PACKED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Part of one sequence, some of the columns."""
    sequence, part = tl.program_id(0), tl.program_id(2)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    start = sequence.to(tl.int64) * 0
    length = L
    if PACKED:
        start = tl.load(starts + sequence).to(tl.int64)
        length = (tl.load(starts + sequence + 1).to(tl.int64) - start).to(tl.int32)
    share = tl.cdiv(length, parts)
    first, last = part * share, tl.minimum((part + 1) * share, length)
    source = hidden + sequence.to(tl.int64) * sequence_stride + start * token_stride
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    count = tl.zeros((ROWS,), tl.int32)
    inside = (column < H)[None, :]
    for token in range(first, last, ROWS):
        row = token + tl.arange(0, ROWS)
        counted = row < last
        if MASKED:
            # tokens that do not count are not even read: padding may hold NaN
            here = mask + sequence.to(tl.int64) * mask_stride_b + row.to(tl.int64) * mask_stride_l
            counted = counted & (tl.load(here, mask=counted, other=0) != 0)
        count += counted.to(tl.int32)
        offset = row.to(tl.int64)[:, None] * token_stride + column[None, :]
        total += tl.load(source + offset, mask=counted[:, None] & inside, other=0.0).to(tl.float32)
    target = (part * B + sequence).to(tl.int64)
    tl.store(partial + target * H + column, tl.sum(total, axis=0), mask=column < H)
    if tl.program_id(1) == 0:
        tl.store(counts + target, tl.sum(count, axis=0).to(tl.int64))


@triton.jit
def finish_kernel(
    partial,
    counts,
    running_sum,
    running_count,
    root,
    total_out,
    count_out,
    mean_out,
    direction_out,
    radius_out,
    B,
    H,
    parts,
    root_stride,
    scale,
    RUNNING: tl.constexpr,
    CENTRED: tl.constexpr,
    MOST_PARTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One sequence a program."""
    sequence = tl.program_id(0).to(tl.int64)
    count = tl.load(running_count + sequence) if RUNNING else sequence * 0
    part_of_count = tl.arange(0, MOST_PARTS)
    here = tl.load(counts + part_of_count * B + sequence, mask=part_of_count < parts, other=0)
    count += tl.sum(here, axis=0)
    tl.store(count_out + sequence, count)
    tokens = tl.maximum(count, 1).to(tl.float32)
    largest = tl.zeros((COLUMNS,), tl.float32)
    for first in range(0, H, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = column < H
        total = tl.zeros((COLUMNS,), tl.float32)
        for part in range(0, parts):
            total += tl.load(partial + (part * B + sequence) * H + column, mask=inside, other=0.0)
        if RUNNING:
            total += tl.load(running_sum + sequence * H + column, mask=inside, other=0.0)
        mean = total / tokens
        tl.store(total_out + sequence * H + column, total, mask=inside)
        tl.store(mean_out + sequence * H + column, mean, mask=inside)
        if CENTRED:
            shift = tl.load(root + sequence * root_stride + column, mask=inside, other=0.0)
            tangent = tl.where((count > 0) & inside, (mean - shift) * scale, 0.0)
            tl.store(direction_out + sequence * H + column, tangent, mask=inside)
            largest = tl.maximum(largest, tl.abs(tangent))
    if CENTRED:
        # over the largest entry, so that squares neither underflow nor overflow
        most = tl.maximum(tl.max(largest, axis=0), 1.1754943508222875e-38)
        square = tl.zeros((COLUMNS,), tl.float32)
        tl.debug_barrier()  # other threads of this program wrote what is read here
        for first in range(0, H, COLUMNS):
            column = first + tl.arange(0, COLUMNS)
            tangent = tl.load(direction_out + sequence * H + column, mask=column < H, other=0.0) / most
            square += tangent * tangent
        norm = tl.sqrt_rn(tl.sum(square, axis=0))
        tl.store(radius_out + sequence, norm * most)
        for first in range(0, H, COLUMNS):
            column = first + tl.arange(0, COLUMNS)
            tangent = tl.load(direction_out + sequence * H + column, mask=column < H, other=0.0) / most
            # the origin's direction is e₀
            unit = tl.where(norm == 0, tl.where(column == 0, 1.0, 0.0), tangent / tl.where(norm == 0, 1.0, norm))
            tl.store(direction_out + sequence * H + column, unit, mask=column < H)
