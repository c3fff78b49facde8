"""Pairwise distances of the torch backend against float64."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels_oracle import exact_distances, family, largest_error, widened

from lapha.geometry import PolarPoints, dist
from lapha.kernels import pairwise_dist

TOLERANCE = 2e-6


@pytest.mark.parametrize("dim", [1, 2, 17, 576, 1536])
@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.9, 0.9999])
def test_relative_error_over_radii(dim: int, cosine: float) -> None:
    for radius in (1e-3, 0.1, 1.0, 4.0, 9.0, 19.0, 21.0, 50.0):
        X, Y = family(40, dim, cosine, radius, seed=1), family(30, dim, cosine, radius, seed=1)
        assert largest_error(pairwise_dist(X, Y), exact_distances(X, Y)) < TOLERANCE


@pytest.mark.parametrize("radius", [0.1, 1.0, 8.0, 50.0])
def test_radii_of_all_sizes_together(radius: float) -> None:
    small, large = family(20, 64, 0.3, 1e-4, seed=2), family(20, 64, 0.3, radius, seed=3)
    X = PolarPoints.cat([small, large, PolarPoints.origin((2,), 64)])
    assert largest_error(pairwise_dist(X), exact_distances(X, X)) < TOLERANCE


def test_clusters_of_near_duplicates() -> None:
    """Many clusters, each far tighter than the set: no one centre makes all products good."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(12, 1, 96, generator=generator)
    for spread in (1e-1, 1e-3, 1e-5, 1e-6):
        v = (centres + spread * torch.randn(12, 10, 96, generator=generator)).reshape(120, 96)
        X = PolarPoints.from_tangent(v / 10)
        exact = exact_distances(X, X)
        near = exact < 1e-4
        error = (pairwise_dist(X).double() - exact).abs() / torch.where(exact > 0, exact, 1)
        assert error[~near].max() < TOLERANCE
        assert error[near].max() < 1e-5


def test_at_the_edge_of_the_threshold() -> None:
    """Groups whose members' centred cosine is near the one at which pairs are refined: the product's worst case."""
    generator = torch.Generator().manual_seed(1)
    for dim, inner in ((64, 0.7), (64, 0.78), (576, 0.78)):
        groups, own = (
            torch.nn.functional.normalize(torch.randn(*shape, dim, generator=generator), dim=-1)
            for shape in ((6, 1), (6, 50))
        )
        direction = (math.sqrt(inner) * groups + math.sqrt(1 - inner) * own).reshape(300, dim)
        radius = 0.3 * (0.9 + 0.1 * torch.rand(300, generator=generator))
        X = PolarPoints(torch.nn.functional.normalize(direction, dim=1), radius)
        assert largest_error(pairwise_dist(X), exact_distances(X, X)) < TOLERANCE


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 9),
    m=st.integers(0, 9),
    dim=st.sampled_from([1, 2, 3, 8, 65, 300]),
    cosine=st.floats(-1, 1),
    radius=st.floats(1e-6, 50),
    curvature=st.sampled_from([0.25, 1.0, 3.0]),
    duplicate=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_any_latents(
    n: int, m: int, dim: int, cosine: float, radius: float, curvature: float, duplicate: bool, seed: int
) -> None:
    X = family(n, dim, cosine, radius, seed, curvature=curvature)
    Y = family(m, dim, cosine, radius, seed + 1, curvature=curvature)
    if duplicate:
        Y = PolarPoints.cat([Y, X])
    got = pairwise_dist(X, Y)
    exact = exact_distances(X, Y)
    assert got.shape == exact.shape
    # a radius of 1e-6 is at the end of what squares of float32 can hold; radii that differ by rounding are near too
    near = exact < 1e-4
    error = (got.double() - exact).abs() / torch.where(exact > 0, exact, 1)
    assert not (got[exact == 0] != 0).any()
    assert not (error[~near] > TOLERANCE).any()
    assert not (error[near] > 1e-5).any()


def test_against_fifty_digits() -> None:
    X = family(4, 3, 0.7, 3.0, seed=5, dtype=torch.float64)
    got = pairwise_dist(X)
    with mpmath.workdps(50):
        for i in range(4):
            for j in range(4):
                expected = _distance_in_digits(X, i, j)
                assert float(abs(mpmath.mpf(float(got[i, j])) - expected)) <= 1e-13 * float(expected)


def _distance_in_digits(X: PolarPoints, i: int, j: int) -> mpmath.mpf:
    u, t = ([mpmath.mpf(float(x)) for x in X.direction[k]] for k in (i, j))
    u, t = ([x / mpmath.sqrt(sum(y * y for y in z)) for x in z] for z in (u, t))
    a, b = (mpmath.mpf(float(X.radius[k])) for k in (i, j))
    chord = sum((x - y) ** 2 for x, y in zip(u, t, strict=True))
    s = mpmath.sinh(a - b) ** 2 + mpmath.sinh(2 * a) * mpmath.sinh(2 * b) * chord / 4
    return 2 * mpmath.asinh(mpmath.sqrt(s))


def test_float64_stays_float64() -> None:
    for cosine in (0.0, 0.99, 0.999999):
        X, Y = (family(20, 40, cosine, 2.0, seed, dtype=torch.float64) for seed in (1, 1))
        got = pairwise_dist(X, Y)
        assert got.dtype == torch.float64
        assert largest_error(got, exact_distances(X, Y)) < 1e-11


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_directions_are_exact_as_stored(dtype: torch.dtype) -> None:
    X, Y = family(50, 256, 0.5, 2.0, 1, dtype=dtype), family(40, 256, 0.5, 2.0, 2, dtype=dtype)
    got = pairwise_dist(X, Y)
    assert got.dtype == torch.float32
    assert largest_error(got, exact_distances(X, Y)) < TOLERANCE


def test_same_point_is_at_distance_zero() -> None:
    X = family(300, 64, 0.9, 30.0, seed=1)
    Y = PolarPoints(X.direction.clone(), X.radius.clone())
    assert (pairwise_dist(X).diagonal() == 0).all()
    assert (pairwise_dist(X, Y).diagonal() == 0).all()


@pytest.mark.parametrize("radius", [1e-3, 1.0, 30.0, 50.0])
def test_all_points_the_same(radius: float) -> None:
    direction = family(1, 200, 0.0, 1.0, seed=3).direction.expand(600, 200)
    X = PolarPoints(direction, torch.full((600,), radius))
    assert (pairwise_dist(X) == 0).all()


def test_same_direction_leaves_the_difference_of_radii() -> None:
    radius = torch.tensor([0.0, 1e-4, 0.5, 0.5 + 1e-6, 19.9, 20.1, 49.0, 50.0])
    X = PolarPoints(torch.eye(3)[:1].expand(8, 3), radius)
    wide = radius.double()
    assert largest_error(pairwise_dist(X), 2 * (wide[:, None] - wide).abs()) < 1e-6


def test_directions_off_unit_length_are_normalised() -> None:
    X = family(50, 64, 0.6, 1.0, seed=1)
    stretched = PolarPoints(X.direction * (1 + 6e-6 * torch.rand(50, 1)), X.radius)
    assert largest_error(pairwise_dist(stretched), exact_distances(stretched, stretched)) < TOLERANCE
    # one direction at several lengths is still one direction
    twins = PolarPoints(X.direction[:1] * torch.tensor([[1.0], [1 + 4e-6], [1 - 4e-6]]), torch.full((3,), 2.0))
    assert pairwise_dist(twins).max() < 1e-6


def test_non_contiguous_and_odd_shapes() -> None:
    X = family(37, 130, 0.4, 1.0, seed=1)
    strided = PolarPoints(X.direction.T.contiguous().T[::2], X.radius[::2])
    Y = PolarPoints(family(58, 130, 0.4, 1.0, seed=2).direction[::2], torch.linspace(0, 3, 29))
    assert not strided.direction.is_contiguous()
    assert largest_error(pairwise_dist(strided, Y), exact_distances(strided, Y)) < TOLERANCE


def test_empty_sets() -> None:
    X, none = family(5, 8, 0.4, 1.0, seed=1), family(0, 8, 0.4, 1.0, seed=1)
    assert pairwise_dist(X, none).shape == (5, 0)
    assert pairwise_dist(none, X).shape == (0, 5)
    assert pairwise_dist(none).shape == (0, 0)


def test_blocks_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows and columns than one block and one tile hold."""
    from lapha.kernels import pairwise_torch

    for name, value in (("ROWS", 16), ("COLUMNS", 24), ("TILE_ELEMENTS", 100)):
        monkeypatch.setattr(pairwise_torch, name, value)
    X, Y = family(50, 32, 0.8, 1.0, seed=1), family(61, 32, 0.8, 1.0, seed=1)
    assert largest_error(pairwise_dist(X, Y), exact_distances(X, Y)) < TOLERANCE


def test_bfloat16_products_keep_three_digits() -> None:
    for radius in (0.5, 2.0, 8.0):
        X, Y = family(60, 512, 0.5, radius, seed=1), family(60, 512, 0.5, radius, seed=1)
        exact = exact_distances(X, Y)
        error = largest_error(pairwise_dist(X, Y, precision="bf16"), exact)
        assert TOLERANCE < error < 2e-3  # it is another arithmetic, and good enough


@pytest.mark.parametrize("curvature", [1.0, 2.5])
def test_gradcheck(curvature: float) -> None:
    def distances(u: torch.Tensor, a: torch.Tensor, t: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        X = PolarPoints(torch.nn.functional.normalize(u, dim=1), a, curvature)
        Y = PolarPoints(torch.nn.functional.normalize(t, dim=1), b, curvature)
        return pairwise_dist(X, Y)

    generator = torch.Generator().manual_seed(0)
    u, t = (torch.randn(n, 5, dtype=torch.float64, generator=generator) for n in (4, 3))
    t[0] = u[0] + 1e-3  # one close pair
    a, b = torch.tensor([0.2, 1.0, 3.0, 9.0]).double(), torch.tensor([0.2, 0.5, 7.0]).double()
    assert torch.autograd.gradcheck(distances, tuple(z.requires_grad_() for z in (u, a, t, b)))


@pytest.mark.parametrize("cosine", [0.3, 0.95])
def test_gradient_is_that_of_the_elementwise_distance(cosine: float) -> None:
    """At sizes where products are blocked, with duplicates and the origin among the points."""
    base = PolarPoints.cat([family(70, 48, cosine, 2.0, seed=1), PolarPoints.origin((1,), 48)])
    weight = torch.randn(71, 71, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradients(points: PolarPoints, all_pairs: bool) -> list[torch.Tensor]:
        direction, radius = points.direction.clone().requires_grad_(), points.radius.clone().requires_grad_()
        X = PolarPoints(direction, radius)
        distance = pairwise_dist(X) if all_pairs else dist(X[:, None], X[None, :])
        (distance * weight.to(distance.dtype)).sum().backward()
        assert direction.grad is not None
        assert radius.grad is not None
        return [direction.grad, radius.grad]

    for got, expected in zip(gradients(base, True), gradients(widened(base), False), strict=True):
        assert torch.isfinite(got).all()
        assert (got - expected).norm() < 1e-5 * expected.norm()


def test_gradient_of_near_duplicates() -> None:
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(1, 48, generator=generator) + 1e-5 * torch.randn(30, 48, generator=generator)
    base = PolarPoints.from_tangent(v / 7)
    direction = base.direction.clone().requires_grad_()
    pairwise_dist(PolarPoints(direction, base.radius)).sum().backward()
    exact_direction = base.direction.double().requires_grad_()
    wide = PolarPoints(exact_direction, base.radius.double())
    dist(wide[:, None], wide[None, :]).sum().backward()
    assert (direction.grad - exact_direction.grad).norm() < 1e-4 * exact_direction.grad.norm()


@pytest.mark.parametrize("radius", [0.0, 1e-6, 50.0])
def test_gradients_are_finite_at_the_ends(radius: float) -> None:
    X = family(6, 8, 0.5, 1.0, seed=1)
    direction = torch.cat([X.direction, X.direction[:2]]).requires_grad_()
    norms = torch.full((8,), radius).requires_grad_()
    pairwise_dist(PolarPoints(direction, norms)).sum().backward()
    assert torch.isfinite(direction.grad).all()
    assert torch.isfinite(norms.grad).all()


def test_compiles_without_a_graph_break() -> None:
    X = family(9, 16, 0.4, 1.0, seed=1)

    def loss(direction: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        return pairwise_dist(PolarPoints(direction, radius)).sum()

    inputs = [X.direction.clone().requires_grad_(), X.radius.clone().requires_grad_()]
    torch.compile(loss, fullgraph=True, backend="aot_eager")(*inputs).backward()
    expected = [z.detach().clone().requires_grad_() for z in inputs]
    loss(*expected).backward()
    for got, want in zip(inputs, expected, strict=True):
        assert torch.equal(got.grad, want.grad)


def test_operator_is_registered_properly() -> None:
    X = family(4, 6, 0.4, 1.0, seed=1, dtype=torch.float64)
    arguments = (X.direction.requires_grad_(), X.radius.requires_grad_(), X.direction, X.radius, 1.0, "auto", "ieee")
    torch.library.opcheck(torch.ops.lapha.pairwise_dist, arguments)


def test_autocast_and_reduced_products_do_not_touch_it() -> None:
    X = family(40, 256, 0.5, 1.0, seed=1)
    before = torch.get_float32_matmul_precision()
    expected = pairwise_dist(X)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = pairwise_dist(X)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p: PolarPoints(p.direction[:, :4].contiguous(), p.radius), "Y: expected the dim"),
        (lambda p: PolarPoints(p.direction.double(), p.radius.double()), "Y: expected the dtype"),
        (lambda p: PolarPoints(p.direction, p.radius, 2.0), "Y: expected the curvature"),
        (lambda p: PolarPoints(p.direction[None], p.radius[None]), "Y: expected batch shape"),
        (lambda p: p.direction, "Y: expected PolarPoints"),
    ],
)
def test_bad_arguments_are_named(change, named: str) -> None:
    X = family(5, 8, 0.4, 1.0, seed=1)
    with pytest.raises(ValueError, match=named):
        pairwise_dist(X, change(X))


def test_validate_looks_at_the_numbers() -> None:
    X = family(5, 8, 0.4, 1.0, seed=1)
    broken = {
        "radius: expected finite": PolarPoints(X.direction, X.radius * math.nan),
        "radius: expected numbers >= 0": PolarPoints(X.direction, -X.radius),
        "direction: expected unit vectors": PolarPoints(X.direction * 2, X.radius),
    }
    for named, points in broken.items():
        with pytest.raises(ValueError, match=f"X.{named}"):
            pairwise_dist(points, X, validate=True)
