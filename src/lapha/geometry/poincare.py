"""A `geoopt.PoincareBall` with exact distances, for geoopt's parameters and Riemannian optimisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import ScalingInfo
from torch import Tensor

from lapha._checks import check
from lapha._typed import typed
from lapha.geometry import ball
from lapha.geometry._blocks import in_blocks
from lapha.geometry.autograd import Distance, ToPolar, pairwise_chord
from lapha.geometry.checks import check_curvature
from lapha.geometry.numerics import accumulate_dtype, ball_limit


class PoincareBall(geoopt.PoincareBall):
    """The Poincaré ball of geoopt, with distances, maps and metric that do not saturate.

    Computed in float64 where the device has it, in forms that do not cancel (see `lapha.geometry.ball`), and as exact as
    the coordinates are. Points are kept 8 roundings of their dtype away from the boundary, and not 4e-3 (float32)
    or 1e-5 (float64): that is up to distance 14.5 (float32) and 34 (float64) from the origin. Beyond that no
    coordinates in the ball can go: use `PolarPoints`. Shapes, broadcasting and names are geoopt's; one thing differs:
    `inner` without `keepdim` has the batch shape.

    Args:
        c: the curvature is −c, c > 0: one number, the same for all points.
        learnable: whether c is trained; everything is differentiable in c.

    Raises:
        ValueError: c is not one finite number > 0.
    """

    __scaling__ = geoopt.PoincareBall.__scaling__.copy()

    @typed
    def __init__(self, c: float | Tensor = 1.0, learnable: bool = False) -> None:
        if isinstance(c, Tensor):
            one = "one number (a ball has one curvature; for several, use several balls)"
            check(c.numel() == 1, "c", one, f"shape {tuple(c.shape)}")
            c = c.detach().reshape(()).clone()  # geoopt works on the tensor that it is given, in place
        exact = check_curvature(float(c) if isinstance(c, Tensor) else c)
        super().__init__(c if isinstance(c, Tensor) else exact, learnable=learnable)
        with torch.no_grad():
            self.isp_c.fill_(exact + math.log(-math.expm1(-exact)))

    @property
    def c(self) -> Tensor:
        """c > 0. Rounded once, so that c = 1 is 1: close to the boundary one rounding of c is felt."""
        return torch.nn.functional.softplus(self.isp_c.to(accumulate_dtype(self.isp_c))).to(self.isp_c.dtype)

    def _widen(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """c and the tensors in the dtype of sums."""
        dtype = accumulate_dtype(tensors[0])
        return self.c.to(dtype), *(tensor.to(dtype) for tensor in tensors)

    # -- distances -------------------------------------------------------------------------------------------------

    @in_blocks
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Geodesic distance; gradient 0 at coincident points."""
        c, first, second = self._widen(x, y)
        distance = ball.half_length(first, second, c, dim) * (2 / c.sqrt())
        return _finish(distance, _dtype(x, y), keepdim, dim)

    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Squared geodesic distance."""
        return self.dist(x, y, keepdim=keepdim, dim=dim).square()

    @in_blocks
    def dist0(self, x: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Distance from the origin; gradient 0 there."""
        c, wide = self._widen(x)
        square = c * ball.dot(wide, wide, dim)
        distance = ball.asinh_of_root(square / ball.gap(wide, c, dim)) * (2 / c.sqrt())
        return _finish(distance, x.dtype, keepdim, dim)

    @__scaling__(ScalingInfo(1))
    def pairwise_dist(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Distances (…, N, M) between points (…, N, D) and (…, M, D), or within x."""
        y = x if y is None else y
        (u, a), (t, b) = self._polar(x), self._polar(y)
        chords = pairwise_chord(u, t)
        a, b = a.unsqueeze(-1).expand(chords.shape), b.unsqueeze(-2).expand(chords.shape)
        return (Distance.apply(a, b, chords, 1.0) / self._widen(x)[0].sqrt()).to(_dtype(x, y))

    cdist = pairwise_dist

    @in_blocks
    def dist2plane(
        self,
        x: Tensor,
        p: Tensor,
        a: Tensor,
        *,
        dim: int = -1,
        keepdim: bool = False,
        signed: bool = False,
        scaled: bool = False,
    ) -> Tensor:
        """Distance to the hyperplane through p with normal a."""
        c, wide, base, normal = self._widen(x, p, a)
        sine = ball.plane_sine(wide, base, normal, c, dim)
        distance = torch.asinh(sine if signed else sine.abs()) / c.sqrt()
        if scaled:
            distance = distance * torch.linalg.vector_norm(normal, dim=dim, keepdim=True)
        return _finish(distance, _dtype(x, p, a), keepdim, dim)

    def _polar(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Directions (…, D) and radii scaled by √c (…,), wide."""
        c, wide = self._widen(x)
        direction, norm = ToPolar.apply(wide * c.sqrt())
        return direction, torch.atanh(norm.clamp_max(1 - torch.finfo(norm.dtype).eps))

    # -- maps ------------------------------------------------------------------------------------------------------

    @in_blocks
    def expmap0(self, u: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """Exponential map at the origin."""
        c, v = self._widen(u)
        factor, left, _ = ball.exp0(v, c, dim)
        return (factor * _inward(left, u.dtype, project) * v).to(u.dtype)

    @in_blocks
    def logmap0(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithmic map at the origin; its norm is half of `dist0`."""
        c, wide = self._widen(x)
        return (ball.log0(wide, c, dim) * wide).to(x.dtype)

    @in_blocks
    def expmap(self, x: Tensor, u: Tensor, *, project: bool = True, dim: int = -1) -> Tensor:
        """Exponential map at x."""
        c, wide, v = self._widen(x, u)
        v = v / ball.gap(wide, c, dim)
        factor, beta, _ = ball.exp0(v, c, dim)
        return self._translate(wide, factor * v, beta, c, dim, _dtype(x, u), project)

    @in_blocks
    def logmap(self, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithmic map at x; its Riemannian norm is `dist(x, y)`."""
        c, first, second = self._widen(x, y)
        return ball.log(first, second, c, dim).to(_dtype(x, y))

    @in_blocks
    def mobius_add(self, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """Möbius addition x ⊕ y."""
        c, first, second = self._widen(x, y)
        return self._translate(first, second, ball.gap(second, c, dim), c, dim, _dtype(x, y), project)

    def mobius_sub(self, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """x ⊕ (−y)."""
        return self.mobius_add(x, -y, dim=dim, project=project)

    def _translate(
        self, x: Tensor, y: Tensor, beta: Tensor, c: Tensor, dim: int, dtype: torch.dtype, project: bool
    ) -> Tensor:
        p, q, total, left = ball.add(x, y, beta, c, dim)
        inward = _inward(left, dtype, project)
        return torch.addcmul(p * inward * x, q * inward, total).to(dtype)

    @in_blocks
    def geodesic(self, t: Tensor, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        """The point at fraction t of the way from x to y; t broadcasts with the points, `dim` included, as geoopt's."""
        c, first, second = self._widen(x, y)
        s = torch.as_tensor(t).to(first)
        p, q, left = ball.between(s, first, second, c, dim)
        inward = _inward(left, _dtype(x, y), True)
        point = (p * inward * first + q * inward * second).to(_dtype(x, y))
        # the ends themselves: what is computed rounds differently
        return torch.where(s == 0, x.to(point.dtype), torch.where(s == 1, y.to(point.dtype), point))

    @in_blocks
    def geodesic_unit(self, t: Tensor, x: Tensor, u: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """The point at distance t from x in the direction of u; t broadcasts as in `geodesic`."""
        c, wide, v = self._widen(x, u)
        s = torch.as_tensor(t).to(wide)
        length = torch.linalg.vector_norm(v, dim=dim, keepdim=True)
        v = v / torch.where(length == 0, 1, length) * (0.5 * s)
        factor, beta, _ = ball.exp0(v, c, dim)
        return self._translate(wide, factor * v, beta, c, dim, _dtype(x, u), project)

    @in_blocks
    def transp(self, x: Tensor, y: Tensor, v: Tensor, *, dim: int = -1) -> Tensor:
        """Parallel transport along the geodesic from x to y."""
        c, first, second, w = self._widen(x, y, v)
        rotated = ball.transport(first, second, w, c, dim)
        return (rotated * (ball.gap(second, c, dim) / ball.gap(first, c, dim))).to(_dtype(x, y, v))

    @in_blocks
    def transp0(self, y: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Parallel transport from the origin to y."""
        c, wide, v = self._widen(y, u)
        return (v * ball.gap(wide, c, dim)).to(_dtype(y, u))

    @in_blocks
    def transp0back(self, y: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Parallel transport from y to the origin."""
        c, wide, v = self._widen(y, u)
        return (v / ball.gap(wide, c, dim)).to(_dtype(y, u))

    # -- products --------------------------------------------------------------------------------------------------

    @in_blocks
    def mobius_scalar_mul(self, r: Tensor, x: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """r ⊗ x: the point at r times the distance from the origin."""
        return self._through_origin(lambda v: torch.as_tensor(r).to(v) * v, x, dim, project)

    def mobius_pointwise_mul(self, w: Tensor, x: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """exp₀(w · log₀(x)), coordinate by coordinate."""
        return self._through_origin(lambda v: w.to(v) * v, x, dim, project)

    def mobius_matvec(self, m: Tensor, x: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """exp₀(m · log₀(x)) for matrices m (…, K, D)."""

        def product(v: Tensor) -> Tensor:
            return torch.einsum("...kd,...d->...k", m.to(v), v.movedim(dim, -1)).movedim(-1, dim)

        return self._through_origin(product, x, dim, project)

    def mobius_fn_apply(
        self, fn: Callable[..., Tensor], x: Tensor, *args: Any, dim: int = -1, project: bool = True, **kwargs: Any
    ) -> Tensor:
        """exp₀(fn(log₀(x)))."""
        return self._through_origin(lambda v: fn(v, *args, **kwargs), x, dim, project)

    def mobius_fn_apply_chain(
        self, x: Tensor, *fns: Callable[[Tensor], Tensor], project: bool = True, dim: int = -1
    ) -> Tensor:
        """exp₀ of log₀(x) after all functions, in their order."""

        def chain(v: Tensor) -> Tensor:
            for function in fns:
                v = function(v)
            return v

        return self._through_origin(chain, x, dim, project)

    def _through_origin(self, function: Callable[[Tensor], Tensor], x: Tensor, dim: int, project: bool) -> Tensor:
        c, wide = self._widen(x)
        v = function(ball.log0(wide, c, dim) * wide).to(wide.dtype)
        factor, left, _ = ball.exp0(v, c, dim)
        return (factor * _inward(left, x.dtype, project) * v).to(x.dtype)

    # -- the metric ------------------------------------------------------------------------------------------------

    @in_blocks
    def lambda_x(self, x: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Conformal factor 2/(1 − c‖x‖²)."""
        c, wide = self._widen(x)
        return _finish(2 / ball.gap(wide, c, dim), x.dtype, keepdim, dim)

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Riemannian inner product of tangent vectors at x."""
        product = (u * (u if v is None else v)).sum(dim, keepdim=keepdim)
        return self.lambda_x(x, dim=dim, keepdim=keepdim).square() * product

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Riemannian norm of a tangent vector at x."""
        return self.lambda_x(x, dim=dim, keepdim=keepdim) * torch.linalg.vector_norm(u, dim=dim, keepdim=keepdim)

    @in_blocks
    def egrad2rgrad(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Riemannian gradient from a Euclidean one."""
        c, wide = self._widen(x)
        return (u * (0.25 * ball.gap(wide, c, dim).square())).to(u.dtype)

    def inv_sproj(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Hyperboloid coordinates, time coordinate last."""
        c, wide = self._widen(x)
        factor = 2 / ball.gap(wide, c, dim)
        return torch.cat([factor * wide, (factor - 1) / c.sqrt()], dim=dim).to(x.dtype)

    # -- staying inside --------------------------------------------------------------------------------------------

    @in_blocks
    def projx(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Points farther out than `numerics.ball_limit` allows are moved there; others are unchanged."""
        c, wide = self._widen(x)
        largest = ball_limit(x.dtype) / c.sqrt()
        norm = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
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


def _widened(name: str, projects: bool) -> Any:
    """geoopt's method on float64 coordinates, with `PoincareBall.projx` in the place of geoopt's own projection."""
    original = getattr(geoopt.PoincareBall, name)

    def method(self: PoincareBall, *args: Any, **kwargs: Any) -> Tensor:
        tensors = [z for z in (*args, *kwargs.values()) if isinstance(z, Tensor)]
        project = kwargs.pop("project", True) if projects else False
        if projects:
            kwargs["project"] = False
        wide = accumulate_dtype(tensors[0])
        args = tuple(z.to(wide) if isinstance(z, Tensor) else z for z in args)
        kwargs = {key: z.to(wide) if isinstance(z, Tensor) else z for key, z in kwargs.items()}
        result = original(self, *args, **kwargs)
        result = result.to(_dtype(*tensors))
        return self.projx(result, dim=kwargs.get("dim", -1)) if project else result

    method.__name__, method.__qualname__, method.__doc__ = name, f"PoincareBall.{name}", original.__doc__
    return method


for _name in ("mobius_coadd", "mobius_cosub", "weighted_midpoint"):
    setattr(PoincareBall, _name, _widened(_name, projects=True))
PoincareBall.gyration = _widened("gyration", projects=False)


def _dtype(*tensors: Tensor) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _inward(left: Tensor, dtype: torch.dtype, project: bool) -> Tensor | float:
    """What a point with 1 − c‖z‖² = `left` is multiplied with, to be inside once it is rounded to `dtype`."""
    if not project:
        return 1.0
    limit = ball_limit(dtype)
    return torch.where(left < 1 - limit * limit, limit * torch.rsqrt(1 - left.clamp_max(0.5)), 1)


def _finish(distance: Tensor, dtype: torch.dtype, keepdim: bool, dim: int) -> Tensor:
    distance = distance.to(dtype)
    return distance if keepdim else distance.squeeze(dim)
