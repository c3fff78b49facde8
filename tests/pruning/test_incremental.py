"""Incremental pruning: new nodes against known clusters, and periodic full passes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from lapha.geometry import PolarPoints
from lapha.pruning import IncrementalPruner, PruneConfig, prune


def test_the_first_pass_is_the_full_one(planted) -> None:
    points, _ = planted(5, 9)
    pruner = IncrementalPruner(seed=3)
    first = pruner.update(points)
    full = prune(points, seed=3)
    assert torch.equal(first.disabled, full.disabled)
    assert torch.equal(first.labels, full.labels)
    assert first.stats == full.stats
    assert first.stats.cut_below < pruner.cut_distance < first.stats.cut_above


@pytest.mark.parametrize("linkage", ["average", "complete", "single"])
def test_new_nodes_join_the_clusters_that_they_belong_to(linkage: str, planted) -> None:
    points, truth = planted(8, 12)
    pruner = IncrementalPruner(linkage=linkage, fraction=0.5)
    pruner.update(points[:60])
    for stop in (61, 70, 96):
        result = pruner.update(points[:stop], full=False)
        assert adjusted_rand_score(truth[:stop].numpy(), result.labels.numpy()) == 1.0
        for label in range(8):
            members = truth[:stop] == label
            assert int(result.disabled[members].sum()) <= int(members.sum()) // 2
    assert pruner.seen == 96
    # all members after the first pass counted: each cluster of 12 is half disabled
    assert [int(result.disabled[truth == label].sum()) for label in range(8)] == [6] * 8


def test_nodes_far_from_all_clusters_make_clusters_of_their_own(planted) -> None:
    points, _ = planted(4, 6)
    new, new_truth = planted(3, 6, seed=1)
    far = -new
    pruner = IncrementalPruner()
    pruner.update(points)
    result = pruner.update(PolarPoints.cat([points, far]), full=False)
    assert adjusted_rand_score(new_truth.numpy(), result.labels[24:].numpy()) == 1.0
    assert set(result.labels[24:].tolist()) == {4, 5, 6}
    assert int(result.disabled[24:].sum()) == 6
    # and what comes after joins those
    more = PolarPoints.cat([points, far, far[:2]])
    assert torch.equal(pruner.update(more, full=False).labels[-2:], result.labels[24:26])


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    full_every=st.sampled_from([0.2, 1.0, 100.0]),
    survivors=st.sampled_from(["random", "value", "medoid"]),
)
def test_incremental_pruning_keeps_its_promises(steps: list[int], seed: int, full_every: float, survivors: str) -> None:
    size = sum(steps)
    generator = torch.Generator().manual_seed(seed)
    points = PolarPoints.from_tangent(torch.randn(size, 4, generator=generator))
    protected = torch.rand(size, generator=generator) < 0.3
    value = torch.rand(size, generator=generator)

    def run() -> list[torch.Tensor]:
        pruner = IncrementalPruner(PruneConfig(survivors=survivors, seed=seed, fraction=0.6), full_every=full_every)
        results, stop = [], 0
        for step in steps:
            stop += step
            result = pruner.update(points[:stop], protected=protected[:stop], value=value[:stop])
            results.append(result.disabled)
            for label in result.labels.unique().tolist():
                assert label < 0 or not result.disabled[result.labels == label].all()
        return results

    results = run()
    for before, after in pairwise(results):
        assert not (before & ~after[: len(before)]).any(), "what is disabled stays disabled"
    assert not (results[-1] & protected).any()
    assert all(torch.equal(one, two) for one, two in zip(results, run(), strict=True))


def test_full_passes_come_when_the_set_has_grown(planted) -> None:
    points, _ = planted(4, 16)
    pruner = IncrementalPruner(full_every=0.5)
    nodes = [pruner.update(points[:size]).stats.nodes for size in (16, 20, 24, 25, 30)]
    live = 25 - int(pruner.update(points[:30]).disabled[:25].sum())
    assert nodes[:3] == [16, 4, 4]
    assert 25 - 8 <= nodes[3] < 25, "the fourth, at more than half as many again, looks at all live nodes"
    assert nodes[4] == 5
    assert live > 0
    assert pruner.update(points[:30], full=True).stats.nodes < 30


def test_refused_calls_change_nothing(planted) -> None:
    points, _ = planted(3, 6)
    pruner = IncrementalPruner()
    pruner.update(points[:12])
    bad = PolarPoints(points.direction, points.radius.clone())
    bad.radius[15] = math.nan
    for call, message in (
        (lambda: pruner.update(points[:11]), r"^points: expected the 12 nodes seen so far"),
        (lambda: pruner.update(bad), r"^points: expected finite"),
        (lambda: pruner.update(points, protected=torch.zeros(3, dtype=torch.bool)), r"^protected: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
        assert pruner.seen == 12
    fresh = IncrementalPruner()
    fresh.update(points[:12])
    assert torch.equal(pruner.update(points).disabled, fresh.update(points).disabled)


def test_options_without_meaning_here_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^linkage: expected one with a cut distance"):
        IncrementalPruner(linkage="hdbscan")
    with pytest.raises(ValueError, match=r"^full_every: expected"):
        IncrementalPruner(full_every=0.0)
