"""Diagnosis against trees whose answers are known by construction."""

import math

import numpy as np
import pytest
import torch

from lapha.evaluation.diagnosis import diagnose
from lapha.geometry import PolarPoints, dist, dist0
from lapha.search import SearchResult
from lapha.tree import SearchTree
from lapha.types import Status

# parents of nodes 1…; two families of three below the root's children 1 and 2, one of two below the root
PARENTS = [0, 0, 1, 1, 1, 2, 2, 2]
LEAVES = range(3, 9)


def search_of(tangent, value=None, parents=PARENTS, leaves=LEAVES):
    tree = SearchTree("q", (1,))
    for node, parent in enumerate(parents, 1):
        status = Status.ANSWERED if node in leaves else Status.OPEN
        answer = "a" if node in leaves else None
        tree.add(parent, tokens=(1,), logprobs=[0.0], text="", answer=answer, status=status, well_formed=True)
    if value is not None:
        tree.value[:] = value
    points = PolarPoints.from_tangent(torch.tensor(tangent, dtype=torch.float32))
    return SearchResult("q", 0, "k", None, math.nan, None, tree, points, "simulations")


def goals(*nodes, size=9):
    found = np.zeros(size, bool)
    found[list(nodes)] = True
    return found


# the first half of the tree lies to the right, the second to the left; goals on the far right
HALVES = [[0, 0], [0.5, 0.0], [-0.5, 0.0], [1.0, 0.1], [0.6, 0.6], [0.9, -0.2], [-0.6, 0.5], [-0.7, 0.2], [-0.8, -0.5]]


def test_distances_and_radii():
    result = search_of(HALVES)
    found = diagnose([(result, goals(3))])
    points = result.latents
    ratios, stretches = [], []
    for family in ([1, 2], [3, 4, 5], [6, 7, 8]):
        for i in family:
            for j in family:
                if i < j:
                    apart = float(dist(points[i], points[j]))
                    ratios.append(apart / float(dist0(points[i]) + dist0(points[j])))
                    stretches.append(apart / (2 * math.dist(HALVES[i], HALVES[j])))
    assert found.sibling_distance == pytest.approx(np.median(ratios), rel=1e-5)
    assert found.curvature_effect == pytest.approx(np.median(stretches), rel=1e-5)
    assert found.curvature_effect > 1
    radius = np.linalg.norm(HALVES, axis=1)[1:]
    assert (found.radius_low, found.radius, found.radius_high) == pytest.approx(np.quantile(radius, [0.05, 0.5, 0.95]))
    assert (found.trees, found.solved, found.nodes) == (1, 1, 9)
    assert found.duplicates == found.saturated == 0


def test_flat_space_and_saturated_balls():
    small = diagnose([(search_of((1e-3 * np.array(HALVES)).tolist()), goals(3))])
    assert small.curvature_effect == pytest.approx(1, abs=1e-4)
    far = diagnose([(search_of((20 * np.array(HALVES)).tolist()), goals(3))])
    assert far.saturated == pytest.approx(np.mean(20 * np.linalg.norm(HALVES, axis=1)[1:] > 9))


def test_siblings_that_coincide():
    same = [HALVES[0], *HALVES[1:3], *[HALVES[3]] * 3, *HALVES[6:]]
    assert diagnose([(search_of(same), goals(3))]).duplicates == pytest.approx(3 / 7)


def test_orders_by_success_rate():
    value = [0.5, 0.9, 0.1, 0.8, 0.2, 0.2, 0.3, 0.3, 0.3]
    found = diagnose([(search_of(HALVES, value), goals(3, 5))])
    # pairs with different rates: (1, 2), (3, 4), (4, 5); v̂ has the last as a tie
    assert found.value_order == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.potential_order == 1.0
    assert found.pairs == 3
    # above a wrong leaf in 7 of 8 pairs, and a tie with leaf 4 in the other
    assert found.value_auc == pytest.approx((4 + 0.5 + 0) / 8)


def test_goals_of_the_family_itself_are_left_out():
    """Below node 1, leaf 3 is right; the only other goal, leaf 6, lies nearest to leaf 4."""
    tangent = [list(row) for row in HALVES]
    tangent[6] = [0.62, 0.62]
    found = diagnose([(search_of(tangent), goals(3, 6))])
    # family 1: 3 over 4 and 3 over 5 by rate, seen from leaf 6: 4 first, then 3, then 5
    # family 2: 6 over 7 and over 8, seen from leaf 3: 6 is nearest; the root's own family has no goal elsewhere
    assert found.order_elsewhere == pytest.approx(3 / 4)
    assert found.potential_order == 1.0


def test_signal_of_trees():
    solved, unsolved = (search_of(HALVES), goals(3)), (search_of(HALVES), goals())
    found = diagnose([solved, unsolved])
    assert (found.trees, found.solved, found.with_groups) == (2, 1, 1.0)
    assert found.depth_correlation != found.depth_correlation  # open nodes of one depth alone
    assert found.potential_spread > 0.05
    nothing = diagnose([unsolved])
    assert math.isnan(nothing.potential_order)
    assert math.isnan(nothing.with_groups)
    assert math.isnan(nothing.value_auc)  # no value is known


def test_depth():
    chain = [[0, 0], [0.2, 0], [0.4, 0], [0.6, 0], [0.8, 0], [1, 0]]
    result = search_of(chain, parents=[0, 1, 2, 3, 4], leaves=[5])
    assert diagnose([(result, goals(5, size=6))]).depth_correlation == pytest.approx(1.0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="trees: expected at least one"):
        diagnose([])
    with pytest.raises(ValueError, match=r"goal: expected shape \(9,\)"):
        diagnose([(search_of(HALVES), goals(3, size=8))])
    with pytest.raises(ValueError, match="goal: expected leaves alone"):
        diagnose([(search_of(HALVES), goals(1))])


def deep_search(seed, informed, scale=1.0):
    """Open siblings of different worth, each with leaves below; latents tell the worth, or nothing."""
    rng = np.random.default_rng(seed)
    worth = rng.random(4)
    parents, leaves, right, place = [0] * 4, [], [], [[0.0, 0.0]]
    place += [[scale * (w if informed else rng.random()), 0.0] for w in worth]
    for child in range(1, 5):
        for _ in range(6):
            parents.append(child)
            leaves.append(len(parents))
            place.append([scale, 0.0])
            if rng.random() < worth[child - 1]:
                right.append(len(parents))
    result = search_of(place, parents=parents, leaves=leaves)
    result = SearchResult("q", seed, "k", None, math.nan, None, result.tree, result.latents, "simulations")
    return result, goals(*right, size=len(parents) + 1)


def test_which_reward_to_use():
    knows = diagnose([deep_search(seed, informed=True) for seed in range(60)])
    blind = diagnose([deep_search(seed, informed=False) for seed in range(60)])
    assert knows.reward == "potential"
    assert knows.audit_potential > knows.audit_verdicts > 0.6
    assert knows.audit_margin == pytest.approx(knows.audit_potential - knows.audit_verdicts)
    assert blind.reward == "verdicts"
    assert blind.audit_potential < blind.audit_verdicts
    assert 'Train with reward="strict"' in knows.findings()[0]
    assert 'potential="success_rate"' in blind.findings()[0]
    nothing = diagnose([(search_of(HALVES), goals(3))])
    assert nothing.audit_pairs == 0
    assert "No pair of open siblings" in nothing.findings()[0]


def test_flat_is_what_curvature_does_not_change():
    # siblings beside the goal, one farther out and one at an angle: far out the angle costs more than the radius
    def pair(scale):
        tangent = [[0, 0], [1.0, 0.0], [1.4, 0.0], [0.95, 0.25]]
        return search_of((scale * np.array(tangent)).tolist(), parents=[0, 0, 0], leaves=[1]), goals(1, size=4)

    near, far = diagnose([pair(1e-3)]), diagnose([pair(3.0)])
    assert near.bent_pairs == 0
    assert near.flat
    assert far.bent_pairs == pytest.approx(1 / 3)  # the two that are no goal change places
    assert not far.flat
    assert "The ball is flat" in " ".join(near.findings())


def test_depth_is_named():
    chain = [[0, 0], [0.2, 0], [0.4, 0], [0.6, 0], [0.8, 0], [1, 0]]
    result = search_of(chain, parents=[0, 1, 2, 3, 4], leaves=[5])
    found = diagnose([(result, goals(5, size=6))])
    assert found.is_depth
    assert "V is mostly depth (rank correlation +1.00)." in found.findings()
    assert found.to_dict()["is_depth"] is True
