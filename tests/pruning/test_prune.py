"""Clustering and pruning of one set of latents."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linkage_oracle import merge_sequence, partition
from sklearn.metrics import adjusted_rand_score

from lapha.geometry import PolarPoints, pairwise_dist
from lapha.pruning import PruneConfig, cluster, find_clusters, prune, prune_many
from lapha.pruning._cuts import largest_jump

LINKAGES = ("average", "complete", "single", "hdbscan")
SURVIVORS = ("random", "value", "visits", "medoid")


def random_points(size: int, seed: int, dim: int = 5) -> PolarPoints:
    generator = torch.Generator().manual_seed(seed)
    return PolarPoints.from_tangent(torch.randn(size, dim, generator=generator))


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("radius", [0.3, 1.0, 8.0, 30.0])
def test_planted_clusters_are_found_at_any_radius(linkage: str, radius: float, planted) -> None:
    points, truth = planted(6, 8, radius=radius, jitter=0.02 / max(1.0, radius))
    labels = cluster(points, linkage=linkage)
    assert adjusted_rand_score(truth.numpy(), labels.numpy()) == 1.0
    assert labels.dtype == torch.int64
    firsts = [labels.tolist().index(label) for label in range(6)]
    assert firsts == sorted(firsts)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2, 20), seed=st.integers(0, 2**31), linkage=st.sampled_from(LINKAGES[:3]))
def test_clusters_equal_brute_force_on_exact_distances(size: int, seed: int, linkage: str) -> None:
    points = random_points(size, seed)
    wide = PolarPoints(points.direction.double(), points.radius.double())
    merges = merge_sequence(pairwise_dist(wide).numpy(), linkage)
    heights = np.array([height for height, _ in merges])
    count = largest_jump(heights)
    found = find_clusters(points, PruneConfig(linkage=linkage))
    jumps = np.sort(np.diff(heights) / heights[:-1])
    if len(jumps) > 1 and jumps[-1] - jumps[-2] < 1e-4:
        return  # two jumps are as large: float32 may choose the other
    assert partition(found.labels) == merges[count - 1][1]
    assert found.cut_below == pytest.approx(heights[count - 1], rel=1e-4)
    assert found.cut_above == (pytest.approx(heights[count], rel=1e-4) if count < len(heights) else math.inf)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(0, 40),
    seed=st.integers(0, 1000),
    fraction=st.floats(0, 0.99),
    linkage=st.sampled_from(LINKAGES),
    survivors=st.sampled_from(SURVIVORS),
    share=st.floats(0, 1),
)
def test_pruning_keeps_its_promises(
    size: int, seed: int, fraction: float, linkage: str, survivors: str, share: float
) -> None:
    points = random_points(size, seed)
    generator = torch.Generator().manual_seed(seed)
    protected = torch.rand(size, generator=generator) < share
    numbers = {
        "value": torch.rand(size, generator=generator),
        "visits": torch.randint(0, 3, (size,), generator=generator),
    }
    options = {"fraction": fraction, "linkage": linkage, "survivors": survivors, "seed": seed}
    result = prune(points, protected=protected, **numbers, **options)
    again = prune(points, protected=protected, **numbers, **options)
    assert torch.equal(result.disabled, again.disabled), "the seed decides"
    assert torch.equal(result.labels, again.labels)
    assert not (result.disabled & protected).any()
    for label in range(result.stats.clusters):
        members = result.labels == label
        total, free = int(members.sum()), int((members & ~protected).sum())
        disabled = members & result.disabled
        assert int(disabled.sum()) == min(free, math.floor(fraction * total + 1e-9))
        assert (members & ~result.disabled).any(), "every cluster keeps a member"
        if survivors in numbers and disabled.any():
            kept = members & ~result.disabled & ~protected
            if kept.any():
                assert numbers[survivors][disabled].max() <= numbers[survivors][kept].min()
    assert result.stats.nodes == size
    assert result.stats.disabled == int(result.disabled.sum())
    assert result.stats.protected == int(protected.sum())
    assert result.stats.largest == (int(result.labels.bincount().max()) if size else 0)


def test_a_third_of_each_cluster_goes_and_small_clusters_stay(planted) -> None:
    points, truth = planted(4, 9)
    result = prune(points)
    assert [int(result.disabled[truth == label].sum()) for label in range(4)] == [3, 3, 3, 3]
    assert not prune(planted(5, 2)[0]).disabled.any()
    assert int(prune(planted(5, 3)[0]).disabled.sum()) == 5


def test_random_survivors_depend_on_the_seed_and_the_order_of_calls_does_not_matter(planted) -> None:
    points, _ = planted(3, 12)
    torch.manual_seed(0)
    results = [prune(points, seed=seed).disabled for seed in (1, 2, 1)]
    torch.manual_seed(99)
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])
    assert torch.equal(prune(points, seed=2).disabled, results[1])


def test_every_member_may_be_the_one_that_goes(planted) -> None:
    points, _ = planted(1, 6)
    gone = sum(prune(points, cut="number", number=1, seed=seed).disabled.long() for seed in range(60))
    assert isinstance(gone, torch.Tensor)
    assert int(gone.sum()) == 60 * 2
    assert int(gone.min()) > 5


def test_the_medoid_survives_and_the_farthest_from_it_go(planted) -> None:
    points, truth = planted(3, 10, jitter=0.1)
    result = prune(points, survivors="medoid", fraction=0.4)
    for label in range(3):
        members = (truth == label).nonzero().flatten()
        distances = pairwise_dist(points[members])
        medoid = int(distances.sum(1).argmin())
        expected = members[distances[medoid].argsort()[-4:]]
        assert set(result.disabled.nonzero().flatten().tolist()) & set(members.tolist()) == set(expected.tolist())


def test_protected_members_count_but_stay(planted) -> None:
    points, truth = planted(2, 6)
    protected = truth == 0
    protected[(truth == 1).nonzero().flatten()[:5]] = True
    result = prune(points, protected=protected, fraction=0.5)
    assert not result.disabled[protected].any()
    assert int(result.disabled.sum()) == 1


def test_tiny_inputs() -> None:
    for size in (0, 1, 2):
        result = prune(random_points(size, 0))
        assert result.disabled.shape == (size,)
        assert not result.disabled.any()
        assert prune(random_points(size, 0), linkage="hdbscan").disabled.shape == (size,)
    origin = PolarPoints.origin((9,), 4)
    assert prune(origin, linkage="hdbscan", fraction=0.5).stats.nodes == 9
    assert int(prune(origin).disabled.sum()) == 3, "copies of one state are one cluster"


def test_hdbscan_noise_is_never_pruned(planted) -> None:
    points, _ = planted(2, 9)
    far = PolarPoints.from_tangent(-5.0 * torch.eye(16)[:3])
    result = prune(PolarPoints.cat([points, far]), linkage="hdbscan", fraction=0.9)
    assert not result.disabled[-3:].any()
    assert len(set(result.labels[-3:].tolist())) == 3
    assert math.isnan(result.stats.cut_below)


def test_config_object_and_keywords_mean_the_same(planted) -> None:
    points, _ = planted(3, 8)
    config = PruneConfig(linkage="complete", fraction=0.5, seed=4)
    assert torch.equal(
        prune(points, config=config).disabled, prune(points, linkage="complete", fraction=0.5, seed=4).disabled
    )
    with pytest.raises(ValueError, match=r"^options: expected none beside a config"):
        prune(points, config=config, seed=4)
    with pytest.raises(ValueError, match=r"^options: expected fields of PruneConfig"):
        prune(points, linkages="average")
    with pytest.raises(ValueError, match=r"^config: expected a PruneConfig"):
        prune(points, config={"seed": 1})


def test_prune_many_gives_what_prune_gives_in_order(planted) -> None:
    trees = [planted(3, 5 + size, seed=size) for size in range(5)]
    protected = [None if size % 2 else truth == 0 for size, (_, truth) in enumerate(trees)]
    config = PruneConfig(seed=3)
    many = list(prune_many(((points, mask) for (points, _), mask in zip(trees, protected, strict=True)), config))
    assert len(many) == 5
    for (points, _), mask, result in zip(trees, protected, many, strict=True):
        single = prune(points, protected=mask, config=config)
        assert torch.equal(result.disabled, single.disabled)
        assert result.stats == single.stats
    assert list(prune_many([])) == []
    bad = PolarPoints(torch.full((2, 3), float("nan")), torch.ones(2))
    with pytest.raises(ValueError, match="finite"):
        list(prune_many([(trees[0][0], None), (bad, None)]))
    with pytest.raises(ValueError, match=r"^value: expected"):
        list(prune_many([(trees[0][0], None)], PruneConfig(survivors="value")))


NAN = PolarPoints(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: prune(NAN), r"^points: expected finite latents, .* row 1"),
        (lambda p: cluster(NAN), r"^points: expected finite latents, .* row 1"),
        (lambda p: prune(p.to_tangent()), "^points: expected PolarPoints"),
        (lambda p: prune(p.reshape(2, 2)), r"^points: expected batch shape \(N,\)"),
        (lambda p: prune(p, protected=torch.zeros(3, dtype=torch.bool)), r"^protected: expected shape \(4,\)"),
        (lambda p: prune(p, protected=torch.zeros(4)), "^protected: expected dtype"),
        (lambda p: prune(p, protected=[True] * 4), "^protected: expected a torch.Tensor"),
        (lambda p: prune(p, value=torch.zeros(3)), r"^value: expected shape \(4,\)"),
        (lambda p: prune(p, survivors="value"), "^value: expected"),
        (lambda p: prune(p, survivors="visits"), "^visits: expected"),
        (lambda p: prune(p, survivors="value", value=torch.tensor([1.0, 2.0, float("nan"), 0.0])), "^value: .* NaN"),
        (lambda p: prune(p, fraction=1.0), "^fraction: expected"),
        (lambda p: prune(p, cut="number", number=5), "^number: expected at most"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(random_points(4, 0))
