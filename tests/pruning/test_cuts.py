"""Where dendrograms are cut."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.pruning import PruneConfig
from lapha.pruning._cuts import by_appearance, find_cut, largest_jump


def test_largest_jump_is_relative_not_absolute() -> None:
    assert largest_jump(np.array([1.0, 1.1, 4.4, 8.0])) == 2  # ×4 beats +3.6
    assert largest_jump(np.array([1.0, 3.0, 4.0])) == 1
    assert largest_jump(np.array([2.0, 2.0, 2.0, 5.0])) == 3


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.2, 100), min_size=2, max_size=30))
def test_largest_jump_equals_its_definition(heights: list[float]) -> None:
    height = sorted(heights)
    ratios = [(b - a) / a for a, b in pairwise(height)]
    assert ratios[largest_jump(np.array(height)) - 1] == pytest.approx(max(ratios))


def test_exact_duplicates_are_not_the_only_thing_that_a_jump_can_find() -> None:
    duplicates_and_paraphrases = np.array([0.0, 0.0, 0.1, 0.11, 0.12, 2.0, 2.1])
    assert largest_jump(duplicates_and_paraphrases) == 5
    assert largest_jump(np.array([0.0, 0.0, 0.0, 1.0])) == 3
    assert largest_jump(np.zeros(4)) == 4


def test_without_two_merges_there_is_no_jump() -> None:
    assert largest_jump(np.empty(0)) == 0
    assert largest_jump(np.array([0.7])) == 1


@pytest.mark.parametrize(
    ("config", "merges", "below", "above"),
    [
        (PruneConfig(), 3, 0.3, 4.0),
        (PruneConfig(cut="distance", distance=0.2), 2, 0.2, 0.3),
        (PruneConfig(cut="distance", distance=0.05), 0, 0.0, 0.1),
        (PruneConfig(cut="distance", distance=9.0), 4, 4.0, math.inf),
        (PruneConfig(cut="number", number=1), 4, 4.0, math.inf),
        (PruneConfig(cut="number", number=4), 1, 0.1, 0.2),
        (PruneConfig(cut="number", number=5), 0, 0.0, 0.1),
    ],
)
def test_cuts(config: PruneConfig, merges: int, below: float, above: float) -> None:
    cut = find_cut(np.array([0.1, 0.2, 0.3, 4.0]), config)
    assert (cut.merges, cut.below, cut.above) == (merges, below, above)
    assert below <= cut.distance <= above
    assert below == 0 or above == math.inf or below < cut.distance < above


def test_more_clusters_than_points_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^number: expected at most one cluster a point, 5, got 6"):
        find_cut(np.array([0.1, 0.2, 0.3, 4.0]), PruneConfig(cut="number", number=6))


def test_labels_are_numbered_by_first_appearance() -> None:
    assert by_appearance(np.array([7, 2, 7, 0, 2])).tolist() == [0, 1, 0, 2, 1]
    assert by_appearance(np.empty(0, np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"fraction": 1.0}, "fraction"),
        ({"fraction": -0.1}, "fraction"),
        ({"fraction": float("nan")}, "fraction"),
        ({"linkage": "ward"}, "linkage"),
        ({"cut": "elbow"}, "cut"),
        ({"survivors": "oldest"}, "survivors"),
        ({"scope": "leaves"}, "scope"),
        ({"cut": "distance"}, "distance"),
        ({"cut": "distance", "distance": 0.0}, "distance"),
        ({"cut": "distance", "distance": float("nan")}, "distance"),
        ({"cut": "number"}, "number"),
        ({"cut": "number", "number": 0}, "number"),
        ({"distance": 0.5}, "distance"),
        ({"number": 3}, "number"),
        ({"linkage": "hdbscan", "cut": "number", "number": 3}, "cut"),
        ({"min_cluster_size": 1}, "min_cluster_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_options_are_named(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        PruneConfig(**options)
