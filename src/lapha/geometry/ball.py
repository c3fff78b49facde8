"""Operations in ball coordinates, in forms that do not cancel: what `PoincareBall` computes with, in float64.

With α = 1 − c‖x‖², β = 1 − c‖y‖² and σ = c‖x ± y‖², everything that a distance or a translation needs is a sum of terms
that are not negative:

    sinh²(√c·d/2) = σ/(αβ)                     σ of x − y
    x ⊕ y = (σx + α(x + y)) / (σ + αβ)         σ of x + y;  1 − c‖x ⊕ y‖² = αβ/(σ + αβ)
    1 − 2c⟨x, y⟩ + c²‖x‖²‖y‖² = σ + αβ         σ of x − y

Only α and β lose digits near the boundary, as many as the coordinates themselves have lost. All functions are plain
tensor expressions, differentiable any number of times; vectors lie along `dim`, which scalars keep with size 1.

Sources: Ungar, Analytic hyperbolic geometry (Möbius addition, gyrations); the forms above follow by expanding the squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Below this a power series replaces a quotient that is 0/0 at 0; its first term left out is below 1e-19.
_SERIES = 1e-6


def dot(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """⟨x, y⟩, `dim` kept."""
    if dim in (-1, x.dim() - 1) and x.dim() >= y.dim():
        return torch.einsum("...d,...d->...", x, y).unsqueeze(-1)
    return (x * y).sum(dim, keepdim=True)


def gap(x: Tensor, c: Tensor, dim: int) -> Tensor:
    """1 − c‖x‖²; a point on or outside the boundary counts as the last one inside."""
    return (1 - c * dot(x, x, dim)).clamp_min(torch.finfo(x.dtype).eps)


def tanh_over(square: Tensor) -> Tensor:
    """tanh(r)/r of r² >= 0."""
    small = square < _SERIES
    r = torch.where(small, 1, square).sqrt()
    return torch.where(small, 1 - square * (1 / 3 - square * (2 / 15)), torch.tanh(r) / r)


def atanh_over(square: Tensor, gap: Tensor) -> Tensor:
    """atanh(r)/r of r² >= 0, given 1 − r²."""
    small = square < _SERIES
    r = torch.where(small, 1, square).sqrt()
    large = (torch.log1p(r) - 0.5 * torch.log(torch.where(small, 1, gap))) / r
    return torch.where(small, 1 + square * (1 / 3 + square * (1 / 5)), large)


def asinh_over(square: Tensor) -> Tensor:
    """asinh(r)/r of r² >= 0."""
    small = square < _SERIES
    return torch.where(small, 1 - square * (1 / 6 - square * (3 / 40)), _asinh(torch.where(small, 1, square)))


def _asinh(square: Tensor) -> Tensor:
    """asinh(r)/r of r² > 0; log1p is vectorised on the CPU, where asinh is not."""
    r = square.sqrt()
    return torch.log1p(r + square / (1 + torch.sqrt(1 + square))) / r


def half_length(x: Tensor, y: Tensor, c: Tensor, dim: int) -> Tensor:
    """√c·d(x, y)/2; its gradient is 0 where the points coincide."""
    difference = x - y
    square = c * dot(difference, difference, dim) / (gap(x, c, dim) * gap(y, c, dim))
    return asinh_of_root(square)


def asinh_of_root(square: Tensor) -> Tensor:
    """asinh(√square), with a gradient of 0 at 0."""
    apart = square > 0
    safe = torch.where(apart, square, 1)
    return torch.where(apart | square.isnan(), _asinh(safe) * safe.sqrt() + 0 * square, 0)


def exp0(v: Tensor, c: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Exponential map at the origin as (factor, 1 − c‖result‖², c‖v‖²): the result is factor · v."""
    square = c * dot(v, v, dim)
    small = square < _SERIES
    r = torch.where(small, 1, square).sqrt()
    left = torch.where(small, 1 - square * (1 - square * (2 / 3)), torch.cosh(r.clamp_max(350.0)) ** -2)
    return tanh_over(square), left, square


def log0(x: Tensor, c: Tensor, dim: int) -> Tensor:
    """Logarithmic map at the origin, as the factor that x is multiplied with."""
    square = c * dot(x, x, dim)
    return atanh_over(square, (1 - square).clamp_min(torch.finfo(x.dtype).eps))


def add(x: Tensor, y: Tensor, beta: Tensor, c: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x ⊕ y as (p, q, x + y, 1 − c‖x ⊕ y‖²): it is p·x + q·(x + y). `beta` is 1 − c‖y‖²."""
    alpha, total = gap(x, c, dim), x + y
    sigma = c * dot(total, total, dim)
    both = alpha * beta
    bottom = sigma + both
    return sigma / bottom, alpha / bottom, total, both / bottom


def log(x: Tensor, y: Tensor, c: Tensor, dim: int) -> Tensor:
    """Logarithmic map at x, in ball coordinates."""
    alpha, beta, difference = gap(x, c, dim), gap(y, c, dim), y - x
    sigma, both = c * dot(difference, difference, dim), alpha * beta
    factor = alpha * asinh_over(sigma / both) * torch.rsqrt(both * (sigma + both))
    return (factor * alpha) * difference - (factor * sigma) * x


def between(s: Tensor, x: Tensor, y: Tensor, c: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The point at fraction s of the geodesic as (p, q, 1 − c‖result‖²): it is p·x + q·y.

    A combination of the two points of the hyperboloid, with weights sinh((1 − s)L)/sinh L and sinh(sL)/sinh L, L = √c·d.
    """
    alpha, beta = gap(x, c, dim), gap(y, c, dim)
    length = 2 * half_length(x, y, c, dim)
    (of_x, log_x), (of_y, log_y) = _sinh_ratio(1 - s, length), _sinh_ratio(s, length)
    largest = torch.maximum(log_x, log_y).detach().clamp_min(0)  # beyond the ends the weights grow
    of_x, of_y, one = of_x * torch.exp(log_x - largest), of_y * torch.exp(log_y - largest), torch.exp(-largest)
    bottom = 0.5 * (one - of_x - of_y) + of_x / alpha + of_y / beta
    return of_x / (alpha * bottom), of_y / (beta * bottom), one / bottom


def _sinh_ratio(s: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """sinh(s·length)/sinh(length) as (factor, exponent): factor · e^exponent. (s, 0) at length 0."""
    apart = length > 0
    safe = torch.where(apart, length, 1)
    factor = -torch.sign(s) * torch.expm1(-2 * s.abs() * safe) / -torch.expm1(-2 * safe)
    return torch.where(apart, factor, s + 0 * length), torch.where(apart, (s.abs() - 1) * safe, 0 * s)


def transport(x: Tensor, y: Tensor, w: Tensor, c: Tensor, dim: int) -> Tensor:
    """gyr[y, −x]w, the rotation that parallel transport from x to y makes, by the tangent of half its angle.

    With S = c(yxᵀ − xyᵀ) and R = 1 − c⟨x, y⟩ it is w + 2(S²w − RSw)/(R² + I²), where R² + I² = σ + αβ and
    2R = α + β + σ; y is written x + e, so that points close to each other do not cancel.
    """
    alpha, beta, e = gap(x, c, dim), gap(y, c, dim), y - x
    xw, ew, xe, xx, ee = dot(x, w, dim), dot(e, w, dim), dot(x, e, dim), dot(x, x, dim), dot(e, e, dim)
    half = 0.5 * (alpha + beta + c * ee)
    x_once, e_once = c * (xe * xw - xx * ew), c * (ee * xw - xe * ew)  # ⟨x, Sw⟩, ⟨e, Sw⟩
    scale = 2 * c / (c * ee + alpha * beta)
    return w + (scale * (x_once - half * xw)) * e - (scale * (e_once - half * ew)) * x


def plane_sine(x: Tensor, p: Tensor, a: Tensor, c: Tensor, dim: int) -> Tensor:
    """√c times what asinh makes the signed distance of x to the plane through p with normal a from."""
    alpha, beta, total = gap(p, c, dim), gap(x, c, dim), x - p
    sigma = c * dot(total, total, dim)
    # −p ⊕ x = (−σp + α(x − p))/(σ + αβ), and 1 − c‖·‖² = αβ/(σ + αβ)
    along = alpha * dot(total, a, dim) - sigma * dot(p, a, dim)
    return 2 * c.sqrt() * along / (alpha * beta * torch.linalg.vector_norm(a, dim=dim, keepdim=True))
