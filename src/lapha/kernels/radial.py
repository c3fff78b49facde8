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

# exp(4·LIMIT)/4 must fit the dtype. A point beyond it is treated as if at the limit, and the rest of its radius is added
# to the distance: there sinh² is a pure exponential (s > 1e12), so the two are equal to rounding.
_RADIUS_LIMIT = {torch.float32: 20.0, torch.float64: 160.0}


class RadialTerms(NamedTuple):
    """What a distance needs of each radius; every field is (N,) in the computing dtype.

    Attributes:
        radius: as stored, not scaled by √c: differences of near-equal radii are exact.
        complement: leading part of 1 − exp(−2a), in [0, 1].
        remainder: what rounding took off the complement.
        gain: ½(1 − exp(−4a)), in [0, ½].
        growth: ½ exp(2·min(a, limit)).
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
        0.5 * torch.exp(2 * capped),
        (2 / math.sqrt(curvature)) * (a - capped),
    )
    return RadialTerms(*(field.to(device=device, dtype=dtype) for field in fields))


def radial_gap_(out: torch.Tensor, x: RadialTerms, y: RadialTerms, curvature: float) -> torch.Tensor:
    """Write p − q = exp(−2a) − exp(−2b) into `out` (N, M)."""
    if out.dtype == torch.float64:  # the remainder of a float64 complement is unknown: take the exact road
        torch.sub(y.radius[None, :], x.radius[:, None], out=out)
        decay = torch.exp(-2 * math.sqrt(curvature) * x.radius)
        return out.mul_(-2 * math.sqrt(curvature)).expm1_().neg_().mul_(decay[:, None])
    torch.sub(y.complement[None, :], x.complement[:, None], out=out)
    return out.sub_(x.remainder[:, None]).add_(y.remainder[None, :])


def scaled_square_(
    chord: torch.Tensor, scratch: torch.Tensor, x: RadialTerms, y: RadialTerms, curvature: float
) -> torch.Tensor:
    """Turn ‖u − t‖² (N, M) into w, in place; `scratch` has the same shape."""
    gap = radial_gap_(scratch, x, y, curvature)
    chord.mul_(x.gain[:, None]).mul_(y.gain[None, :])
    return chord.addcmul_(gap, gap)


def distance_from_scaled_(
    w: torch.Tensor, scratch: torch.Tensor, x: RadialTerms, y: RadialTerms, curvature: float, beyond: bool
) -> torch.Tensor:
    """Turn w (N, M) into the geodesic distance, in place.

    Args:
        beyond: whether any point lies beyond the radius limit, so that its excess must be added.
    """
    s = w.mul_(x.growth[:, None]).mul_(y.growth[None, :])
    # 2 asinh(√s) = log1p(2√s(√s + √(1 + s))): torch's asinh is not vectorised on the CPU, and log1p is
    torch.add(s, 1, out=scratch).sqrt_()
    root = s.sqrt_()
    distance = root.mul_(scratch.add_(root)).mul_(2).log1p_()
    if curvature != 1:
        distance.mul_(1 / math.sqrt(curvature))
    if beyond:
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
    return distance_from_chord(x.to(wide), y.to(wide), chord.to(wide), curvature)
