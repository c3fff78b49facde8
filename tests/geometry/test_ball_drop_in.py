"""`PoincareBall` in geoopt's place: shapes over broadcasts, near the boundary, derivatives of second order, transforms."""

from __future__ import annotations

import itertools
import math

import geometry_oracle as oracle
import geoopt
import mpmath as mp
import pytest
import torch

from lapha import PoincareBall
from lapha.geometry import _blocks


def inside(*shape: int, reach: float = 0.4, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    v = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (reach * v / (1 + v.norm(dim=-1, keepdim=True))).to(dtype)


TWO_POINTS = ("dist", "dist2", "mobius_add", "mobius_sub", "logmap", "expmap", "mobius_coadd", "mobius_cosub", "transp0",
              "transp0back")  # fmt: skip
ONE_POINT = ("dist0", "expmap0", "logmap0", "projx", "lambda_x", "inv_sproj")
THREE = ("transp", "gyration")


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((7, 3), (3,)), ((3,), (7, 3)), ((5, 1, 3), (7, 3)), ((1, 3), (7, 3)),
                                    ((4, 5, 3), (4, 1, 3)), ((0, 3), (3,)), ((2, 0, 3), (1, 3))])  # fmt: skip
def test_shapes_and_values_are_geoopts_over_broadcasts(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    ours, theirs = PoincareBall(0.7).double(), geoopt.PoincareBall(0.7).double()
    x, y = inside(*shapes[0], seed=1), inside(*shapes[1], seed=2)
    z = inside(3, seed=3)
    calls = [(name, (x, y), {}) for name in TWO_POINTS] + [(name, (x,), {}) for name in ONE_POINT]
    calls += [(name, (x, y, z), {}) for name in THREE] + [("dist2plane", (x, y, z), {})]
    calls += [("dist2plane", (x, y, z), {"signed": True, "scaled": True, "keepdim": True})]
    calls += [("dist", (x, y), {"keepdim": True}), ("inner", (x, y, z), {"keepdim": True}), ("norm", (x, y), {})]
    calls += [("mobius_matvec", (torch.eye(3).double()[:2], x), {}), ("weighted_midpoint", (x,), {})]
    for t in (torch.tensor(0.3), torch.rand(1), torch.rand(7, 1), torch.rand(5, 7, 1), torch.rand(13, 1, 1, 1)):
        try:
            torch.broadcast_shapes(t.shape, x.shape, y.shape)
        except RuntimeError:
            continue
        t = t.double()
        calls += [("geodesic", (t, x, y), {}), ("geodesic_unit", (t, x, y), {}), ("mobius_scalar_mul", (t, x), {})]
    for name, arguments, options in calls:
        if name == "weighted_midpoint" and x.numel() == 0:
            continue
        got, want = getattr(ours, name)(*arguments, **options), getattr(theirs, name)(*arguments, **options)
        assert got.shape == want.shape, (name, options)
        assert torch.allclose(got, want, atol=1e-8, rtol=1e-7), (name, options)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = PoincareBall(0.7)
    x, y, one = inside(50, 4, 3, dtype=torch.float32), inside(50, 1, 3, seed=2, dtype=torch.float32), inside(3).float()
    t = torch.rand(50, 4, 1)
    calls = {
        "dist": (x, y), "dist0": (x,), "expmap": (one, x), "logmap": (x, one), "mobius_add": (x, y),
        "geodesic": (t, x, one), "geodesic_unit": (t, x, y), "transp": (x, y, one), "projx": (3 * x,),
        "mobius_scalar_mul": (t, x), "lambda_x": (x,), "dist2plane": (x, one, y),
    }  # fmt: skip
    want = {name: getattr(ball, name)(*arguments) for name, arguments in calls.items()}
    monkeypatch.setattr(_blocks, "_BLOCK", 70)
    for name, arguments in calls.items():
        got = getattr(ball, name)(*arguments)
        assert got.shape == want[name].shape
        assert torch.allclose(got, want[name], rtol=1e-6, atol=1e-7), name


def test_one_positive_curvature_is_all_that_a_ball_has() -> None:
    for bad in (torch.ones(100, 1), torch.tensor([1.0, 2.0])):
        with pytest.raises(ValueError, match=r"c: expected one number .*, got shape"):
            PoincareBall(bad)
    for bad in (0.0, -1.0, torch.tensor(0.0), torch.tensor(-2.0), torch.tensor(math.nan)):
        with pytest.raises(ValueError, match="curvature: expected a finite number > 0"):
            PoincareBall(bad)
    assert float(PoincareBall(torch.tensor([[0.5]])).c) == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_geodesics_end_at_their_points(dtype: torch.dtype) -> None:
    ball = PoincareBall(1.0).to(dtype)
    directions = torch.nn.functional.normalize(inside(2, 6, 4), dim=-1)
    x, y = ball.projx(directions.to(dtype))
    assert torch.equal(ball.geodesic(torch.tensor(0.0), x, y), x)
    assert torch.equal(ball.geodesic(torch.tensor(1.0), x, y), y)


def exact_scaled(x: torch.Tensor, factor: float) -> list:
    v = oracle.tangent(oracle.vector(x), mp.mpf(1))
    return oracle.ball(oracle.scale(mp.mpf(factor), v), mp.mpf(1))


@pytest.mark.parametrize("distance", [2.0, 8.0, 13.0])
def test_far_out_float32_is_as_exact_as_its_coordinates(distance: float) -> None:
    """What geoopt computes in float32 there is off by up to 0.3: against mpmath, by the distance between the results."""
    ball = PoincareBall(1.0)
    u, t = (torch.nn.functional.normalize(inside(5, seed=seed), dim=-1) for seed in (1, 2))
    x, y = ((math.tanh(distance / 2) * d).float() for d in (u, t))
    with mp.workdps(60):
        first, second = oracle.vector(x), oracle.vector(y)
        gap = 1 - oracle.dot(first, first)
        unit = oracle.scale(mp.tanh(mp.mpf("0.5")) / oracle.norm(second), second)
        middle = weighted_middle(first, second)
        cases = {
            "geodesic_unit": (ball.geodesic_unit(torch.tensor(1.0), x, y), oracle.mobius_add(first, unit, mp.mpf(1))),
            "mobius_scalar_mul": (ball.mobius_scalar_mul(torch.tensor(0.9), x), exact_scaled(x, 0.9)),
            "mobius_matvec": (ball.mobius_matvec(0.8 * torch.eye(5), x), exact_scaled(x, float(torch.tensor(0.8)))),
            "weighted_midpoint": (ball.weighted_midpoint(torch.stack([x, y])), middle),
            "transp0": (ball.transp0(x, y), oracle.scale(gap, second)),
            "transp0back": (ball.transp0back(x, y), oracle.scale(1 / gap, second)),
        }
        for name, (got, want) in cases.items():
            difference = oracle.combine(1, oracle.vector(got), -1, want)
            assert float(oracle.norm(difference) / oracle.norm(want)) < 2e-7, name
        sphere = ball.inv_sproj(x)
        assert abs(float(sphere[-1]) / float(2 / gap - 1) - 1) < 2e-7
        plane = float(ball.dist2plane(x, 0 * x, y))
        exact = mp.asinh(2 * abs(oracle.dot(first, second)) / (gap * oracle.norm(second)))
        assert abs(plane / float(exact) - 1) < 2e-6


def weighted_middle(x: list, y: list) -> list:
    """Half of the way from the origin to the gyromidpoint's double: by the hyperboloid's centroid."""
    parts = [(2 / (1 - oracle.dot(z, z)), z) for z in (x, y)]
    spatial = oracle.combine(parts[0][0], x, parts[1][0], y)
    time = parts[0][0] - 1 + parts[1][0] - 1
    norm = mp.sqrt(time * time - oracle.dot(spatial, spatial))
    return oracle.scale(1 / (norm + time), spatial)


def functions(ball: PoincareBall) -> dict:
    t = torch.tensor(0.3, dtype=torch.float64)
    return {
        "dist": ball.dist, "dist2": ball.dist2, "mobius_add": ball.mobius_add, "expmap": lambda x, y: ball.expmap(x, 0.3 * y),
        "logmap": ball.logmap, "geodesic": lambda x, y: ball.geodesic(t, x, y), "transp": lambda x, y: ball.transp(x, y, x + y),
        "dist0": lambda x, y: ball.dist0(x), "expmap0": lambda x, y: ball.expmap0(y), "logmap0": lambda x, y: ball.logmap0(x),
        "matvec": lambda x, y: ball.mobius_matvec(torch.ones(3, 3).double() / 5, x), "inner": lambda x, y: ball.inner(x, y, y),
    }  # fmt: skip


@pytest.mark.parametrize("name", functions(PoincareBall()))
def test_second_derivatives_and_transforms(name: str) -> None:
    function = functions(PoincareBall(0.7).double())[name]
    x, y = (inside(4, 3, seed=seed).requires_grad_() for seed in (1, 2))
    with torch.no_grad():
        x[0] = 0
    regular = slice(1, None) if name in ("dist", "dist0") else slice(None)  # a distance has no gradient at 0
    assert torch.autograd.gradcheck(lambda x, y: function(x, y)[regular], (x, y))
    assert torch.autograd.gradgradcheck(lambda x, y: function(x, y)[regular], (x, y))
    x, y = x.detach(), y.detach()
    assert torch.allclose(torch.func.vmap(function)(x, y), function(x, y), rtol=1e-12, atol=1e-14)
    total = lambda x: function(x, y[1:]).sum()  # noqa: E731
    by_reverse = torch.func.jacrev(torch.func.jacrev(total))(x[1:])
    assert torch.allclose(torch.func.hessian(total)(x[1:]), by_reverse, rtol=1e-9, atol=1e-10)


def test_compiles_without_a_graph_break() -> None:
    ball = PoincareBall(0.7)
    x, y = inside(6, 3, dtype=torch.float32), inside(6, 3, seed=2, dtype=torch.float32)

    def everything(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        moved = ball.transp(x, ball.mobius_add(x, y), ball.logmap(x, y))
        return ball.dist(ball.expmap(x, moved), ball.geodesic(torch.tensor(0.2), x, y))

    got = torch.compile(everything, fullgraph=True, backend="aot_eager")(x, y)
    assert torch.allclose(got, everything(x, y), rtol=1e-6)


def test_a_gradient_penalty_trains_the_curvature() -> None:
    ball = PoincareBall(0.7, learnable=True).double()
    x, y = inside(4, 3, seed=1).requires_grad_(), inside(4, 3, seed=2)
    (slope,) = torch.autograd.grad(ball.dist(x, y).sum(), x, create_graph=True)
    slope.square().sum().backward()

    def penalty(shift: float) -> float:
        other = PoincareBall(0.7).double()
        with torch.no_grad():
            other.isp_c += shift
        (slope,) = torch.autograd.grad(other.dist(x, y).sum(), x)
        return float(slope.square().sum())

    # the parameter is stored in float32: so is what 0.7 becomes
    assert float(ball.isp_c.grad) == pytest.approx((penalty(1e-4) - penalty(-1e-4)) / 2e-4, rel=1e-6)


def test_every_pair_of_dims() -> None:
    ball = PoincareBall(0.7).double()
    x, y = inside(5, 4, 3, seed=1), inside(5, 4, 3, seed=2)
    for name, dim in itertools.product(("dist", "mobius_add", "logmap", "expmap"), (0, 1, -2)):
        got = getattr(ball, name)(x.movedim(-1, dim), y.movedim(-1, dim), dim=dim)
        want = getattr(ball, name)(x, y)
        assert torch.allclose(got, want if name == "dist" else want.movedim(-1, dim))
