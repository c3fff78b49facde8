"""Gradients of distances: against mpmath, by gradcheck, and finite where they are easy to get wrong."""

from __future__ import annotations

import geometry_oracle as oracle
import mpmath as mp
import pytest
import torch
from torch.autograd import gradcheck

from lapha.geometry import PolarPoints, dist, dist0, pairwise_dist

V = [0.7, -0.4, 0.2]
PAIRS = {
    "generic": (V, [-0.3, 0.5, 1.1]),
    "x at the origin": ([0.0, 0.0, 0.0], [-0.3, 0.5, 1.1]),
    "y at the origin": (V, [0.0, 0.0, 0.0]),
    "x near the origin": ([1e-9, -2e-9, 0.0], [-0.3, 0.5, 1.1]),
    "same direction": (V, [2.1, -1.2, 0.6]),
    "antipodal": (V, [-0.7, 0.4, -0.2]),
    "nearly antipodal": (V, [-1.4, 0.8001, -0.4]),
    "near duplicates": (V, [0.7, -0.4, 0.2 + 1e-6]),
    "far": ([30.0, -40.0, 1.0], [-10.0, 20.0, 45.0]),
    "far and near the origin": ([30.0, -40.0, 1.0], [1e-3, 2e-3, -1e-3]),
    "far and close": ([30.0, -40.0, 1.0], [30.0, -40.0, 1.001]),
    "far and antipodal": ([30.0, -40.0, 0.0], [-30.0, 40.0, 0.0]),
}


def exact_gradients(v, w, c):
    def distance(first, second):
        length_v, length_w = oracle.norm(first), oracle.norm(second)
        if length_v == 0 or length_w == 0:
            return 2 * max(length_v, length_w)
        return oracle.distance(first, length_v, second, length_w, mp.mpf(c))

    first, second = [mp.mpf(x) for x in v], [mp.mpf(x) for x in w]
    return (
        torch.tensor(oracle.numeric_gradient(lambda p: distance(p, second), first), dtype=torch.float64),
        torch.tensor(oracle.numeric_gradient(lambda p: distance(first, p), second), dtype=torch.float64),
    )


def gradients(v, w, c, dtype, pairwise=False):
    a = torch.tensor(v, dtype=dtype, requires_grad=True)
    b = torch.tensor(w, dtype=dtype, requires_grad=True)
    X, Y = PolarPoints.from_tangent(a, c), PolarPoints.from_tangent(b, c)
    (pairwise_dist(X.reshape(1), Y.reshape(1)).sum() if pairwise else dist(X, Y)).backward()
    return a, b


@pytest.mark.parametrize("pairwise", [False, True], ids=["elementwise", "pairwise"])
@pytest.mark.parametrize("name", PAIRS)
def test_float64_gradient_is_exact(name, pairwise):
    for c in (1.0, 0.6):
        a, b = gradients(*PAIRS[name], c, torch.float64, pairwise)
        for tensor, exact in zip((a, b), exact_gradients(a.tolist(), b.tolist(), c), strict=True):
            # pairwise takes near-duplicate differences from a product: 1e-16 over the chord
            assert torch.allclose(tensor.grad, exact, rtol=1e-8, atol=1e-8 * float(exact.abs().max()))


@pytest.mark.parametrize("pairwise", [False, True], ids=["elementwise", "pairwise"])
@pytest.mark.parametrize("name", [name for name in PAIRS if name not in ("near duplicates", "far and close")])
def test_float32_gradient(name, pairwise):
    a, b = gradients(*PAIRS[name], 1.0, torch.float32, pairwise)
    for tensor, exact in zip((a, b), exact_gradients(a.tolist(), b.tolist(), 1.0), strict=True):
        assert torch.allclose(tensor.grad.double(), exact, atol=3e-5 * float(exact.abs().max()), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("v", [[0.0, 0.0], [1e-20, 0.0], [0.3, 0.1], [40.0, 30.0]])
def test_gradient_at_coincident_points_is_zero(v, dtype):
    for pairwise in (False, True):
        a, b = gradients(v, v, 1.0, dtype, pairwise)
        assert torch.equal(a.grad, torch.zeros_like(a))
        assert torch.equal(b.grad, torch.zeros_like(b))
    a = torch.tensor([v, [5.0, -2.0]], dtype=dtype, requires_grad=True)
    pairwise_dist(PolarPoints.from_tangent(a))[0, 0].backward()
    assert torch.equal(a.grad, torch.zeros_like(a))


def test_dist0_gradient():
    v = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1e-30]], requires_grad=True)
    dist0(PolarPoints.from_tangent(v)).sum().backward()
    assert torch.allclose(v.grad, torch.tensor([[1.2, 1.6], [0.0, 0.0], [0.0, 2.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_finite_over_the_whole_range(dtype):
    torch.manual_seed(0)
    radii = torch.tensor([0.0, 1e-30, 1e-10, 1e-3, 0.3, 3.0, 20.0, 44.5, 50.0, 90.0, 500.0])
    u = torch.nn.functional.normalize(torch.randn(6, 5), dim=-1)
    close = torch.nn.functional.normalize(u[:1] + 1e-6 * torch.randn(2, 5), dim=-1)
    directions = torch.cat([u, u[:2], -u[:2], close]).to(dtype)
    direction = directions.repeat_interleave(len(radii), 0).requires_grad_()
    radius = radii.repeat(len(directions)).requires_grad_()
    X = PolarPoints(direction, radius)
    for distances in (pairwise_dist(X), dist(X.unsqueeze(0), X.unsqueeze(1))):
        grads = torch.autograd.grad(distances.sum(), (direction, radius))
        assert all(bool(grad.isfinite().all()) for grad in grads)
        assert [grad.dtype for grad in grads] == [dtype, torch.float32]
    # one distance changes by at most 2 for each unit of radius
    one = torch.autograd.grad(dist(X[3:4], X).sum(), radius)[0]
    assert float(torch.cat([one[:3], one[4:]]).abs().max()) <= 2 * (1 + 1e-4)


@pytest.mark.parametrize("c", [1.0, 3.1])
def test_gradcheck(c):
    torch.manual_seed(1)
    v, w = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    v[0, 0], w[1], v[1, 2], w[3] = 0, 0, -w[2], 12 * w[3]
    v.requires_grad_(), w.requires_grad_()

    def points(tensor):
        return PolarPoints.from_tangent(tensor, c)

    assert gradcheck(lambda v, w: dist(points(v), points(w)), (v, w))
    assert gradcheck(lambda v, w: pairwise_dist(points(v), points(w)), (v, w))
    off_diagonal = ~torch.eye(4, dtype=torch.bool)
    assert gradcheck(lambda w: pairwise_dist(points(w))[off_diagonal], (w,))


def test_gradcheck_in_direction_and_radius():
    # directions off the unit sphere: the length is divided out, and the gradient knows
    torch.manual_seed(2)
    u, t = torch.nn.functional.normalize(torch.randn(2, 5, 4, dtype=torch.float64), dim=-1)
    a, b = torch.rand(2, 5, dtype=torch.float64) * 3
    inputs = tuple(tensor.requires_grad_() for tensor in (u, a, t, b))
    assert gradcheck(lambda u, a, t, b: dist(PolarPoints(u, a), PolarPoints(t, b)), inputs)
    assert gradcheck(lambda u, a, t, b: pairwise_dist(PolarPoints(u, a), PolarPoints(t, b)), inputs)


def test_second_derivatives_raise():
    v = torch.randn(3, requires_grad=True)
    X, Y = PolarPoints.from_tangent(v), PolarPoints.from_tangent(torch.randn(3))
    for value in (dist(X, Y), pairwise_dist(X.reshape(1), Y.reshape(1)).sum()):
        (gradient,) = torch.autograd.grad(value, v, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiable once"):
            (value + gradient.square().sum()).backward()


def test_vmap_of_grad():
    v, w = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    v[0] = 0

    def distance(v, w):
        return dist(PolarPoints.from_tangent(v), PolarPoints.from_tangent(w))

    each = torch.func.vmap(torch.func.grad(distance))(v, w)
    v.requires_grad_()
    distance(v, w).sum().backward()
    assert torch.allclose(each, v.grad)


def test_compiles_without_graph_break():
    def loss(v, w):
        X, Y = PolarPoints.from_tangent(v), PolarPoints.from_tangent(w)
        return (dist(X, Y[:1]) + dist0(X)).sum()

    v, w = torch.randn(6, 8, requires_grad=True), torch.randn(3, 8)
    (expected,) = torch.autograd.grad(loss(v, w), v)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (gradient,) = torch.autograd.grad(compiled(v, w), v)
    assert torch.allclose(gradient, expected)
    X = PolarPoints.from_tangent(w, 2.0)
    passed_in = torch.compile(lambda X: (dist0(X[1:]), -X), fullgraph=True, backend="eager")(X)
    assert torch.equal(passed_in[0], dist0(X[1:]))
    assert passed_in[1].curvature == 2.0


def test_pairwise_under_compile():
    X = PolarPoints.from_tangent(torch.randn(6, 8))
    assert torch.equal(torch.compile(pairwise_dist, backend="eager")(X), pairwise_dist(X))
