"""Differentiable pieces in polar form, with derivatives that autograd's chain rule would turn into NaN.

Convention at the origin: the derivative of a function with respect to a direction is proportional to the radius and
would vanish there, while the derivative of v/‖v‖ is its reciprocal. `ToPolar` divides by max(radius, tiny) and
every function that has a direction as its input multiplies by max(radius, tiny), with the same tiny
(`numerics.origin_radius`), so that v ↦ (direction, radius) ↦ result has the right gradient at v = 0 as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lapha.geometry.numerics import (
    accumulate_dtype,
    compute_dtype,
    distance_from_chord_length,
    distance_partials,
    origin_radius,
)

# Differences of this many numbers are held at once when near-duplicates are refined (64 MiB of float32).
_REFINE_ELEMENTS = 1 << 24


class _Once(torch.autograd.Function):
    """(n, n tensors, tensors of the graph) ↦ the n tensors, whose backward raises."""

    generate_vmap_rule = True

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("lapha.geometry is differentiable once: second derivatives are not implemented")


def differentiable_once(backward: Callable) -> Callable:
    """A backward whose result raises when it is differentiated again.

    torch's `once_differentiable` returns constants when the incoming gradient is one: a penalty on gradients would then
    silently have no effect. The saved tensors tie the result to the graph here.
    """

    @functools.wraps(backward)
    def wrapper(ctx: Any, *grads: Tensor) -> tuple:
        with torch.no_grad():
            result = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return result
        result = result if isinstance(result, tuple) else (result,)
        tensors = [grad for grad in result if grad is not None]
        guarded = iter(_Once.apply(len(tensors), *tensors, *ctx.saved_tensors))
        return tuple(None if grad is None else next(guarded) for grad in result)

    return wrapper


def _scaled_norm(v: Tensor) -> tuple[Tensor, Tensor]:
    """v/‖v‖ (0 for v = 0) and ‖v‖ (…, 1); squares neither underflow nor overflow."""
    largest = v.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
    scaled = v / largest
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True, dtype=accumulate_dtype(v))
    return scaled / torch.where(norm == 0, torch.ones_like(norm), norm).to(v.dtype), (norm * largest).to(v.dtype)


class ToPolar(torch.autograd.Function):
    """v (…, D) ↦ direction v/‖v‖ (…, D) and norm ‖v‖ (…,); direction e₀ at v = 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor) -> tuple[Tensor, Tensor]:
        direction, norm = _scaled_norm(v)
        first = torch.zeros_like(direction)
        first[..., 0] = 1
        return torch.where(norm == 0, first, direction), norm.squeeze(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.save_for_backward(*output)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad_direction: Tensor, grad_norm: Tensor) -> Tensor:
        direction, norm = ctx.saved_tensors
        tangential = grad_direction - direction * (direction * grad_direction).sum(-1, keepdim=True)
        return direction * grad_norm[..., None] + tangential / norm[..., None].clamp_min(origin_radius(norm.dtype))


class FromPolar(torch.autograd.Function):
    """(direction (…, D), norm (…,), turn (…,)) ↦ norm · direction.

    `turn` is the norm that the derivative by the direction is multiplied with: the norm, but that of a point at
    `origin_radius` where the point is closer to the origin. No gradient goes to it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(direction: Tensor, norm: Tensor, turn: Tensor) -> Tensor:
        return direction * norm[..., None]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        direction, norm, turn = inputs
        ctx.save_for_backward(direction, norm, turn)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        direction, _, turn = ctx.saved_tensors
        return grad * turn[..., None], (grad * direction).sum(-1), None


def from_polar(direction: Tensor, norm: Tensor) -> Tensor:
    """norm · direction, for a norm that is close to the radius where the radius is small."""
    return FromPolar.apply(direction, norm, norm.detach().clamp_min(origin_radius(norm.dtype)))


class Distance(torch.autograd.Function):
    """(radius_x, radius_y, chord, curvature) ↦ distance; the three tensors have one shape."""

    generate_vmap_rule = True

    @staticmethod
    def forward(radius_x: Tensor, radius_y: Tensor, chord: Tensor, curvature: float) -> Tensor:
        return distance_from_chord_length(radius_x, radius_y, chord, curvature)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        radius_x, radius_y, chord, ctx.curvature = inputs
        ctx.save_for_backward(radius_x, radius_y, chord, output)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        radius_x, radius_y, chord, distance = ctx.saved_tensors
        partials = distance_partials(radius_x, radius_y, chord, distance, ctx.curvature)
        # of a pair that has no distance, only what is to blame has a gradient of NaN
        there, none = distance.isnan(), torch.zeros_like(grad)
        blame = [(radius_x >= 0) & (radius_x < torch.inf), (radius_y >= 0) & (radius_y < torch.inf), chord >= 0]
        found = [
            torch.where(there & (good | (grad == 0)), none, grad * by) for by, good in zip(partials, blame, strict=True)
        ]
        return found[0], found[1], found[2], None


def chord_parts(u: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Chord (…, 1), the unit vector along u/‖u‖ − t/‖t‖ (0 for equal directions), ‖u‖ and ‖t‖ (…, 1).

    The difference of near-equal numbers is exact, so it is taken before the lengths are divided out, and what the two
    lengths differ by is then removed: directions are unit only to the rounding of their dtype.
    """
    length_u = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
    length_t = torch.linalg.vector_norm(t, dim=-1, keepdim=True)
    difference = u - t
    largest = difference.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)
    difference = difference / largest
    total = u + t
    # ‖u‖ − ‖t‖ = (u − t)·(u + t) / (‖u‖ + ‖t‖), along (u + t) / (‖u‖ + ‖t‖)
    difference = difference - total * ((difference * total).sum(-1, keepdim=True) / (length_u + length_t).square())
    norm = torch.linalg.vector_norm(difference, dim=-1, keepdim=True)
    unit = difference / torch.where(norm > 0, norm, torch.ones_like(norm))
    both = length_u * length_t
    chord = (norm * largest / torch.sqrt(both)).clamp_max(2)
    return torch.where(both > 0, chord, torch.nan), unit, length_u, length_t


def _is_direction(length: Tensor) -> Tensor:
    return (length > 0) & (length < torch.inf)


class Chord(torch.autograd.Function):
    """Directions u, t (…, D) of one shape ↦ ‖u/‖u‖ − t/‖t‖‖ (…,), by direct differences."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, t: Tensor) -> Tensor:
        return chord_parts(u, t)[0].squeeze(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        u, t = ctx.saved_tensors
        chord, unit, length_u, length_t = chord_parts(u, t)
        grad, half = grad[..., None], 0.5 * chord
        by_u = grad * (unit - (half / length_u) * u) / length_u
        by_t = grad * (-unit - (half / length_t) * t) / length_t
        none = chord.isnan()  # of such a pair, only what is to blame has a gradient of NaN
        return torch.where(none & _is_direction(length_u), 0, by_u), torch.where(
            none & _is_direction(length_t), 0, by_t
        )


def _normalized(direction: Tensor) -> tuple[Tensor, Tensor]:
    """Directions in the dtype of sums, made exactly unit, and the lengths (…, 1) that they had."""
    wide = direction.to(accumulate_dtype(direction))
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return wide / length, length


def exact_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b without autocast, which would turn the float32 that stands in on devices without float64 into half precision."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def _refine_below(dtype: torch.dtype, accumulated: torch.dtype) -> float:
    """The chord² under which 2 − 2u·t, whose absolute error is about 8 roundings of the sum, is not good enough."""
    if dtype != accumulated:
        return 8 * torch.finfo(accumulated).eps / torch.finfo(dtype).eps
    # Nothing wider to sum in: a relative error of 2e-11 (float64) or 4e-6 at the very worst (float32 without float64).
    return 1e-4 if dtype == torch.float64 else 0.25


class PairwiseChord(torch.autograd.Function):
    """Directions u (…, N, D), t (…, M, D) with equal leading shapes ↦ chords (…, N, M)."""

    @staticmethod
    def forward(u: Tensor, t: Tensor) -> Tensor:
        unit_u, _ = _normalized(u)
        unit_t, _ = _normalized(t)
        chord_sq = (2 - 2 * exact_matmul(unit_u, unit_t.mT)).clamp_(0, 4)
        result = chord_sq.sqrt().to(u.dtype)
        *batch, row, column = (chord_sq < _refine_below(u.dtype, chord_sq.dtype)).nonzero(as_tuple=True)
        step = max(1, _REFINE_ELEMENTS // u.shape[-1])
        for start in range(0, row.numel(), step):
            part = slice(start, start + step)
            lead = tuple(index[part] for index in batch)
            x, y = u[(*lead, row[part])], t[(*lead, column[part])]
            result[(*lead, row[part], column[part])] = chord_parts(x, y)[0].squeeze(-1)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        u, t, chord = ctx.saved_tensors
        unit_u, length_u = _normalized(u)
        unit_t, length_t = _normalized(t)
        chord, grad = chord.to(unit_u.dtype), grad.to(unit_u.dtype)
        # what is no direction has a gradient of NaN, and no part in the others'
        good_u, good_t = _is_direction(length_u), _is_direction(length_t)
        unit_u, unit_t = torch.where(good_u, unit_u, 0), torch.where(good_t, unit_t, 0)
        apart = chord > 0
        chord = torch.where(apart, chord, torch.ones_like(chord))
        weight = torch.where(apart, grad / chord, 0)
        cosine = torch.where(apart, weight * (1 - 0.5 * chord.square()), 0)
        grad_u = (unit_u * cosine.sum(-1, keepdim=True) - exact_matmul(weight, unit_t)) / length_u
        grad_t = (unit_t * cosine.sum(-2).unsqueeze(-1) - exact_matmul(weight.mT, unit_u)) / length_t
        return torch.where(good_u, grad_u, torch.nan).to(u.dtype), torch.where(good_t, grad_t, torch.nan).to(t.dtype)


def chord(u: Tensor, t: Tensor) -> Tensor:
    """Chord lengths (…,) between directions (…, D) that broadcast, float32 (float64 for float64)."""
    dtype = compute_dtype(u.dtype)
    u, t = torch.broadcast_tensors(u.to(dtype), t.to(dtype))
    return Chord.apply(u, t)


def pairwise_chord(u: Tensor, t: Tensor) -> Tensor:
    """Chord lengths (…, N, M) between directions (…, N, D) and (…, M, D), float32 (float64 for float64)."""
    dtype = compute_dtype(u.dtype)
    lead = torch.broadcast_shapes(u.shape[:-2], t.shape[:-2])
    return PairwiseChord.apply(u.to(dtype).expand(*lead, -1, -1), t.to(dtype).expand(*lead, -1, -1))
