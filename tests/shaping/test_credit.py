"""Credit rules against numbers worked out by hand and against plain Python on random trees."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.geometry import PolarPoints
from lapha.shaping import Rollouts, ShapingConfig, compare_credit, credit, shape
from lapha.tree import SearchTree
from lapha.types import Status

NAN = math.nan
TREES = settings(max_examples=60, deadline=None, derandomize=True)

#        0
#    1       2          leaves 3 (1), 4 (0), 5 (1) below 1; 6 (0), 7 (open) below 2
PARENT = torch.tensor([-1, 0, 0, 1, 1, 1, 2, 2])
ENDS = torch.tensor([False, False, False, True, True, True, True, False])
SCORE = torch.tensor([NAN, NAN, NAN, 1.0, 0.0, 1.0, 0.0, NAN])
HAND = Rollouts(PARENT, ENDS, SCORE)


def close(got, wanted):
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64), equal_nan=True, atol=1e-12, rtol=1e-9)


def test_terminal_by_hand():
    # scores 1, 0, 1, 0: mean and deviation 1/2; node 1 has the mean of +1, −1, +1
    close(credit.terminal(HAND, eps=0.0), [NAN, 1 / 3, -1, 1, -1, 1, -1, NAN])
    close(credit.terminal(HAND, normalize=False), [NAN, 1 / 6, -0.5, 0.5, -0.5, 0.5, -0.5, NAN])


def test_leave_one_out_by_hand():
    close(credit.leave_one_out(HAND), [NAN, 2 / 9, -2 / 3, 2 / 3, -2 / 3, 2 / 3, -2 / 3, NAN])


def test_sibling_verdict_by_hand():
    deviation = math.sqrt(2) / 3
    right, wrong = (1 / 3) / deviation, (-2 / 3) / deviation
    close(credit.sibling_verdict(HAND, eps=0.0), [NAN, NAN, NAN, right, wrong, right, NAN, NAN])


def test_subtree_success_by_hand():
    # rates: prompt 1/2, node 1 2/3, node 2 0
    close(credit.subtree_success(HAND), [NAN, 1 / 6, -1 / 2, 1 / 3, -2 / 3, 1 / 3, 0, NAN])


def test_tree_rl_by_hand():
    # (rate − rate of prompt) + (rate − rate of parent), over the root of the leaves below
    close(
        credit.tree_rl(HAND),
        [NAN, (1 / 6 + 1 / 6) / math.sqrt(3), -1.0, 1 / 2 + 1 / 3, -1 / 2 - 2 / 3, 1 / 2 + 1 / 3, -1 / 2, NAN],
    )


def test_tree_rpo_by_hand():
    # q: node 1 2/3, node 2 0; siblings' mean 1/3, √(1/3 · 2/3); below node 1 mean 2/3
    spread = math.sqrt(2) / 3
    close(credit.tree_rpo(HAND), [NAN, (1 / 3) / spread, (-1 / 3) / spread, (1 / 3) / spread, (-2 / 3) / spread, (1 / 3) / spread, NAN, NAN])  # fmt: skip
    deviation = math.sqrt(2) / 3
    plain = credit.tree_rpo(HAND, bernoulli=False, eps=0.0)
    close(plain, [NAN, 1, -1, (1 / 3) / deviation, (-2 / 3) / deviation, (1 / 3) / deviation, NAN, NAN])


def test_tree_rpo_counts_children_not_leaves():
    # a leaf (1) beside a subtree of two leaves (0, 0): q of their parent is 1/2, its success rate 1/3
    rollouts = Rollouts(
        torch.tensor([-1, 0, 0, 1, 1, 4, 4]),
        torch.tensor([False, False, True, True, False, True, True]),
        torch.tensor([NAN, NAN, 0.0, 1.0, NAN, 0.0, 0.0]),
    )
    spread = math.sqrt(0.25 * 0.75)
    got = credit.tree_rpo(rollouts)
    close(got[1:3], [0.25 / spread, -0.25 / spread])
    close(credit.success(rollouts)[1:2], [1 / 3])


def two_trees() -> Rollouts:
    """Two trees of one question: leaves 1, 0 and leaves 1, 1."""
    tree = torch.tensor([-1, 0, 0])
    ends = torch.tensor([False, True, True])
    parts = [
        Rollouts(tree, ends, torch.tensor([NAN, *scores]), question=torch.full((3,), 4))
        for scores in ((1.0, 0.0), (1.0, 1.0))
    ]
    return Rollouts.cat(parts)


def test_tree_grpo_by_hand():
    both = two_trees()
    deviation = math.sqrt(3) / 4
    right, wrong = 0.25 / deviation, -0.75 / deviation
    close(credit.tree_grpo(both, inter=False, eps=0.0), [NAN, 1, -1, NAN, NAN, NAN])
    close(credit.tree_grpo(both, intra=False, eps=0.0), [NAN, right, wrong, NAN, right, right])
    close(credit.tree_grpo(both, eps=0.0), [NAN, 1 + right, wrong - 1, NAN, right, right])
    with pytest.raises(ValueError, match="intra, inter: expected at least one of them"):
        credit.tree_grpo(both, intra=False, inter=False)


def test_gigpo_by_hand():
    # two chains of one question; both pass environment state 7 before their second step
    chains = Rollouts.from_chains([3, 2], torch.tensor([1.0, 0.0]))
    chains = Rollouts(chains.parent, chains.terminal, chains.score, state=torch.tensor([0, 7, 8, 9, 7, 5]))
    # episode ±1. From the prompt: returns γ², 0; from state 7: γ, 0; from state 8 there is one step
    got = credit.gigpo(chains, gamma=0.5, weight=0.5, eps=0.0)
    close(got, [NAN, 1.5, 1.5, 1.0, -1.5, -1.5])
    raw = credit.gigpo(chains, gamma=0.5, weight=1.0, normalize=False)
    close(raw, [NAN, 0.5 + 1 / 8, 0.5 + 1 / 4, 0.5, -0.5 - 1 / 8, -0.5 - 1 / 4])
    alone = credit.gigpo(Rollouts.from_chains([3, 2], torch.tensor([1.0, 0.0])), gamma=0.5, eps=0.0)
    close(alone, [NAN, 2, 1, 1, -2, -1])  # without states the siblings alone are anchors


def test_delta_v_is_the_pipelines_advantage():
    points = PolarPoints.from_tangent(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)) * 0.4)
    points = PolarPoints(points.direction, torch.where(PARENT < 0, 0.0, points.radius))
    config = ShapingConfig(failed_leaves="geometry")
    got = credit.delta_v(Rollouts(PARENT, ENDS, SCORE, points), config=config)
    wanted = shape(points, PARENT, ENDS, SCORE == 1, config=config).advantage
    torch.testing.assert_close(got, wanted.double(), equal_nan=True)
    assert bool((~got.isnan()).any())
    with pytest.raises(ValueError, match=r"rollouts\.points: expected latents"):
        credit.delta_v(HAND)


@st.composite
def rollouts(draw):
    size = draw(st.integers(2, 25))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    parent = [-1] + [int(rng.integers(max(0, i - 4), i)) for i in range(1, size)]
    leaf = np.array([i not in parent for i in range(size)])
    ends = leaf & (rng.random(size) < 0.9)
    ends[0] = False
    score = np.where(ends & (rng.random(size) < 0.9), rng.choice([0.0, 0.25, 1.0], size), np.nan)
    return Rollouts(torch.tensor(parent), torch.from_numpy(ends), torch.from_numpy(score).float())


def path(parent, node):
    nodes = []
    while parent[node] >= 0:
        nodes.append(node)
        node = int(parent[node])
    return nodes


@TREES
@given(rollouts())
def test_trajectory_rules_are_means_over_the_trajectories_through_a_step(r):
    """GRPO and RLOO, trajectory by trajectory."""
    ends = [n for n in range(len(r)) if r.graded[n]]
    score = {n: float(r.score[n]) for n in ends}
    grpo, rloo = {}, {}
    if len(ends) > 1 and max(score.values()) > min(score.values()):
        mean = sum(score.values()) / len(ends)
        deviation = math.sqrt(sum((s - mean) ** 2 for s in score.values()) / len(ends))
        for n in ends:
            grpo[n] = (score[n] - mean) / (deviation + 1e-4)
            rloo[n] = score[n] - sum(score[m] for m in ends if m != n) / (len(ends) - 1)
    for got, per_end in ((credit.terminal(r), grpo), (credit.leave_one_out(r), rloo)):
        for node in range(1, len(r)):
            through = [per_end[n] for n in ends if node in path(r.parent, n) and n in per_end]
            wanted = sum(through) / len(through) if through else NAN
            assert float(got[node]) == pytest.approx(wanted, abs=1e-9, nan_ok=True)
        assert math.isnan(float(got[0]))


@TREES
@given(rollouts(), rollouts())
def test_trees_of_other_questions_do_not_matter(first, second):
    both = Rollouts.cat([first, second])
    for name, rule in credit.RULES.items():
        if name == "delta_v":
            continue
        alone = torch.cat([rule(first), rule(second)])
        torch.testing.assert_close(rule(both), alone, equal_nan=True, atol=1e-12, rtol=1e-9)
    kept = both.select(torch.arange(len(both)) == len(first))
    assert torch.equal(kept.parent, second.parent)
    torch.testing.assert_close(kept.score, second.score, equal_nan=True)


@TREES
@given(st.lists(st.integers(1, 5), min_size=2, max_size=6), st.integers(0, 63))
def test_on_chains_every_trajectory_rule_is_grpo_whatever_the_steps(steps, mask):
    score = torch.tensor([float(mask >> i & 1) for i in range(len(steps))])
    chains = Rollouts.from_chains(steps, score)
    grpo = credit.terminal(chains)
    torch.testing.assert_close(credit.tree_grpo(chains, inter=False), grpo, equal_nan=True)
    gain = credit.subtree_success(chains)
    for row, count in enumerate(steps):
        first = 1 + sum(steps[:row])
        assert torch.equal(grpo[first : first + count].nan_to_num(9.0), grpo[first].nan_to_num(9.0).expand(count))
        assert float(gain[first : first + count].sum()) == pytest.approx(
            float(score[row] - score.double().mean()), abs=1e-9
        )


def test_from_a_searched_tree():
    tree = SearchTree("q", (1,))
    middle = tree.add(0, tokens=(2,))
    tree.add(middle, tokens=(3,), answer="good", status=Status.ANSWERED)
    tree.add(middle, tokens=(4,), answer="odd", status=Status.ANSWERED)
    tree.add(middle, tokens=(5,), status=Status.DEPTH_LIMIT)
    rollouts = Rollouts.from_tree(tree, lambda question, answer: {"good": 0.75, "odd": None}[answer])
    assert rollouts.terminal.tolist() == [False, False, True, True, True]
    assert rollouts.score.isnan().tolist() == [True, True, False, True, False]
    assert rollouts.score[[2, 4]].tolist() == [0.75, 0.0]  # not graded is not wrong; no answer is
    assert rollouts.graded.tolist() == [False, False, True, False, True]


def test_from_chains_keeps_questions_apart():
    chains = Rollouts.from_chains([1, 2, 1], torch.tensor([1.0, 0.0, 1.0]), question=[5, 2, 5])
    assert chains.parent.tolist() == [-1, -1, 1, 0, 3, 1]
    assert chains.question.tolist() == [2, 5, 5, 2, 2, 5]
    assert chains.terminal.tolist() == [False, False, True, False, True, True]
    assert credit.terminal(chains).isnan().all()  # question 5 all right, question 2 alone


def test_comparison_by_hand():
    found = compare_credit(HAND, ["subtree_success", "terminal", "sibling_verdict"])
    # pairs of siblings with different success: (1, 2), (3, 4), (4, 5); node 7 is not known
    assert {report.pairs for report in found.rules.values()} == {3}
    assert found.rules["subtree_success"].order == 1.0
    assert found.rules["sibling_verdict"].order == pytest.approx((0.5 + 1 + 1) / 3)
    assert found.rules["sibling_verdict"].scored == pytest.approx(3 / 7)
    assert found.rules["terminal"].scored == pytest.approx(6 / 7)
    assert found.rules["terminal"].sign == 1.0
    assert found.rules["terminal"].kept == 1.0
    assert float(found.correlation[0, 0]) == pytest.approx(1)
    wrong = compare_credit(HAND, {"reversed": lambda r: -credit.subtree_success(r)})
    assert (wrong.rules["reversed"].order, wrong.rules["reversed"].sign) == (0.0, 0.0)
    assert "reversed" in str(wrong)


def test_comparison_sees_what_length_does():
    # two right chains of 1 and 3 steps, and a wrong one; a rule that pays 1 a step less for each further step
    chains = Rollouts.from_chains([1, 3, 2], torch.tensor([1.0, 1.0, 0.0]))

    def punishes_length(r):
        length = torch.tensor([NAN, 1, 3, 3, 3, 2, 2], dtype=torch.float64)
        return 5 - length

    found = compare_credit(chains, {"terminal": credit.terminal, "bad": punishes_length})
    assert found.rules["terminal"].length == pytest.approx(0, abs=1e-12)
    assert found.rules["bad"].length == pytest.approx(-1)


def test_truth_from_elsewhere():
    truth = torch.tensor([0.5, 0.2, 0.9, NAN, NAN, NAN, NAN, NAN])
    found = compare_credit(HAND, ["subtree_success"], truth=truth)
    assert (found.rules["subtree_success"].pairs, found.rules["subtree_success"].order) == (1, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terminal": torch.ones(8, dtype=torch.bool)}, "terminal: expected states without children"),
        ({"score": SCORE[:4]}, r"score: expected shape \(8,\)"),
        ({"score": SCORE * 2}, r"score: expected verdicts in \[0, 1\]"),
        ({"question": torch.arange(8)}, "question: expected one question a tree, got several"),
        ({"state": torch.zeros(8)}, r"state: expected integers of shape \(8,\)"),
        ({"points": PolarPoints.origin((3,), 2)}, "points: expected 8 of them, got 3"),
    ],
)
def test_bad_rollouts_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Rollouts(**({"parent": PARENT, "terminal": ENDS, "score": SCORE} | change))


def test_unknown_rules_are_named():
    with pytest.raises(ValueError, match="rules: expected one of 'delta_v', 'gigpo'"):
        compare_credit(HAND, ["grpo"])
    with pytest.raises(ValueError, match=r"truth: expected shape \(8,\)"):
        compare_credit(HAND, truth=torch.zeros(3))
    with pytest.raises(ValueError, match="steps: expected integers >= 1"):
        Rollouts.from_chains([0, 1], torch.zeros(2))
