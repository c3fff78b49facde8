"""PolarPoints: a batch of points of hyperbolic space as unit direction and radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lapha._checks import check, check_finite, check_float_tensor
from lapha._typed import typed
from lapha.geometry.autograd import ToPolar, from_polar
from lapha.geometry.checks import check_curvature, check_on_hyperboloid, check_unit_length, check_vectors
from lapha.geometry.numerics import accumulate_dtype, ball_limit, compute_dtype


@dataclass(frozen=True, eq=False, repr=False)
class PolarPoints:
    """A batch of points of the hyperbolic space of curvature −c.

    A point is the image exp₀(radius · direction) of a tangent vector at the origin of the Poincaré ball. Its distance
    from the origin is 2 · radius. Ball and hyperboloid coordinates saturate in floating point (float32: at distance
    17 and 9); this form does not.

    Attributes:
        direction: (…, D) unit vectors, any floating dtype. They may be unit to the rounding of that dtype:
            functions of points divide the length out.
        radius: (…,) tangent norms ‖v‖ >= 0; float32, or float64 when `direction` is float64.
        curvature: c > 0.

    The origin has radius 0 and direction (1, 0, …, 0).

    Raises:
        ValueError: wrong type, dtype, shape or device, or a curvature that is not a finite number > 0. What needs a
            look at the numbers is checked by `validate`, since that waits for the device.
    """

    direction: Tensor
    radius: Tensor
    curvature: float = 1.0

    def __post_init__(self) -> None:
        check_float_tensor(self.direction, "direction")
        check_float_tensor(self.radius, "radius")
        good = self.direction.dim() >= 1 and self.direction.shape[-1] >= 1
        check(good, "direction", "shape (…, D) with D >= 1", f"shape {tuple(self.direction.shape)}")
        batch = self.direction.shape[:-1]
        check(self.radius.shape == batch, "radius", f"shape {tuple(batch)}", f"shape {tuple(self.radius.shape)}")
        device = self.direction.device
        check(self.radius.device == device, "radius", f"device {device}", self.radius.device)
        dtype = compute_dtype(self.direction.dtype)
        lossless = self.radius.dtype != torch.float64 or dtype == torch.float64
        check(lossless, "radius", f"{dtype} with a direction in {self.direction.dtype}", self.radius.dtype)
        if self.radius.dtype != dtype:
            object.__setattr__(self, "radius", self.radius.to(dtype))
        object.__setattr__(self, "curvature", check_curvature(self.curvature))

    # -- from other coordinates ------------------------------------------------------------------------------------

    @classmethod
    def from_tangent(cls, v: Tensor, curvature: float = 1.0, validate: bool = False) -> PolarPoints:
        """exp₀(v): points from tangent vectors at the origin.

        Args:
            v: (…, D), any floating dtype; its dtype becomes that of the directions.
            curvature: c > 0.
            validate: also raise on NaN and Inf (waits for the device).

        Raises:
            ValueError: not a floating point tensor of at least one dimension, or `validate` finds NaN or Inf.
        """
        check_vectors(v, "v")
        if validate:
            check_finite(v, "v")
        direction, radius = ToPolar.apply(v.to(compute_dtype(v.dtype)))
        return cls(direction.to(v.dtype), radius, curvature)

    @classmethod
    def from_ball(cls, y: Tensor, curvature: float = 1.0, validate: bool = False) -> PolarPoints:
        """Points from coordinates in the Poincaré ball of radius 1/√c.

        Args:
            y: (…, D) with √c·‖y‖ < 1. On or outside the boundary the radius is Inf.
            curvature: c > 0.
            validate: also raise on NaN, Inf and points that are not inside the ball (waits for the device).

        Raises:
            ValueError: as for `from_tangent`, or `validate` finds a point that is not inside the ball.
        """
        check_vectors(y, "y")
        sqrt_c = math.sqrt(check_curvature(curvature))
        if validate:
            check_finite(y, "y")
        # 1 − √c‖y‖ is what matters near the boundary: it needs a better norm than that of the coordinates' own dtype
        direction, norm = ToPolar.apply(y.to(accumulate_dtype(y)))
        scaled = norm * sqrt_c
        outside = scaled >= 1
        if validate and bool(outside.any()):
            worst = float(scaled.max()) / sqrt_c
            raise ValueError(f"y: expected points inside the ball of radius {1 / sqrt_c}, got a norm of {worst}")
        radius = torch.atanh(torch.where(outside, torch.zeros_like(scaled), scaled)) / sqrt_c
        radius = torch.where(outside, torch.full_like(radius, math.inf), radius)
        return cls(direction.to(y.dtype), radius.to(compute_dtype(y.dtype)), curvature)

    @classmethod
    def from_hyperboloid(cls, x: Tensor, curvature: float = 1.0, validate: bool = False) -> PolarPoints:
        """Points from hyperboloid coordinates x = (x₀, x₁, …, x_D) with −x₀² + x₁² + … + x_D² = −1/c, x₀ > 0.

        Only the spatial part is used: it says everything, and acosh(x₀) would lose points near the origin.

        Args:
            x: (…, D + 1).
            curvature: c > 0.
            validate: also raise on NaN, Inf and points that are not on the hyperboloid (waits for the device).

        Raises:
            ValueError: as for `from_tangent`, or `validate` finds a point off the hyperboloid.
        """
        check_vectors(x, "x")
        check(x.shape[-1] >= 2, "x", "shape (…, D + 1) with D >= 1", f"shape {tuple(x.shape)}")
        sqrt_c = math.sqrt(check_curvature(curvature))
        if validate:
            check_on_hyperboloid(x, sqrt_c)
        # half the spatial part, so that close to the origin the norm is the radius: see `autograd`
        direction, norm = ToPolar.apply(0.5 * x[..., 1:].to(accumulate_dtype(x)))
        radius = torch.asinh(norm * (2 * sqrt_c)) / (2 * sqrt_c)
        return cls(direction.to(x.dtype), radius.to(compute_dtype(x.dtype)), curvature)

    @classmethod
    @typed
    def origin(
        cls,
        shape: Sequence[int],
        dim: int,
        curvature: float = 1.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> PolarPoints:
        """The origin, (…,) = `shape` times, in dimension D = `dim`.

        Raises:
            ValueError: an argument of another type, or below 0 (`dim`: below 1).
        """
        check(dim >= 1, "dim", "an integer >= 1", dim)
        check(all(size >= 0 for size in shape), "shape", "integers >= 0", tuple(shape))
        dtype = torch.get_default_dtype() if dtype is None else dtype
        direction = torch.zeros((*shape, dim), dtype=dtype, device=device)
        direction[..., :1] = 1
        return cls(direction, torch.zeros(tuple(shape), dtype=compute_dtype(dtype), device=device), curvature)

    # -- to other coordinates --------------------------------------------------------------------------------------

    def to_tangent(self) -> Tensor:
        """log₀: tangent vectors v = radius · direction, (…, D), in the dtype of `direction`."""
        return self._vector(self.radius)

    def to_ball(self) -> Tensor:
        """Coordinates in the ball of radius 1/√c, (…, D), in the dtype of `direction`, always inside.

        Lossy: the dtype's resolution near the boundary ends at √c·radius of about 8 (float32) and 18 (float64);
        farther points are put on the last sphere that the dtype can tell from the boundary.
        """
        sqrt_c = math.sqrt(self.curvature)
        largest = ball_limit(self.dtype)
        norm = torch.tanh(self.radius * sqrt_c)
        norm = torch.where(norm > largest, torch.full_like(norm, largest), norm)
        return self._vector(norm / sqrt_c)

    def to_hyperboloid(self) -> Tensor:
        """Hyperboloid coordinates (…, D + 1), first the time coordinate x₀ = cosh(2√c·radius)/√c.

        In the dtype of `direction`; Inf beyond √c·radius = 44 (float32).
        """
        sqrt_c = math.sqrt(self.curvature)
        double = 2 * sqrt_c * self.radius
        time = (torch.cosh(double) / sqrt_c).to(self.dtype)
        spatial = 2 * self._vector(torch.sinh(double) / (2 * sqrt_c))
        return torch.cat([time[..., None], spatial], dim=-1)

    def _vector(self, norm: Tensor) -> Tensor:
        return from_polar(self.direction.to(norm.dtype), norm).to(self.dtype)

    # -- as a container --------------------------------------------------------------------------------------------

    @property
    def shape(self) -> torch.Size:
        """Batch shape (…,), without the dimension D of the space."""
        return self.radius.shape

    @property
    def dim(self) -> int:
        """D, the dimension of the space."""
        return self.direction.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of `direction`."""
        return self.direction.dtype

    @property
    def device(self) -> torch.device:
        return self.direction.device

    @property
    def requires_grad(self) -> bool:
        return self.direction.requires_grad or self.radius.requires_grad

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a single point")
        return self.shape[0]

    def __getitem__(self, index: Any) -> PolarPoints:
        """Index the batch dimensions, as a tensor of shape `shape`."""
        radius = self.radius[index]
        index = index if isinstance(index, tuple) else (index,)
        return self._like(self.direction[(*index, slice(None))], radius)

    def __neg__(self) -> PolarPoints:
        """The reflections through the origin: −y in the ball."""
        return self._like(-self.direction, self.radius)

    def __repr__(self) -> str:
        return (
            f"PolarPoints(shape={tuple(self.shape)}, dim={self.dim}, curvature={self.curvature:g}, "
            f"dtype={self.dtype}, device={self.device})"
        )

    def to(
        self,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> PolarPoints:
        """Move, or convert the directions to `dtype`; the radius stays float32 (float64 for float64)."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        dtype = self.dtype if dtype is None else dtype
        direction = self.direction.to(device=device, dtype=dtype, non_blocking=non_blocking)
        radius = self.radius.to(device=device, dtype=compute_dtype(dtype), non_blocking=non_blocking)
        return self._like(direction, radius)

    def detach(self) -> PolarPoints:
        return self._like(self.direction.detach(), self.radius.detach())

    def clone(self) -> PolarPoints:
        return self._like(self.direction.clone(), self.radius.clone())

    def reshape(self, *shape: Any) -> PolarPoints:
        """Another batch shape, as `torch.Tensor.reshape`."""
        radius = self.radius.reshape(*shape)
        return self._like(self.direction.reshape(*radius.shape, self.dim), radius)

    def expand(self, *shape: Any) -> PolarPoints:
        """Broadcast the batch shape without a copy, as `torch.Tensor.expand`."""
        sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        return self._like(self.direction.expand((*sizes, self.dim)), self.radius.expand(sizes))

    def unsqueeze(self, dim: int) -> PolarPoints:
        """Insert a batch dimension of size 1, as `torch.Tensor.unsqueeze`."""
        return self._like(self.direction.unsqueeze(dim if dim >= 0 else dim - 1), self.radius.unsqueeze(dim))

    @staticmethod
    def cat(points: Sequence[PolarPoints], dim: int = 0) -> PolarPoints:
        """Concatenate along a batch dimension. Raises ValueError on mixed dimension, dtype, device or curvature."""
        return _join(torch.cat, points, dim)

    @staticmethod
    def stack(points: Sequence[PolarPoints], dim: int = 0) -> PolarPoints:
        """Stack along a new batch dimension. Raises ValueError on mixed dimension, dtype, device or curvature."""
        return _join(torch.stack, points, dim)

    def _like(self, direction: Tensor, radius: Tensor) -> PolarPoints:
        return PolarPoints(direction, radius, self.curvature)

    # -- checks ----------------------------------------------------------------------------------------------------

    def validate(self, name: str = "points") -> PolarPoints:
        """Look at every number (waits for the device) and return self.

        Raises:
            ValueError: NaN or Inf, a negative radius, or a direction that is not of unit length to its dtype's rounding.
        """
        check_finite(self.direction, f"{name}.direction")
        check_finite(self.radius, f"{name}.radius")
        if self.radius.numel():
            smallest = float(self.radius.min())
            check(smallest >= 0, f"{name}.radius", "numbers >= 0", smallest)
        check_unit_length(self.direction, f"{name}.direction")
        return self


def check_same_space(x: Any, y: Any, names: tuple[str, str] = ("X", "Y")) -> None:
    """Both must be PolarPoints of one dimension, dtype, device and curvature; `ValueError` names what differs."""
    for points, name in zip((x, y), names, strict=True):
        check(isinstance(points, PolarPoints), name, "PolarPoints", type(points).__name__)
    for what in ("dim", "dtype", "device", "curvature"):
        expected, got = getattr(x, what), getattr(y, what)
        check(expected == got, names[1], f"the {what} of {names[0]}, {expected}", got)


def _join(join: Any, points: Sequence[PolarPoints], dim: int) -> PolarPoints:
    points = list(points)
    check(len(points) > 0, "points", "at least one PolarPoints", "an empty sequence")
    for index, other in enumerate(points):
        check_same_space(points[0], other, ("points[0]", f"points[{index}]"))
    direction = join([p.direction for p in points], dim=dim if dim >= 0 else dim - 1)
    return PolarPoints(direction, join([p.radius for p in points], dim=dim), points[0].curvature)


def _unflatten(children: Any, curvature: float) -> PolarPoints:
    # transformations put placeholders where tensors were: no checks here
    points = object.__new__(PolarPoints)
    for name, value in zip(("direction", "radius"), children, strict=True):
        object.__setattr__(points, name, value)
    object.__setattr__(points, "curvature", curvature)
    return points


pytree.register_pytree_node(
    PolarPoints,
    lambda points: ([points.direction, points.radius], points.curvature),
    _unflatten,
    serialized_type_name="lapha.geometry.PolarPoints",
    flatten_with_keys_fn=lambda points: (
        [(pytree.GetAttrKey("direction"), points.direction), (pytree.GetAttrKey("radius"), points.radius)],
        points.curvature,
    ),
)

# what `torch.save` wrote is read back with `weights_only=True`
torch.serialization.add_safe_globals([PolarPoints])
