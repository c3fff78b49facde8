"""The Triton kernels in Triton's interpreter. Run by `test_triton_interpreter`, in a process of its own."""

from __future__ import annotations

import pytest
import torch
from kernels_oracle import exact_distances, family, largest_error
from nonfinite_cases import check_forward, points, spoiled, spoiled_in_all_ways

from lapha.geometry import PolarPoints
from lapha.kernels import knn, last_choice, nearest, pairwise_dist, pool_latents

TOLERANCE = {"ieee": 2e-6, "tf32x3": 2e-6, "bf16": 5e-3}


def mixed(count: int, dim: int, radius: float, seed: int, dtype: torch.dtype = torch.float32) -> PolarPoints:
    """A family with duplicates, near-duplicates and the origin in it."""
    points = family(count - 7, dim, 0.6, radius, seed, dtype=dtype)
    near = points.direction[:3].float() + 1e-5 * torch.randn(3, dim, generator=torch.Generator().manual_seed(seed))
    close = PolarPoints(torch.nn.functional.normalize(near, dim=1).to(dtype), points.radius[:3])
    return PolarPoints.cat([points, points[:3], close, PolarPoints.origin((1,), dim, dtype=dtype)])


@pytest.mark.parametrize(
    ("precision", "dim", "radius", "curvature"),
    [("ieee", 70, 1.0, 1.0), ("tf32x3", 3, 1e-3, 2.0), ("tf32x3", 130, 4.0, 0.5), ("bf16", 130, 1.0, 1.0)],
)
def test_pairwise(precision: str, dim: int, radius: float, curvature: float) -> None:
    X, Y = mixed(37, dim, radius, 1), mixed(33, dim, radius, 1)
    X, Y = (PolarPoints(p.direction, p.radius, curvature) for p in (X, Y))
    got = pairwise_dist(X, Y, backend="triton", precision=precision)
    exact = exact_distances(X, Y)
    near = exact < 1e-4
    assert last_choice().backend == "triton"
    assert largest_error(got[~near], exact[~near]) < TOLERANCE[precision]
    assert largest_error(got[near], exact[near]) < 1e-5
    # pairs that the product cannot tell are refined in every precision
    assert (pairwise_dist(X, backend="triton", precision=precision).diagonal() == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pairwise_beyond_the_radius_limit(dtype: torch.dtype) -> None:
    X = PolarPoints.cat([mixed(20, 16, radius, 2, dtype) for radius in (0.5, 50.0)])
    got = pairwise_dist(X, backend="triton", precision="tf32x3")
    assert largest_error(got, exact_distances(X, X)) < 5e-6


@pytest.mark.parametrize(("precision", "radius"), [("ieee", 50.0), ("tf32x3", 1.0), ("tf32x3", 1e-3), ("bf16", 1.0)])
def test_nearest(precision: str, radius: float) -> None:
    X, Y = mixed(35, 96, radius, 1), mixed(70, 96, radius, 2)
    Y = PolarPoints.cat([Y, X[:5]])
    distance, index = nearest(X, Y, backend="triton", precision=precision)
    exact = exact_distances(X, Y)
    least = exact.min(dim=1).values
    assert largest_error(distance, least) < TOLERANCE[precision]
    assert largest_error(exact.gather(1, index[:, None])[:, 0], least) < TOLERANCE[precision]
    assert (distance[:5] == 0).all()


def test_nearest_among_near_duplicates() -> None:
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(64, generator=generator)
    X, Y = (PolarPoints.from_tangent((centre + 1e-4 * torch.randn(n, 64, generator=generator)) / 8) for n in (33, 40))
    far = family(30, 64, 0.0, 1.0, seed=4)
    Y = PolarPoints.cat([far, Y])
    distance, index = nearest(X, Y, backend="triton", precision="bf16")
    exact = exact_distances(X, Y)
    least = exact.min(dim=1).values
    assert largest_error(distance, least) < 1e-5
    assert largest_error(exact.gather(1, index[:, None])[:, 0], least) < 1e-5


def test_knn() -> None:
    X, Y = mixed(12, 32, 1.0, 1), mixed(40, 32, 1.0, 2)
    distance, index = knn(X, Y, 5, backend="triton", precision="tf32x3")
    exact = exact_distances(X, Y)
    assert largest_error(distance, exact.topk(5, dim=1, largest=False).values) < 2e-6
    assert largest_error(exact.gather(1, index), distance.double()) < 2e-6


def test_gradients_on_top_of_a_triton_forward() -> None:
    X = family(6, 16, 0.5, 1.0, seed=1)
    gradients = []
    for backend in ("triton", "torch"):
        direction = X.direction.clone().requires_grad_()
        pairwise_dist(PolarPoints(direction, X.radius), backend=backend).sum().backward()
        gradients.append(direction.grad)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 40, 100, generator=generator).to(dtype)
    mask = torch.rand(3, 40, generator=generator) > 0.5
    mask[1] = False
    hidden[~mask] = torch.nan
    root = torch.randn(100, generator=generator)
    running = {"running_sum": torch.randn(3, 100), "running_count": torch.tensor([4, 0, 1])}
    for more in ({}, running):
        got = pool_latents(hidden, mask, root=root, backend="triton", **more)
        want = pool_latents(hidden, mask, root=root, backend="torch", **more)
        check_same(got, want)
    assert got.points.direction[1].tolist() == [1.0] + [0.0] * 99
    assert got.points.radius[1] == 0


def test_pooling_packed_and_strided() -> None:
    hidden = torch.randn(80, 120, generator=torch.Generator().manual_seed(0))[::2, :100].to(torch.bfloat16)
    starts = torch.tensor([0, 1, 1, 30, 40], dtype=torch.int32)
    roots = torch.randn(4, 100, generator=torch.Generator().manual_seed(1))
    check_same(*(pool_latents(hidden, cu_seqlens=starts, root=roots, backend=b) for b in ("triton", "torch")))
    padded = hidden.reshape(4, 10, 100).transpose(0, 1).contiguous().transpose(0, 1)
    check_same(*(pool_latents(padded, root=roots, backend=b) for b in ("triton", "torch")))


def check_same(got, want) -> None:
    assert torch.equal(got.count, want.count)
    for one, other in ((got.sum, want.sum), (got.mean, want.mean), (got.points.direction, want.points.direction)):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    assert torch.allclose(got.points.radius, want.points.radius, rtol=1e-5)


# The interpreter's tiles are 32 × 32: sizes on both sides of their edges, every fault, in rows, columns and both.
@pytest.mark.parametrize(("precision", "sizes"), [("ieee", (33, 31)), ("tf32x3", (32, 65)), ("bf16", (34, 33))])
def test_what_is_no_point_stays_in_its_row_or_column(precision: str, sizes: tuple[int, int]) -> None:
    X, Y = points(sizes[0], 40, 1), points(sizes[1], 40, 2)
    bad_x, bad_y = ([0, 1, 5, 6, 8, 20, size - 2, size - 1] for size in sizes)
    for in_x, in_y in ((bad_x, []), ([], bad_y), (bad_x, bad_y)):
        spoiled_x = spoiled_in_all_ways(X, in_x) if in_x else X
        spoiled_y = spoiled_in_all_ways(Y, in_y) if in_y else Y
        check_forward(spoiled_x, spoiled_y, in_x, in_y, backend="triton", precision=precision)


def test_nearest_among_nothing_but_faults() -> None:
    X, bad = points(5, 8, 1), spoiled(points(40, 8, 2), "NaN radius", list(range(40)))
    for x, y in ((X, bad), (bad, X), (bad, bad)):
        distance, index = nearest(x, y, backend="triton")
        assert distance.isnan().all()
        assert (index == -1).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_pooling_a_fault(value: float) -> None:
    hidden = torch.randn(3, 20, 40, generator=torch.Generator().manual_seed(0))
    hidden[1, 4, 3] = value
    root = torch.zeros(40)
    got, want = (pool_latents(hidden, root=root, backend=backend) for backend in ("triton", "torch"))
    for one, other in ((got.sum, want.sum), (got.points.direction, want.points.direction)):
        torch.testing.assert_close(one, other, equal_nan=True)
    torch.testing.assert_close(got.points.radius, want.points.radius, equal_nan=True)


def test_offsets_past_the_tokens() -> None:
    hidden = torch.randn(10, 40, generator=torch.Generator().manual_seed(0))
    starts = torch.tensor([-3, 4, 2, 20])
    got, want = (
        torch.ops.lapha.pool_latents(hidden, None, starts, None, None, None, backend) for backend in ("triton", "torch")
    )
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


def test_flagged_tiles_are_shared_by_few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tiles there are, no more programs are started than a device has room for."""
    from lapha.kernels import refine_triton

    monkeypatch.setattr(refine_triton, "_PROGRAMS", 3)
    X = PolarPoints.cat([points(70, 24, 1), points(70, 24, 1)])
    assert largest_error(pairwise_dist(X, backend="triton"), exact_distances(X, X)) < 1e-5
