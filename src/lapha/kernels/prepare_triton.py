"""Make a set of latents ready for the Triton kernels: one pass that centres, rounds or splits, and takes all terms."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from lapha.kernels.device_triton import (
    COMPLEMENT,
    FIELDS,
    GAIN,
    LENGTH,
    MARGIN,
    RADIUS_LIMIT,
    REMAINDER,
    ROOT_GROWTH,
    SCALE,
    SCALED_RADIUS,
    SQUARE,
    mode_of,
)
from lapha.kernels.precision import Precision
from lapha.kernels.registry import interpreting

# Prepared rows are padded with zeros to a multiple of this, so that products need no mask along them.
PAD = 64
# Rows that the centre is taken from: any centre is right, and the mean of a sample is as good as the mean.
_CENTRE_ROWS = 1024
# The terms' rows are padded to a multiple of the largest tile.
_TERMS_PAD = 256
# Numbers that one program of the preparation holds.
_TILE = 2048


class Prepared(NamedTuple):
    """A set of latents as the kernels want it.

    Attributes:
        stored: (N, D) directions as the caller holds them, rows contiguous.
        high: (N, K) centred directions: bfloat16, TF32 leading parts, or float32; K = D padded.
        low: (N, K) what TF32 rounding took off, or the same tensor as `high` in the other modes.
        terms: (FIELDS, width) float32; columns from N on are zeros, so that kernels read whole tiles without a mask.
        margin: () the largest MARGIN of all rows.
    """

    stored: torch.Tensor
    high: torch.Tensor
    low: torch.Tensor
    terms: torch.Tensor
    margin: torch.Tensor


class Absent(NamedTuple):
    """Terms of a latent that is no point (see `valid`), such that what is computed from them comes out right.

    A gain of NaN makes its distances NaN. A complement of ±Inf, with a gain of 0, puts it out of the reach of `nearest`;
    of opposite signs in the two sets, so that their difference is never NaN.
    """

    complement: float
    gain: float


NAN = Absent(0.0, float("nan"))
NO_ROW = Absent(float("inf"), 0.0)
NO_COLUMN = Absent(float("-inf"), 0.0)


def sample_centre(directions: torch.Tensor) -> torch.Tensor:
    """(D,) float32 mean of a sample of rows, without those that hold NaN or Inf."""
    step = max(1, directions.shape[0] // _CENTRE_ROWS)
    sample = directions[::step].float()
    finite = sample.isfinite().all(1, keepdim=True)
    return torch.where(finite, sample, 0).sum(0) / finite.sum().clamp_min(1)


def prepare(
    direction: torch.Tensor,
    radius: torch.Tensor,
    centre: torch.Tensor,
    curvature: float,
    precision: Precision,
    absent: Absent = NAN,
) -> Prepared:
    """Prepare (N, D) directions and (N,) radii; `absent` stands for those that are no points."""
    n, d = direction.shape
    padded = triton.cdiv(d, PAD) * PAD
    stored = direction if direction.stride(1) == 1 else direction.contiguous()
    mode = mode_of(precision)
    dtype = torch.bfloat16 if precision.name == "bf16" else torch.float32
    high = torch.empty(n, padded, dtype=dtype, device=direction.device)
    low = torch.empty_like(high) if precision.name == "tf32x3" else high
    width = triton.cdiv(n, _TERMS_PAD) * _TERMS_PAD
    terms = torch.zeros(FIELDS, width, dtype=torch.float32, device=direction.device)
    half = direction.dtype in (torch.float16, torch.bfloat16)
    block = min(1024, triton.next_power_of_2(padded))
    rows = 32 if interpreting() else max(1, _TILE // block)
    prepare_kernel[(triton.cdiv(n, rows),)](
        stored,
        radius,
        centre,
        high,
        low,
        terms,
        n,
        d,
        padded,
        width,
        stored.stride(0),
        radius.stride(0),
        curvature**0.5,
        absent.complement,
        absent.gain,
        MODE=mode,
        HALF=half,
        ROWS=rows,
        BLOCK=block,
    )
    return Prepared(stored, high, low, terms, terms[MARGIN.value].amax())


@triton.jit
def prepare_kernel(
    stored,
    radius,
    centre,
    high,
    low,
    terms,
    N,
    D,
    K,
    width,
    row_stride,
    radius_stride,
    sqrt_c,
    absent_complement,
    absent_gain,
    MODE: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A few rows a program."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    inside = row < N
    column = tl.arange(0, BLOCK)
    source = stored + row[:, None] * row_stride
    norm = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, D, BLOCK):
        known = inside[:, None] & (first + column < D)[None, :]
        u = tl.load(source + first + column[None, :], mask=known, other=0.0).to(tl.float32)
        norm += u * u
    length = tl.where(inside, tl.sqrt_rn(tl.sum(norm, axis=1)), 1.0)
    given = tl.load(radius + row * radius_stride, mask=inside, other=0.0).to(tl.float64)
    # comparisons with NaN are false
    counts = (length > 0.0) & (length < float("inf")) & (given >= 0.0) & (given < float("inf"))
    length = tl.where(counts, length, 1.0)
    scale = tl.full((ROWS,), 1.0, tl.float32)
    if HALF:  # unit only to their own, coarse rounding
        scale = 1.0 / length
        length = tl.full((ROWS,), 1.0, tl.float32)
    square = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, K, BLOCK):
        known = inside[:, None] & (first + column < D)[None, :]
        u = tl.load(source + first + column[None, :], mask=known, other=0.0).to(tl.float32) * scale[:, None]
        shift = tl.load(centre + first + column, mask=first + column < D, other=0.0)
        u = tl.where(known & counts[:, None], u - shift[None, :], 0.0)
        target = row[:, None] * K + first + column[None, :]
        padded = inside[:, None] & (first + column < K)[None, :]
        if MODE == 1:
            # round to TF32's 10 bits: half of the last kept bit is added, and the rest cut off
            leading = ((u.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
            tl.store(high + target, leading, mask=padded)
            tl.store(low + target, u - leading, mask=padded)
        elif MODE == 0:
            tl.store(high + target, u, mask=padded)
        else:
            if MODE == 3:  # the interpreter cuts off where the hardware rounds: round to nearest even first
                bits = u.to(tl.int32, bitcast=True)
                u = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)
            narrow = u.to(tl.bfloat16)
            tl.store(high + target, narrow, mask=padded)
            u = narrow.to(tl.float32)
        square += u * u
    total = tl.sum(square, axis=1)
    off = tl.abs(length - 1.0) + 6e-8
    tl.store(terms + SQUARE * width + row, total, mask=inside)
    tl.store(terms + MARGIN * width + row, 2e6 * off * off, mask=inside)
    tl.store(terms + SCALE * width + row, scale, mask=inside)
    tl.store(terms + LENGTH * width + row, length, mask=inside)
    # radial terms as `radial.radial_terms`: float64 inside, float32 out
    a = tl.where(counts, given, 0.0) * sqrt_c
    decay = tl.exp(-2.0 * a)
    # 1 − exp(−2a), without cancellation where a is small
    complement = tl.where(a < 1e-4, 2.0 * a * (1.0 - a * (1.0 - a * 0.6666666666666666)), 1.0 - decay)
    leading_part = complement.to(tl.float32)
    rest = tl.where(a < 0.25, complement - leading_part.to(tl.float64), (1.0 - leading_part.to(tl.float64)) - decay)
    tl.store(terms + COMPLEMENT * width + row, tl.where(counts, leading_part, absent_complement), mask=inside)
    tl.store(terms + REMAINDER * width + row, rest.to(tl.float32), mask=inside)
    # ½(1 − p²) = ½(1 − p)(1 + p)
    gain = (0.5 * complement * (1.0 + decay)).to(tl.float32) / length
    tl.store(terms + GAIN * width + row, tl.where(counts, gain, absent_gain), mask=inside)
    growth = tl.exp(tl.minimum(a, RADIUS_LIMIT)) * 0.7071067811865476
    growth = tl.where(a > RADIUS_LIMIT, float("inf"), growth)
    tl.store(terms + ROOT_GROWTH * width + row, growth.to(tl.float32), mask=inside)
    tl.store(terms + SCALED_RADIUS * width + row, a.to(tl.float32), mask=inside)
