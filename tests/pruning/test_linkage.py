"""Linkage equals brute force, and both implementations equal each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linkage_oracle import merge_sequence, partition

from lapha.geometry import PolarPoints, pairwise_dist
from lapha.pruning import _linkage
from lapha.pruning._cuts import labels_below
from lapha.pruning._distances import distance_matrix

METHODS = ("average", "complete", "single")
IMPLEMENTATIONS = {"scipy": _linkage._link_scipy, "chain": _linkage._link_chain}


def random_distances(size: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    points = random.normal(size=(size, 3)) * np.exp(random.normal(size=(size, 1)))
    matrix = np.linalg.norm(points[:, None] - points[None], axis=-1).astype(np.float32)
    return np.triu(matrix) + np.triu(matrix).T


@pytest.fixture(autouse=True)
def compact_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small matrices take the road of large ones."""
    monkeypatch.setattr(_linkage, "_COMPACT_ABOVE", 3)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(size=st.integers(2, 22), seed=st.integers(0, 2**31))
def test_every_partition_and_height_equals_brute_force(implementation: str, method: str, size: int, seed: int) -> None:
    matrix = random_distances(size, seed)
    expected = merge_sequence(matrix, method)
    merges = IMPLEMENTATIONS[implementation](matrix.copy(), method)
    heights = np.array([height for height, _ in expected])
    np.testing.assert_allclose(merges.height, heights, rtol=2e-6)
    for count, (height, clusters) in enumerate(expected, start=1):
        # between two merges at almost the same height either may come first
        if count == len(expected) or expected[count][0] > height * (1 + 1e-5):
            assert partition(labels_below(merges, count)) == clusters


@pytest.mark.parametrize("method", METHODS)
def test_the_chain_equals_scipy_on_hundreds_of_points(method: str) -> None:
    matrix = random_distances(700, seed=5)
    one, two = (make(matrix.copy(), method) for make in IMPLEMENTATIONS.values())
    np.testing.assert_allclose(one.height, two.height, rtol=5e-6)
    gaps = np.diff(one.height) > 1e-4 * one.height[:-1]
    for count in (np.flatnonzero(gaps) + 1)[:: max(1, gaps.sum() // 40)]:
        assert partition(labels_below(one, count)) == partition(labels_below(two, count))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_ties_and_duplicates_end_and_merge_at_the_right_heights(implementation: str, method: str) -> None:
    points = np.repeat(np.array([0.0, 0.0, 1.0, 2.0, 3.0, 10.0]), 3)
    matrix = np.abs(points[:, None] - points[None]).astype(np.float32)
    merges = IMPLEMENTATIONS[implementation](matrix.copy(), method)
    assert (merges.height[:13] == 0).all()
    assert (merges.height[13:] > 0).all()
    assert len(partition(labels_below(merges, 13))) == 5
    assert {frozenset(group) for group in partition(labels_below(merges, 16))} == {
        frozenset(range(15)),
        frozenset(range(15, 18)),
    }


def test_link_chooses_by_size_and_the_two_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = random_distances(40, seed=1)
    small = _linkage.link(matrix.copy(), "average")
    monkeypatch.setattr(_linkage, "SCIPY_BELOW", 0)
    large = _linkage.link(matrix.copy(), "average")
    np.testing.assert_allclose(small.height, large.height, rtol=2e-6)
    assert len(_linkage.link(matrix[:1, :1].copy(), "average").height) == 0
    assert len(_linkage.link(matrix[:0, :0].copy(), "average").height) == 0


@pytest.mark.parametrize("block", [5, 2048])
def test_distance_matrix_is_exact_symmetric_and_zero_on_the_diagonal(block: int, monkeypatch) -> None:
    monkeypatch.setattr("lapha.pruning._distances.BLOCK_ROWS", block)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(17, 9, generator=generator) * torch.tensor([0.01, 1.0, 12.0] * 5 + [0.0, 3.0])[:, None]
    v[4] = v[3] * (1 + 1e-6)  # nearly the same
    points = PolarPoints.from_tangent(v, curvature=0.5)
    matrix = distance_matrix(points)
    assert matrix.dtype == np.float32
    assert (matrix == matrix.T).all()
    assert (np.diagonal(matrix) == 0).all()
    exact = pairwise_dist(PolarPoints(points.direction.double(), points.radius.double(), 0.5))
    np.testing.assert_allclose(matrix, exact.numpy(), rtol=2e-5, atol=1e-7)
