"""The same mathematics in mpmath, from the definitions in the Poincaré ball: slow, and right to far more digits than needed."""

from __future__ import annotations

import math

import mpmath as mp
import torch
from torch import Tensor

from lapha.geometry import PolarPoints

DIGITS = 200  # ball coordinates at √c·radius = 50 keep 1 − ‖y‖ = 1e-43, and products of a few of those cancel


def real(x: Tensor | float) -> mp.mpf:
    return mp.mpf(float(x))


def vector(x: Tensor) -> list[mp.mpf]:
    return [mp.mpf(value) for value in x.detach().double().tolist()]


def dot(x: list, y: list) -> mp.mpf:
    return mp.fdot(x, y)


def norm(x: list) -> mp.mpf:
    return mp.sqrt(dot(x, x))


def combine(a: mp.mpf, x: list, b: mp.mpf, y: list) -> list:
    return [a * p + b * q for p, q in zip(x, y, strict=True)]


def scale(a: mp.mpf, x: list) -> list:
    return [a * p for p in x]


def distance(u: list, radius_x: mp.mpf, t: list, radius_y: mp.mpf, c: mp.mpf) -> mp.mpf:
    """From the hyperboloid's inner product, directions of any length; with enough digits to afford acosh."""
    root = mp.sqrt(c)
    a, b = 2 * root * radius_x, 2 * root * radius_y
    with mp.workdps(120 + int((a + b) / 2)):  # the products are e^(a + b), and cancel to 1
        a, b = 2 * mp.sqrt(c) * radius_x, 2 * mp.sqrt(c) * radius_y
        cosine = dot(u, t) / (norm(u) * norm(t))
        exact = mp.acosh(max(mp.cosh(a) * mp.cosh(b) - mp.sinh(a) * mp.sinh(b) * cosine, mp.mpf(1))) / mp.sqrt(c)
        return exact if exact > mp.mpf(10) ** -40 else mp.mpf(0)  # what acosh makes of the last digits


def polar_distance(X: PolarPoints, Y: PolarPoints) -> mp.mpf:
    return distance(vector(X.direction), real(X.radius), vector(Y.direction), real(Y.radius), mp.mpf(X.curvature))


def ball(v: list, c: mp.mpf) -> list:
    """exp₀ of a tangent vector."""
    length = norm(v)
    return v if length == 0 else scale(mp.tanh(mp.sqrt(c) * length) / (mp.sqrt(c) * length), v)


def tangent(y: list, c: mp.mpf) -> list:
    """log₀ of a ball point."""
    length = norm(y)
    return y if length == 0 else scale(mp.atanh(mp.sqrt(c) * length) / (mp.sqrt(c) * length), y)


def mobius_add(x: list, y: list, c: mp.mpf) -> list:
    xx, yy, xy = dot(x, x), dot(y, y), dot(x, y)
    bottom = 1 + 2 * c * xy + c * c * xx * yy
    return combine((1 + 2 * c * xy + c * yy) / bottom, x, (1 - c * xx) / bottom, y)


def negative(x: list) -> list:
    return [-p for p in x]


def gyration(x: list, y: list, z: list, c: mp.mpf) -> list:
    """gyr[x, y]z for a vector z of any length (it is linear, so z is brought into the ball first)."""
    shrink = 1 / (2 * mp.sqrt(c) * norm(z))
    moved = mobius_add(x, mobius_add(y, scale(shrink, z), c), c)
    return scale(1 / shrink, mobius_add(negative(mobius_add(x, y, c)), moved, c))


def ball_of(X: PolarPoints) -> list:
    """Ball coordinates of one point, its direction made exactly unit."""
    direction = vector(X.direction)
    return ball(scale(real(X.radius) / norm(direction), direction), mp.mpf(X.curvature))


def polar_error(X: PolarPoints, expected_ball: list) -> tuple[float, float]:
    """How far one point is from an exact one: relative error of the radius, and angle between the directions."""
    exact = tangent(expected_ball, mp.mpf(X.curvature))
    radius, direction = norm(exact), vector(X.direction)
    if radius < mp.mpf(10) ** -60:
        return float(X.radius), 0.0
    gap = combine(1 / norm(direction), direction, -1 / radius, exact)
    return float(abs(real(X.radius) - radius) / radius), float(norm(gap))


def numeric_gradient(function, point: list) -> list[float]:
    """Central differences with steps of 1e-40 in 200 digits."""
    with mp.workdps(DIGITS):
        step, gradient = mp.mpf(10) ** -40, []
        for index in range(len(point)):
            ahead, behind = list(point), list(point)
            ahead[index] += step
            behind[index] -= step
            gradient.append(float((function(ahead) - function(behind)) / (2 * step)))
        return gradient


def pair_at_angle(dim: int, angle: float, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Two directions at an angle in a random plane, rounded to `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    u, w = torch.randn(2, dim, generator=generator, dtype=torch.float64)
    u = u / u.norm()
    if dim == 1:
        return u.to(dtype), (u if math.cos(angle) >= 0 else -u).to(dtype)
    w = w - u * (u @ w)
    w = w / w.norm()
    return u.to(dtype), (math.cos(angle) * u + math.sin(angle) * w).to(dtype)
