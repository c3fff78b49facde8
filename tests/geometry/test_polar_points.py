"""PolarPoints: conversions, container behaviour, checks."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.utils import _pytree as pytree

import lapha
from lapha.geometry import PolarPoints, dist, dist0, expmap0, geodesic, logmap0, mobius_add, pairwise_dist


def sample(*shape: int, dim: int = 5, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> PolarPoints:
    return PolarPoints.from_tangent((torch.randn(*shape, dim, dtype=torch.float64) * scale).to(dtype))


# -- conversions -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.floats(-37, 34), st.sampled_from([1, 2, 33, 1536]), st.integers(0, 2**31))
def test_tangent_round_trip_at_any_scale(exponent, dim, seed):
    v = torch.randn(dim, generator=torch.Generator().manual_seed(seed)).clamp(-3, 3) * 10**exponent
    X = PolarPoints.from_tangent(v)
    assert abs(float(X.direction.double().norm()) - 1) < 3e-7
    assert float((X.to_tangent().double() - v.double()).norm()) <= 1e-6 * float(v.double().norm()) + 1e-44
    assert math.isclose(float(X.radius), float(v.double().norm()), rel_tol=1e-6, abs_tol=1e-44)


def test_origin_has_the_first_basis_vector():
    X = PolarPoints.from_tangent(torch.zeros(2, 3))
    assert torch.equal(X.direction, torch.tensor([[1.0, 0, 0]] * 2))
    assert torch.equal(X.radius, torch.zeros(2))
    O = PolarPoints.origin((2,), 3, curvature=2.0, dtype=torch.bfloat16)  # noqa: E741
    assert torch.equal(O.direction.float(), X.direction)
    assert O.radius.dtype == torch.float32
    for other in (
        PolarPoints.from_ball(torch.zeros(2, 3)),
        PolarPoints.from_hyperboloid(torch.eye(4)[:1].expand(2, 4)),
    ):
        assert torch.equal(other.direction, X.direction)
        assert torch.equal(other.radius, X.radius)
    assert torch.equal(PolarPoints.origin((), 3).to_tangent(), torch.zeros(3))


@pytest.mark.parametrize("c", [1.0, 0.3])
@pytest.mark.parametrize("one_minus_norm", [1.0, 0.5, 1e-3, 1e-6, 1e-7])
def test_ball_points_near_the_boundary(one_minus_norm, c):
    y = torch.nn.functional.normalize(torch.randn(40, dtype=torch.float64), dim=-1)
    y = (y * (1 - one_minus_norm) / math.sqrt(c)).float()
    with mp.workdps(40):
        exact = mp.atanh(mp.sqrt(c) * mp.sqrt(mp.fsum(mp.mpf(x) ** 2 for x in y.tolist()))) / mp.sqrt(c)
    radius = PolarPoints.from_ball(y, c).radius
    assert math.isclose(float(radius), float(exact), rel_tol=2e-7)


@pytest.mark.parametrize(("dtype", "exact_to"), [(torch.float32, 5.0), (torch.float64, 15.0), (torch.bfloat16, 1.0)])
@pytest.mark.parametrize("c", [1.0, 4.0])
def test_ball_round_trip(dtype, exact_to, c):
    u = torch.nn.functional.normalize(torch.randn(50, 8, dtype=torch.float64), dim=-1).to(dtype)
    scalar = torch.float64 if dtype == torch.float64 else torch.float32
    radius = torch.logspace(-6, math.log10(exact_to), 50, dtype=scalar) / math.sqrt(c)
    X = PolarPoints(u, radius, c)
    y = X.to_ball()
    assert y.dtype == dtype
    # rounding of a coordinate, seen from a point whose gap to the boundary is e^(−2a)
    limit = torch.finfo(dtype).eps * 4 * torch.exp(2 * math.sqrt(c) * radius)
    assert bool(((PolarPoints.from_ball(y, c).radius - radius).abs() <= limit * (radius + 1e-30)).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 3, 700])
@pytest.mark.parametrize("c", [1.0, 0.37])
def test_to_ball_stays_inside(dtype, dim, c):
    X = sample(64, dim=dim, scale=30.0, dtype=dtype)
    X = PolarPoints(X.direction, X.radius, c)
    back = PolarPoints.from_ball(X.to_ball(), c, validate=True)
    assert bool(back.radius.isfinite().all())


def test_outside_the_ball():
    y = torch.tensor([[1.0, 0.0], [0.6, 0.8], [3.0, 0.0], [0.5, 0.0]])
    assert torch.isinf(PolarPoints.from_ball(y).radius).tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match=r"y: expected points inside the ball of radius 1\.0, got a norm of 3\.0"):
        PolarPoints.from_ball(y, validate=True)


@pytest.mark.parametrize("c", [1.0, 0.3])
def test_hyperboloid_round_trip(c):
    X = sample(30, scale=1.5, dtype=torch.float64)
    small = PolarPoints(X.direction, torch.logspace(-150, 0, 30, dtype=torch.float64), c)
    X = PolarPoints.cat([small, PolarPoints(X.direction, X.radius, c)])
    x = X.to_hyperboloid()
    form = -x[:, 0].square() + x[:, 1:].square().sum(-1)
    assert torch.allclose(form, torch.full_like(form, -1 / c), atol=1e-12 * float(x[:, 0].square().max()))
    back = PolarPoints.from_hyperboloid(x, c, validate=True)
    assert torch.allclose(back.radius, X.radius, rtol=1e-13, atol=0)  # acosh of the time coordinate ends at 1e-8
    assert torch.allclose(back.direction, X.direction, atol=1e-13)


def test_coordinates_agree_on_the_point():
    X = sample(20, dtype=torch.float64)
    y, x = X.to_ball(), X.to_hyperboloid()
    # stereographic projection from (−1, 0, …, 0)
    assert torch.allclose(x[:, 1:] / (1 + x[:, :1]), y, atol=1e-14)
    assert torch.allclose(logmap0(expmap0(X.to_tangent())), X.to_tangent(), atol=1e-14)


@pytest.mark.parametrize("c", [1.0, 2.2])
def test_conversions_gradcheck_at_the_origin_and_away(c):
    v = torch.randn(4, 3, dtype=torch.float64)
    v[0], v[1] = 0, v[1] * 1e-8
    X = PolarPoints.from_tangent(v, c)

    def tangent_of(make, x):
        return make(x, c).to_tangent()

    inputs = {"from_tangent": v, "from_ball": X.to_ball(), "from_hyperboloid": X.to_hyperboloid()}
    for name, value in inputs.items():
        make = getattr(PolarPoints, name)
        assert gradcheck(lambda x, make=make: tangent_of(make, x), value.clone().requires_grad_())
    for out in ("to_ball", "to_hyperboloid"):
        assert gradcheck(lambda v, out=out: getattr(PolarPoints.from_tangent(v, c), out)(), v.clone().requires_grad_())


# -- container ---------------------------------------------------------------------------------------------------------


def test_shapes_and_indexing():
    X = sample(4, 3, dim=7)
    assert (X.shape, X.dim, len(X), X.dtype) == ((4, 3), 7, 4, torch.float32)
    rows = torch.tensor([2, 0])
    mask = torch.tensor([True, False, True, True])
    for index in (1, -1, slice(1, 3), (slice(None), 2), (..., 0), rows, mask, (rows, rows), (None, 1), (mask, 1)):
        part = X[index]
        assert torch.equal(part.radius, X.radius[index])
        assert torch.equal(part.to_tangent(), part.direction * part.radius[..., None])
        assert part.direction.shape == (*part.radius.shape, 7)
    assert torch.equal(X[..., 0].direction, X.direction[:, 0])
    assert torch.equal(X[mask].direction, X.direction[mask])
    assert [tuple(row.shape) for row in X] == [(3,)] * 4
    with pytest.raises(IndexError):
        X[0, 0, 0]
    with pytest.raises(TypeError, match="single point"):
        len(X[0, 0])
    assert X.reshape(12).shape == (12,)
    assert X.reshape(-1, 2, 3).shape == (2, 2, 3)
    assert X.unsqueeze(-1).shape == (4, 3, 1)
    assert X.unsqueeze(0).direction.shape == (1, 4, 3, 7)
    assert X[:, :1].expand(4, 5).direction.shape == (4, 5, 7)


def test_cat_and_stack():
    X, Y = sample(4, 3), sample(4, 2)
    both = PolarPoints.cat([X, Y], dim=-1)
    assert both.shape == (4, 5)
    assert torch.equal(both[:, 3:].direction, Y.direction)
    assert torch.equal(PolarPoints.cat([X, X]).radius, torch.cat([X.radius, X.radius]))
    assert PolarPoints.stack([X, X], dim=-1).direction.shape == (4, 3, 2, 5)
    with pytest.raises(ValueError, match="points: expected at least one"):
        PolarPoints.cat([])
    with pytest.raises(ValueError, match=r"points\[1\]: expected the curvature"):
        PolarPoints.cat([X, PolarPoints(X.direction, X.radius, 2.0)])


def test_conversion_of_dtype():
    X = sample(6, dtype=torch.float64)
    assert X.radius.dtype == torch.float64
    half = X.to(dtype=torch.bfloat16)
    assert (half.dtype, half.radius.dtype) == (torch.bfloat16, torch.float32)
    assert half.to(torch.float64).radius.dtype == torch.float64
    assert X.to("cpu").dtype == torch.float64
    assert PolarPoints(half.direction, half.radius.half()).radius.dtype == torch.float32


def test_gradient_flow():
    v = torch.randn(3, 5, requires_grad=True)
    X = PolarPoints.from_tangent(v)
    assert X.requires_grad
    assert X[1].requires_grad
    assert not X.detach().requires_grad
    assert X.clone().requires_grad
    PolarPoints.cat([X, X]).to_tangent().sum().backward()
    assert torch.allclose(v.grad, torch.full_like(v, 2.0), atol=1e-5)


def test_is_a_pytree_and_copies():
    X = PolarPoints(torch.eye(3), torch.ones(3), 2.0)
    leaves, spec = pytree.tree_flatten({"points": X})
    assert [leaf.shape for leaf in leaves] == [(3, 3), (3,)]
    again = pytree.tree_unflatten(leaves, spec)["points"]
    assert isinstance(again, PolarPoints)
    assert again.curvature == 2.0
    assert pytree.tree_map(lambda tensor: tensor.shape, X).radius == (3,)  # placeholders are not checked
    for twin in (copy.deepcopy(X), pickle.loads(pickle.dumps(X))):
        assert torch.equal(twin.direction, X.direction)
        assert twin.curvature == 2.0
    distances = torch.func.vmap(dist)(X, -X)
    assert torch.allclose(distances, torch.full((3,), 4.0))


def test_negation_is_the_antipode():
    X = sample(4)
    assert torch.allclose(dist(X, -X), 4 * X.radius)


def test_repr_is_short():
    assert repr(PolarPoints.origin((2, 3), 4, 0.5)) == (
        "PolarPoints(shape=(2, 3), dim=4, curvature=0.5, dtype=torch.float32, device=cpu)"
    )


def test_frozen():
    X = sample(2)
    with pytest.raises(AttributeError):
        X.radius = torch.zeros(2)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "radius", "curvature", "message"),
    [
        ([1.0], torch.tensor(1.0), 1.0, "direction: expected a torch.Tensor, got list"),
        (torch.ones(3, dtype=torch.int64), torch.tensor(1.0), 1.0, "direction: expected a floating point dtype"),
        (torch.tensor(1.0), torch.tensor(1.0), 1.0, "direction: expected shape"),
        (torch.ones(2, 0), torch.ones(2), 1.0, "direction: expected shape"),
        (torch.ones(2, 3), torch.ones(3), 1.0, r"radius: expected shape \(2,\), got shape \(3,\)"),
        (torch.ones(2, 3), torch.ones(2, 1), 1.0, r"radius: expected shape \(2,\)"),
        (torch.ones(2, 3), torch.ones(2).long(), 1.0, "radius: expected a floating point dtype"),
        (torch.ones(2, 3), torch.ones(2).double(), 1.0, "radius: expected torch.float32"),
        (torch.ones(2, 3), torch.ones(2, device="meta"), 1.0, "radius: expected device cpu, got meta"),
        (torch.ones(2, 3), torch.ones(2), 0.0, "curvature: expected a finite number > 0"),
        (torch.ones(2, 3), torch.ones(2), -1.0, "curvature"),
        (torch.ones(2, 3), torch.ones(2), math.nan, "curvature"),
        (torch.ones(2, 3), torch.ones(2), math.inf, "curvature"),
        (torch.ones(2, 3), torch.ones(2), torch.tensor(1.0), "curvature"),
    ],
)
def test_constructor_names_what_is_wrong(direction, radius, curvature, message):
    with pytest.raises(ValueError, match=message):
        PolarPoints(direction, radius, curvature)


@pytest.mark.parametrize("make", [PolarPoints.from_tangent, PolarPoints.from_ball, PolarPoints.from_hyperboloid])
def test_conversions_check_their_input(make):
    for bad in ([1.0], torch.tensor(1.0), torch.ones(3).long(), torch.ones(2, 0)):
        with pytest.raises(ValueError, match="expected"):
            make(bad)
    with pytest.raises(ValueError, match="curvature"):
        make(torch.tensor([0.1, 0.1]), -1.0)
    for value in (math.nan, math.inf):
        numbers = torch.full((2, 3), 0.1)
        numbers[1, 2] = value
        make(numbers)  # a look at the numbers is opt-in
        with pytest.raises(ValueError, match=r"1 NaN or Inf, the first at \[1, 2\]"):
            make(numbers, validate=True)


def test_hyperboloid_validation():
    x = sample(4).to_hyperboloid()
    PolarPoints.from_hyperboloid(x, validate=True)
    x[2, 0] *= 1.01
    with pytest.raises(ValueError, match="x: expected points on the hyperboloid"):
        PolarPoints.from_hyperboloid(x, validate=True)
    with pytest.raises(ValueError, match="x: expected shape"):
        PolarPoints.from_hyperboloid(torch.ones(4, 1))


def test_validate():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        X = sample(50, dim=700, dtype=dtype)
        assert X.validate() is X
    assert PolarPoints.origin((0,), 3).validate().shape == (0,)
    X = sample(3)
    cases = [
        (X.direction * 1.001, X.radius, "goal.direction: expected unit vectors"),
        (X.direction, -X.radius, "goal.radius: expected numbers >= 0"),
        (X.direction, X.radius * math.nan, "goal.radius: expected finite numbers"),
        (X.direction * math.inf, X.radius, "goal.direction: expected finite numbers"),
    ]
    for direction, radius, message in cases:
        with pytest.raises(ValueError, match=message):
            PolarPoints(direction, radius).validate("goal")


def test_nan_is_not_swallowed():
    v = torch.tensor([[0.1, 0.2], [math.nan, 0.1], [0.0, 0.0]])
    for X in (PolarPoints.from_tangent(v), PolarPoints.from_ball(v), PolarPoints(torch.eye(3), v[:, 0])):
        for result in (
            dist0(X),
            dist(X, X[:1]),
            pairwise_dist(X, X[:1])[:, 0],
            X.to_ball().sum(-1),
            X.to_tangent().sum(-1),
            mobius_add(X, X[:1]).to_tangent().sum(-1),
            geodesic(X, X[:1], 0.5).to_tangent().sum(-1),
        ):
            assert result.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("function", [dist, pairwise_dist])
def test_distances_name_what_differs(function):
    X = sample(3)
    others = {
        "Y: expected the dim of X, 5, got 4": sample(3, dim=4),
        "Y: expected the dtype of X": X.to(torch.float64),
        "Y: expected the device of X": X.to("meta"),
        "Y: expected the curvature of X, 1.0, got 2.0": PolarPoints(X.direction, X.radius, 2.0),
        "Y: expected PolarPoints, got Tensor": X.to_tangent(),
    }
    for message, Y in others.items():
        with pytest.raises(ValueError, match=message):
            function(X, Y)
    with pytest.raises(ValueError, match="X: expected PolarPoints"):
        function(X.to_tangent(), X)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r"Y: expected a batch shape that broadcasts with \(3,\), got \(4,\)"):
        dist(sample(3), sample(4))
    with pytest.raises(ValueError, match="Y: expected a batch shape that broadcasts"):
        pairwise_dist(sample(2, 3), sample(3, 3))
    with pytest.raises(ValueError, match="X: expected a batch of points"):
        pairwise_dist(sample(1)[0])


def test_imports_without_geoopt():
    code = (
        "import sys; sys.modules['geoopt'] = None; import lapha.geometry as g; g.frechet_mean; g.PolarPoints\n"
        "try: g.PoincareBall\nexcept ImportError: print('needs geoopt')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "needs geoopt"
    assert lapha.PolarPoints is PolarPoints
    with pytest.raises(AttributeError):
        lapha.geometry.no_such_name  # noqa: B018


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_radius_of_half_precision_tangents_is_the_norm_of_their_numbers(dtype):
    """The tangent's coordinates are rounded once, on their way in; the radius must not be rounded to that dtype again."""
    generator = torch.Generator().manual_seed(0)
    tangent = (torch.randn(64, 1536, generator=generator) * 0.03).to(dtype)
    points = PolarPoints.from_tangent(tangent)
    exact = tangent.double().norm(dim=1)
    assert points.radius.dtype == torch.float32
    assert float(((points.radius.double() - exact) / exact).abs().max()) < 1e-6


def test_saved_points_load_as_weights_only(tmp_path):
    points = PolarPoints.from_tangent(torch.randn(3, 4), curvature=0.5)
    torch.save({"latents": points}, tmp_path / "points.pt")
    loaded = torch.load(tmp_path / "points.pt", weights_only=True)["latents"]
    assert torch.equal(loaded.direction, points.direction)
    assert torch.equal(loaded.radius, points.radius)
    assert loaded.curvature == 0.5
