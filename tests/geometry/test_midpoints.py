"""Weighted midpoint and Fréchet mean."""

from __future__ import annotations

import geometry_oracle as oracle
import geoopt
import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lapha.geometry import PolarPoints, dist, frechet_mean, geodesic, logmap, mobius_add, weighted_midpoint


def sample(*shape: int, dim: int = 4, scale: float = 1.0, c: float = 1.0) -> PolarPoints:
    return PolarPoints.from_tangent(torch.randn(*shape, dim, dtype=torch.float64) * scale, c)


def gap(X: PolarPoints, Y: PolarPoints) -> float:
    """Largest distance, in units that do not blow a rounding of the direction up: of the tangent vectors."""
    return float((X.to_tangent() - Y.to_tangent()).norm(dim=-1).max())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-3, 1.69).map(lambda x: 10**x), min_size=1, max_size=5),
    st.sampled_from([1.0, 0.5]),
    st.sampled_from([1.0, 1e-4]),
    st.integers(0, 2**31),
)
def test_midpoint_is_the_centroid_of_the_hyperboloid(radii, c, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    count = len(radii)
    base = torch.randn(1, 3, generator=generator)
    u = torch.nn.functional.normalize(base + spread * torch.randn(count, 3, generator=generator), dim=-1)
    weights = torch.rand(count, generator=generator) + 0.01
    X = PolarPoints(u, torch.tensor(radii), c)
    middle = weighted_midpoint(X, weights)
    with mp.workdps(oracle.DIGITS):
        root, time, spatial = mp.sqrt(c), mp.mpf(0), [mp.mpf(0)] * 3
        for index in range(count):
            direction, double = oracle.vector(u[index]), 2 * root * oracle.real(X.radius[index])
            weight = oracle.real(weights[index])
            time += weight * mp.cosh(double)
            spatial = oracle.combine(1, spatial, weight * mp.sinh(double) / oracle.norm(direction), direction)
        radius = mp.asinh(oracle.norm(spatial) / mp.sqrt(time**2 - oracle.dot(spatial, spatial))) / (2 * root)
        exact = oracle.scale(radius / oracle.norm(spatial), spatial)
        got = oracle.scale(oracle.real(middle.radius), oracle.vector(middle.direction))
        error = float(oracle.norm(oracle.combine(1, got, -1, exact)))
    assert error <= 2e-6 * max(max(radii), float(radius))


@pytest.mark.parametrize("c", [1.0, 0.4])
def test_midpoint_agrees_with_geoopt(c):
    torch.manual_seed(0)
    ball = geoopt.PoincareBall(c=torch.tensor(c, dtype=torch.float64))
    X, weights = sample(6, 5, scale=0.4, c=c), torch.rand(6, 5, dtype=torch.float64)
    expected = torch.stack([ball.weighted_midpoint(X[i].to_ball(), weights[i]) for i in range(6)])
    assert torch.allclose(weighted_midpoint(X, weights).to_ball(), expected, atol=1e-10)
    assert torch.allclose(weighted_midpoint(X[:1]).to_ball(), ball.weighted_midpoint(X[0].to_ball()), atol=1e-10)


@pytest.mark.parametrize("mean", [weighted_midpoint, frechet_mean])
@pytest.mark.parametrize("radius", [1e-3, 1.0, 6.0, 50.0])
def test_mean_of_two_points_is_the_middle_of_their_geodesic(mean, radius):
    torch.manual_seed(0)
    u = torch.nn.functional.normalize(torch.randn(10, 2, 5, dtype=torch.float64), dim=-1)
    X = PolarPoints(u, radius * (0.9 + 0.1 * torch.rand(10, 2, dtype=torch.float64)), 0.7)
    middle = geodesic(X[:, 0], X[:, 1], 0.5)
    assert gap(mean(X), middle) <= 1e-9 * max(radius, 1e-2)
    assert torch.allclose(dist(middle, X[:, 0]), dist(middle, X[:, 1]), rtol=1e-9)


@pytest.mark.parametrize("mean", [weighted_midpoint, frechet_mean])
def test_means_of_one_point_and_of_copies(mean):
    X = sample(7, 1, scale=1.5)
    assert gap(mean(X), X[:, 0]) < 1e-12
    assert gap(mean(X.expand(7, 3)), X[:, 0]) < 1e-12
    far = PolarPoints(X.direction.float(), torch.full((7, 1), 50.0))
    assert gap(weighted_midpoint(far), far[:, 0]) < 1e-5
    zero = PolarPoints.origin((4,), 3)
    assert torch.equal(mean(zero).to_tangent(), torch.zeros(3))


@pytest.mark.parametrize("mean", [weighted_midpoint, frechet_mean])
def test_means_are_equivariant_and_only_ratios_of_weights_matter(mean):
    torch.manual_seed(0)
    X, weights = sample(6, 5), torch.rand(6, 5, dtype=torch.float64)
    Z = sample(6, 1)
    moved = mean(mobius_add(Z, X), weights)
    assert gap(moved, mobius_add(Z[:, 0], mean(X, weights))) < 1e-9
    assert gap(mean(X, 5 * weights), mean(X, weights)) < 1e-12
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    turned = PolarPoints(X.direction @ rotation, X.radius)
    assert torch.allclose(mean(turned, weights).to_tangent(), mean(X, weights).to_tangent() @ rotation, atol=1e-10)
    heavy = weights.clone()
    heavy[:, 2] *= 1e14
    assert gap(mean(X, heavy), X[:, 2]) < 1e-9
    without = weights.clone()
    without[:, 0] = 0
    assert gap(mean(X, without), mean(X[:, 1:], weights[:, 1:])) < 1e-10


@pytest.mark.parametrize("c", [1.0, 3.0])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 5.0, 30.0])
def test_frechet_mean_is_stationary(scale, c):
    torch.manual_seed(0)
    X = sample(8, 9, dim=12, scale=scale, c=c)
    weights = torch.rand(8, 9, dtype=torch.float64)
    mean = frechet_mean(X, weights)
    pull = (weights[..., None] * logmap(mean.unsqueeze(-1), X)).sum(-2).norm(dim=-1)
    assert bool((pull <= 1e-9 * (weights * dist(mean.unsqueeze(-1), X)).sum(-1)).all())
    # and lower than anything around it
    around = mobius_add(mean.unsqueeze(-1), sample(8, 20, dim=12, scale=1e-2, c=c))
    objective = (weights[:, None] * dist(around.unsqueeze(-1), X.unsqueeze(1)).square()).sum(-1)
    at_mean = (weights * dist(mean.unsqueeze(-1), X).square()).sum(-1)
    assert bool((objective > at_mean[:, None]).all())


def test_frechet_mean_in_float32_and_half():
    torch.manual_seed(0)
    X = sample(5, 6)
    exact = frechet_mean(X)
    single = frechet_mean(X.to(torch.float32))
    assert (single.dtype, single.radius.dtype) == (torch.float32, torch.float32)
    assert gap(single.to(torch.float64), exact) < 1e-6
    half = frechet_mean(X.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert gap(half.to(torch.float64), exact) < 2e-2


@pytest.mark.parametrize("mean", [weighted_midpoint, frechet_mean])
def test_gradcheck(mean):
    torch.manual_seed(0)
    v, weights = torch.randn(4, 2, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    v[0], v[2] = 0, v[1]
    v.requires_grad_(), weights.requires_grad_()
    assert gradcheck(lambda v, w: mean(PolarPoints.from_tangent(v, 0.6), w).to_tangent(), (v, weights))
    mirrored = torch.cat([v[2:], -v[2:]]).detach().requires_grad_()  # the mean is the origin
    assert gradcheck(lambda v: mean(PolarPoints.from_tangent(v)).to_tangent(), (mirrored,))


def test_frechet_mean_says_when_it_did_not_converge():
    with pytest.raises(RuntimeError, match="not converged after 1 iterations"):
        frechet_mean(sample(5, scale=20.0), max_iterations=1)


@pytest.mark.parametrize("mean", [weighted_midpoint, frechet_mean])
def test_bad_input(mean):
    X = sample(3, 5)
    for bad in (torch.ones(3, 4), torch.ones(5), torch.ones(5).long(), torch.ones(2, 5).double(), [1.0]):
        with pytest.raises(ValueError, match="weights: expected"):
            mean(X, bad)
    for bad in (X[0, 0], X[:, :0], X.to_tangent()):
        with pytest.raises(ValueError, match="X: expected"):
            mean(bad)
    with pytest.raises(ValueError, match="tolerance: expected a number > 0, got 0"):
        frechet_mean(X, tolerance=0)
    with pytest.raises(ValueError, match="max_iterations: expected an integer >= 1, got 0"):
        frechet_mean(X, max_iterations=0)
