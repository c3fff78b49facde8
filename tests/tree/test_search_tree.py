import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.tree import NO_PARENT, SearchTree, rewind
from lapha.types import Status


def small_tree() -> SearchTree:
    """0 → 1, 2; 1 → 3 (answers), 4 (depth limit); 2 → 5 (answers, pruned)."""
    tree = SearchTree("1 + 1", [10, 11], capacity=1)
    tree.add(0, tokens=[20, 21, 22], bridge_length=1, logprobs=[-0.5, -0.25], text="one", value=0.4)
    tree.add(0, tokens=[30], logprobs=[-1.0], well_formed=True)
    tree.add(1, tokens=[40, 41], bridge_length=2, answer="2", status=Status.ANSWERED)
    tree.add(1, tokens=[50], status=Status.DEPTH_LIMIT)
    tree.add(2, tokens=[60], answer="3", status=Status.ANSWERED)
    tree.pruned[5] = True
    return tree


def test_structure_and_tokens():
    tree = small_tree()
    assert len(tree) == 6
    assert tree.parent.tolist() == [NO_PARENT, 0, 0, 1, 1, 2]
    assert tree.depth.tolist() == [0, 1, 1, 2, 2, 2]
    assert tree.children == [[1, 2], [3, 4], [5], [], [], []]
    assert list(tree.siblings()) == [(0, [1, 2]), (1, [3, 4]), (2, [5])]
    assert tree.path(4) == [0, 1, 4]
    assert tree.path(0) == [0]
    assert tree.context_ids(3) == (10, 11, 20, 21, 22, 40, 41)
    assert tree.sampled_ids(1) == (21, 22)
    assert tree.sampled_ids(3) == ()
    assert tree.sampled_ids(0) == (), "the prompt is not sampled"
    assert tree.sampled_tokens == 2 + 1 + 0 + 1 + 1
    assert tree.logprob[1] == -0.75
    assert math.isnan(tree.value[2])
    assert tree.well_formed.tolist() == [False, False, True, False, False, False]


def test_leaves_are_terminal_and_not_pruned():
    tree = small_tree()
    assert tree.leaves().tolist() == [3, 4]
    assert tree.answered().tolist() == [3]


def test_arrays_follow_growth():
    tree = SearchTree("q", [1], capacity=1)
    for count in range(1, 200):
        tree.visits[-1] = count
        tree.add(count - 1, tokens=[count])
        assert len(tree.visits) == len(tree) == count + 1
    assert tree.visits.tolist() == [*range(1, 200), 0]
    assert tree.depth[-1] == 199


def test_subtree_mean_by_hand():
    mean = small_tree().subtree_mean(np.array([9, 9, 9, 1.0, 0.0, 0.5]))
    np.testing.assert_allclose(mean, [0.5, 0.5, 0.5, 1.0, 0.0, 0.5])
    assert np.isnan(SearchTree("q", [1]).subtree_mean(np.zeros(1))).all()
    with pytest.raises(ValueError, match="leaf_values: expected length 6, got 2"):
        small_tree().subtree_mean(np.zeros(2))


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        (6, r"parent: expected a node in \[0, 6\), got 6"),
        (-1, r"parent: expected a node in \[0, 6\), got -1"),
        (3, "parent: expected a node that is not terminal, got node 3"),
    ],
)
def test_bad_parents_are_named(parent, message):
    tree = small_tree()
    with pytest.raises(ValueError, match=message):
        tree.add(parent, tokens=[1])
    assert len(tree) == 6
    assert len(tree.tokens) == 6


def test_unknown_names_are_no_attributes():
    with pytest.raises(AttributeError, match="'SearchTree' object has no attribute 'visit'"):
        _ = small_tree().visit
    with pytest.raises(ValueError, match=r"node: expected a node in \[0, 6\), got 9"):
        small_tree().path(9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), nodes=st.integers(1, 40))
def test_paths_lead_to_the_root_and_children_know_their_parents(seed, nodes):
    generator = np.random.default_rng(seed)
    tree = SearchTree("q", [0])
    while len(tree) < nodes:
        tree.add(int(generator.integers(len(tree))), tokens=[len(tree)])
    for node in range(nodes):
        path = tree.path(node)
        assert path[0] == 0
        assert path[-1] == node
        assert len(path) == tree.depth[node] + 1
        assert tree.context_ids(node) == tuple(path)
        assert all(tree.parent[child] == node for child in tree.children[node])


def test_rewinding_leaves_the_tree_alone_and_knows_pruning():
    tree = small_tree()
    tree.simulation[:] = [0, 1, 1, 2, 2, 3]
    tree.pruned_at[5] = 3
    tree.backed_up[[3, 4, 5]] = [0.5, 0.25, 1.0]
    past = rewind(tree, 2)
    assert len(past) == 5
    assert past.visits.tolist() == [2, 2, 0, 1, 1]
    np.testing.assert_allclose(past.value_sum, [0.75, 0.75, 0, 0.5, 0.25])
    assert past.expansions.tolist() == [1, 1, 0, 0, 0]
    whole = rewind(tree, 3)
    assert whole.pruned.tolist() == [False] * 5 + [True]
    assert len(tree) == 6
    assert tree.visits.sum() == 0
    with pytest.raises(ValueError, match="simulations: expected an integer >= 0, got -1"):
        rewind(tree, -1)
