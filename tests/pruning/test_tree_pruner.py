"""Pruning the nodes of a search tree: who takes part, and who always stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.geometry import PolarPoints
from lapha.pruning import PruneConfig, candidate_nodes, live_nodes, prune_tree
from lapha.tree import SearchTree
from lapha.types import Status


def random_tree(size: int, seed: int) -> tuple[SearchTree, PolarPoints]:
    """A random tree in which terminal nodes, visits and earlier pruning all occur."""
    random = np.random.default_rng(seed)
    tree = SearchTree("question", (1, 2))
    while len(tree) < size:
        parent = int(random.integers(len(tree)))
        if tree.status[parent] == Status.OPEN:
            status = random.choice([Status.OPEN, Status.OPEN, Status.ANSWERED, Status.DEPTH_LIMIT])
            tree.add(parent, tokens=(3,), status=Status(status), value=float(random.random()))
    tree.visits[:] = random.integers(0, 3, size)
    tree.pruned[1:] = random.random(size - 1) < 0.1
    v = torch.from_numpy(random.normal(size=(size, 3))).float() * torch.from_numpy(random.random((size, 1))).float()
    v[0] = 0
    return tree, PolarPoints.from_tangent(v)


def ancestors(tree: SearchTree, node: int) -> list[int]:
    return tree.path(node)[:-1]


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    scope=st.sampled_from(["visited_nonterminal", "all"]),
    fraction=st.floats(0, 0.99),
    survivors=st.sampled_from(["random", "value", "visits", "medoid"]),
)
def test_pruning_a_tree_keeps_its_promises(size: int, seed: int, scope: str, fraction: float, survivors: str) -> None:
    tree, points = random_tree(size, seed)
    tree.value[0] = 0.0
    generator = torch.Generator().manual_seed(seed)
    correct = torch.from_numpy(tree.status == Status.ANSWERED) & (torch.rand(size, generator=generator) < 0.3)
    before = {name: getattr(tree, name).copy() for name in ("pruned", "visits", "value")}
    config = PruneConfig(fraction=fraction, scope=scope, survivors=survivors, cut="number", number=1)
    if not candidate_nodes(tree, scope).any():
        config = PruneConfig(fraction=fraction, scope=scope)
    result = prune_tree(tree, points, config, protected=correct)
    assert torch.equal(result.disabled, prune_tree(tree, points, config, protected=correct).disabled)
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(tree, name), array, err_msg="the tree is left alone")
    disabled = result.disabled.numpy()
    candidates = candidate_nodes(tree, scope)
    assert not disabled[~candidates].any()
    assert not disabled[0], "never the root"
    assert result.stats.disabled == disabled.sum()
    np.testing.assert_array_equal(result.labels.numpy() >= 0, candidates)
    for leaf in correct.nonzero().flatten().tolist():
        assert not disabled[leaf], "never a correct leaf"
        assert not disabled[ancestors(tree, leaf)].any(), "never the way to it"
    live = live_nodes(tree)
    gone = disabled | tree.pruned
    for node, children in tree.siblings():
        stays = live[node] and not disabled[[*ancestors(tree, node), node]].any()
        had = [child for child in children if live[child]]
        if stays and had:
            assert not gone[had].all(), "a node that stays keeps a live child"


def chain_and_fan() -> tuple[SearchTree, PolarPoints]:
    """Root 0 with one child 1; node 1 with children 2–7, all the same state and all visited."""
    tree = SearchTree("question", (1,))
    tree.add(0, tokens=(2,))
    for _ in range(6):
        tree.add(1, tokens=(3,), value=0.5)
    tree.visits[:] = 1
    v = torch.zeros(8, 4)
    v[1:, 0] = 1.0
    return tree, PolarPoints.from_tangent(v)


def test_the_only_child_stays_and_a_third_of_the_copies_go() -> None:
    tree, points = chain_and_fan()
    result = prune_tree(tree, points, PruneConfig(seed=1))
    assert not result.disabled[:2].any()
    assert result.stats.nodes == 7
    assert int(result.disabled.sum()) in (1, 2)  # two of seven; one if node 1, an only child, was given back
    strong = prune_tree(tree, points, PruneConfig(fraction=0.9, survivors="visits"))
    assert not strong.disabled[2:].all()
    assert not strong.disabled[1]


def test_last_child_given_back_is_the_most_visited_then_the_best() -> None:
    tree, points = chain_and_fan()
    tree.visits[1] = 50  # so that node 1 survives as the cluster's member, and all its children would go
    tree.visits[2:] = [1, 4, 4, 2, 1, 1]
    tree.value[2:] = [0.9, 0.2, 0.3, 0.9, 0.9, 0.9]
    result = prune_tree(tree, points, PruneConfig(fraction=0.9, survivors="visits"))
    assert result.disabled.nonzero().flatten().tolist() == [2, 3, 5, 6, 7]


def test_below_a_node_that_goes_nothing_is_given_back() -> None:
    tree = SearchTree("question", (1,))
    for parent in (0, 0, 1, 2, 3):  # nodes 1 to 5: two children of the root, then a chain below the first
        tree.add(parent, tokens=(2,))
    tree.visits[:] = [9, 1, 9, 9, 9, 1]
    v = torch.zeros(6, 4)
    v[1:, 0] = 1.0
    result = prune_tree(tree, PolarPoints.from_tangent(v), PruneConfig(fraction=0.4, survivors="visits"))
    assert result.disabled.nonzero().flatten().tolist() == [1, 5]


def test_scope_says_who_takes_part() -> None:
    tree, points = chain_and_fan()
    tree.add(2, tokens=(4,), status=Status.ANSWERED, value=0.5)
    tree.visits[3] = 0
    points = PolarPoints.cat([points, points[1:2]])
    assert candidate_nodes(tree, "visited_nonterminal").nonzero()[0].tolist() == [1, 2, 4, 5, 6, 7]
    assert candidate_nodes(tree, "all").nonzero()[0].tolist() == list(range(1, 9))
    tree.pruned[2] = True
    assert live_nodes(tree).nonzero()[0].tolist() == [0, 1, 3, 4, 5, 6, 7], "what is below a pruned node is dead"
    labels = prune_tree(tree, points, PruneConfig(scope="all")).labels
    assert labels.tolist() == [-1, 0, -1, 0, 0, 0, 0, 0, -1]


def test_a_tree_of_its_root_alone_has_nothing_to_prune() -> None:
    tree = SearchTree("question", (1,))
    result = prune_tree(tree, PolarPoints.origin((1,), 4))
    assert result.disabled.tolist() == [False]
    assert result.stats.nodes == 0


def test_bad_input_is_named() -> None:
    tree, points = chain_and_fan()
    with pytest.raises(ValueError, match=r"^points: expected one latent for each of 8 nodes, got 7"):
        prune_tree(tree, points[:7])
    with pytest.raises(ValueError, match=r"^protected: expected shape \(8,\)"):
        prune_tree(tree, points, protected=torch.zeros(7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^value: .* NaN"):
        prune_tree(tree, points, PruneConfig(survivors="value"))  # node 1 has no value
