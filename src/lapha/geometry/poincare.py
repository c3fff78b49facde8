"""A `geoopt.PoincareBall` with exact distances, for geoopt's parameters and Riemannian optimisers."""

from __future__ import annotations

import math
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import ScalingInfo
from torch import Tensor

from lapha.geometry.autograd import Distance, ToPolar, chord, from_polar, pairwise_chord
from lapha.geometry.checks import check_curvature
from lapha.geometry.maps import gyrate, interpolate
from lapha.geometry.numerics import accumulate_dtype, ball_limit, floored, origin_radius
from lapha.geometry.translate import SpatialToPolar, Translate


class PoincareBall(geoopt.PoincareBall):
    """The Poincaré ball of geoopt, with distances, maps and metric that do not saturate.

    They are computed from direction and radius, in float64 where the device has it, and are as exact as the
    coordinates are. The remaining operations are geoopt's (products with matrices and scalars, midpoints, planes),
    except that points are kept 8 roundings of their dtype away from the boundary and not 4e-3 (float32) or 1e-5
    (float64): that is up to distance 14.5 (float32) and 34 (float64) from the origin. Beyond that no coordinates in the
    ball can go: use `PolarPoints`.

    Args:
        c: the curvature is −c, c > 0.
        learnable: whether c is trained; distances are differentiable in c.

    Raises:
        ValueError: c is not a finite number > 0.
    """

    __scaling__ = geoopt.PoincareBall.__scaling__.copy()

    def __init__(self, c: float | Tensor = 1.0, learnable: bool = False) -> None:
        exact = check_curvature(float(c))
        # geoopt works on the tensor that it is given, in place
        super().__init__(c.detach().clone() if isinstance(c, Tensor) else exact, learnable=learnable)
        with torch.no_grad():
            self.isp_c.fill_(exact + math.log(-math.expm1(-exact)))

    @property
    def c(self) -> Tensor:
        """c > 0. Rounded once, so that c = 1 is 1: close to the boundary one rounding of c is felt."""
        return torch.nn.functional.softplus(self.isp_c.to(accumulate_dtype(self.isp_c))).to(self.isp_c.dtype)

    def _polar(self, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Directions (…, D) and radii scaled by √c (…,), wide; the dimension of the space comes last."""
        wide = x.movedim(dim, -1).to(accumulate_dtype(x))
        direction, norm = ToPolar.apply(wide * self._sqrt_c(x))
        # a point on or outside the boundary (it cannot come from `projx`) counts as the last one inside
        return direction, torch.atanh(norm.clamp_max(1 - torch.finfo(norm.dtype).eps))

    def _ball(self, direction: Tensor, radius: Tensor, like: Tensor, dim: int, project: bool = True) -> Tensor:
        """Back from `_polar`, in the dtype of `like`."""
        point = from_polar(direction, torch.tanh(radius)) / self._sqrt_c(like)
        point = point.to(like.dtype).movedim(-1, dim)
        return self.projx(point, dim=dim) if project else point

    def _sqrt_c(self, like: Tensor) -> Tensor:
        return self.c.to(accumulate_dtype(like)).sqrt()

    # -- distances -------------------------------------------------------------------------------------------------

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Geodesic distance; gradient 0 at coincident points."""
        (u, a), (t, b) = self._polar(x, dim), self._polar(y, dim)
        a, b = torch.broadcast_tensors(a, b)
        distance = Distance.apply(a, b, chord(u, t), 1.0) / self._sqrt_c(x)
        return _finish(distance, torch.promote_types(x.dtype, y.dtype), keepdim, dim)

    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Squared geodesic distance."""
        return self.dist(x, y, keepdim=keepdim, dim=dim).square()

    def dist0(self, x: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Distance from the origin; gradient 0 there."""
        _, a = self._polar(x, dim)
        return _finish(torch.where(a == 0, 0, 2 * a) / self._sqrt_c(x), x.dtype, keepdim, dim)

    @__scaling__(ScalingInfo(1))
    def pairwise_dist(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Distances (…, N, M) between points (…, N, D) and (…, M, D), or within x."""
        y = x if y is None else y
        (u, a), (t, b) = self._polar(x, -1), self._polar(y, -1)
        chords = pairwise_chord(u, t)
        a, b = a.unsqueeze(-1).expand(chords.shape), b.unsqueeze(-2).expand(chords.shape)
        return (Distance.apply(a, b, chords, 1.0) / self._sqrt_c(x)).to(torch.promote_types(x.dtype, y.dtype))

    # -- maps ------------------------------------------------------------------------------------------------------

    def expmap0(self, u: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """Exponential map at the origin."""
        direction, norm = ToPolar.apply(u.movedim(dim, -1).to(accumulate_dtype(u)) * self._sqrt_c(u))
        return self._ball(direction, norm, u, dim, project)

    def logmap0(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithmic map at the origin; its norm is half of `dist0`."""
        direction, a = self._polar(x, dim)
        return (from_polar(direction, a) / self._sqrt_c(x)).to(x.dtype).movedim(-1, dim)

    def expmap(self, x: Tensor, u: Tensor, *, project: bool = True, dim: int = -1) -> Tensor:
        """Exponential map at x."""
        wide = (u.to(accumulate_dtype(u)) * self._half_lambda(x, dim)).movedim(dim, -1)
        step = ToPolar.apply(wide * self._sqrt_c(u))
        direction, radius = _translate(self._polar(x, dim), step)
        return self._ball(direction, radius, x, dim, project)

    def logmap(self, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithmic map at x; its Riemannian norm is `dist(x, y)`."""
        u, a = self._polar(x, dim)
        vector = from_polar(*_translate((-u, a), self._polar(y, dim))) / self._sqrt_c(x)
        return (vector.movedim(-1, dim) / self._half_lambda(x, dim)).to(x.dtype)

    def mobius_add(self, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """Möbius addition x ⊕ y."""
        direction, radius = _translate(self._polar(x, dim), self._polar(y, dim))
        return self._ball(direction, radius, x, dim, project)

    def mobius_sub(self, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """x ⊕ (−y)."""
        return self.mobius_add(x, -y, dim=dim, project=project)

    def geodesic(self, t: Tensor, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        """The point at fraction t of the way from x to y; t has the batch shape, with or without `dim` of size 1."""
        (u, a), (v, b) = _broadcast(self._polar(x, dim), self._polar(y, dim))
        s = torch.as_tensor(t).to(a)
        s = s.movedim(dim, -1).squeeze(-1) if s.dim() == x.dim() and s.dim() > 0 and s.shape[dim] == 1 else s
        length = Distance.apply(a, b, chord(u, v), 1.0)
        vector, log_scale = interpolate(u, a, v, b, length, s, origin_radius(a.dtype))
        direction, radius = SpatialToPolar.apply(vector, log_scale, 1.0)
        return self._ball(direction, radius, x, dim)

    def transp(self, x: Tensor, y: Tensor, v: Tensor, *, dim: int = -1) -> Tensor:
        """Parallel transport along the geodesic from x to y."""
        (u, a), (t, b) = self._polar(x, dim), self._polar(y, dim)
        rotated = gyrate(u, floored(a), t, floored(b), v.movedim(dim, -1).to(u.dtype)).movedim(-1, dim)
        return (rotated * (self._half_lambda(x, dim) / self._half_lambda(y, dim))).to(v.dtype)

    # -- the metric ------------------------------------------------------------------------------------------------

    def _half_lambda(self, x: Tensor, dim: int) -> Tensor:
        """λ_x/2 = 1/(1 − c‖x‖²), wide, with `dim` kept: near the boundary the coordinates' own dtype would lose it."""
        wide = x.to(accumulate_dtype(x))
        gap = 1 - self.c.to(wide.dtype) * wide.square().sum(dim, keepdim=True)
        return 1 / gap.clamp_min(torch.finfo(wide.dtype).eps)

    def lambda_x(self, x: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Conformal factor 2/(1 − c‖x‖²)."""
        factor = (2 * self._half_lambda(x, dim)).to(x.dtype)
        return factor if keepdim else factor.squeeze(dim)

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Riemannian inner product of tangent vectors at x."""
        product = (u * (u if v is None else v)).sum(dim, keepdim=keepdim)
        return self.lambda_x(x, dim=dim, keepdim=keepdim).square() * product

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Riemannian norm of a tangent vector at x."""
        return self.lambda_x(x, dim=dim, keepdim=keepdim) * torch.linalg.vector_norm(u, dim=dim, keepdim=keepdim)

    def egrad2rgrad(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Riemannian gradient from a Euclidean one."""
        return (u / (4 * self._half_lambda(x, dim).square())).to(u.dtype)

    # -- staying inside --------------------------------------------------------------------------------------------

    def projx(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Points farther out than `numerics.ball_limit` allows are moved there; others are unchanged."""
        largest = ball_limit(x.dtype) / self._sqrt_c(x)
        norm = torch.linalg.vector_norm(x.to(largest.dtype), dim=dim, keepdim=True)
        outside = norm > largest
        scale = largest / torch.where(outside, norm, largest)
        return torch.where(outside, (x * scale).to(x.dtype), x)

    def retr(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """First-order retraction, kept inside the ball."""
        return self.projx(x + u, dim=dim)

    def _check_point_on_manifold(
        self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5, dim: int = -1
    ) -> tuple[bool, str | None]:
        if torch.allclose(x, self.projx(x, dim=dim), atol=atol, rtol=rtol):
            return True, None
        return False, f"'x' lies outside the ball of radius {1 / math.sqrt(float(self.c)):g}"


def _projected(name: str) -> Any:
    """geoopt's method, with `PoincareBall.projx` in the place of geoopt's own projection."""
    original = getattr(geoopt.PoincareBall, name)

    def method(self: PoincareBall, *args: Any, project: bool = True, dim: int = -1, **kwargs: Any) -> Tensor:
        result = original(self, *args, project=False, dim=dim, **kwargs)
        return self.projx(result, dim=dim) if project else result

    method.__name__, method.__qualname__, method.__doc__ = name, f"PoincareBall.{name}", original.__doc__
    return method


for _name in (
    "mobius_coadd", "mobius_cosub", "mobius_scalar_mul", "mobius_pointwise_mul", "mobius_matvec", "geodesic_unit",
    "mobius_fn_apply", "mobius_fn_apply_chain", "weighted_midpoint",
):  # fmt: skip
    setattr(PoincareBall, _name, _projected(_name))

Polar = tuple[Tensor, Tensor]


def _broadcast(x: Polar, y: Polar) -> tuple[Polar, Polar]:
    (u, t), (a, b) = torch.broadcast_tensors(x[0], y[0]), torch.broadcast_tensors(x[1], y[1])
    return (u, a), (t, b)


def _translate(x: Polar, y: Polar) -> Polar:
    (u, a), (t, b) = _broadcast(x, y)
    return Translate.apply(u, a, t, b, 1.0)


def _finish(distance: Tensor, dtype: torch.dtype, keepdim: bool, dim: int) -> Tensor:
    distance = distance.to(dtype)
    return distance.unsqueeze(dim) if keepdim else distance
