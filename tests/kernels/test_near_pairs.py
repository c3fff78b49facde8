"""Latents as they are: trees, clusters, few coordinates, small and large problems, of one set and of two."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels_oracle import exact_distances, family, largest_error
from scipy.spatial.distance import squareform

from lapha.geometry import PolarPoints
from lapha.kernels import nearest, nearest_torch, pairwise_dist, pairwise_torch
from lapha.kernels.refine_torch import Groups


def tree(count: int, dim: int, seed: int, step: float = 0.3) -> PolarPoints:
    """A random walk on a tree with three children a node: about half of all pairs are near."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.zeros(count, dim)
    v[0] = torch.randn(dim, generator=generator) / dim**0.5
    for i in range(1, count):
        v[i] = v[(i - 1) // 3] + step * torch.randn(dim, generator=generator) / dim**0.5
    return PolarPoints.from_tangent(v)


def clusters(count: int, groups: int, cosine: float, dim: int, seed: int) -> PolarPoints:
    """In no order."""
    generator = torch.Generator().manual_seed(seed)
    centres, own = (
        torch.nn.functional.normalize(torch.randn(n, dim, generator=generator), dim=1) for n in (groups, count)
    )
    member = torch.randint(groups, (count,), generator=generator)
    u = torch.nn.functional.normalize(cosine**0.5 * centres[member] + (1 - cosine) ** 0.5 * own, dim=1)
    return PolarPoints(u, 0.5 + torch.rand(count, generator=generator))


KINDS = {
    "a tree": lambda dim: tree(150, dim, 1),
    "several trees": lambda dim: PolarPoints.cat([tree(50, dim, seed) for seed in range(4)]),
    "clusters": lambda dim: clusters(160, 5, 0.96, dim, 1),
    "tight clusters with copies": lambda dim: PolarPoints.cat([clusters(90, 4, 1 - 1e-9, dim, 1)] * 2),
    "strays": lambda dim: PolarPoints.cat([family(120, dim, 0.2, 1.0, 1), family(3, dim, 0.2, 1.0, 1)]),
    "radii beyond every limit": lambda dim: PolarPoints.cat([clusters(60, 3, 0.99, dim, 1)[:40], far(dim)]),
}


def far(dim: int) -> PolarPoints:
    points = clusters(60, 3, 0.99, dim, 1)
    return PolarPoints(points.direction, 30 * points.radius)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [2, 8, 9, 64])
def test_every_kind_in_every_way(kind: str, dim: int, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr(pairwise_torch, "_SMALL", 0)
        monkeypatch.setattr(nearest_torch, "_SMALL", 0)
        monkeypatch.setattr(pairwise_torch, "TILE_ELEMENTS", 3000)
        monkeypatch.setattr(pairwise_torch, "_STRIPS", (64,))
    X = KINDS[kind](dim)
    Y = PolarPoints(X.direction.clone(), X.radius.clone()).reshape(len(X))[: len(X) - 7]
    want = exact_distances(X, X)
    near = want < 1e-4
    for got in (pairwise_dist(X), torch.cat([pairwise_dist(X, Y), pairwise_dist(X, X[len(Y) :])], dim=1)):
        error = (got.double() - want).abs() / torch.where(want > 0, want, 1)
        assert error[~near].max() < 2e-6
        assert not (error[near] > 1e-5).any()
        assert (got[want == 0] == 0).all()
    distance, index = nearest(X, Y)
    least = want[:, : len(Y)].min(1).values
    assert not ((distance.double() - least).abs() > 1e-5 * least.clamp_min(1e-30)).any()
    chosen = want.gather(1, index[:, None])[:, 0]
    assert not ((chosen - least).abs() > 1e-5 * least).any()


@pytest.mark.parametrize("count", [1, 5, 127, 128, 129, 300, 700])
def test_of_one_set_it_is_symmetric(count: int) -> None:
    for X in (tree(count, 40, 1), clusters(count, 3, 0.9, 300, 1)):
        distance = pairwise_dist(X)
        assert torch.equal(distance, distance.T)
        assert (distance.diagonal() == 0).all()
        assert len(squareform(distance.numpy(), checks=True)) == count * (count - 1) // 2
        assert torch.allclose(distance, pairwise_dist(X, PolarPoints(X.direction.clone(), X.radius)), rtol=3e-6)


def test_blocks_of_a_symmetric_matrix_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    X = tree(150, 24, 1)
    want = pairwise_dist(X)
    for name, value in (("_SMALL", 0), ("COLUMNS", 64), ("ROWS", 48), ("_STRIPS", (16, 32)), ("TILE_ELEMENTS", 300)):
        monkeypatch.setattr(pairwise_torch, name, value)
    got = pairwise_dist(X)
    assert torch.equal(got, got.T)
    assert torch.allclose(got, want, rtol=3e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=st.integers(1, 40), m=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_groups_hold_every_near_pair_once(n: int, m: int, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand(n, m, generator=generator) < share
    near[: n // 2, : m // 2] = True
    groups = Groups(near)
    seen = torch.zeros(n, m, dtype=torch.int64)
    for rows, columns in groups.dense:
        seen[rows[:, None], columns] += 1
    seen[groups.stray] += 1
    assert (seen[near] == 1).all()
    assert groups.count == int(near.sum())


def test_clusters_become_groups_and_not_lists() -> None:
    member = torch.randint(6, (200,), generator=torch.Generator().manual_seed(0))
    groups = Groups(member[:, None] == member[None])
    assert len(groups.dense) == 6
    assert groups.stray[0].numel() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_every_kind(kind: str) -> None:
    from lapha.geometry import pairwise_dist as plain

    X = KINDS[kind](24)
    X = X[torch.arange(0, len(X), 2)]
    weight = torch.randn(len(X), len(X), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradients(function, dtype: torch.dtype) -> list[torch.Tensor]:
        direction, radius = (z.detach().to(dtype).requires_grad_() for z in (X.direction, X.radius))
        points = PolarPoints(direction, radius)
        (function(points) * weight.to(dtype)).sum().backward()
        return [direction.grad.double(), radius.grad.double()]

    for got, want in zip(gradients(pairwise_dist, torch.float32), gradients(plain, torch.float64), strict=True):
        assert (got - want).norm() < 2e-4 * want.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_copies_are_told_apart_from_what_is_almost_one(dtype: torch.dtype) -> None:
    from lapha.kernels.chords import same_rows

    x = torch.randn(20, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = x.repeat(2, 1)
    y[3, 4] = torch.nextafter(y[3, 4].float(), torch.tensor(9.0)).to(dtype) if dtype != torch.bfloat16 else 7.0
    of_x, of_y = same_rows(x, y)
    assert torch.equal(of_x[:, None] == of_y, (x[:, None] == y).all(-1))


def test_a_tree_of_copies() -> None:
    """Sampled siblings are often equal: most near pairs of a search tree are copies."""
    base = tree(12, 30, 1)
    X = PolarPoints.cat([base] * 9 + [tree(40, 30, 2)])
    X = PolarPoints(X.direction, X.radius * torch.linspace(0.5, 1, len(X)).round(decimals=1))
    assert largest_error(pairwise_dist(X), exact_distances(X, X)) < 2e-6
