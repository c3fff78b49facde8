import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shaping_golden import LINE_TREE

from lapha.shaping import adaptive_process_reward, adaptive_weights, process_reward

TREES = settings(max_examples=80, deadline=None)


@st.composite
def trees(draw, most: int = 40):
    """(parent, V, well_formed, terminal, correct) of a random tree, V in [0, 1] with V(root) = 0."""
    n = draw(st.integers(1, most))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    parent = torch.tensor([-1] + [int(torch.randint(0, i, (), generator=generator)) for i in range(1, n)])
    V = torch.rand(n, generator=generator, dtype=torch.float64)
    V[0] = 0
    terminal = torch.ones(n, dtype=torch.bool)
    terminal[parent[1:]] = False
    correct = terminal & (torch.rand(n, generator=generator) < 0.3)
    well_formed = torch.rand(n, generator=generator) < draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    return parent, V, well_formed, terminal, correct


def path_to_root(node: int, parent: torch.Tensor) -> list[int]:
    path = []
    while node >= 0:
        path.append(node)
        node = int(parent[node])
    return path


def test_by_hand():
    V = torch.tensor(LINE_TREE["V"], dtype=torch.float64)
    parent = torch.tensor(LINE_TREE["parent"])
    torch.testing.assert_close(process_reward(V, parent), torch.tensor(LINE_TREE["reward"], dtype=torch.float64))
    masks = [torch.tensor(LINE_TREE[name]) for name in ("well_formed", "terminal", "goal")]
    weights = adaptive_weights(process_reward(V, parent), parent, *masks)
    assert weights.value == pytest.approx(LINE_TREE["weight_value"], abs=1e-7)
    assert weights.format == pytest.approx(LINE_TREE["weight_format"], abs=1e-7)
    expected = torch.tensor(LINE_TREE["adaptive_reward"], dtype=torch.float64)
    torch.testing.assert_close(adaptive_process_reward(V, parent, *masks), expected, rtol=0, atol=1e-7)


@TREES
@given(tree=trees())
def test_rewards_telescope_along_every_path(tree):
    parent, V, *_ = tree
    r = process_reward(V, parent)
    for node in range(len(V)):
        assert float(r[path_to_root(node, parent)].sum()) == pytest.approx(float(V[node] - V[0]), abs=1e-12)


@TREES
@given(tree=trees(), gamma=st.floats(0, 1))
def test_discounted_rewards_telescope_with_their_discount(tree, gamma):
    parent, V, *_ = tree
    r = process_reward(V, parent, gamma)
    for node in range(len(V)):
        path = path_to_root(node, parent)[::-1][1:]
        total = sum(gamma**step * float(r[n]) for step, n in enumerate(path))
        assert total == pytest.approx(gamma ** len(path) * float(V[node]) - float(V[0]), abs=1e-12)


@TREES
@given(tree=trees(), gamma=st.floats(0, 1), alpha_v=st.floats(0, 3), alpha_f=st.floats(0, 3))
def test_adaptive_reward_is_the_formula(tree, gamma, alpha_v, alpha_f):
    """Node by node in plain Python, from the formula as written."""
    parent, V, well_formed, terminal, correct = tree
    got = adaptive_process_reward(
        V, parent, well_formed, terminal, correct, gamma=gamma, alpha_v=alpha_v, alpha_f=alpha_f
    )
    edges = range(1, len(V))
    delta = {j: gamma * float(V[j]) - float(V[parent[j]]) for j in edges}
    mean = sum(delta.values()) / max(len(delta), 1)
    variance = sum((d - mean) ** 2 for d in delta.values()) / max(len(delta), 1)
    good_format = sum(bool(well_formed[j]) for j in edges) / max(len(delta), 1)
    leaves = [j for j in edges if terminal[j]]
    accuracy = sum(bool(correct[j]) for j in leaves) / max(len(leaves), 1)
    raw_f = (1 - good_format) ** alpha_f
    raw_v = (1 - accuracy) ** alpha_v if variance > 1e-12 and sum(delta.values()) > 1e-9 else 0.0
    w_v, w_f = raw_v / (raw_f + raw_v + 1e-8), raw_f / (raw_f + raw_v + 1e-8)
    assert float(got[0]) == 0.0
    for j in edges:
        expected = min(max(w_v * max(0.0, delta[j]) + w_f * bool(well_formed[j]), 0.0), 1.0)
        assert float(got[j]) == pytest.approx(expected, abs=1e-12)
        assert 0 <= float(got[j]) <= 1


def test_adaptive_reward_of_a_perfect_format_pays_for_potential_alone():
    V, parent = torch.tensor([0.0, 0.25, 1.0]), torch.tensor([-1, 0, 1])
    flags = torch.tensor([False, True, True]), torch.tensor([False, False, True]), torch.zeros(3, dtype=torch.bool)
    torch.testing.assert_close(adaptive_process_reward(V, parent, *flags), torch.tensor([0.0, 0.25, 0.75]))


def test_adaptive_reward_without_signal_pays_for_format_alone():
    V, parent = torch.zeros(3), torch.tensor([-1, 0, 0])
    flags = torch.tensor([False, True, False]), torch.tensor([False, True, True]), torch.zeros(3, dtype=torch.bool)
    torch.testing.assert_close(adaptive_process_reward(V, parent, *flags), torch.tensor([0.0, 1.0, 0.0]))


def test_several_trees_in_one_parent_array():
    V = torch.tensor([0.0, 0.5, 0.25, 1.0])
    assert process_reward(V, torch.tensor([-1, 0, -1, 2])).tolist() == [0.0, 0.5, 0.0, 0.75]


def test_dtype_and_nan_are_kept():
    V = torch.tensor([0.0, float("nan"), 0.5], dtype=torch.float64)
    r = process_reward(V, torch.tensor([-1, 0, 1], dtype=torch.int32))
    assert r.dtype == torch.float64
    assert r.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("V", "parent", "gamma", "message"),
    [
        ([0.0, 1.0], torch.tensor([-1, 0]), 1.0, "V: expected a torch.Tensor, got list"),
        (torch.zeros(2, dtype=torch.int64), torch.tensor([-1, 0]), 1.0, "V: expected a floating point dtype"),
        (torch.zeros(2), torch.tensor([-1, 1]), 1.0, r"parent: expected an index earlier .* got parent\[1\] = 1"),
        (torch.zeros(2), torch.tensor([-1, -2]), 1.0, r"got parent\[1\] = -2"),
        (torch.zeros(2), torch.tensor([-1]), 1.0, r"parent: expected shape \(2,\), got shape \(1,\)"),
        (torch.zeros(2), torch.tensor([-1, 0]), 1.5, r"gamma: expected a number in \[0, 1\], got 1.5"),
    ],
)
def test_bad_input_is_named(V, parent, gamma, message):
    with pytest.raises(ValueError, match=message):
        process_reward(V, parent, gamma)


def test_adaptive_refuses_nan():
    flags = [torch.zeros(2, dtype=torch.bool)] * 3
    with pytest.raises(ValueError, match="V: expected finite numbers"):
        adaptive_process_reward(torch.tensor([0.0, float("nan")]), torch.tensor([-1, 0]), *flags)
