"""Möbius addition in polar form, as one differentiable function.

x ⊕ y is the image of y under the translation that takes the origin to x. With the radii a, b scaled by √c, the
directions u, t, and χ = ‖u + t‖², the spatial hyperboloid coordinates of the result are

    N = A·u + B·t          A = 2 sinh a cosh(2b − a) + χ sinh²a sinh 2b,     B = sinh 2b
      = (sinh 2(a − b) + χ sinh²a sinh 2b)·u + B·(u + t)

The first line shows what vanishes with a radius and is what the derivatives use; the second does not cancel where
y is close to −x and is what the value uses. The radius of the result is half of d(−x, y). All terms are taken
relative to e^(2ρ), ρ the scaled radius of the result, which bounds them. (From the Lorentz boost of the hyperboloid model, in
half angles.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lapha.geometry.autograd import chord_parts, differentiable_once
from lapha.geometry.numerics import asinh_exp, distance_from_chord_length, exp_limited, origin_radius


def _unit_or_first(vector: Tensor) -> tuple[Tensor, Tensor]:
    """vector/‖vector‖ and ‖vector‖ (…, 1); e₀ for a zero vector."""
    norm = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    first = torch.zeros_like(vector)
    first[..., 0] = 1
    return torch.where(norm == 0, first, vector / torch.where(norm == 0, torch.ones_like(norm), norm)), norm


class Translate(torch.autograd.Function):
    """(u (…, D), radius_x (…,), t (…, D), radius_y (…,), curvature), one batch shape ↦ direction, radius of x ⊕ y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, radius_x: Tensor, t: Tensor, radius_y: Tensor, curvature: float) -> tuple[Tensor, Tensor]:
        sqrt_c = math.sqrt(curvature)
        length, unit, length_u, _ = chord_parts(u, -t)
        radius = 0.5 * distance_from_chord_length(radius_x, radius_y, length.squeeze(-1), curvature)
        a, b, rho = (sqrt_c * r[..., None] for r in (radius_x, radius_y, radius))
        gap = (radius_x - radius_y)[..., None] * sqrt_c

        radial = -0.5 * torch.sign(gap) * exp_limited(2 * (gap.abs() - rho)) * torch.expm1(-4 * gap.abs())
        bend = (length * exp_limited(a + b - rho)).square() * (torch.expm1(-2 * a).square() * torch.expm1(-4 * b) / -8)
        pull = length * exp_limited(2 * (b - rho)) * torch.expm1(-4 * b) * -0.5
        direction, _ = _unit_or_first((radial + bend) * (u / length_u) + pull * unit)
        return direction, radius

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.curvature = inputs
        ctx.save_for_backward(*tensors, *output)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad_direction: Tensor, grad_radius: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        u, radius_x, t, radius_y, direction, radius = ctx.saved_tensors
        sqrt_c = math.sqrt(ctx.curvature)
        length, unit, length_u, length_t = chord_parts(u, -t)
        u, t, total, chi = u / length_u, t / length_t, length * unit, length.square()
        a, b, rho = (sqrt_c * r[..., None] for r in (radius_x, radius_y, radius))
        gap = (radius_x - radius_y)[..., None] * sqrt_c

        # The gradient with respect to N, times e^(2ρ). ‖N‖ = sinh 2ρ.
        floor = sqrt_c * origin_radius(radius.dtype)
        across = grad_direction - direction * (direction * grad_direction).sum(-1, keepdim=True)
        along = direction * (grad_radius[..., None] / (sqrt_c * (1 + torch.exp(-4 * rho))))
        grad = along - across * (2 / torch.expm1(-4 * rho.clamp_min(floor)))

        # sinh and cosh over e^(2ρ); the radii that multiply derivatives of directions do not go below the floor
        a_, b_ = a.clamp_min(floor), b.clamp_min(floor)
        both = exp_limited(2 * (a + b - rho))
        bend = both * (torch.expm1(-2 * a_).square() * torch.expm1(-4 * b_) / -8)
        sinh_2b = exp_limited(2 * (b - rho)) * torch.expm1(-4 * b_) * -0.5
        cosh_2b = exp_limited(2 * (b - rho)) * (1 + torch.exp(-4 * b)) * 0.5
        cosh_gap = exp_limited(2 * (gap.abs() - rho)) * (1 + torch.exp(-4 * gap.abs()))  # 2 cosh 2(a − b)
        twist = (2 * b - a).abs()
        lift = exp_limited(a + twist - 2 * rho) * (torch.expm1(-2 * a_) * (1 + torch.exp(-2 * twist)) * -0.5)

        along_u = (u * grad).sum(-1, keepdim=True)
        along_total = (total * grad).sum(-1, keepdim=True)
        grad_a = along_u * (cosh_gap + both * (torch.expm1(-4 * a) * torch.expm1(-4 * b) * 0.25) * chi)
        bend_by_b = both * (torch.expm1(-2 * a).square() * (1 + torch.exp(-4 * b)) * 0.25) * chi
        grad_b = along_u * (bend_by_b - cosh_gap) + along_total * (2 * cosh_2b)
        grad_u = (lift + bend * chi) * (grad - u * along_u) + 2 * along_u * bend * (total - u * (0.5 * chi))
        across_t = grad - t * (t * grad).sum(-1, keepdim=True)
        grad_t = sinh_2b * across_t + 2 * along_u * bend * (total - t * (0.5 * chi))
        return grad_u / length_u, sqrt_c * grad_a.squeeze(-1), grad_t / length_t, sqrt_c * grad_b.squeeze(-1), None


class SpatialToPolar(torch.autograd.Function):
    """(vector (…, D), log_scale (…,), curvature) ↦ direction, radius of the point whose spatial coordinates are
    e^log_scale · vector / √c. No gradient goes to log_scale: let it be any number that keeps `vector` in range."""

    generate_vmap_rule = True

    @staticmethod
    def forward(vector: Tensor, log_scale: Tensor, curvature: float) -> tuple[Tensor, Tensor]:
        direction, norm = _unit_or_first(vector)
        return direction, asinh_exp(torch.log(norm.squeeze(-1)) + log_scale) / (2 * math.sqrt(curvature))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        vector, log_scale, ctx.curvature = inputs
        ctx.save_for_backward(vector, log_scale, *output)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad_direction: Tensor, grad_radius: Tensor) -> tuple[Tensor, None, None]:
        vector, log_scale, direction, radius = ctx.saved_tensors
        two_sqrt_c, tiny = 2 * math.sqrt(ctx.curvature), origin_radius(radius.dtype)
        double = (two_sqrt_c * radius)[..., None]
        log_scale = log_scale[..., None]
        # dradius/d‖vector‖ = e^log_scale / (2√c cosh 2ρ)
        growth = exp_limited(log_scale - double) * (2 / (two_sqrt_c * (1 + torch.exp(-2 * double))))
        norm = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
        at_origin = exp_limited(log_scale) / (two_sqrt_c * tiny)
        turn = torch.where(radius[..., None] > tiny, 1 / torch.where(norm > 0, norm, torch.ones_like(norm)), at_origin)
        across = grad_direction - direction * (direction * grad_direction).sum(-1, keepdim=True)
        return direction * (grad_radius[..., None] * growth) + across * turn, None, None
