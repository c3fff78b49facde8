"""Scalar formulas of the distance between two points in polar form, exact at any radius.

For two points (u, a) and (t, b), u and t unit directions, a and b radii scaled by √c, and h = √c·d/2:

    sinh²h = sinh²(a − b) + sinh 2a · sinh 2b · k²,        k = ‖u − t‖ / 2

Both terms are non-negative, so nothing cancels; and the products are formed from factors that are bounded, or in
logarithms, so nothing overflows. Everything here is a plain formula of tensors that broadcast; autograd is wired up
in `autograd.py`, and other back ends (`lapha.kernels`) use the same formulas.

Sources: the hyperbolic law of cosines in half-angle form; Mishne et al., arXiv 2211.00181, on why ball and
hyperboloid coordinates cannot do this.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG2 = math.log(2.0)

# Above this the hyperbolic functions of one number are evaluated in logarithms; e^40 squared still fits float32.
_DIRECT_LIMIT = 40.0


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that scalars of points with directions of `dtype` have: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def accumulate_dtype(tensor: Tensor) -> torch.dtype:
    """float64 where the device has it: the dtype for sums that must be better than the result's rounding."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def ball_limit(dtype: torch.dtype) -> float:
    """The largest √c·‖y‖ for coordinates of `dtype` in the ball: rounding them must not put the point outside.

    Each is rounded by half an eps; in float32 and float64 the length of a direction is off by a few roundings, too.
    """
    return 1 - torch.finfo(dtype).eps * (1 if dtype in (torch.float16, torch.bfloat16) else 8)


def origin_radius(dtype: torch.dtype) -> float:
    """The radius that stands for zero in derivatives with respect to a direction.

    Such a derivative is proportional to the radius, and the derivative of the direction with respect to a tangent
    vector to its reciprocal. At the origin both use this number, so that their product is right there too.
    """
    return 1e-100 if dtype == torch.float64 else 1e-18


def floored(radius: Tensor) -> Tensor:
    """max(radius, origin_radius) with derivative 1 on both sides (`clamp` would stop the gradient at the origin).

    For formulas left to autograd, whose derivatives with respect to a direction must be multiples of this.
    """
    return radius + (origin_radius(radius.dtype) - radius.detach()).clamp_min(0)


def log_sinh(x: Tensor) -> Tensor:
    """log(sinh x) for x >= 0, without overflow; −inf at 0."""
    return x + torch.log(-torch.expm1(-2 * x)) - LOG2


def log_cosh(x: Tensor) -> Tensor:
    """log(cosh x), without overflow."""
    x = x.abs()
    return x + torch.log1p(torch.exp(-2 * x)) - LOG2


def asinh_exp(log_x: Tensor) -> Tensor:
    """asinh(exp(log_x)), without overflow; 0 at −inf."""
    large = log_x > _DIRECT_LIMIT / 2
    direct = torch.asinh(torch.exp(torch.where(large, torch.zeros_like(log_x), log_x)))
    return torch.where(large, log_x + LOG2, direct)


def exp_limited(x: Tensor) -> Tensor:
    """exp(x), held below where its square would overflow.

    For factors that meet a chord: they are beyond the limit only where the chord is 0, or not representable squared.
    """
    return torch.exp(x.clamp_max(300.0 if x.dtype == torch.float64 else 40.0))


def _sqrt_sinh_double(a: Tensor) -> Tensor:
    """√(sinh 2a) for a >= 0, clamped where a result made from it is not used (see `distance_from_chord_length`)."""
    a = a.clamp_max(640.0 if a.dtype == torch.float64 else 80.0)
    return torch.exp(a) * torch.sqrt(-0.5 * torch.expm1(-4 * a))


def distance_from_chord_length(radius_x: Tensor, radius_y: Tensor, chord: Tensor, curvature: float = 1.0) -> Tensor:
    """Geodesic distance from two radii and the chord ‖u − t‖ between the directions.

    Args:
        radius_x, radius_y: tangent norms ‖v‖ >= 0 at the origin, float32 or float64. They are not scaled by √c: their
            difference is taken first, and is then exact where it is small.
        chord: length of the difference of the unit directions, in [0, 2].
        curvature: c > 0; the space has curvature −c.

    Returns:
        Distances >= 0, broadcast; NaN where a number is NaN or Inf, or a radius negative. The relative error is a few
        units of rounding at any radius for which 4·√c·radius is finite. No gradient: see `lapha.geometry.dist`.
    """
    sqrt_c = math.sqrt(curvature)
    a, b = radius_x * sqrt_c, radius_y * sqrt_c
    gap = (radius_x - radius_y).abs() * sqrt_c
    half = 0.5 * chord

    # In logarithms: for results beyond the reach of sinh.
    log_half_sinh_2a = a + 0.5 * torch.log(-0.5 * torch.expm1(-4 * a))
    log_half_sinh_2b = b + 0.5 * torch.log(-0.5 * torch.expm1(-4 * b))
    log_radial = log_sinh(gap)
    log_angular = torch.log(half) + (log_half_sinh_2a + log_half_sinh_2b)
    log_sinh_h = 0.5 * torch.logaddexp(2 * log_radial, 2 * log_angular)
    in_logs = log_sinh_h + LOG2

    # Directly: logarithms of small numbers would lose digits. A radius that the clamp changes comes with a chord of 0
    # here, or else with a result so large that the other branch is taken.
    angular = half * _sqrt_sinh_double(a) * _sqrt_sinh_double(b)
    direct = torch.asinh(torch.hypot(torch.sinh(gap.clamp_max(_DIRECT_LIMIT)), angular))

    large = torch.maximum(log_radial, log_angular) > _DIRECT_LIMIT / 2
    finite = torch.maximum(a, b) < math.inf
    return torch.where(finite, torch.where(large, in_logs, direct) * (2 / sqrt_c), math.nan)


def distance_from_chord(radius_x: Tensor, radius_y: Tensor, chord_sq: Tensor, curvature: float = 1.0) -> Tensor:
    """As `distance_from_chord_length`, from ‖u − t‖² = 2 − 2u·t; rounding below 0 counts as 0."""
    return distance_from_chord_length(radius_x, radius_y, chord_sq.clamp_min(0).sqrt(), curvature)


def distance_partials(
    radius_x: Tensor, radius_y: Tensor, chord: Tensor, distance: Tensor, curvature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Partial derivatives of the distance with respect to radius_x, radius_y and chord.

    Args:
        radius_x, radius_y, chord, curvature: as in `distance_from_chord_length`.
        distance: its result.

    Returns:
        (∂d/∂radius_x, ∂d/∂radius_y, ∂d/∂chord), broadcast. The first two lie in [−2, 2]. All are 0 where the
        distance is 0 (a subgradient). Where a radius is below `origin_radius` the last is that of the
        point at `origin_radius`: see there. Divide it by 2·chord for the derivative with respect to chord².
    """
    sqrt_c = math.sqrt(curvature)
    a, b = radius_x * sqrt_c, radius_y * sqrt_c
    h = distance * (0.5 * sqrt_c)
    coincident = h <= 0
    h = torch.where(coincident, torch.ones_like(h), h)
    gap = (radius_x - radius_y) * sqrt_c
    log_half = torch.log(0.5 * chord)
    denominator = torch.expm1(-4 * h)

    radial = torch.sign(gap) * torch.exp(2 * (gap.abs() - h)) * (torch.expm1(-4 * gap.abs()) / denominator)
    scale = torch.exp(a + b - h + log_half)
    by_x = radial + scale * (scale * (1 + torch.exp(-4 * a)) * (torch.expm1(-4 * b) / denominator))
    by_y = -radial + scale * (scale * (1 + torch.exp(-4 * b)) * (torch.expm1(-4 * a) / denominator))

    floor = origin_radius(a.dtype) * sqrt_c
    sinh_2a, sinh_2b = torch.expm1(-4 * a.clamp_min(floor)), torch.expm1(-4 * b.clamp_min(floor))
    by_chord = torch.exp(2 * (a + b - h) + log_half) * (-0.5 * sinh_2a * (sinh_2b / denominator))

    zero = torch.zeros_like(h)
    return (
        torch.where(coincident, zero, 2 * by_x),
        torch.where(coincident, zero, 2 * by_y),
        torch.where(coincident, zero, by_chord * (2 / sqrt_c)),
    )


def busemann_from_chord(radius: Tensor, chord: Tensor, curvature: float = 1.0) -> Tensor:
    """Busemann function of the point (u, radius) for the ideal point ξ, from the chord ‖u − ξ‖.

    (1/√c)·log(e^(−2a) + ½ sinh(2a)·chord²) with a = √c·radius: 0 at the origin, −2·radius on the way to ξ.
    No gradient: see `lapha.geometry.busemann`.
    """
    sqrt_c = math.sqrt(curvature)
    a = radius * sqrt_c
    near = a.clamp_max(1.0)
    direct = torch.log1p(torch.expm1(-2 * near) + 0.5 * torch.sinh(2 * near) * chord.square())
    in_logs = torch.logaddexp(-2 * a, log_sinh(2 * a) + 2 * torch.log(chord) - LOG2)
    return torch.where(a <= 1, direct, in_logs) / sqrt_c


def busemann_partials(radius: Tensor, chord: Tensor, value: Tensor, curvature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(∂/∂radius, ∂/∂chord) of `value` = `busemann_from_chord`; the second with `origin_radius` as there."""
    sqrt_c = math.sqrt(curvature)
    a, b = radius * sqrt_c, value * sqrt_c
    log_chord = torch.log(chord)
    spread = torch.exp(2 * a - b + 2 * log_chord)  # chord² e^(2a) over the argument of the logarithm
    by_radius = 0.5 * spread * (1 + torch.exp(-4 * a)) - 2 * torch.exp(-2 * a - b)
    floor = sqrt_c * origin_radius(a.dtype)
    by_chord = torch.exp(2 * a - b + log_chord) * (-0.5 * torch.expm1(-4 * a.clamp_min(floor)))
    return by_radius, by_chord / sqrt_c
