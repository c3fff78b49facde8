"""A `geoopt.PoincareBall` with exact distances, for geoopt's parameters and Riemannian optimisers."""

from __future__ import annotations

import math
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import ScalingInfo
from torch import Tensor

from lapha.geometry.autograd import Distance, FromPolar, ToPolar, chord, pairwise_chord
from lapha.geometry.numerics import accumulate_dtype


class PoincareBall(geoopt.PoincareBall):
    """The Poincaré ball of geoopt with distances and maps at the origin that do not saturate.

    `dist`, `dist2`, `dist0`, `logmap`, `expmap0` and `logmap0` are computed from direction and radius, in float64
    where the device has it, and are as exact as the coordinates are; `pairwise_dist` is new. All other
    operations are geoopt's, except that points are kept 8 roundings of their dtype away from the boundary and not 4e-3
    (float32) or 1e-5 (float64): that is up to distance 14.5 (float32) and 35 (float64) from the origin.

    Beyond that no coordinates in the ball can go: use `PolarPoints`.

    Args:
        c: curvature is −c, c > 0.
        learnable: whether c is trained; distances are differentiable in c.
    """

    __scaling__ = geoopt.PoincareBall.__scaling__.copy()

    # -- exact distances -------------------------------------------------------------------------------------------

    def _polar(self, x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Directions (…, D), radii scaled by √c (…,) and √c, all wide; the dimension of the space comes last."""
        wide = x.movedim(dim, -1).to(accumulate_dtype(x))
        sqrt_c = self.c.to(wide.dtype).sqrt()
        direction, norm = ToPolar.apply(wide)
        # a point on or outside the boundary (it cannot come from `projx`) counts as the last one inside
        return direction, torch.atanh((norm * sqrt_c).clamp_max(1 - torch.finfo(wide.dtype).eps)), sqrt_c

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Geodesic distance; gradient 0 at coincident points."""
        (u, a, sqrt_c), (t, b, _) = self._polar(x, dim), self._polar(y, dim)
        a, b = torch.broadcast_tensors(a, b)
        distance = Distance.apply(a, b, chord(u, t), 1.0) / sqrt_c
        return _finish(distance, torch.promote_types(x.dtype, y.dtype), keepdim, dim)

    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Squared geodesic distance."""
        return self.dist(x, y, keepdim=keepdim, dim=dim).square()

    @__scaling__(ScalingInfo(1))
    def dist0(self, x: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Distance from the origin; gradient 0 there."""
        _, a, sqrt_c = self._polar(x, dim)
        return _finish(torch.where(a > 0, 2 * a, 0) / sqrt_c, x.dtype, keepdim, dim)

    @__scaling__(ScalingInfo(1))
    def pairwise_dist(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Distances (…, N, M) between points (…, N, D) and (…, M, D), or within x."""
        y = x if y is None else y
        (u, a, sqrt_c), (t, b, _) = self._polar(x, -1), self._polar(y, -1)
        chords = pairwise_chord(u, t)
        a, b = a.unsqueeze(-1).expand(chords.shape), b.unsqueeze(-2).expand(chords.shape)
        return (Distance.apply(a, b, chords, 1.0) / sqrt_c).to(torch.promote_types(x.dtype, y.dtype))

    # -- exact maps ------------------------------------------------------------------------------------------------

    @__scaling__(ScalingInfo(u=-1))
    def expmap0(self, u: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """Exponential map at the origin."""
        wide = u.movedim(dim, -1).to(accumulate_dtype(u))
        sqrt_c = self.c.to(wide.dtype).sqrt()
        direction, norm = ToPolar.apply(wide)
        point = FromPolar.apply(direction, torch.tanh(norm * sqrt_c) / sqrt_c).to(u.dtype).movedim(-1, dim)
        return self.projx(point, dim=dim) if project else point

    @__scaling__(ScalingInfo(1))
    def logmap0(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithmic map at the origin; its norm is half of `dist0`."""
        direction, a, sqrt_c = self._polar(x, dim)
        return FromPolar.apply(direction, a / sqrt_c).to(x.dtype).movedim(-1, dim)

    def logmap(self, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithmic map at x; its Riemannian norm is `dist(x, y)`."""
        difference = super().mobius_add(-x, y, dim=dim, project=False)
        direction, _ = ToPolar.apply(difference.movedim(dim, -1))
        length = self.dist(x, y, dim=dim) / self.lambda_x(x, dim=dim)
        return FromPolar.apply(direction, length).movedim(-1, dim)

    # -- staying inside --------------------------------------------------------------------------------------------

    def projx(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Points farther out than 1 − 8 eps of the ball's radius, moved there; others unchanged."""
        largest = (1 - 8 * torch.finfo(x.dtype).eps) / self.c.to(accumulate_dtype(x)).sqrt()
        norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=accumulate_dtype(x))
        outside = norm > largest
        scale = torch.where(outside, largest / torch.where(outside, norm, torch.ones_like(norm)), 1)
        return torch.where(outside, (x * scale).to(x.dtype), x)

    def _check_point_on_manifold(
        self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5, dim: int = -1
    ) -> tuple[bool, str | None]:
        if torch.allclose(x, self.projx(x, dim=dim), atol=atol, rtol=rtol):
            return True, None
        return False, f"'x' lies outside the ball of radius {1 / math.sqrt(float(self.c)):g}"

    def retr(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """First-order retraction, kept inside the ball."""
        return self.projx(x + u, dim=dim)


def _projected(name: str) -> Any:
    """geoopt's method, with `PoincareBall.projx` in the place of geoopt's own projection."""
    original = getattr(geoopt.PoincareBall, name)

    def method(self: PoincareBall, *args: Any, project: bool = True, dim: int = -1, **kwargs: Any) -> Tensor:
        result = original(self, *args, project=False, dim=dim, **kwargs)
        return self.projx(result, dim=dim) if project else result

    method.__name__, method.__qualname__, method.__doc__ = name, f"PoincareBall.{name}", original.__doc__
    return method


for _name in (
    "expmap", "mobius_add", "mobius_sub", "mobius_coadd", "mobius_cosub", "mobius_scalar_mul", "mobius_pointwise_mul",
    "mobius_matvec", "geodesic_unit", "mobius_fn_apply", "mobius_fn_apply_chain", "weighted_midpoint",
):  # fmt: skip
    setattr(PoincareBall, _name, _projected(_name))


def _finish(distance: Tensor, dtype: torch.dtype, keepdim: bool, dim: int) -> Tensor:
    distance = distance.to(dtype)
    return distance.unsqueeze(dim) if keepdim else distance
