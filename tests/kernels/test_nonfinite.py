"""NaN, Inf and negative radii: parity of all operators, on both sides of every tile's edge; see `nonfinite_cases`."""

from __future__ import annotations

import math

import pytest
import torch
from nonfinite_cases import FAULTS, check_backward, check_forward, points, spoiled

from lapha import geometry
from lapha.geometry import PolarPoints, dist, dist0, frechet_mean, weighted_midpoint
from lapha.kernels import knn, nearest, pairwise_dist, pool_latents

# what blocks, tiles and groups of columns are made of
EDGES = (1, 2, 63, 64, 65, 255, 256, 257)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dim", [2, 5, 40])
def test_every_fault_in_rows_columns_and_both(fault: str, dim: int) -> None:
    X, Y = points(30, dim, 1), points(26, dim, 2)
    for bad_x, bad_y in (([4], []), ([], [0, 25]), ([0, 3, 29], [7])):
        check_forward(spoiled(X, fault, bad_x), spoiled(Y, fault, bad_y), bad_x, bad_y)


@pytest.mark.parametrize("n", EDGES)
def test_sizes_on_both_sides_of_every_edge(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for side, rows in ((n - 1, n), (64, 64)):
        X, Y = points(n, 12, 1), points(65, 12, 2)
        bad_x, bad_y = [side] if side < n else [], [rows % 65]
        check_forward(spoiled(X, "NaN radius", bad_x), spoiled(Y, "NaN in a direction", bad_y), bad_x, bad_y)
        check_forward(spoiled(Y, "NaN radius", bad_y), spoiled(X, "Inf in a direction", bad_x), bad_y, bad_x)


def test_a_large_set_with_one_fault() -> None:
    """Of 2,000 latents of equal radius, whose order only the directions decide."""
    generator = torch.Generator().manual_seed(0)
    X, Y = (PolarPoints.from_tangent(torch.nn.functional.normalize(torch.randn(n, 64, generator=generator), dim=1))
            for n in (200, 2000))  # fmt: skip
    check_forward(X, spoiled(Y, "NaN in a direction", [1700]), [], [1700])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    X, Y = points(20, 24, 1, dtype), points(18, 24, 2, dtype)
    check_forward(spoiled(X, "NaN in a direction", [5]), spoiled(Y, "Inf radius", [6]), [5], [6])


def test_nothing_but_faults() -> None:
    X, bad = points(5, 8, 1), spoiled(points(3, 8, 2), "NaN radius", [0, 1, 2])
    for x, y in ((X, bad), (bad, X), (bad, bad)):
        distance, index = nearest(x, y)
        assert distance.isnan().all()
        assert (index == -1).all()
        assert knn(x, y, 2)[0].isnan().all()
        assert pairwise_dist(x, y).isnan().all()


@pytest.mark.parametrize("fault", FAULTS)
def test_gradients_of_the_others_are_theirs(fault: str) -> None:
    X, Y = (spoiled(points(9, 6, seed, twins=False), fault, [row]) for seed, row in ((1, 2), (2, 5)))
    functions = {
        "pairwise_dist": pairwise_dist,
        "nearest": lambda x, y: nearest(x, y)[0].nan_to_num(0.0),
        "knn": lambda x, y: knn(x, y, 3)[0].nan_to_num(0.0),
        "geometry.pairwise_dist": geometry.pairwise_dist,
        "geometry.dist": lambda x, y: dist(x[:, None], y[None]),
    }
    for function in functions.values():
        check_backward(function, X, Y, [2], [5])


def test_a_fault_that_nothing_comes_back_to_has_no_gradient() -> None:
    X = spoiled(points(6, 5, 1), "NaN in a direction", [2])
    direction = X.direction.clone().requires_grad_()
    distance = pairwise_dist(PolarPoints(direction, X.radius))
    distance[torch.isfinite(distance)].sum().backward()
    assert direction.grad.isfinite().all()
    direction.grad = None
    pairwise_dist(PolarPoints(direction, X.radius)).sum().backward()
    assert direction.grad[2].isnan().all()


@pytest.mark.parametrize("fault", FAULTS)
def test_geometry_keeps_faults_to_their_own_pairs(fault: str) -> None:
    X, Y = points(6, 4, 1), points(5, 4, 2)
    bad_x, bad_y = spoiled(X, fault, [2]), spoiled(Y, fault, [0])
    for got in (geometry.pairwise_dist(bad_x, bad_y), dist(bad_x[:, None], bad_y[None])):
        want = geometry.pairwise_dist(X, Y)
        want[2], want[:, 0] = math.nan, math.nan
        torch.testing.assert_close(got, want, equal_nan=True, rtol=2e-6, atol=1e-7)
    far = dist0(spoiled(X, fault, [2]))
    assert torch.equal(far[[0, 1, 3, 4, 5]], dist0(X)[[0, 1, 3, 4, 5]])


@pytest.mark.parametrize("fault", FAULTS)
def test_means_of_other_batch_elements(fault: str) -> None:
    X = points(12, 4, 3).reshape(3, 4)
    flat = spoiled(X.reshape(12), fault, [5]).reshape(3, 4)
    for mean in (weighted_midpoint, frechet_mean):
        got, want = mean(flat), mean(X)
        torch.testing.assert_close(got.radius[[0, 2]], want.radius[[0, 2]], rtol=1e-6, atol=0)
        assert got.radius[1].isnan() or got.direction[1].isnan().any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_pooling_keeps_faults_to_their_own_sequence(value: float) -> None:
    hidden = torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[3, 5:] = False
    root = torch.zeros(16)
    want = pool_latents(hidden, mask, root=root)
    hidden[1, 4, 3] = value
    hidden[3, 6] = value  # does not count
    hidden.requires_grad_()
    got = pool_latents(hidden, mask, root=root)
    packed = pool_latents(hidden.flatten(0, 1), cu_seqlens=torch.tensor([0, 9, 18, 27, 32]), root=root)
    for pooled in (got, packed):
        torch.testing.assert_close(pooled.points.radius[[0, 2, 3]], want.points.radius[[0, 2, 3]])
        assert pooled.points.radius[1].isnan()
        assert pooled.points.direction[1].isnan().any()
        hidden.grad = None
        (pooled.points.radius.sum() + pooled.points.direction.sum()).backward(retain_graph=True)
        assert hidden.grad[[0, 2, 3]].isfinite().all()


def test_offsets_past_the_tokens_raise_here_and_are_cut_off_elsewhere() -> None:
    hidden = torch.randn(10, 8)
    with pytest.raises(ValueError, match=r"cu_seqlens: expected numbers that do not decrease, in \[0, 10\]"):
        pool_latents(hidden, cu_seqlens=torch.tensor([0, 4, 20]))
    with pytest.raises(ValueError, match="cu_seqlens"):
        pool_latents(hidden, cu_seqlens=torch.tensor([0, 6, 3, 10]))
    # what a GPU runs, where looking would wait for the device
    total, count, *_ = torch.ops.lapha.pool_latents(
        hidden, None, torch.tensor([-3, 4, 2, 20]), None, None, None, "torch"
    )
    assert count.tolist() == [4, 0, 6]
    assert torch.allclose(total[0], hidden[:4].sum(0))
    assert torch.allclose(total[2], hidden[4:].sum(0))
