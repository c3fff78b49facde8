import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.shaping import choose_sibling_groups, sibling_advantages

GROUPS = settings(max_examples=80, deadline=None)
NAN = float("nan")


def star(children: int) -> torch.Tensor:
    return torch.tensor([-1] + [0] * children)


def test_advantages_by_hand():
    # children of 0: rewards 1, 3 (mean 2, std 1); children of 1: 0, 0, 3 (mean 1, std sqrt 2)
    parent = torch.tensor([-1, 0, 0, 1, 1, 1])
    r = torch.tensor([9.0, 1.0, 3.0, 0.0, 0.0, 3.0], dtype=torch.float64)
    A = sibling_advantages(r, parent, eps=0.0)
    root2 = math.sqrt(2)
    torch.testing.assert_close(A[1:], torch.tensor([-1, 1, -1 / root2, -1 / root2, 2 / root2], dtype=torch.float64))
    assert bool(A[0].isnan())


def test_eps_is_added_to_the_standard_deviation():
    A = sibling_advantages(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), star(2))
    assert A[1:].tolist() == pytest.approx([-0.5 / 0.5001, 0.5 / 0.5001], rel=1e-12)


@GROUPS
@given(
    rewards=st.lists(st.floats(-10, 10), min_size=2, max_size=12),
    scale=st.floats(0.1, 100),
    shift=st.floats(-100, 100),
)
def test_advantages_have_mean_zero_and_do_not_depend_on_scale(rewards, scale, shift):
    r = torch.tensor([0.0, *rewards], dtype=torch.float64)
    A = sibling_advantages(r, star(len(rewards)), eps=0.0)[1:]
    if max(rewards) - min(rewards) <= 1e-9:
        return
    assert float(A.mean()) == pytest.approx(0, abs=1e-6)
    assert float((A**2).mean()) == pytest.approx(1, rel=1e-6)
    other = sibling_advantages(scale * r + shift, star(len(rewards)), eps=0.0)[1:]
    if max(rewards) - min(rewards) > 1e-3:
        torch.testing.assert_close(other, A, rtol=1e-6, atol=1e-6)


def test_degenerate_groups_cannot_be_scored():
    parent = torch.tensor([-1, 0, 0, 1, 2, 2])
    A = sibling_advantages(torch.tensor([0.0, 0.7, 0.7, 0.3, 0.1, 0.2]), parent)
    assert A.isnan().tolist() == [True, True, True, True, False, False]


def test_members_without_a_reward_are_left_out():
    A = sibling_advantages(torch.tensor([NAN, 1.0, NAN, 3.0]), star(3), eps=0.0)
    assert A[1].item() == -1
    assert A[3].item() == 1
    assert bool(A[2].isnan())


def test_siblings_of_large_equal_rewards_are_not_noise():
    """In float32 one pass, the variance of 1000.1, 1000.1, 1000.2 is mostly rounding."""
    A = sibling_advantages(torch.tensor([0.0, 1000.125, 1000.125, 1000.25]), star(3), eps=0.0)
    torch.testing.assert_close(A[1:], torch.tensor([-1.0, -1.0, 2.0]) / math.sqrt(2))


@pytest.mark.parametrize(
    ("r", "parent", "eps", "message"),
    [
        (torch.tensor([0.0, math.inf]), star(1), 1e-4, "r: expected no infinite rewards"),
        (torch.zeros(2, 1), star(1), 1e-4, r"r: expected 1 dimension\(s\)"),
        (torch.zeros(2), star(2), 1e-4, "parent: expected shape"),
        (torch.zeros(2), star(1), -1.0, "eps: expected a number >= 0"),
    ],
)
def test_bad_input_is_named(r, parent, eps, message):
    with pytest.raises(ValueError, match=message):
        sibling_advantages(r, parent, eps)


def test_group_choice_by_hand():
    # node 0 has 3 children, node 1 has 4, node 2 has 2, node 3 has 3 without potential, node 4 has 3 equal rewards
    parent = torch.tensor([-1, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4])
    r = torch.tensor([0, 0.1, 0.2, 0.4, 0.9, 0.0, 0.5, 0.1, 0, 1, 0, 1, 0, 0.5, 0.5, 0.5])
    V = torch.ones(16)
    V[10:13] = 0
    groups = choose_sibling_groups(r, V, parent, breadth=3)
    assert [(g.parent, g.members.tolist()) for g in groups] == [(0, [1, 2, 3]), (1, [7, 6, 4])]
    only = choose_sibling_groups(r, V, parent, breadth=3, max_groups=1)
    assert [(g.parent, g.members.tolist()) for g in only] == [(1, [7, 6, 4])]


def test_one_member_with_potential_is_enough_for_a_group():
    """Failed leaves have V = 0: a group that holds some is what the policy learns most from."""
    r, parent = torch.tensor([0.0, 0.5, -0.25, -0.25]), star(3)
    groups = choose_sibling_groups(r, torch.tensor([0.0, 0.75, 0.0, 0.0]), parent, breadth=3)
    assert [group.members.tolist() for group in groups] == [[2, 3, 1]]
    assert choose_sibling_groups(r, torch.tensor([0.0, 1e-9, 0.0, 0.0]), parent, breadth=3) == []
    assert (
        choose_sibling_groups(r, torch.tensor([0.9, 0.0, 0.0, 0.0]), parent, breadth=3) == []
    )  # the parent is no member


@GROUPS
@given(
    rewards=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=9),
    breadth=st.integers(2, 5),
)
def test_the_window_has_the_largest_variance(rewards, breadth):
    r = torch.tensor([0.0, *rewards], dtype=torch.float64)
    groups = choose_sibling_groups(r, torch.ones_like(r), star(len(rewards)), breadth)
    if len(rewards) < breadth or max(rewards) - min(rewards) <= 1e-12:
        assert groups == []
        return
    members = groups[0].members
    assert len(members) == len(set(members.tolist())) == breadth
    chosen = r[members]
    assert chosen.tolist() == sorted(chosen.tolist())
    ordered = sorted(rewards)
    variances = [
        float(torch.tensor(ordered[i : i + breadth], dtype=torch.float64).var(correction=0))
        for i in range(len(ordered) - breadth + 1)
    ]
    assert float(chosen.var(correction=0)) == pytest.approx(max(variances), rel=1e-9, abs=1e-15)


def test_unscored_members_do_not_count_towards_the_breadth():
    r = torch.tensor([0.0, 0.1, NAN, 0.3])
    assert choose_sibling_groups(r, torch.ones(4), star(3), breadth=3) == []
    assert choose_sibling_groups(r, torch.ones(4), star(3), breadth=2)[0].members.tolist() == [1, 3]


def test_groups_do_not_depend_on_the_order_of_siblings():
    r = [0.9, 0.0, 0.4, 0.6, 0.1]
    reference = None
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
        rewards = torch.tensor([0.0] + [r[i] for i in order])
        group = choose_sibling_groups(rewards, torch.ones(6), star(5), breadth=3)[0]
        got = sorted(rewards[group.members].tolist())
        reference = reference or got
        assert got == reference


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"breadth": 1}, "breadth: expected an integer >= 2, got 1"),
        ({"breadth": 2, "max_groups": 0}, "max_groups: expected an integer >= 1, got 0"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose_sibling_groups(torch.zeros(3), torch.zeros(3), star(2), **arguments)
