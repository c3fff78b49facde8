"""What the Triton kernels share: the scalar formulas of `radial`, and the tile product."""

from __future__ import annotations

import triton
import triton.language as tl

from lapha.kernels.precision import Precision
from lapha.kernels.registry import interpreting

# How a tile product multiplies. Three-pass TF32 takes operands that are split already, or splits them itself (half the
# bytes to load, more to do). Triton's interpreter has no bfloat16 product: there, bfloat16 operands are widened.
_MODES = {"ieee": 0, "tf32x3": 1, "bf16": 2}
_BF16_WIDENED = 3
_TF32X3_WHOLE = 4

# Rows of the (FIELDS, N) float32 array of terms that `prepare_triton` writes.
SQUARE = tl.constexpr(0)  # ‖centred direction‖²
MARGIN = tl.constexpr(1)  # the part of `chords.refine_limit` that comes from the length
COMPLEMENT = tl.constexpr(2)  # these two as in `radial.RadialTerms`
REMAINDER = tl.constexpr(3)
GAIN = tl.constexpr(4)  # as there, divided by the length
ROOT_GROWTH = tl.constexpr(5)  # exp(a)/√2 with a = √c·radius; Inf beyond RADIUS_LIMIT
SCALED_RADIUS = tl.constexpr(6)  # a
SCALE = tl.constexpr(7)  # what makes the stored direction unit: 1 except for half precision
LENGTH = tl.constexpr(8)  # of the direction after that
WEIGHT = tl.constexpr(9)  # nearest: what orders the columns, exp(2b) relative to the smallest
FIELDS = 10


def mode_of(precision: Precision) -> int:
    """The kernels' MODE for a precision."""
    return _BF16_WIDENED if precision.name == "bf16" and interpreting() else _MODES[precision.name]


# exp(2·RADIUS_LIMIT)/2 fits float32. Pairs with a point beyond it are left to the second pass, which has no limit.
RADIUS_LIMIT = tl.constexpr(44.0)


# The interpreter runs no PTX.
_INTERPRETED = tl.constexpr(interpreting())


@triton.jit
def fast_log2(x):
    """log₂ of positive x by the hardware's instruction: the absolute error near 1, and the relative one beyond, is 2⁻²²."""
    if _INTERPRETED:
        return tl.log2(x)
    return tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=r,r", [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def double_asinh(x):
    """2 asinh(x) for x >= 0, relative error below 1e-6, in about twenty instructions."""
    capped = tl.minimum(x, 1e9)
    square = capped * capped
    large = 1.3862943611198906 * fast_log2(x + tl.maximum(x, tl.sqrt(1.0 + square)))
    # where the logarithm's argument is near 1: the power series
    series = 0.030381944444444444 * square - 0.044642857142857144
    series = series * square + 0.075
    series = series * square - 0.16666666666666666
    small = 2.0 * x + 2.0 * x * (square * series)
    return tl.where(x < 0.25, small, large)


@triton.jit
def radial_gap(x_complement, x_remainder, y_complement, y_remainder):
    """exp(−2a) − exp(−2b) of rows and columns, (R, C)."""
    gap = y_complement[None, :] - x_complement[:, None]
    return (gap - x_remainder[:, None]) + y_remainder[None, :]


@triton.jit
def log_sinh_square(x):
    """log sinh²x for x >= 0; very negative at 0."""
    return 2.0 * x + 2.0 * tl.log(tl.maximum(0.5 - 0.5 * tl.exp(-2.0 * x), 1e-30))


@triton.jit
def exact_distance(chord, gap, x_radius, y_radius, x_gain, y_gain, x_growth, y_growth):
    """√c·d at any radius from a chord² with an error relative to itself. All (R, C) but the radial terms, (R,), (C,)."""
    a, b = x_radius[:, None], y_radius[None, :]
    gain = x_gain[:, None] * y_gain[None, :]
    far_away = tl.maximum(a, b) > 20.0
    growth = tl.where(far_away, 0.0, x_growth[:, None] * y_growth[None, :])
    near = double_asinh(tl.sqrt_rn(gap * gap + gain * chord) * growth)
    # in logarithms where squares would leave float32; between equal directions only the difference of radii is left
    apart = tl.abs(a - b)
    along = log_sinh_square(apart)
    across = 2.0 * (a + b) + tl.log(tl.maximum(gain * chord, 1e-37)) - 1.3862943611198906
    largest = tl.maximum(along, across)
    square = largest + tl.log(1.0 + tl.exp(tl.minimum(along, across) - largest))
    far = tl.where(square > 60.0, square + 1.3862943611198906, double_asinh(tl.exp(0.5 * tl.minimum(square, 60.0))))
    far = tl.where(chord == 0.0, 2.0 * apart, far)
    return tl.where(far_away, far, near)


@triton.jit
def tile_rows(first, size, BLOCK: tl.constexpr):
    """Rows first, first + 1, … counted from `first`; those past the end repeat the last, so nothing needs a mask."""
    return tl.minimum(first + tl.arange(0, BLOCK), size - 1) - first


@triton.jit
def tile_product(
    x_high,
    x_low,
    y_high,
    y_low,
    rows,
    columns,
    K,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MODE: tl.constexpr,
    SECTION: tl.constexpr,
):
    """(BLOCK_M, BLOCK_N) inner products of prepared rows, K a multiple of BLOCK_K.

    The pointers are those of the tile's first row and column, and `rows` and `columns` count from there: offsets of a
    tile fit 32 bits, and take half the registers.

    Tensor cores truncate when they accumulate. In three-pass TF32 at most SECTION·BLOCK_K products are summed there, and
    the sections are added with rounding.
    """
    k = tl.arange(0, BLOCK_K)
    x_offset = rows[:, None] * K + k[None, :]
    y_offset = columns[None, :] * K + k[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if MODE == 1 or MODE == 4:
        for first in range(0, K, BLOCK_K * SECTION):
            part = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
            for step in range(first, tl.minimum(first + BLOCK_K * SECTION, K), BLOCK_K):
                x, y = tl.load(x_high + x_offset + step), tl.load(y_high + y_offset + step)
                if MODE == 4:
                    part = tl.dot(x, y, part, input_precision="tf32x3")
                else:
                    x_rest, y_rest = tl.load(x_low + x_offset + step), tl.load(y_low + y_offset + step)
                    # small products first, so that they are not lost beside the large one
                    part = tl.dot(x_rest, y, part, input_precision="tf32")
                    part = tl.dot(x, y_rest, part, input_precision="tf32")
                    part = tl.dot(x, y, part, input_precision="tf32")
            total += part
    else:
        for step in range(0, K, BLOCK_K):
            x, y = tl.load(x_high + x_offset + step), tl.load(y_high + y_offset + step)
            if MODE == 3:
                x, y = x.to(tl.float32), y.to(tl.float32)
            total = tl.dot(x, y, total, input_precision="ieee")
    return total


@triton.jit
def split_columns(tile):
    """The left and the right half of a tile, in place."""
    rows: tl.constexpr = tile.shape[0]
    half: tl.constexpr = tile.shape[1] // 2
    return tl.split(tl.permute(tl.reshape(tile, (rows, 2, half)), (0, 2, 1)))


@triton.jit
def direct_chords(
    x_stored,
    y_stored,
    rows,
    columns,
    x_scale,
    y_scale,
    x_length,
    y_length,
    D,
    x_stride,
    y_stride,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """(BLOCK_R, BLOCK_C) ‖u/‖u‖ − t/‖t‖‖² by direct differences."""
    k = tl.arange(0, BLOCK_K)
    square = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    radial = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for first in range(0, D, BLOCK_K):
        inside = (first + k < D)[None, :]
        x = tl.load(x_stored + rows.to(tl.int64)[:, None] * x_stride + first + k[None, :], mask=inside, other=0.0)
        y = tl.load(y_stored + columns.to(tl.int64)[:, None] * y_stride + first + k[None, :], mask=inside, other=0.0)
        x, y = x.to(tl.float32) * x_scale[:, None], y.to(tl.float32) * y_scale[:, None]
        difference = x[:, None, :] - y[None, :, :]
        square += tl.sum(difference * difference, axis=2)
        radial += tl.sum(difference * (x[:, None, :] + y[None, :, :]), axis=2)
    # what the lengths differ by is no angle: ‖u‖ − ‖t‖ = (u − t)·(u + t)/(‖u‖ + ‖t‖)
    radial = radial / (x_length[:, None] + y_length[None, :])
    return tl.maximum(square - radial * radial, 0.0) / (x_length[:, None] * y_length[None, :])
