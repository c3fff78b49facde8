import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.geometry import PolarPoints
from lapha.search import (
    ANSWER_RULES,
    FEATURES,
    VOTE_WEIGHTS,
    best_by_logprob,
    leaf_features,
    majority,
    normalize_answer,
    soft_vote,
    value_top1,
    value_weighted_vote,
)
from lapha.tree import SearchTree
from lapha.types import Status


def build() -> tuple[SearchTree, PolarPoints]:
    """Root, two open children, five leaves. Answers "4" (three times), "5", "6" (pruned).

    Latents on a line: signed radius below, so that distances follow by hand.
    """
    tree = SearchTree("2 + 2", [1])
    tree.value[0] = 0.5
    a = tree.add(0, tokens=[1, 2], logprobs=[-0.5, -0.5], value=0.6)
    b = tree.add(0, tokens=[1], logprobs=[-2.0], value=0.4)
    for parent, tokens, logprobs, answer, value in [
        (a, [1, 2, 3], [-0.1, -0.1, -0.1], "4", 0.7),
        (a, [1], [-0.2], " 4 ", 0.3),
        (b, [1, 2], [-0.3, -0.3], "5", 0.9),
        (b, [1, 2], [-0.4, -0.4], "$4$", 0.35),
        (b, [1], [-0.1], "6", 0.99),
    ]:
        leaf = tree.add(
            parent, tokens=tokens, logprobs=logprobs, answer=answer, value=value, status=Status.ANSWERED
        )  # fmt: skip
        tree.visits[leaf], tree.value_sum[leaf] = leaf, 0.1 * leaf * leaf
    tree.pruned[7] = True
    tangent = torch.zeros(8, 2, dtype=torch.float64)
    tangent[:, 0] = torch.tensor([0, 0.1, 0.1, 0.2, 0.3, -0.4, 0.5, 0.6])
    return tree, PolarPoints.from_tangent(tangent)


def test_features_by_hand():
    tree, latents = build()
    got = leaf_features(tree, latents, tree.answered(), neighbours=2)
    column = dict(zip(FEATURES, got.T))
    np.testing.assert_allclose(column["q"], [0.3, 0.4, 0.5, 0.6])  # W/N = 0.1·leaf
    np.testing.assert_allclose(column["log_visits"], np.log1p([3, 4, 5, 6]))
    np.testing.assert_allclose(column["logprob"], [-1.3, -1.2, -2.6, -2.8], rtol=1e-6)
    np.testing.assert_allclose(column["value"], [0.7, 0.3, 0.9, 0.35], rtol=1e-6)
    # v̂ falls on 0.6 → 0.3 and 0.4 → 0.35 alone, each counted less 1e-4
    np.testing.assert_allclose(column["monotonicity"], [0, -0.2999, 0, -0.0499], atol=1e-6)
    # distances 2|x − y| between 0.2, 0.3, −0.4, 0.5; the two nearest of each
    np.testing.assert_allclose(column["density"], [-0.4, -0.3, -1.3, -0.5], rtol=1e-5)
    np.testing.assert_allclose(column["length"], -np.log1p([3, 1, 2, 2]))


def test_each_rule_by_hand():
    tree, _ = build()
    assert value_top1(tree).node == 5  # v̂ = 0.9; the pruned leaf has 0.99
    assert value_top1(tree).answer == "5"
    assert majority(tree).canonical == "4"
    assert majority(tree).node == 3  # of the three, the highest v̂
    assert majority(tree).score == 3
    vote = value_weighted_vote(tree)
    assert (vote.canonical, vote.node) == ("4", 3)
    assert vote.score == pytest.approx(0.7 + 0.3 + 0.35, rel=1e-6)
    # mean log-probability a sampled token: (−1.3/5, −1.2/3, −2.6/3, −2.8/3)
    assert best_by_logprob(tree).node == 3
    assert best_by_logprob(tree).score == pytest.approx(-0.26, rel=1e-6)


def test_soft_vote_is_the_formula():
    """In plain Python, from the features worked out by hand above."""
    tree, latents = build()
    features = leaf_features(tree, latents, tree.answered(), neighbours=5)
    columns = features.T.tolist()
    weights = (1.0, 0.8, 0.4, 0.3, 0.3, 0.4, 0.2)
    assert list(VOTE_WEIGHTS.values()) == list(weights)
    logits = [0.0] * 4
    for column, weight in zip(columns, weights):
        mean = sum(column) / 4
        deviation = math.sqrt(sum((x - mean) ** 2 for x in column) / 4)
        for row, x in enumerate(column):
            logits[row] += weight * (x - mean) / (deviation + 1e-6)
    groups = {"4": [0, 1, 3], "5": [2]}
    evidence = {
        answer: math.log(sum(math.exp(logits[row] / 0.8) for row in rows)) + 0.05 * math.log1p(len(rows))
        for answer, rows in groups.items()
    }
    winner = max(evidence, key=evidence.get)
    choice = soft_vote(tree, latents)
    assert choice.canonical == winner
    assert choice.score == pytest.approx(evidence[winner], rel=1e-9)
    best = max(groups[winner], key=lambda row: logits[row])
    assert choice.node == tree.answered()[best]


def test_soft_vote_weights_by_name():
    tree, latents = build()
    assert soft_vote(tree, latents, weights={"value": 1.0}, temperature=1e-3).node == 5
    assert soft_vote(tree, latents, weights={"q": 1.0}, temperature=1e-3).node == 6
    assert soft_vote(tree, latents, weights={"density": 1.0}, temperature=1e-3, neighbours=2).node == 4
    assert soft_vote(tree, latents, weights={"length": 1.0}, temperature=1e-3).node == 4
    with pytest.raises(ValueError, match=r"weights: expected features among q, .*, got \['colour'\]"):
        soft_vote(tree, latents, weights={"colour": 1.0})
    with pytest.raises(ValueError, match="temperature: expected a number > 0, got 0"):
        soft_vote(tree, latents, temperature=0)


def test_density_is_hyperbolic():
    """Where Euclid and Poincaré disagree: far out, a small angle is a long way."""
    tree = SearchTree("q", [1])
    for value in (0.5, 0.5, 0.5, 0.5):
        tree.add(0, tokens=[1], logprobs=[-1.0], answer="a", value=value, status=Status.ANSWERED)
    angles = torch.tensor([0.0, 0.0, 0.02, 0.0, 0.5])
    radii = torch.tensor([0.0, 6.0, 6.0, 5.8, 0.1])
    tangent = torch.stack([radii * angles.cos(), radii * angles.sin()], 1).double()
    features = leaf_features(tree, PolarPoints.from_tangent(tangent), tree.answered(), neighbours=1)
    nearest = -features[:, FEATURES.index("density")]
    assert nearest[0] == pytest.approx(0.4)  # 0.2 in radius is 0.4; 0.02 in angle (0.12 in Euclid) is over 7
    assert nearest[1] > 6


@pytest.mark.parametrize("rule", ANSWER_RULES.values(), ids=ANSWER_RULES.keys())
def test_every_rule_without_answers_and_with_blank_ones(rule):
    tree = SearchTree("q", [1])
    assert rule(tree, None) is None
    tree.add(0, tokens=[1], logprobs=[-1.0], answer="  ", value=0.9, status=Status.ANSWERED)
    tree.add(0, tokens=[1], logprobs=[-1.0], status=Status.DEPTH_LIMIT, value=0.9)
    assert rule(tree, None) is None
    tree.add(0, tokens=[1], logprobs=[-1.0], answer="7", value=0.1, status=Status.ANSWERED)
    choice = rule(tree, None)
    assert (choice.answer, choice.node) == ("7", 3)
    assert math.isfinite(choice.score)


@pytest.mark.parametrize("rule", ANSWER_RULES.values(), ids=ANSWER_RULES.keys())
def test_every_rule_copes_with_unknown_values(rule):
    tree = SearchTree("q", [1])
    for answer in ("1", "2", "2"):
        tree.add(0, tokens=[1], logprobs=[-1.0], answer=answer, status=Status.ANSWERED)
    assert rule(tree, None).answer in ("1", "2")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), leaves=st.integers(1, 12))
def test_rules_agree_where_all_leaves_agree_and_never_pick_a_pruned_leaf(seed, leaves):
    generator = np.random.default_rng(seed)
    tree = SearchTree("q", [1])
    for _ in range(leaves):
        tree.add(
            0, tokens=[1], logprobs=[-float(generator.random())], value=float(generator.random()),
            answer=generator.choice(["1", " 1", "$1$"]), status=Status.ANSWERED,
        )  # fmt: skip
    tree.pruned[1:] = generator.random(leaves) < 0.3
    for rule in ANSWER_RULES.values():
        choice = rule(tree, None)
        if tree.pruned[1:].all():
            assert choice is None
        else:
            assert choice.canonical == "1"
            assert not tree.pruned[choice.node]


def test_canonical_is_the_callers():
    tree, _ = build()
    by_parity = majority(tree, canonical=lambda text: "all")
    assert by_parity.score == 4
    assert majority(tree, canonical=str).score == 1


def test_latents_must_match_the_tree():
    tree, latents = build()
    with pytest.raises(ValueError, match=r"latents: expected one a node \(8\), got 7"):
        soft_vote(tree, latents[:7])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (" 42 ", "42"),
        ("$42$", "42"),
        (r"\(42\)", "42"),
        (r"\[ 42. \]", "42"),
        (r"\boxed{42}", "42"),
        (r"$\boxed{\text{ Yes }}$", "yes"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\left( 1,\ 2 \right)", "(1,2)"),
        ("1,234,567", "1234567"),
        ("1{,}000", "1000"),
        ("+5", "5"),
        ("x = 3", "x=3"),
    ],
)
def test_answers_that_are_the_same(left, right):
    assert normalize_answer(left) == normalize_answer(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1,2", "12"),
        ("(1,234)", "(1,2,34)"),
        ("-5", "5"),
        (r"\frac{1}{2}", r"\frac{2}{1}"),
        ("0.5", "5"),
        (r"\boxed{1}+\boxed{2}", "1+2}"),
        ("", "0"),
    ],
)
def test_answers_that_are_not(left, right):
    assert normalize_answer(left) != normalize_answer(right)


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("0123456789,.+-${}\\()[] abxboxedtextfrac"), max_size=30) | st.text())
def test_normalizing_never_raises_and_is_stable(text):
    once = normalize_answer(text)
    assert isinstance(once, str)
    assert normalize_answer(once + " ") == normalize_answer(once)
