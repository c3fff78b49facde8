"""Exponential and logarithmic maps, geodesics, translations, parallel transport and horocycles, at any radius.

Tangent vectors. At the origin they are those of the ball: exp₀(v) has radius ‖v‖ and lies at distance 2‖v‖.
At another point x the factor between ball coordinates and lengths, λ_x/2 = cosh²(√c·radius), overflows long before
anything else does; so a tangent vector at x is given here in the *frame* at x that parallel transport along the
geodesic brings from the origin: w = (λ_x/2) · (the vector in ball coordinates). Then ‖w‖ is half of its Riemannian
length everywhere, exp_x(w) = x ⊕ exp₀(w), and `to_frame` and `from_frame` convert.

What no representation of points can do: seen from a point x at radius r, everything near the origin lies in a
direction that differs from −x by about e^(−2√c·r). So `logmap` at x, followed by `expmap`, loses as many digits. `geodesic`
and `dist` do not pass through a tangent vector and keep theirs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lapha._checks import check, check_float_tensor
from lapha._typed import typed
from lapha.geometry.autograd import FromPolar, chord, differentiable_once
from lapha.geometry.checks import check_broadcast
from lapha.geometry.distance import dist
from lapha.geometry.numerics import busemann_from_chord, busemann_partials, floored, origin_radius
from lapha.geometry.points import PolarPoints, check_same_space
from lapha.geometry.translate import SpatialToPolar, Translate


def expmap0(v: Tensor, curvature: float = 1.0) -> PolarPoints:
    """exp₀: points from tangent vectors (…, D) at the origin; `PolarPoints.from_tangent` under its usual name."""
    return PolarPoints.from_tangent(v, curvature)


def logmap0(X: PolarPoints) -> Tensor:
    """log₀: the tangent vectors (…, D) at the origin; `PolarPoints.to_tangent` under its usual name."""
    check(isinstance(X, PolarPoints), "X", "PolarPoints", type(X).__name__)
    return X.to_tangent()


def mobius_add(X: PolarPoints, Y: PolarPoints) -> PolarPoints:
    """Möbius addition x ⊕ y: y under the translation that takes the origin to x.

    Args:
        X, Y: points of one space, batch shapes that broadcast.

    Raises:
        ValueError: another dimension, dtype, device or curvature, or batch shapes that do not broadcast.

    Source: Ungar, Analytic hyperbolic geometry; Ganea et al., arXiv 1805.09112, eq. 4.
    """
    X, Y = _broadcast(X, Y)
    dtype = X.radius.dtype
    direction, radius = Translate.apply(X.direction.to(dtype), X.radius, Y.direction.to(dtype), Y.radius, X.curvature)
    return PolarPoints(direction.to(X.dtype), radius, X.curvature)


def expmap(X: PolarPoints, w: Tensor) -> PolarPoints:
    """exp_x(w) = x ⊕ exp₀(w), for w (…, D) in the frame at x (see the module's text and `to_frame`).

    Raises:
        ValueError: w of another dimension, dtype or device, or batch shapes that do not broadcast.
    """
    _check_vectors(X, w, "w")
    return mobius_add(X, PolarPoints.from_tangent(w, X.curvature))


def logmap(X: PolarPoints, Y: PolarPoints) -> Tensor:
    """log_x(y) = log₀(−x ⊕ y): (…, D) in the frame at x; its norm is half the distance.

    Raises:
        ValueError: as `mobius_add`.
    """
    return mobius_add(-_points(X, "X"), Y).to_tangent()


def to_frame(X: PolarPoints, v: Tensor) -> Tensor:
    """Tangent vectors v (…, D) at X from ball coordinates into the frame: v · λ_x/2. Inf beyond √c·radius = 44 in float32."""
    _check_vectors(X, v, "v")
    return (v * torch.cosh(X.radius * math.sqrt(X.curvature)).square()[..., None]).to(v.dtype)


def from_frame(X: PolarPoints, w: Tensor) -> Tensor:
    """Tangent vectors w (…, D) at X from the frame into ball coordinates: w · 2/λ_x."""
    _check_vectors(X, w, "w")
    return (w / torch.cosh(X.radius * math.sqrt(X.curvature)).square()[..., None]).to(w.dtype)


@typed
def geodesic(X: PolarPoints, Y: PolarPoints, s: float | Tensor) -> PolarPoints:
    """The point at fraction s of the way from x (s = 0) to y (s = 1), at constant speed; s may lie outside [0, 1].

    Computed as a combination of the two points in the plane that they span, so there is no loss at large radius.

    Args:
        X, Y: points of one space, batch shapes that broadcast.
        s: a number, or a tensor that broadcasts with the batch shape.

    Raises:
        ValueError: as `mobius_add`, or an `s` that does not broadcast.
    """
    X, Y = _broadcast(X, Y)
    s = torch.as_tensor(s, dtype=X.radius.dtype, device=X.device)
    shape = check_broadcast(X.shape, s.shape, "s")
    X, Y, s = X.expand(shape), Y.expand(shape), s.expand(shape)
    sqrt_c, dtype = math.sqrt(X.curvature), X.radius.dtype
    a, b, length = X.radius * sqrt_c, Y.radius * sqrt_c, dist(X, Y) * sqrt_c
    floor = origin_radius(dtype) * sqrt_c
    vector, log_scale = interpolate(X.direction.to(dtype), a, Y.direction.to(dtype), b, length, s, floor)
    direction, radius = SpatialToPolar.apply(vector, log_scale, X.curvature)
    return PolarPoints(direction.to(X.dtype), radius, X.curvature)


def interpolate(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, length: Tensor, s: Tensor, floor: float
) -> tuple[Tensor, Tensor]:
    """Spatial hyperboloid coordinates of the point at fraction s of the geodesic, as (vector (…, D), log of its scale).

    (sinh((1 − s)·length) sinh 2a · u + sinh(s·length) sinh 2b · t) / sinh(length). Radii, length and `floor`, the
    `origin_radius`, are scaled by √c.
    """
    share_x, exponent_x = _sinh_ratio(1 - s, length)
    share_y, exponent_y = _sinh_ratio(s, length)
    log_scale = torch.maximum(exponent_x + 2 * a, exponent_y + 2 * b).detach()
    vector = share_x[..., None] * spatial(u, a, exponent_x - log_scale, floor)
    return vector + share_y[..., None] * spatial(t, b, exponent_y - log_scale, floor), log_scale


def spatial(u: Tensor, a: Tensor, exponent: Tensor, floor: float) -> Tensor:
    """e^exponent · sinh(2a) · u: spatial hyperboloid coordinates (…, D), scaled."""

    def norm(a: Tensor, exponent: Tensor) -> Tensor:
        return torch.exp(2 * a + exponent) * torch.expm1(-4 * a) * -0.5

    return FromPolar.apply(u, norm(a, exponent), norm(a.detach().clamp_min(floor), exponent.detach()))


def _sinh_ratio(s: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """sinh(s·length)/sinh(length) as (factor, exponent): factor · e^exponent. (s, 0) at length 0."""
    apart = length > 0
    safe = torch.where(apart, length, torch.ones_like(length))
    factor = torch.sign(s) * torch.expm1(-2 * s.abs() * safe) / torch.expm1(-2 * safe)
    exponent = (s.abs() - 1) * safe
    return torch.where(apart, factor, s), torch.where(apart, exponent, torch.zeros_like(length))


def parallel_transport(X: PolarPoints, Y: PolarPoints, w: Tensor) -> Tensor:
    """Transport tangent vectors along the geodesic from x to y: from the frame at x to the frame at y.

    In frames this is a rotation in the plane of the two directions, the gyration gyr[y, −x]; its angle is the area
    (times c) of the triangle with the origin.

    Args:
        X, Y: points of one space.
        w: (…, D) in the frame at x; batch shapes broadcast.

    Returns:
        (…, D) in the frame at y.

    Raises:
        ValueError: as `mobius_add`, or a `w` of another dimension, dtype or device.
    """
    X, Y = _broadcast(X, Y)
    _check_vectors(X, w, "w")
    sqrt_c, dtype = math.sqrt(X.curvature), X.radius.dtype
    u, t = X.direction.to(dtype), Y.direction.to(dtype)
    return gyrate(u, floored(X.radius) * sqrt_c, t, floored(Y.radius) * sqrt_c, w.to(dtype)).to(w.dtype)


def gyrate(u: Tensor, a: Tensor, t: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """gyr[y, −x]w for x = (u, a), y = (t, b): directions (…, D), radii (…,) > 0 scaled by √c, vectors (…, D)."""
    a, b = a[..., None], b[..., None]
    difference = u - t
    # t − u cos θ and 1 − cos θ, by differences
    across = u * (u * difference).sum(-1, keepdim=True) - difference
    versine = 0.5 * difference.square().sum(-1, keepdim=True)
    # tan(angle/2) = sinh a sinh b sin θ / (cosh(a − b) + sinh a sinh b (1 − cos θ)), both times e^(shift − a − b).
    # The floor is for radii beyond the shift's limit, in directions that are equal, or closer than numbers get.
    limit, floor = (300.0, 1e-100) if a.dtype == torch.float64 else (40.0, 1e-12)
    shift = (2 * torch.minimum(a, b)).detach().clamp_max(limit)
    product = torch.exp(shift) * (0.25 * torch.expm1(-2 * a) * torch.expm1(-2 * b))
    rest = 0.5 * (torch.exp(shift - 2 * a) + torch.exp(shift - 2 * b)) + product * versine + floor
    rise = product * across
    hypotenuse = torch.sqrt(rest.square() + rise.square().sum(-1, keepdim=True))
    cosine, sine = rest / hypotenuse, rise / hypotenuse  # of the half angle; `sine` is a vector in the plane
    along_u, along_sine = (u * w).sum(-1, keepdim=True), (sine * w).sum(-1, keepdim=True)
    rotated = cosine * (u * along_sine - sine * along_u)
    shortened = sine.square().sum(-1, keepdim=True) * u * along_u + sine * along_sine
    return w + 2 * (rotated - shortened)


def parallel_transport0(Y: PolarPoints, v: Tensor) -> Tensor:
    """Transport tangent vectors v (…, D) from the origin to the frame at y: unchanged, by the choice of the frame.

    Raises:
        ValueError: a `v` of another dimension, dtype or device, or batch shapes that do not broadcast.
    """
    _check_vectors(Y, v, "v")
    return v.expand(*check_broadcast(Y.shape, v.shape[:-1], "v"), -1)


class _Busemann(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(radius: Tensor, chord: Tensor, curvature: float) -> Tensor:
        return busemann_from_chord(radius, chord, curvature)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        radius, chord, ctx.curvature = inputs
        ctx.save_for_backward(radius, chord, output)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        radius, chord, value = ctx.saved_tensors
        by_radius, by_chord = busemann_partials(radius, chord, value, ctx.curvature)
        return grad * by_radius, grad * by_chord, None


def busemann(X: PolarPoints, ideal: Tensor) -> Tensor:
    """Busemann function of ideal points: the distance to a point at infinity, less that of the origin.

    Args:
        X: points.
        ideal: (…, D) unit vectors, points of the boundary; batch shapes broadcast.

    Returns:
        (…,) values; 0 on the horosphere through the origin, −2·radius on the ray to the ideal point.

    Raises:
        ValueError: an `ideal` of another dimension, dtype or device, or batch shapes that do not broadcast.

    Source: Busemann, The geometry of geodesics; for the ball, log(‖ξ − y‖²/(1 − ‖y‖²)) at c = 1.
    """
    _check_vectors(X, ideal, "ideal")
    shape = check_broadcast(X.shape, ideal.shape[:-1], "ideal")
    return _Busemann.apply(X.radius.expand(shape), chord(X.direction, ideal).expand(shape), X.curvature)


def _points(X: Any, name: str) -> PolarPoints:
    check(isinstance(X, PolarPoints), name, "PolarPoints", type(X).__name__)
    return X


def _broadcast(X: PolarPoints, Y: PolarPoints) -> tuple[PolarPoints, PolarPoints]:
    check_same_space(X, Y)
    shape = check_broadcast(X.shape, Y.shape, "Y")
    return X.expand(shape), Y.expand(shape)


def _check_vectors(X: Any, v: Any, name: str) -> None:
    _points(X, "X")
    check_float_tensor(v, name)
    check(v.dim() >= 1 and v.shape[-1] == X.dim, name, f"shape (…, {X.dim})", f"shape {tuple(v.shape)}")
    check(v.dtype == X.dtype, name, f"the dtype of X, {X.dtype}", v.dtype)
    check(v.device == X.device, name, f"the device of X, {X.device}", v.device)
    check_broadcast(X.shape, v.shape[:-1], name)
