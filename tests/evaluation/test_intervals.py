import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lapha.evaluation.intervals import auc, calibration, maj_at_k, mean_interval, paired_interval, pass_at_k


@pytest.mark.parametrize("count", [10, 30, 100])
@pytest.mark.parametrize("samples", [1, 4])
def test_intervals_cover_the_true_mean_about_as_often_as_they_say(count, samples):
    """For one answer per problem and for several, at the edges too: problems differ in difficulty."""
    rng = np.random.default_rng(count + samples)
    for mean in (0.03, 0.3, 0.9, 0.99):
        hits = 0
        for _ in range(400):
            chance = rng.beta(2 * mean, 2 * (1 - mean), count)
            scores = rng.binomial(samples, chance) / samples
            found = mean_interval(scores)
            hits += found.low <= mean <= found.high
            assert 0 <= found.low <= found.mean <= found.high <= 1
        assert hits / 400 >= 0.91, (mean, hits)


def test_all_right_is_not_certain():
    """Wilson's interval, by its formula: z = 1.959964."""
    z2 = 1.9599639845400545**2
    for right, count in ((30, 30), (0, 30), (5, 5), (7, 10)):
        p = right / count
        centre, half = (p + z2 / (2 * count)), math.sqrt(z2 * (p * (1 - p) / count + z2 / (4 * count**2)))
        found = mean_interval([1.0] * right + [0.0] * (count - right))
        assert found.low == pytest.approx(max(0.0, (centre - half) / (1 + z2 / count)), abs=1e-9)
        assert found.high == pytest.approx(min(1.0, (centre + half) / (1 + z2 / count)), abs=1e-9)
    assert mean_interval([1.0] * 30).percent() == "100.0 % [88.6, 100.0]"
    assert mean_interval([1.0]).low < 0.25


def test_ungradable_problems_are_left_out_and_nonsense_is_refused():
    found = mean_interval([1.0, 0.0, math.nan, 1.0])
    assert (found.mean, found.count) == (pytest.approx(2 / 3), 3)
    assert math.isnan(mean_interval([math.nan]).mean)
    with pytest.raises(ValueError, match=r"scores: expected numbers in \[0, 1\], got 0 to 2"):
        mean_interval([0.0, 2.0])


@pytest.mark.parametrize(
    ("better", "worse", "p"), [(1, 0, 1.0), (2, 0, 0.5), (5, 0, 0.0625), (6, 0, 0.03125), (9, 1, 22 / 1024)]
)
def test_better_is_said_where_the_exact_test_says_it(better, worse, p):
    """McNemar's exact test is the sign test of the changed problems."""
    first = [0.0] * better + [1.0] * worse + [1.0] * 20
    second = [1.0] * better + [0.0] * worse + [1.0] * 20
    found, back = paired_interval(first, second), paired_interval(second, first)
    assert found.p == pytest.approx(p)
    assert found.verdict() == ("better" if p < 0.05 else "not told apart")
    assert back.verdict() == ("worse" if p < 0.05 else "not told apart")
    assert found.mean == -back.mean == pytest.approx((better - worse) / len(first))
    assert found.low <= found.mean <= found.high
    assert found.low >= -1
    assert found.high <= 1


def test_one_problem_tells_nothing():
    found = paired_interval([0.0], [1.0])
    assert found.verdict() == "not told apart"
    assert found.low < 0 < found.high


def test_paired_shares_are_compared_by_permutation():
    rng = np.random.default_rng(3)
    first = rng.random(40) * 0.5
    assert paired_interval(first, first + 0.2).verdict() == "better"
    assert paired_interval(first, first).verdict() == "not told apart"
    four = paired_interval(first[:4], first[:4] + 0.2)
    assert four.p == pytest.approx(2 / 16)  # of 16 choices of signs, two are as far out
    with pytest.raises(ValueError, match=r"second: expected as many scores as first \(40\), got 3"):
        paired_interval(first, [1, 2, 3])


def test_paired_intervals_cover_the_true_difference():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(500):
        difficulty = rng.random(30)
        first, second = (difficulty < 0.5).astype(float), (difficulty < 0.6).astype(float)
        found = paired_interval(first, second)
        hits += found.low <= 0.1 <= found.high
    assert hits / 500 >= 0.92


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=7), st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_maj_at_k_is_the_mean_over_subsets(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    right = [answer == "a" for answer in answers]
    expected = []
    for subset in combinations(answers, k):
        counts = {answer: subset.count(answer) for answer in set(subset) - {None}}
        top = [answer for answer, count in counts.items() if count == max(counts.values())]
        expected.append(("a" in top) / len(top) if top else 0.0)
    assert maj_at_k(answers, right, k) == pytest.approx(np.mean(expected))
    assert maj_at_k(answers, right, 1) == pytest.approx(np.mean(right))


def test_maj_at_k_of_many_samples_is_near_its_exact_value():
    answers = ["a"] * 18 + ["b"] * 12
    assert maj_at_k(answers, [a == "a" for a in answers], 15) == pytest.approx(0.9, abs=0.1)
    with pytest.raises(ValueError, match="k: expected 1 <= k <= 30"):
        maj_at_k(answers, [True] * 30, 31)


@given(st.integers(1, 7), st.data())
@settings(max_examples=40, deadline=None)
def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_one(n, data):
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    samples = [index < c for index in range(n)]
    subsets = list(combinations(samples, k))
    assert pass_at_k(n, c, k) == pytest.approx(np.mean([any(subset) for subset in subsets]))


def test_pass_at_k_refuses_nonsense():
    with pytest.raises(ValueError, match="k: expected 1 <= k <= 3"):
        pass_at_k(3, 1, 4)
    with pytest.raises(ValueError, match=r"correct: expected 0\.\.3"):
        pass_at_k(3, 5, 1)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_auc_agrees_with_scikit_learn_with_ties(pairs):
    scores = np.array([score / 8 for score, _ in pairs])
    positive = np.array([label for _, label in pairs])
    if positive.all() or not positive.any():
        assert math.isnan(auc(scores, positive))
    else:
        assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_calibration_of_a_perfect_and_of_a_confidently_wrong_head():
    perfect = calibration([1.0, 0.0, 1.0], [True, False, True])
    assert (perfect.ece, perfect.brier, perfect.auc, perfect.count) == (0, 0, 1, 3)
    wrong = calibration([1.0, 0.0], [False, True])
    assert (wrong.ece, wrong.brier, wrong.auc) == (1, 1, 0)
    assert calibration([0.5, float("nan")], [True, False]).count == 1
    # one bin [0.6, 0.7): mean prediction 0.65, share 0.5
    assert calibration([0.62, 0.68], [True, False]).ece == pytest.approx(0.15)
