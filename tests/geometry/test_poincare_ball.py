"""lapha.PoincareBall: geoopt's identities, exact distances near the boundary, and Riemannian optimisers."""

from __future__ import annotations

import copy
import math
import pickle

import geometry_oracle as oracle
import geoopt
import mpmath as mp
import pytest
import torch
from torch.autograd import gradcheck

import lapha
from lapha import PoincareBall
from lapha.geometry import PolarPoints, dist, frechet_mean


def ball(c: float = 1.0, dtype: torch.dtype = torch.float64, kind=PoincareBall, **kwargs):
    return kind(c=torch.tensor(c, dtype=dtype), **kwargs)


def sample(*shape: int, scale: float = 0.4, c: float = 1.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return PolarPoints.from_tangent(torch.randn(*shape, 4, dtype=torch.float64) * scale, c).to_ball().to(dtype)


def test_is_a_geoopt_manifold():
    manifold = lapha.PoincareBall(c=1.0)
    assert isinstance(manifold, geoopt.PoincareBall)
    assert not manifold.isp_c.requires_grad
    for twin in (copy.deepcopy(manifold), pickle.loads(pickle.dumps(manifold))):
        assert float(twin.c) == 1.0


def test_curvature():
    given = torch.tensor(0.25)
    manifold = PoincareBall(given, learnable=True)
    assert given == 0.25  # geoopt overwrites it
    assert manifold.isp_c.requires_grad
    for c in (1e-3, 0.25, 2.0, 50.0):
        assert math.isclose(float(PoincareBall(c).c), c, rel_tol=3e-7)
        assert math.isclose(float(ball(c).c), c, rel_tol=1e-14)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="curvature: expected a finite number > 0"):
            PoincareBall(bad)


@pytest.mark.parametrize("c", [1.0, 0.4, 2.5])
def test_agrees_with_geoopt_away_from_the_boundary(c):
    torch.manual_seed(0)
    ours, theirs = ball(c), ball(c, kind=geoopt.PoincareBall)
    x, y, v = sample(40, c=c), sample(40, c=c), torch.randn(40, 4, dtype=torch.float64) * 0.05
    t = torch.rand(40, 1, dtype=torch.float64)
    calls = {
        "dist": (x, y), "dist2": (x, y), "dist0": (x,), "expmap0": (v,), "logmap0": (x,), "expmap": (x, v),
        "logmap": (x, y), "mobius_add": (x, y), "mobius_sub": (x, y), "mobius_coadd": (x, y), "geodesic": (t, x, y),
        "geodesic_unit": (t, x, v), "transp": (x, y, v), "transp0": (y, v), "transp0back": (y, v), "lambda_x": (x,),
        "norm": (x, v), "egrad2rgrad": (x, v), "projx": (x,), "retr": (x, 0.01 * v),
        "mobius_scalar_mul": (t, x), "weighted_midpoint": (x,), "mobius_matvec": (torch.eye(4).double() * 0.5, x),
        "dist2plane": (x, y, v), "gyration": (x, y, v), "mobius_cosub": (x, y), "mobius_pointwise_mul": (v, x),
    }  # fmt: skip
    for name, arguments in calls.items():
        result, expected = getattr(ours, name)(*arguments), getattr(theirs, name)(*arguments)
        assert result.shape == expected.shape, name
        assert torch.allclose(result, expected, atol=1e-9, rtol=1e-8), name
    # geoopt's own result has one dimension too many without keepdim
    assert torch.allclose(ours.inner(x, v, y, keepdim=True), theirs.inner(x, v, y, keepdim=True), rtol=1e-8)
    assert torch.equal(ours.inner(x, v), ours.inner(x, v, v, keepdim=True).squeeze(-1))
    for mine, other in zip(ours.expmap_transp(x, v, y), theirs.expmap_transp(x, v, y), strict=True):
        assert torch.allclose(mine, other, atol=1e-9)
    assert torch.allclose(ours.pairwise_dist(x, y[:7]), theirs.dist(x[:, None], y[:7]), rtol=1e-8)
    assert torch.equal(ours.pairwise_dist(x).diagonal(), torch.zeros(40, dtype=torch.float64))
    assert torch.allclose(ours.mobius_fn_apply(torch.tanh, x), theirs.mobius_fn_apply(torch.tanh, x), atol=1e-9)


def test_dim_and_keepdim():
    manifold = ball()
    x, y = sample(5, 3), sample(5, 3)
    across = x.movedim(-1, 0), y.movedim(-1, 0)
    assert manifold.dist(x, y, keepdim=True).shape == (5, 3, 1)
    assert manifold.dist0(across[0], dim=0, keepdim=True).shape == (1, 5, 3)
    assert torch.allclose(manifold.dist(*across, dim=0), manifold.dist(x, y))
    assert torch.allclose(manifold.lambda_x(across[0], dim=0), manifold.lambda_x(x))
    s = torch.tensor(0.3, dtype=torch.float64)
    for name, arguments in {
        "logmap": across, "expmap": across, "mobius_add": across, "transp": (*across, across[0]), "geodesic": (s, *across),
        "logmap0": across[:1], "expmap0": across[:1], "projx": across[:1], "egrad2rgrad": across,
    }.items():  # fmt: skip
        last = [argument.movedim(0, -1) if argument.dim() else argument for argument in arguments]
        method = getattr(manifold, name)
        assert torch.allclose(method(*arguments, dim=0), method(*last).movedim(-1, 0)), name


@pytest.mark.parametrize(("dtype", "outermost"), [(torch.float32, 1e-6), (torch.float64, 2e-15)])
def test_distances_near_the_boundary_are_exact(dtype, outermost):
    torch.manual_seed(0)
    manifold = ball(dtype=dtype)
    for gap_x in (0.5, 1e-3, outermost):
        for angle in (0.0, 1e-5, 0.3, math.pi):
            u, t = oracle.pair_at_angle(6, angle, 1, dtype)
            x, y = manifold.projx(u * (1 - gap_x)), manifold.projx(t * (1 - outermost))
            with mp.workdps(60):
                first, second = oracle.vector(x), oracle.vector(y)
                difference = oracle.mobius_add(oracle.negative(first), second, mp.mpf(1))
                exact = 2 * mp.atanh(oracle.norm(difference))
                origin = 2 * mp.atanh(oracle.norm(second))
            # float64 has no wider dtype to take 1 − ‖y‖ in: it is known to a rounding of 1
            limit = 3e-7 if dtype == torch.float32 else 1e-13 + 3e-16 / outermost
            assert abs(float(manifold.dist(x, y)) - float(exact)) <= limit * float(exact)
            assert abs(float(manifold.dist0(y)) - float(origin)) <= limit * float(origin)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_projection_stays_inside_and_leaves_the_inside_alone(dtype):
    manifold = ball(0.7, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    x = (torch.randn(200, 33) * torch.logspace(-2, 3, 200)[:, None]).to(dtype)
    projected = manifold.projx(x)
    assert projected.dtype == dtype
    assert bool((projected.double().norm(dim=-1) * 0.7**0.5 < 1).all())
    assert bool(manifold.dist0(projected).isfinite().all())
    inside = x.double().norm(dim=-1) * 0.7**0.5 < 0.98
    assert torch.equal(projected[inside], x[inside])
    assert bool(inside.any())
    assert not bool(inside.all())
    assert torch.allclose(manifold.projx(projected), projected, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_checks_points():
    manifold = ball(dtype=torch.float32)
    assert manifold.check_point_on_manifold(torch.tensor([0.99999, 0.0]))  # geoopt's float32 margin is 4e-3
    ok, reason = manifold.check_point_on_manifold(torch.tensor([1.1, 0.0]), explain=True)
    assert not ok
    assert "outside the ball of radius 1" in reason


def test_gradcheck():
    torch.manual_seed(0)
    manifold = ball(0.6)
    x, y, v = sample(4), sample(4), torch.randn(4, 4, dtype=torch.float64)
    x[0], y[1], x[2], x[3] = 0, 0, -y[2], y[3]
    inputs = [tensor.requires_grad_() for tensor in (x, y, v)]
    for function in (
        lambda x, y, v: manifold.dist(x, y)[:3],
        lambda x, y, v: manifold.pairwise_dist(x[:3], y[1:2]),
        lambda x, y, v: manifold.dist0(y)[[0, 2, 3]],
        lambda x, y, v: manifold.logmap(x, y),
        lambda x, y, v: manifold.logmap0(x),
        lambda x, y, v: manifold.expmap0(0.2 * v),
        lambda x, y, v: manifold.expmap(x, 0.2 * v),
        lambda x, y, v: manifold.mobius_add(x, y),
        lambda x, y, v: manifold.geodesic(torch.tensor(0.3), x, y),
        lambda x, y, v: manifold.transp(x, y, v),
    ):
        assert gradcheck(function, inputs)


def test_gradient_at_coincident_points_is_zero():
    manifold = ball(dtype=torch.float32)
    x = sample(3, dtype=torch.float32)
    x[0] = 0
    x.requires_grad_()
    (manifold.dist(x, x.detach().clone()).sum() + manifold.dist0(x)[0]).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_distances_are_differentiable_in_the_curvature():
    x, y = sample(5), sample(5)
    manifold = ball(0.7, learnable=True)
    manifold.dist(x, y).sum().backward()

    def total(shift):
        other = ball(0.7)
        with torch.no_grad():
            other.isp_c += shift
        return float(other.dist(x, y).sum())

    assert math.isclose(float(manifold.isp_c.grad), (total(1e-5) - total(-1e-5)) / 2e-5, rel_tol=1e-7)


def test_scaled():
    base = PoincareBall(1.0)
    scaled = geoopt.Scaled(base, 2.0)
    x, y = sample(5, dtype=torch.float32), sample(5, dtype=torch.float32)
    for name, arguments in {"dist": (x, y), "dist0": (x,), "pairwise_dist": (x, y), "logmap0": (x,)}.items():
        assert torch.allclose(getattr(scaled, name)(*arguments), 2 * getattr(base, name)(*arguments))
    assert torch.allclose(scaled.expmap0(2 * x), base.expmap0(x))


@pytest.mark.parametrize("optimizer", [geoopt.optim.RiemannianSGD, geoopt.optim.RiemannianAdam])
def test_optimisers_find_the_frechet_mean(optimizer):
    torch.manual_seed(0)
    manifold = ball()
    points = PolarPoints.from_tangent(torch.randn(9, 4, dtype=torch.float64))
    mean = geoopt.ManifoldParameter(torch.zeros(4, dtype=torch.float64), manifold=manifold)
    descent = optimizer([mean], lr=0.05, **({"stabilize": 5} if optimizer is geoopt.optim.RiemannianAdam else {}))
    for _ in range(150):
        descent.zero_grad()
        manifold.dist2(mean, points.to_ball()).mean().backward()
        descent.step()
    assert float(dist(PolarPoints.from_ball(mean.detach()), frechet_mean(points))) < 1e-2


def test_float32_optimisation_reaches_points_that_saturate_geoopt():
    torch.manual_seed(0)
    u = torch.nn.functional.normalize(torch.randn(10, 8), dim=-1)
    target = PolarPoints(u, torch.linspace(0.5, 5.0, 10)).to_ball()

    def reached(kind):
        manifold = kind(c=1.0)
        point = geoopt.ManifoldParameter(torch.zeros(10, 8), manifold=manifold)
        descent = geoopt.optim.RiemannianAdam([point], lr=0.1, stabilize=10)
        for _ in range(150):
            descent.zero_grad()
            manifold.dist(point, target).sum().backward()
            descent.step()
        return dist(PolarPoints.from_ball(point.detach()), PolarPoints.from_ball(target))

    assert float(reached(PoincareBall).max()) < 0.5
    assert float(reached(geoopt.PoincareBall).max()) > 2.0  # the reason this class exists
