"""Distances against mpmath: the relative error at any radius, angle, dimension and curvature."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch
from geometry_oracle import pair_at_angle, polar_distance
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.geometry import PolarPoints, dist, dist0, pairwise_dist
from lapha.geometry.numerics import distance_from_chord, distance_from_chord_length

RADII = st.one_of(st.just(0.0), st.floats(-6, math.log10(50)).map(lambda x: 10**x))
ANGLES = st.one_of(
    st.sampled_from([0.0, math.pi / 2, math.pi]),
    st.floats(0, math.pi),
    st.floats(-8, 0).map(lambda x: 10**x),
    st.floats(-8, 0).map(lambda x: math.pi - 10**x),
)
CURVATURES = st.one_of(st.just(1.0), st.floats(-2, 2).map(lambda x: 10**x))
DIMS = st.sampled_from([1, 2, 3, 7, 64, 129])


def relative_errors(X: PolarPoints, Y: PolarPoints) -> tuple[float, float]:
    """Of `dist` and of `pairwise_dist`, for single points; 0 must come out as 0."""
    exact = polar_distance(X, Y)
    return error(dist(X, Y), exact), error(pairwise_dist(X.reshape(1), Y.reshape(1))[0, 0], exact)


def error(value: torch.Tensor, exact: mp.mpf) -> float:
    assert torch.isfinite(value)
    if exact == 0:
        return 0.0 if float(value) == 0 else math.inf
    return float(abs(mp.mpf(float(value)) - exact) / exact)


def tolerance(X: PolarPoints, Y: PolarPoints) -> float:
    chord = float((X.direction.double() - Y.direction.double()).norm())
    return 2e-6 if chord > 1e-4 else 1e-5


@settings(max_examples=200, deadline=None)
@given(RADII, RADII, ANGLES, CURVATURES, DIMS, st.integers(0, 2**31))
def test_float32_distance_is_exact_to_rounding(radius_x, radius_y, angle, curvature, dim, seed):
    u, t = pair_at_angle(dim, angle, seed)
    X = PolarPoints(u, torch.tensor(radius_x), curvature)
    Y = PolarPoints(t, torch.tensor(radius_y), curvature)
    assert max(relative_errors(X, Y)) <= tolerance(X, Y)


@settings(max_examples=80, deadline=None)
@given(RADII, st.floats(-7, 0).map(lambda x: 10**x), ANGLES, CURVATURES, DIMS, st.integers(0, 2**31))
def test_float32_distance_between_nearly_equal_radii(radius, gap, angle, curvature, dim, seed):
    u, t = pair_at_angle(dim, angle, seed)
    X = PolarPoints(u, torch.tensor(radius), curvature)
    Y = PolarPoints(t, torch.tensor(radius) * (1 + gap), curvature)
    assert max(relative_errors(X, Y)) <= tolerance(X, Y)


@settings(max_examples=80, deadline=None)
@given(RADII, RADII, ANGLES, CURVATURES, DIMS, st.integers(0, 2**31))
def test_float64_distance(radius_x, radius_y, angle, curvature, dim, seed):
    u, t = pair_at_angle(dim, angle, seed, torch.float64)
    X = PolarPoints(u, torch.tensor(radius_x, dtype=torch.float64), curvature)
    Y = PolarPoints(t, torch.tensor(radius_y, dtype=torch.float64), curvature)
    by_element, in_table = relative_errors(X, Y)
    assert by_element <= 1e-13
    assert in_table <= 5e-11


@settings(max_examples=40, deadline=None)
@given(RADII, RADII, ANGLES, DIMS, st.integers(0, 2**31), st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_directions_lose_only_their_rounding(radius_x, radius_y, angle, dim, seed, dtype):
    u, t = pair_at_angle(dim, angle, seed, dtype)
    X, Y = PolarPoints(u, torch.tensor(radius_x)), PolarPoints(t, torch.tensor(radius_y))
    # given the rounded directions, the distance is as exact as in float32: lengths off by 2^-9 are divided out
    assert dist(X, Y).dtype == torch.float32
    by_element, in_table = relative_errors(X, Y)
    assert by_element <= 1e-5
    assert in_table <= 2e-6


@pytest.mark.parametrize("dim", [1536, 4096])
@pytest.mark.parametrize("cosine", [-1.0, 0.3, 0.9, 0.999, 1 - 5e-9])
def test_large_dimension(dim, cosine):
    u, t = pair_at_angle(dim, math.acos(cosine), seed=dim)
    for radius_x, radius_y in ((1e-3, 1.1e-3), (0.5, 0.5), (8.0, 3.0), (50.0, 50.0)):
        X, Y = PolarPoints(u, torch.tensor(radius_x)), PolarPoints(t, torch.tensor(radius_y))
        assert max(relative_errors(X, Y)) <= tolerance(X, Y)


@pytest.mark.parametrize("chord", [1e-3, 1e-9, 1e-15, 1e-19, 1e-25, 1e-30])
@pytest.mark.parametrize("radius", [1e-6, 1.0, 10.0, 50.0, 200.0, 1e4])
def test_tiny_chords_and_huge_radii(radius, chord):
    # the chord's square underflows, the point is far out: neither may round to "the same point"
    X = PolarPoints(torch.tensor([1.0, 0.0]), torch.tensor(radius))
    Y = PolarPoints(torch.tensor([1.0, chord]), torch.tensor(radius))
    u, t = X.direction, Y.direction
    root = mp.asinh(mp.sinh(2 * mp.mpf(radius)) * mp.mpf(float(t[1])) / 2)  # equal radii; chord tiny: √S = sinh 2a · k
    if chord > 1e-4:
        assert max(relative_errors(X, Y)) <= 2e-6
    else:
        assert error(dist(X, Y), 2 * root) <= 2e-5
    assert float(dist(X, PolarPoints(u.clone(), X.radius))) == 0


def test_radial_distances_have_no_limit():
    radius = torch.tensor([1e-30, 1e-3, 1.0, 50.0, 1e10])
    X = PolarPoints(torch.tensor([[0.0, 1.0]]).expand(5, 2), radius)
    assert torch.equal(dist0(X), 2 * radius)
    assert torch.allclose(dist(X, PolarPoints.origin((5,), 2)), 2 * radius, rtol=3e-7, atol=0)
    assert torch.allclose(dist(X, -X), 4 * radius, rtol=3e-7, atol=0)


def test_self_distance_is_zero():
    X = PolarPoints.from_tangent(torch.randn(40, 33) * torch.logspace(-6, 1.5, 40)[:, None])
    assert torch.equal(dist(X, X), torch.zeros(40))
    assert torch.equal(pairwise_dist(X).diagonal(), torch.zeros(40))
    assert torch.equal(pairwise_dist(X, X.clone()).diagonal(), torch.zeros(40))
    duplicates = PolarPoints.cat([X, X[5:6]])
    assert float(pairwise_dist(duplicates)[40, 5]) == 0


def test_pairwise_agrees_with_elementwise_and_is_a_metric():
    torch.manual_seed(0)
    X = PolarPoints.from_tangent(torch.randn(3, 1, 9, 17) * 4, 0.7)
    Y = PolarPoints.from_tangent(torch.randn(2, 6, 17), 0.7)
    table = pairwise_dist(X, Y)
    assert table.shape == (3, 2, 9, 6)
    expected = dist(X.unsqueeze(-1), Y.unsqueeze(-2))
    assert torch.allclose(table, expected, rtol=1e-6)
    among = pairwise_dist(X)[:, 0]
    assert torch.equal(among, among.mT)
    through = among[:, :, :, None] + among[:, None, :, :]
    assert bool((among[:, :, None, :] <= through + 1e-4).all())


def test_many_near_duplicates_are_refined_in_chunks(monkeypatch):
    monkeypatch.setattr("lapha.geometry.autograd._REFINE_ELEMENTS", 64)
    base = torch.nn.functional.normalize(torch.randn(1, 2, 30, dtype=torch.float64), dim=-1)
    close = (base + 1e-7 * torch.randn(20, 2, 30, dtype=torch.float64)).movedim(0, 1).float()
    X = PolarPoints(close, torch.full((2, 20), 3.0))
    assert torch.allclose(pairwise_dist(X), dist(X.unsqueeze(-1), X.unsqueeze(-2)), rtol=1e-6, atol=0)
    assert float(pairwise_dist(X).amax()) > 1e-5


@pytest.mark.parametrize(("shape_x", "shape_y"), [((0,), (3,)), ((3,), (0,)), ((0,), (0,)), ((2, 0), (3,))])
def test_empty_batches(shape_x, shape_y):
    X = PolarPoints.origin(shape_x, 4).to(torch.float32)
    Y = PolarPoints.origin(shape_y, 4)
    assert pairwise_dist(X, Y).shape == (*shape_x, *shape_y[-1:])
    assert dist(PolarPoints.origin((0,), 4), PolarPoints.origin((1,), 4)).shape == (0,)


def test_strided_inputs():
    v, w = torch.randn(16, 2, 8), torch.randn(8, 16).T
    X, Y = PolarPoints.from_tangent(v[:, 0]), PolarPoints.from_tangent(w)
    dense = PolarPoints.from_tangent(v[:, 0].contiguous()), PolarPoints.from_tangent(w.contiguous())
    assert torch.allclose(dist(X, Y), dist(*dense))
    assert torch.allclose(pairwise_dist(X[::3], Y[::5]), pairwise_dist(*dense)[::3, ::5])


def test_autocast_changes_nothing():
    X, Y = PolarPoints.from_tangent(torch.randn(5, 8)), PolarPoints.from_tangent(torch.randn(6, 8))
    expected = pairwise_dist(X, Y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pairwise_dist(X, Y), expected)


def test_distance_from_chord_takes_the_square():
    radius_x, radius_y = torch.tensor([0.3, 4.0, 60.0]), torch.tensor([0.2, 5.0, 1.0])
    chord = torch.tensor([1e-3, 0.5, 2.0])
    expected = distance_from_chord_length(radius_x, radius_y, chord, 2.5)
    assert torch.allclose(distance_from_chord(radius_x, radius_y, chord.square(), 2.5), expected, rtol=1e-6)
    rounded_below_zero = torch.full((3,), -1e-7)
    gap = 2 * (radius_x - radius_y).abs()
    assert torch.allclose(distance_from_chord(radius_x, radius_y, rounded_below_zero), gap, rtol=1e-6)
