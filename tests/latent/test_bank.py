"""LatentBank: ids, views, tiers, queries, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from lapha.geometry import PolarPoints, dist0, pairwise_dist
from lapha.latent import LatentBank
from lapha.shaping import potential

D = 8


def random_points(size: int, seed: int = 0, dim: int = D, curvature: float = 1.0) -> PolarPoints:
    generator = torch.Generator().manual_seed(seed)
    return PolarPoints.from_tangent(torch.randn(size, dim, generator=generator), curvature)


def same(a: PolarPoints, b: PolarPoints) -> bool:
    """Equal bit for bit."""
    return (
        a.shape == b.shape
        and torch.equal(a.direction, b.direction)
        and torch.equal(a.radius, b.radius)
        and a.curvature == b.curvature
    )


def snapshot(bank: LatentBank) -> tuple:
    trees = {tree: (bank.segment(tree), bank.ids(tree).tolist(), bank.is_offloaded(tree)) for tree in bank.tree_ids}
    return len(bank), {tree: (p.direction.tolist(), p.radius.tolist(), *rest) for tree, (p, *rest) in trees.items()}


def test_ids_number_rows_in_append_order_over_all_trees() -> None:
    bank, points = LatentBank(D), random_points(12)
    assert bank.append(points[:3], 7).tolist() == [0, 1, 2]
    assert bank.append(points[3:5], -4).tolist() == [3, 4]
    single = bank.append(points[5], 7)
    assert single.shape == ()
    assert single.dtype == torch.int64
    assert int(single) == 5
    assert bank.append(points[:0], 99).tolist() == []
    assert len(bank) == 6
    assert bank.tree_ids == [7, -4]
    assert bank.ids(7).tolist() == [0, 1, 2, 5]
    assert same(bank.segment(7), points[[0, 1, 2, 5]])
    assert same(bank.segment(-4), points[3:5])
    assert same(bank.segment(7, 1, 3), points[1:3])
    assert same(bank[[5, 0, 4, 4]], points[[5, 0, 4, 4]])
    assert same(bank[torch.tensor([2])], points[[2]])
    assert same(bank[3], points[3])
    assert same(bank[[]], points[:0])


def test_a_segment_is_a_view_that_outlives_growth_and_offloading() -> None:
    bank, points = LatentBank(D), random_points(500)
    bank.append(points[:3])
    view = bank.segment(0)
    assert view.direction.data_ptr() == bank.segment(0).direction.data_ptr(), "two reads share memory"
    for start in range(3, 500, 7):
        bank.append(points[start : start + 7])
    bank.offload()
    assert same(view, points[:3])
    assert same(bank.segment(0), points)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_directions_are_rounded_to_the_dtype_once_and_never_normalised(dtype: torch.dtype) -> None:
    points = random_points(20)
    stretched = PolarPoints(points.direction * 1.004, points.radius)
    bank = LatentBank(D, dtype=dtype)
    bank.append(stretched)
    stored = bank.segment(0)
    assert stored.direction.dtype == dtype
    assert torch.equal(stored.direction, stretched.direction.to(dtype))
    assert stored.radius.dtype == torch.float32
    assert torch.equal(stored.radius, points.radius)


def test_points_are_detached_and_copied() -> None:
    v = torch.randn(2, D, requires_grad=True)
    points = PolarPoints.from_tangent(v)
    bank = LatentBank(D)
    bank.append(points)
    before = bank[[0, 1]]
    assert not bank.segment(0).requires_grad
    with torch.no_grad():
        points.radius.zero_()
    assert same(bank[[0, 1]], before)


def test_appending_does_not_break_a_backward_pass_through_earlier_rows() -> None:
    bank, points = LatentBank(D), random_points(6)
    bank.append(points[:3])
    scale = torch.tensor(2.0, requires_grad=True)
    loss = (bank.segment(0).direction * scale).square().sum()
    bank.append(points[3:])  # into the same buffer
    loss.backward()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(2 * 2 * 3, rel=1e-5)


def test_a_bank_may_be_filled_in_inference_mode_and_read_outside() -> None:
    bank, points = LatentBank(D), random_points(100)
    with torch.inference_mode():
        bank.append(PolarPoints(points.direction[:10].clone(), points.radius[:10].clone()))
    bank.append(points[10:20])  # into the buffer that was made inside
    assert not bank.segment(0).direction.is_inference()
    assert same(bank.segment(0), points[:20])
    with torch.inference_mode():
        bank.append(points[20:])
    assert same(bank.segment(0), points)


@pytest.mark.parametrize("mirror", [False, True])
def test_offload_and_load_move_storage_and_nothing_else(mirror: bool) -> None:
    bank, points = LatentBank(D, mirror=mirror), random_points(40)
    bank.append(points[:10], 1)
    bank.append(points[10:20], 2)
    bank.offload(1)
    assert bank.is_offloaded(1)
    assert not bank.is_offloaded(2)
    used = bank.device_bytes
    bank.append(points[20:30], 1)
    assert bank.device_bytes == used, "appending to an offloaded segment takes no device memory"
    bank.offload()
    assert bank.device_bytes == 0
    assert same(bank.segment(1), points[[*range(10), *range(20, 30)]])
    bank.load(2)
    assert bank.is_offloaded(1)
    assert not bank.is_offloaded(2)
    bank.load()
    bank.append(points[30:], 1)
    assert not bank.is_offloaded(1)
    assert same(bank[range(40)], points)


def test_above_the_budget_the_longest_untouched_segments_are_offloaded() -> None:
    row = D * 4 + 4
    bank, points = LatentBank(D, memory_budget=300 * row), random_points(1000)
    for tree in range(4):
        bank.append(points[100 * tree : 100 * tree + 100], tree)
        assert bank.device_bytes <= 300 * row
    assert [tree for tree in range(4) if not bank.is_offloaded(tree)] == [1, 2, 3]
    assert same(bank[range(400)], points[:400])
    bank.append(points[400:500], 1)
    assert bank.device_bytes <= 300 * row
    assert [tree for tree in range(4) if not bank.is_offloaded(tree)] == [1, 3], "tree 2 was touched least lately"
    assert same(bank[range(500)], points[:500])
    bank.load(0)
    assert [tree for tree in range(4) if not bank.is_offloaded(tree)] == [0, 1]
    assert bank.device_bytes <= 300 * row
    bank.load(3)
    before = snapshot(bank)
    with pytest.raises(ValueError, match=r"^memory_budget: expected at least .* got 10800"):
        bank.append(points[500:701], 3)
    with pytest.raises(ValueError, match=r"^memory_budget: expected at least .* got 10800"):
        bank.append(points[:301], 50)
    with pytest.raises(ValueError, match=r"^memory_budget"):
        bank.load()
    assert snapshot(bank) == before
    assert bank.append(points[500:501], 1).tolist() == [500]


def test_growth_stays_amortised_where_every_row_pushes_another_segment_out() -> None:
    row = D * 4 + 4
    bank, points = LatentBank(D, memory_budget=200 * row), random_points(360)
    for tree in range(200):
        bank.append(points[tree], tree)
        bank.offload(tree)
    bank.load()  # without spare capacity: the budget is full
    assert bank.device_bytes == 200 * row
    buffers = set()
    for index in range(200, 360):
        bank.append(points[index], 500)
        buffers.add(bank.segment(500).direction.data_ptr())
        assert bank.device_bytes <= 200 * row
    assert len(buffers) < 25
    assert same(bank[range(360)], points)


def test_reserve_keeps_the_memory_that_later_rows_go_to() -> None:
    bank, points = LatentBank(D), random_points(300)
    bank.append(points[:1])
    bank.reserve(299)
    address = bank.segment(0).direction.data_ptr()
    bank.append(points[1:])
    assert bank.segment(0).direction.data_ptr() == address
    assert same(bank.segment(0), points)


@pytest.mark.parametrize("offloaded", [False, True])
@pytest.mark.parametrize("block", [3, 65536])
def test_queries_equal_those_on_plain_points(offloaded: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapha.latent._queries.BLOCK_ROWS", block)
    bank, points = LatentBank(D, curvature=0.5), random_points(30, curvature=0.5)
    for start in range(0, 30, 5):
        bank.append(points[start : start + 5], start % 3)
    if offloaded:
        bank.offload()
    ids, among = torch.tensor([3, 29, 11, 0]), torch.tensor([28, 4, 5, 6, 7, 19, 2])
    exact = pairwise_dist(points[ids].to(torch.float64), points[among].to(torch.float64)).float()
    torch.testing.assert_close(bank.pairwise(ids, among), exact, rtol=1e-5, atol=1e-6)
    distance, found = bank.nearest(ids, among)
    torch.testing.assert_close(distance, exact.min(1).values, rtol=1e-5, atol=1e-6)
    assert found.tolist() == among[exact.argmin(1)].tolist()
    distance, found = bank.knn(ids, among, 4)
    torch.testing.assert_close(distance, exact.sort(1).values[:, :4], rtol=1e-5, atol=1e-6)
    assert found.tolist() == among[exact.argsort(1)[:, :4]].tolist()
    torch.testing.assert_close(bank.potential(range(30), among), potential(points, points[among]), rtol=1e-5, atol=1e-6)


def test_potential_is_one_at_goals_and_zero_without_any() -> None:
    bank, points = LatentBank(D), random_points(5)
    ids = bank.append(points)
    V = bank.potential(ids, ids[2:4])
    assert V[2:4].tolist() == [1.0, 1.0]
    d_root = dist0(points)[0]
    d_goal = pairwise_dist(points[:1], points[2:4]).min()
    assert V[0].item() == pytest.approx(float(d_root / (d_root + d_goal)), rel=1e-5)
    assert bank.potential(ids, []).tolist() == [0.0] * 5
    assert bank.potential([], ids).shape == (0,)


def test_exclude_self_leaves_each_id_out_of_its_own_neighbours() -> None:
    points = random_points(6)
    bank = LatentBank(D)
    bank.append(PolarPoints.cat([points, points[:1]]))  # id 6 is a copy of id 0
    distance, found = bank.nearest([0, 6, 3], range(7), exclude_self=True)
    assert found[:2].tolist() == [6, 0]
    assert distance[:2].tolist() == [0.0, 0.0]
    exact = pairwise_dist(points, points).fill_diagonal_(float("inf"))
    assert int(found[2]) == int(exact[3].argmin())
    distance, found = bank.knn(range(7), range(7), 3, exclude_self=True)
    assert all(own not in row for own, row in enumerate(found.tolist()))
    assert all(len(set(row)) == 3 for row in found.tolist())
    assert bool((distance.diff(dim=1) >= 0).all())
    # an id that is not a candidate loses nothing
    assert bank.knn([3], [0, 1, 6], 2, exclude_self=True)[1].tolist() == bank.knn([3], [0, 1, 6], 2)[1].tolist()


BAD_APPENDS = {
    "another dimension": (lambda: random_points(2, dim=D + 1), r"^points: expected dimension 8, got 9"),
    "another curvature": (lambda: random_points(2, curvature=0.5), r"^points: expected curvature 1.0, got 0.5"),
    "a tensor": (lambda: torch.randn(2, D), r"^points: expected PolarPoints, got Tensor"),
    "two batch dimensions": (lambda: random_points(4).reshape(2, 2), r"^points: expected batch shape"),
    "NaN direction": (lambda: _with(direction=float("nan")), r"^points: expected finite numbers.*row 1"),
    "Inf direction": (lambda: _with(direction=float("inf")), r"^points: expected finite numbers.*row 1"),
    "NaN radius": (lambda: _with(radius=float("nan")), r"^points: expected finite numbers.*row 1"),
    "Inf radius": (lambda: _with(radius=float("inf")), r"^points: expected finite numbers.*row 1"),
    "negative radius": (lambda: _with(radius=-1.0), r"^points: expected radii >= 0.*row 1"),
    "no unit vector": (lambda: _with(direction=3.0), r"^points: expected unit directions.*row 1"),
}


def _with(direction: float | None = None, radius: float | None = None) -> PolarPoints:
    points = random_points(3)
    if direction is not None:
        points.direction[1, 2] = direction
    if radius is not None:
        points.radius[1] = radius
    return points


@pytest.mark.parametrize("case", BAD_APPENDS)
def test_bad_points_are_refused_and_leave_the_bank_as_it_was(case: str) -> None:
    make, message = BAD_APPENDS[case]
    bank = LatentBank(D)
    bank.append(random_points(2), 1)
    before = snapshot(bank)
    points = make()
    with pytest.raises(ValueError, match=message):
        bank.append(points, 2)
    if isinstance(points, PolarPoints) and points.shape == (3,):
        with pytest.raises(ValueError, match=r"row 0$"):
            bank.append(points[1], 2)  # one row takes another road through the checks
    assert snapshot(bank) == before
    assert bank.append(random_points(1), 2).tolist() == [2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bank: bank[[0, 3]], r"^ids: expected ids in \[0, 3\), got 3"),
        (lambda bank: bank[-1], r"^ids: expected ids in \[0, 3\), got -1"),
        (lambda bank: bank[[0.0, 1.0]], "^ids: expected integers"),
        (lambda bank: bank[torch.tensor([True, False, True])], "^ids: expected integers"),
        (lambda bank: bank[torch.tensor([[0, 1]])], "^ids: expected shape"),
        (lambda bank: bank.pairwise([0], [7]), "^other: expected ids"),
        (lambda bank: bank.nearest([9], [0]), "^ids: expected ids"),
        (lambda bank: bank.nearest([0], [9]), "^among: expected ids"),
        (lambda bank: bank.nearest([0], []), "^among: expected at least one"),
        (lambda bank: bank.knn([0], [0, 1], 3), r"^k: expected an integer in \[1, 2\], got 3"),
        (lambda bank: bank.knn([0], [0, 1], 0), "^k: expected"),
        (lambda bank: bank.knn([0], [0, 1], 2, exclude_self=True), r"^k: expected an integer in \[1, 1\]"),
        (lambda bank: bank.potential([0], [5]), "^goal_ids: expected ids"),
        (lambda bank: bank.potential([0], [1], eps=0.0), "^eps: expected"),
        (lambda bank: bank.segment(4), "^tree_id: expected a tree"),
        (lambda bank: bank.segment(0, 1, 9), "^start, stop: expected"),
        (lambda bank: bank.ids(4), "^tree_id: expected a tree"),
        (lambda bank: bank.offload(4), "^tree_id: expected a tree"),
        (lambda bank: bank.load(4), "^tree_id: expected a tree"),
        (lambda bank: bank.reserve(4, 9), "^tree_id: expected a tree"),
        (lambda bank: bank.reserve(-1), "^rows: expected"),
        (lambda bank: bank.append(random_points(1), True), "^tree_id: expected an integer"),
        (lambda bank: bank.append(random_points(1), 2**63), "^tree_id: expected a 64-bit"),
        (lambda bank: bank.append(random_points(1), "tree"), "^tree_id: expected an integer"),
    ],
)
def test_bad_arguments_are_named_and_leave_the_bank_as_it_was(call, message: str) -> None:
    bank = LatentBank(D)
    bank.append(random_points(3))
    before = snapshot(bank)
    with pytest.raises(ValueError, match=message):
        call(bank)
    assert snapshot(bank) == before


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"dim": 0}, "dim"),
        ({"dim": D, "curvature": 0.0}, "curvature"),
        ({"dim": D, "curvature": float("nan")}, "curvature"),
        ({"dim": D, "dtype": torch.float64}, "dtype"),
        ({"dim": D, "memory_budget": D * 4 + 3}, "memory_budget"),
    ],
)
def test_bad_options_are_named(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        LatentBank(**options)
