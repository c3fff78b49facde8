import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.geometry import PolarPoints
from lapha.shaping import chain_advantages, chain_potential, chain_rewards, potential, process_reward, steps_to_tokens


def line(signed_radius: torch.Tensor) -> PolarPoints:
    tangent = torch.zeros(*signed_radius.shape, 2, dtype=torch.float64)
    tangent[..., 0] = signed_radius
    return PolarPoints.from_tangent(tangent)


def test_chain_potential_by_hand_keeps_questions_apart():
    radii = torch.tensor([[0.25, 0.5], [0.125, 9.0], [0.25, 0.75], [0.1, 0.2]], dtype=torch.float64)
    boundaries = torch.tensor([[3, 7], [4, -1], [2, 5], [1, 2]])
    correct = torch.tensor([True, False, True, False])
    group = torch.tensor([5, 5, 8, 2])
    V = chain_potential(line(radii), boundaries, correct, group, failed_leaves="geometry")
    expected = torch.tensor([[0.5, 1.0], [0.25, 0.0], [1 / 3, 1.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(V, expected, rtol=1e-6, atol=1e-7)


def test_chain_potential_is_the_potential_of_the_tree_that_the_chains_form():
    radii = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    boundaries = torch.tensor([[1, 2, 3]] * 4)
    correct = torch.tensor([False, True, False, True])
    V = chain_potential(line(radii), boundaries, correct, torch.zeros(4, dtype=torch.int64), failed_leaves="geometry")
    parent = torch.tensor([-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11])
    goal = torch.zeros(13, dtype=torch.bool)
    goal[[6, 12]] = True
    tree_V = potential(line(torch.cat([torch.zeros(1, dtype=torch.float64), radii.flatten()])), goal)
    torch.testing.assert_close(V.flatten(), tree_V[1:])
    torch.testing.assert_close(chain_rewards(V, boundaries).flatten(), process_reward(tree_V, parent)[1:])


def test_tokens_belong_to_the_step_that_ends_at_or_after_them():
    boundaries = torch.tensor([[1, 4], [2, -1], [-1, -1]])
    values = torch.tensor([[1.0, 2.0], [3.0, 99.0], [99.0, 99.0]])
    expected = [[1, 1, 2, 2, 2, 0], [3, 3, 3, 0, 0, 0], [0] * 6]
    assert steps_to_tokens(values, boundaries, 6).tolist() == expected


def test_advantages_by_hand():
    # returns 1 and 0: b = 1/2 (or 0 and 1 without the own one), standard deviation 1/2; u(v) = b + (1 - b) v
    V = torch.tensor([[0.5, 1.0], [0.25, 0.0]], dtype=torch.float64)
    boundaries = torch.tensor([[0, 2], [1, 2]])
    group = torch.zeros(2, dtype=torch.int64)

    def advantages(**options):
        return chain_advantages(V, boundaries, 4, group, eps=0.0, **options).tolist()

    assert advantages() == [[1.0, 0.5, 0.5, 0.0], [-1.0, -1.0, -1.25, 0.0]]
    assert advantages(normalize=False) == [[0.5, 0.25, 0.25, 0.0], [-0.5, -0.5, -0.625, 0.0]]
    assert advantages(credit="step") == [[0.5, 0.5, 0.5, 0.0], [0.25, 0.25, -1.25, 0.0]]
    others = advantages(baseline="leave_one_out", normalize=False)
    assert others == [[1.0, 0.5, 0.5, 0.0], [-1.0, -1.0, -1.0, 0.0]]
    # discounted: returns 1/4 and 0, b = 1/8
    halved = advantages(gamma=0.5, normalize=False)
    assert halved == [[0.125, *[0.5 - (1 / 8 + 7 / 8 * 0.5)] * 2, 0.0], [*[-0.125] * 2, -(1 / 8 + 7 / 8 * 0.25), 0.0]]


@st.composite
def questions(draw):
    """(V, boundaries, returns) of one question's chains; every length and potential."""
    batch, steps = draw(st.integers(2, 6)), draw(st.integers(1, 8))
    counts = [draw(st.integers(1, steps)) for _ in range(batch)]
    final = [draw(st.sampled_from([0.0, 0.3, 1.0])) for _ in range(batch)]
    V = torch.tensor([[draw(st.floats(0, 1)) for _ in range(steps)] for _ in range(batch)], dtype=torch.float64)
    boundaries = torch.full((batch, steps), -1)
    for row, (count, value) in enumerate(zip(counts, final, strict=True)):
        boundaries[row, :count] = torch.arange(count) + draw(st.integers(0, 3))
        V[row, count - 1] = value
    return V, boundaries, final


@settings(max_examples=100, deadline=None, derandomize=True)
@given(questions(), st.sampled_from(["group", "leave_one_out"]), st.booleans())
def test_equal_returns_have_equal_first_advantages_whatever_the_number_of_steps(case, baseline, normalize):
    V, boundaries, final = case
    group = torch.zeros(len(V), dtype=torch.int64)
    options = {"baseline": baseline, "normalize": normalize}
    to_go = chain_advantages(V, boundaries, 12, group, **options)
    for one in range(len(V)):
        for other in range(one):
            if final[one] == final[other]:
                assert float(to_go[one, 0]) == pytest.approx(float(to_go[other, 0]), abs=1e-12)
            else:  # and a better return is a better advantage
                assert (to_go[one, 0] > to_go[other, 0]) == (final[one] > final[other])
    right = torch.tensor(final) == 1.0
    assert bool((to_go[right] >= -1e-12).all())  # no step of a right chain is pushed down
    # what the single steps get adds up to the first token's advantage: longer is neither better nor worse
    single = chain_advantages(V, boundaries, 12, group, credit="step", **options)
    total = torch.where(boundaries >= 0, single.gather(1, boundaries.clamp(min=0)), 0.0).sum(1)
    torch.testing.assert_close(total, to_go[:, 0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
def test_questions_do_not_know_of_each_other(baseline):
    V = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    boundaries = torch.tensor([[0, 2, 4]] * 6)
    group = torch.tensor([7, 3, 7, 3, 3, 7])
    together = chain_advantages(V, boundaries, 5, group, baseline=baseline)
    for question in (3, 7):
        own = group == question
        alone = chain_advantages(V[own], boundaries[own], 5, group[own], baseline=baseline)
        torch.testing.assert_close(together[own], alone)


def test_a_chain_without_steps_counts_as_a_return_of_zero():
    V = torch.tensor([[1.0], [0.7]])
    boundaries = torch.tensor([[1], [-1]])
    advantage = chain_advantages(V, boundaries, 2, torch.zeros(2, dtype=torch.int64), eps=0.0)
    assert advantage.tolist() == [[1.0, 1.0], [0.0, 0.0]]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 6), steps=st.integers(1, 5))
def test_rewards_sum_to_the_last_potential(seed, batch, steps):
    generator = torch.Generator().manual_seed(seed)
    V = torch.rand(batch, steps, generator=generator, dtype=torch.float64)
    count = torch.randint(0, steps + 1, (batch,), generator=generator)
    boundaries = torch.arange(steps).repeat(batch, 1) * 3 + 1
    boundaries[torch.arange(steps) >= count[:, None]] = -1
    total = chain_rewards(V, boundaries).sum(1)
    for row in range(batch):
        last = float(V[row, count[row] - 1]) if count[row] else 0.0
        assert float(total[row]) == pytest.approx(last, abs=1e-12)
    tokens = steps_to_tokens(torch.ones_like(V), boundaries, 3 * steps)
    assert tokens.sum(1).tolist() == [3 * int(c) - 1 if c else 0 for c in count]


def test_padding_is_not_read():
    V = torch.tensor([[0.5, float("nan")], [0.25, 0.75]])
    boundaries = torch.tensor([[0, -1], [0, 1]])
    group = torch.zeros(2, dtype=torch.int64)
    assert bool(torch.isfinite(chain_advantages(V, boundaries, 3, group)).all())


def test_questions_with_equal_rewards_give_no_gradient():
    V = torch.zeros(2, 2)
    boundaries = torch.tensor([[0, 1], [0, 1]])
    assert chain_advantages(V, boundaries, 2, torch.tensor([0, 1])).abs().sum() == 0


@pytest.mark.parametrize(
    ("boundaries", "message"),
    [
        (torch.tensor([[3, 3]]), "boundaries: expected positions that increase, then -1, got 3 before 3 in row 0"),
        (torch.tensor([[-1, 3]]), "got -1 before 3 in row 0"),
        (torch.tensor([[-2, -1]]), "boundaries: expected positions >= 0, or -1, got -2"),
        (torch.tensor([[0.0, 1.0]]), r"boundaries: expected integers of shape \(B, K\)"),
        (torch.tensor([[1, 9]]), "boundaries: expected positions below length = 4, got 9"),
    ],
)
def test_bad_boundaries_are_named(boundaries, message):
    with pytest.raises(ValueError, match=message):
        chain_advantages(torch.zeros(1, 2), boundaries, 4, torch.tensor([0]))


@pytest.mark.parametrize(
    ("options", "name"), [({"credit": "all"}, "credit"), ({"baseline": "mean"}, "baseline"), ({"gamma": 2.0}, "gamma")]
)
def test_bad_options_are_named(options, name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        chain_advantages(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64), 4, torch.tensor([0]), **options)


def test_a_correct_chain_needs_a_step():
    with pytest.raises(ValueError, match="correct: expected chains that have at least one step"):
        chain_potential(line(torch.zeros(1, 2)), torch.tensor([[-1, -1]]), torch.tensor([True]), torch.tensor([0]))
