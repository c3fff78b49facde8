"""Maps, geodesics, transport and horocycles: against mpmath at any radius, geoopt where it is exact, and gradcheck."""

from __future__ import annotations

import math

import geometry_oracle as oracle
import geoopt
import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lapha.geometry import (
    PolarPoints,
    busemann,
    dist,
    dist0,
    expmap,
    from_frame,
    geodesic,
    logmap,
    mobius_add,
    parallel_transport,
    parallel_transport0,
    to_frame,
)

EPS = {torch.float32: 1.2e-7, torch.float64: 2.3e-16}


def sample(*shape: int, dim: int = 4, scale: float = 1.0, c: float = 1.0) -> PolarPoints:
    return PolarPoints.from_tangent(torch.randn(*shape, dim, dtype=torch.float64) * scale, c)


def polar(u: torch.Tensor, radius: float, c: float) -> PolarPoints:
    return PolarPoints(u, torch.tensor(radius, dtype=torch.float64 if u.dtype == torch.float64 else torch.float32), c)


RADII = st.one_of(st.floats(-3, math.log10(50)).map(lambda x: 10**x), st.sampled_from([0.5, 8.0, 50.0]))
ANGLES = st.one_of(
    st.floats(0, math.pi),
    st.floats(-6, 0).map(lambda x: 10**x),
    st.floats(-6, 0).map(lambda x: math.pi - 10**x),
    st.sampled_from([0.0, math.pi]),
)
COMMON = (RADII, RADII, ANGLES, st.sampled_from([1.0, 0.4, 2.5]), st.integers(0, 2**31))
DTYPES = st.sampled_from([torch.float32, torch.float64])


@settings(max_examples=80, deadline=None)
@given(*COMMON, DTYPES)
def test_mobius_add_is_exact_at_any_radius(radius_x, radius_y, angle, c, seed, dtype):
    radius_x, radius_y = radius_x / math.sqrt(c), radius_y / math.sqrt(c)
    u, t = oracle.pair_at_angle(3, angle, seed, dtype)
    X, Y = polar(u, radius_x, c), polar(t, radius_y, c)
    with mp.workdps(oracle.DIGITS):
        exact = oracle.mobius_add(oracle.ball_of(X), oracle.ball_of(Y), mp.mpf(c))
        radius_error, angle_error = oracle.polar_error(mobius_add(X, Y), exact)
    assert radius_error <= 30 * EPS[dtype]
    assert angle_error <= 100 * EPS[dtype]


@pytest.mark.parametrize("radius", [0.5, 20.0, 50.0])
@pytest.mark.parametrize("gap", [1e-5, 1e-2])
def test_mobius_add_of_nearly_opposite_points(radius, gap):
    u = torch.nn.functional.normalize(torch.randn(3), dim=-1)
    X, Y = polar(u, radius, 1.0), polar(-u, radius * (1 + gap), 1.0)
    assert torch.allclose(mobius_add(X, Y).radius, Y.radius - X.radius, rtol=1e-6, atol=0)
    assert torch.allclose(mobius_add(X, Y).direction, -u, atol=1e-6)
    assert float(mobius_add(X, -X).radius) == 0
    assert torch.equal(mobius_add(X, -X).direction, torch.tensor([1.0, 0.0, 0.0]))


@settings(max_examples=60, deadline=None)
@given(*COMMON, st.floats(0.01, 0.99), DTYPES)
def test_geodesic_is_exact_at_any_radius(radius_x, radius_y, angle, c, seed, s, dtype):
    radius_x, radius_y = radius_x / math.sqrt(c), radius_y / math.sqrt(c)
    u, t = oracle.pair_at_angle(3, angle, seed, dtype)
    X, Y = polar(u, radius_x, c), polar(t, radius_y, c)
    s = float(torch.tensor(s, dtype=dtype))
    middle = geodesic(X, Y, s)
    with mp.workdps(oracle.DIGITS):
        x, y, k = oracle.ball_of(X), oracle.ball_of(Y), mp.mpf(c)
        along = oracle.tangent(oracle.mobius_add(oracle.negative(x), y, k), k)
        exact = oracle.tangent(oracle.mobius_add(x, oracle.ball(oracle.scale(mp.mpf(s), along), k), k), k)
        got = [oracle.real(middle.radius) * p for p in oracle.vector(middle.direction)]
        gap = float(oracle.norm(oracle.combine(1, got, -1, exact)))
        size = float(oracle.norm(exact))
    # the way is as long as 4 radii, and its rounding moves the point along it
    assert gap <= 60 * EPS[dtype] * (size + radius_x + radius_y)


@settings(max_examples=60, deadline=None)
@given(*COMMON, DTYPES)
def test_parallel_transport_is_the_gyration(radius_x, radius_y, angle, c, seed, dtype):
    radius_x, radius_y = radius_x / math.sqrt(c), radius_y / math.sqrt(c)
    u, t = oracle.pair_at_angle(3, angle, seed, dtype)
    w = torch.randn(3, generator=torch.Generator().manual_seed(seed + 1)).to(dtype)
    X, Y = polar(u, radius_x, c), polar(t, radius_y, c)
    moved = parallel_transport(X, Y, w)
    with mp.workdps(oracle.DIGITS):
        x, y = oracle.ball_of(X), oracle.ball_of(Y)
        exact = oracle.gyration(y, oracle.negative(x), oracle.vector(w), mp.mpf(c))
        gap = oracle.norm(oracle.combine(1, oracle.vector(moved), -1, exact)) / oracle.norm(exact)
    # Far out the angle turns by e^(2a) for each unit of the directions' angle, which is known to a rounding.
    chord = float((u.double() - t.double()).norm())
    reach = min(math.exp(2 * math.sqrt(c) * min(radius_x, radius_y)), 1 / max(chord, 1e-300))
    assert float(gap) <= 100 * EPS[dtype] * (1 + reach)


@pytest.mark.parametrize("c", [1.0, 0.4])
def test_agrees_with_geoopt(c):
    torch.manual_seed(0)
    ball = geoopt.PoincareBall(c=torch.tensor(c, dtype=torch.float64))
    X, Y = sample(60, scale=0.4, c=c), sample(60, scale=0.4, c=c)  # within geoopt's margin of 1e-5
    x, y, v = X.to_ball(), Y.to_ball(), torch.randn(60, 4, dtype=torch.float64) * 0.3
    s = torch.rand(60, dtype=torch.float64)
    pairs = [
        (mobius_add(X, Y).to_ball(), ball.mobius_add(x, y)),
        (expmap(X, to_frame(X, v)).to_ball(), ball.expmap(x, v)),
        (from_frame(X, logmap(X, Y)), ball.logmap(x, y)),
        (geodesic(X, Y, s).to_ball(), ball.geodesic(s[:, None], x, y)),
        (from_frame(Y, parallel_transport(X, Y, to_frame(X, v))), ball.transp(x, y, v)),
        (from_frame(Y, parallel_transport0(Y, v)), ball.transp0(y, v)),
        (dist(X, Y), ball.dist(x, y)),
        (dist0(X), ball.dist0(x)),
    ]
    for ours, theirs in pairs:
        assert torch.allclose(ours, theirs, atol=1e-9, rtol=1e-9)


def test_gyrogroup_identities():
    torch.manual_seed(0)
    X, Y, Z = (sample(50, scale=1.5) for _ in range(3))
    zero = PolarPoints.origin((50,), 4, dtype=torch.float64)
    for result, expected in (
        (mobius_add(zero, X), X),
        (mobius_add(X, zero), X),
        (mobius_add(-X, mobius_add(X, Y)), Y),  # left cancellation
    ):
        assert float(dist(result, expected).max()) < 1e-7
    # a translation is an isometry, and the distance is the radius of the difference
    assert torch.allclose(dist(mobius_add(Z, X), mobius_add(Z, Y)), dist(X, Y), rtol=1e-9)
    assert torch.allclose(dist0(mobius_add(-X, Y)), dist(X, Y), rtol=1e-13)


def test_exp_and_log_at_a_point_are_inverse():
    torch.manual_seed(0)
    X, Y = sample(50, scale=1.2), sample(50, scale=1.2)
    w = logmap(X, Y)
    assert torch.allclose(2 * w.norm(dim=-1), dist(X, Y), rtol=1e-13)
    assert float(dist(expmap(X, w), Y).max()) < 1e-7
    v = torch.randn(50, 4, dtype=torch.float64)
    assert torch.allclose(logmap(X, expmap(X, v)), v, atol=1e-9)
    assert torch.equal(logmap(X, X), torch.zeros(50, 4, dtype=torch.float64))
    assert torch.allclose(from_frame(X, to_frame(X, v)), v)


@pytest.mark.parametrize("radius", [1e-3, 1.0, 9.0])
def test_geodesic_has_constant_speed(radius):
    u, t = oracle.pair_at_angle(64, 2.0, 0, torch.float64)
    X, Y = polar(u, radius, 1.0), polar(t, 0.9 * radius, 1.0)
    s = torch.tensor([-0.2, 0.0, 0.1, 0.5, 0.77, 1.0, 1.3], dtype=torch.float64)
    path, whole = geodesic(X, Y, s), dist(X, Y)
    assert torch.allclose(dist(path, X), s.abs() * whole, rtol=1e-7, atol=1e-7 * radius)
    assert torch.allclose(dist(path, Y), (1 - s).abs() * whole, rtol=1e-7, atol=1e-7 * radius)


def test_geodesic_through_the_origin_and_of_one_point():
    u = torch.nn.functional.normalize(torch.randn(9), dim=-1)
    X = polar(u, 50.0, 1.0)
    assert float(geodesic(X, -X, 0.5).radius) < 1e-5
    assert torch.allclose(geodesic(X, -X, torch.tensor([0.1, 0.9])).radius, torch.tensor([40.0, 40.0]), rtol=1e-6)
    same = geodesic(X, X, 0.3)
    assert torch.allclose(same.radius, X.radius)
    assert torch.allclose(same.direction, u, atol=1e-7)


def test_transport_keeps_inner_products_and_returns():
    torch.manual_seed(0)
    X, Y = sample(40, scale=3.0), sample(40, scale=3.0)
    v, w = torch.randn(2, 40, 4, dtype=torch.float64)
    there = [parallel_transport(X, Y, vector) for vector in (v, w)]
    assert torch.allclose((there[0] * there[1]).sum(-1), (v * w).sum(-1), atol=1e-12)
    assert torch.allclose(parallel_transport(Y, X, there[0]), v, atol=1e-9)
    # along its own geodesic a tangent stays tangent
    assert torch.allclose(parallel_transport(X, Y, logmap(X, Y)), -logmap(Y, X), atol=1e-6)
    zero = PolarPoints.origin((40,), 4, dtype=torch.float64)
    assert torch.allclose(parallel_transport(zero, X, v), parallel_transport0(X, v))


@settings(max_examples=60, deadline=None)
@given(RADII, ANGLES, st.sampled_from([1.0, 0.4, 2.5]), st.integers(0, 2**31), DTYPES)
def test_busemann_against_the_ball_formula(radius, angle, c, seed, dtype):
    u, ideal = oracle.pair_at_angle(3, angle, seed, dtype)
    X = polar(u, radius / math.sqrt(c), c)
    value = busemann(X, ideal)
    with mp.workdps(oracle.DIGITS):
        y, xi = oracle.ball_of(X), oracle.vector(ideal)
        y, xi = oracle.scale(mp.sqrt(c), y), oracle.scale(1 / oracle.norm(xi), xi)
        gap = oracle.combine(1, xi, -1, y)
        exact = mp.log(oracle.dot(gap, gap) / (1 - oracle.dot(y, y))) / mp.sqrt(c)
        error = float(abs(oracle.real(value) - exact))
    assert error <= 20 * EPS[dtype] * float(2 * X.radius)


def test_busemann_is_a_limit_of_distances():
    torch.manual_seed(0)
    X = sample(30, scale=4.0, c=0.8)
    ideal = torch.nn.functional.normalize(torch.randn(30, 4, dtype=torch.float64), dim=-1)
    far = PolarPoints(ideal, torch.full((30,), 400.0, dtype=torch.float64), 0.8)
    assert torch.allclose(busemann(X, ideal), dist(X, far) - dist0(far), atol=1e-10)
    on_the_ray = PolarPoints(ideal, X.radius, 0.8)
    assert torch.allclose(busemann(on_the_ray, ideal), -2 * X.radius)
    assert torch.allclose(busemann(-on_the_ray, ideal), 2 * X.radius)


@pytest.mark.parametrize("c", [1.0, 0.4])
def test_gradcheck(c):
    torch.manual_seed(3)
    v, w, z = torch.randn(3, 7, 3, dtype=torch.float64)
    v[0], w[1], v[2], w[3], w[4], w[5] = 0, 0, 3 * v[2], -v[3], 1.5 * v[4], v[5]
    v[6], w[6] = 0, 0
    inputs = [tensor.requires_grad_() for tensor in (v, w, z)]

    def at(v):
        return PolarPoints.from_tangent(v, c)

    functions = [
        lambda v, w, z: mobius_add(at(v), at(w)).to_tangent(),
        lambda v, w, z: mobius_add(at(v), at(w)).to_hyperboloid(),
        lambda v, w, z: expmap(at(v), w).to_ball(),
        lambda v, w, z: logmap(at(v), at(w)),
        lambda v, w, z: geodesic(at(v), at(w), 0.3).to_tangent(),
        lambda v, w, z: parallel_transport(at(v), at(w), z),
        lambda v, w, z: busemann(at(v), at(z).direction),
        lambda v, w, z: from_frame(at(v), to_frame(at(w), z)),
    ]
    for function in functions:
        assert gradcheck(function, inputs)


def test_gradients_are_finite_over_the_whole_range():
    torch.manual_seed(0)
    radii = torch.tensor([0.0, 1e-30, 1e-6, 0.1, 5.0, 44.5, 50.0, 100.0])
    u = torch.nn.functional.normalize(torch.randn(2, 3), dim=-1)
    directions = torch.cat([u, -u, torch.nn.functional.normalize(u[:1] + 1e-6, dim=-1)])
    direction = directions.repeat_interleave(8, 0).requires_grad_()
    radius = radii.repeat(5).requires_grad_()
    X = PolarPoints(direction, radius)
    rows, columns = X.unsqueeze(0), X.unsqueeze(1)
    outputs = [
        busemann(X, u[0]),
        geodesic(rows, columns, 0.4).to_tangent(),
        parallel_transport(rows, columns, torch.ones(3)),
        logmap(rows, columns),
        dist0(mobius_add(rows, columns)),
    ]
    for output in outputs:
        assert bool(output.isfinite().all())
        for grad in torch.autograd.grad(output.sum(), (direction, radius)):
            assert bool(grad.isfinite().all())


def test_half_precision():
    X, Y = sample(20, dim=50), sample(20, dim=50)
    for function in (mobius_add, lambda X, Y: geodesic(X, Y, 0.5)):
        half = function(X.to(torch.bfloat16), Y.to(torch.bfloat16))
        assert (half.dtype, half.radius.dtype) == (torch.bfloat16, torch.float32)
        assert torch.allclose(half.radius.double(), function(X, Y).radius, rtol=2e-2)
        half.validate()


def test_bad_input():
    X = sample(3)
    v = torch.randn(3, 4, dtype=torch.float64)
    for function in (expmap, to_frame, from_frame, parallel_transport0, busemann):
        for bad in (v[:, :3], v.float(), v.long(), [1.0], v.to("meta"), torch.randn(2, 4, dtype=torch.float64)):
            with pytest.raises(ValueError, match=r"^(w|v|ideal): expected"):
                function(X, bad)
        with pytest.raises(ValueError, match="X: expected PolarPoints"):
            function(v, v)
    other = PolarPoints(X.direction, X.radius, 2.0)
    for function in (mobius_add, logmap, lambda X, Y: geodesic(X, Y, 0.5), lambda X, Y: parallel_transport(X, Y, v)):
        with pytest.raises(ValueError, match="Y: expected the curvature of X"):
            function(X, other)
    with pytest.raises(ValueError, match="s: expected a batch shape"):
        geodesic(X, X, torch.rand(2))
