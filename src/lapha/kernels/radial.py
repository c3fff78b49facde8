"""The part of a distance that depends on radii: per-point terms, and the way from ‖u − t‖² to a distance.

With a = √c·radius, p = exp(−2a), q = exp(−2b), everything is a ratio of numbers in [0, 1], so no radius overflows:

    w  = (p − q)² + ¼(1 − p²)(1 − q²)‖u − t‖²  =  4 exp(−2a − 2b)·sinh²(√c·d/2)
    √c·d = 2 asinh(√s),   s = w·exp(2a + 2b)/4

Near p = 1 (small radius) p − q cancels, so 1 − p is kept instead, split into a leading part and a remainder.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from lapha.geometry.numerics import accumulate_dtype, distance_from_chord

# exp(4·LIMIT)/2 must fit the dtype. A point beyond it is treated as if at the limit, and the rest of its radius is added
# to the distance: there sinh² is a pure exponential (s > 1e12), so the two are equal to rounding.
_RADIUS_LIMIT = {torch.float32: 20.0, torch.float64: 160.0}
# Up to this a + b even the square of exp(2a + 2b)/2 fits.
_SQUARE_REACH = {torch.float32: 21.0, torch.float64: 170.0}
# The least chord² beside which the rounding of exp(−2a) − exp(−2b) does not show.
_COARSE_GAP = 0.02


class RadialTerms(NamedTuple):
    """What a distance needs of each radius; every field is (N,) in the computing dtype.

    Attributes:
        radius: as stored, not scaled by √c: differences of near-equal radii are exact.
        complement: leading part of 1 − exp(−2a), in [0, 1].
        remainder: what rounding took off the complement.
        gain: ½(1 − exp(−4a)), in [0, ½].
        growth: exp(2·min(a, limit))/√2.
        excess: 2(a − limit)₊/√c, added to the distance.
    """

    radius: torch.Tensor
    complement: torch.Tensor
    remainder: torch.Tensor
    gain: torch.Tensor
    growth: torch.Tensor
    excess: torch.Tensor

    def take(self, index: slice | torch.Tensor) -> RadialTerms:
        """The terms of some of the points."""
        return RadialTerms(*(field[index] for field in self))


def radial_terms(radius: torch.Tensor, curvature: float, dtype: torch.dtype) -> RadialTerms:
    """Terms of `radius` (N,) for curvature −`curvature`, computed in float64 and stored in `dtype`."""
    device = radius.device
    # Metal has no float64; N numbers are cheap to compute elsewhere
    wide = radius.to("cpu" if device.type == "mps" else device).double()
    a = math.sqrt(curvature) * wide
    decay, complement = torch.exp(-2 * a), -torch.expm1(-2 * a)
    leading = complement.to(dtype)
    # each of the two ways is exact on its side: near 1 the complement's own rounding would be all of the remainder
    remainder = torch.where(a < 0.25, complement - leading.double(), (1 - leading.double()) - decay)
    capped = a.clamp_max(_RADIUS_LIMIT[dtype])
    fields = (
        wide,
        leading,
        remainder,
        -0.5 * torch.expm1(-4 * a),
        torch.exp(2 * capped) / math.sqrt(2),
        (2 / math.sqrt(curvature)) * (a - capped),
    )
    return RadialTerms(*(field.to(device=device, dtype=dtype) for field in fields))


def radial_gap_(out: torch.Tensor, x: RadialTerms, y: RadialTerms, curvature: float, coarse: bool) -> torch.Tensor:
    """Write p − q = exp(−2a) − exp(−2b) into `out` (N, M); with `coarse`, without the complements' remainders."""
    if out.dtype == torch.float64:  # the remainder of a float64 complement is unknown: take the exact road
        torch.sub(y.radius[None, :], x.radius[:, None], out=out)
        decay = torch.exp(-2 * math.sqrt(curvature) * x.radius)
        return out.mul_(-2 * math.sqrt(curvature)).expm1_().neg_().mul_(decay[:, None])
    torch.sub(y.complement[None, :], x.complement[:, None], out=out)
    return out if coarse else out.sub_(x.remainder[:, None]).add_(y.remainder[None, :])


def scaled_square_(
    chord: torch.Tensor, scratch: torch.Tensor, x: RadialTerms, y: RadialTerms, curvature: float, least: float
) -> torch.Tensor:
    """Turn ‖u − t‖² (N, M) into w, in place; `scratch` has the same shape and `least` is at most the smallest chord²."""
    gap = radial_gap_(scratch, x, y, curvature, coarse=least >= _COARSE_GAP)
    chord.mul_(x.gain[:, None]).mul_(y.gain[None, :])
    return chord.addcmul_(gap, gap)


def distance_from_scaled_(
    w: torch.Tensor, scratch: torch.Tensor, x: RadialTerms, y: RadialTerms, curvature: float, reach: tuple[float, float]
) -> torch.Tensor:
    """Turn w (N, M) into the geodesic distance, in place.

    Args:
        reach: the largest √c·radius of x and of y.
    """
    twice = w.mul_(x.growth[:, None]).mul_(y.growth[None, :])  # S = 2s
    # 2 asinh(√s) = log1p(S + √(S² + 2S)): torch's asinh is not vectorised on the CPU, and log1p is
    if sum(reach) <= _SQUARE_REACH[w.dtype]:
        root = torch.addcmul(twice, twice, twice, value=0.5, out=scratch).sqrt_()
        distance = twice.add_(root, alpha=math.sqrt(2)).log1p_()
    else:
        torch.add(twice, 2, out=scratch).sqrt_()
        root = twice.sqrt_()
        distance = root.mul_(scratch.add_(root)).log1p_()
    if curvature != 1:
        distance.mul_(1 / math.sqrt(curvature))
    if max(reach) > _RADIUS_LIMIT[w.dtype]:
        distance.add_(x.excess[:, None]).add_(y.excess[None, :])
    return distance


def pair_distance(chord: torch.Tensor, x: torch.Tensor, y: torch.Tensor, curvature: float) -> torch.Tensor:
    """Distances of a list of pairs at any radius, in the widest dtype there is: slower, and without limits.

    Args:
        chord: (K,) ‖u − t‖².
        x, y: (K,) radii as stored.
    Returns: (K,) in the dtype of `accumulate_dtype`.
    """
    wide = accumulate_dtype(chord)
    distance = 2 * (x.to(wide) - y.to(wide)).abs()  # between equal directions
    apart = chord.nonzero()[:, 0]
    a, b, square = (z[apart].to(wide) for z in (x, y, chord))
    distance[apart] = distance_from_chord(a, b, square, curvature)
    return distance


def distance_of_winner(w: torch.Tensor, x: RadialTerms, y: RadialTerms, curvature: float) -> torch.Tensor:
    """Distance from w, by way of the chord: what the radii alone explain is then exact at any radius."""
    root = math.sqrt(curvature)
    smaller = torch.minimum(x.radius, y.radius)
    gap = torch.exp(-2 * root * smaller) * torch.expm1(-2 * root * (x.radius - y.radius).abs())
    gain = x.gain * y.gain
    chord = torch.where(gain > 0, (w - gap.square()) / gain, torch.zeros_like(gain))
    return pair_distance(chord.clamp(0, 4), x.radius, y.radius, curvature)
