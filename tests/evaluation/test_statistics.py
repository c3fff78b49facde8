import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lapha.evaluation.statistics import auc, bootstrap, calibration, paired_bootstrap, pass_at_k


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        found = bootstrap((rng.random(80) < 0.3).astype(float), resamples=400, seed=trial)
        hits += found.low <= 0.3 <= found.high
    assert 0.90 <= hits / 300 <= 0.985


def test_bootstrap_is_reproducible_and_leaves_ungradable_out():
    scores = [1.0, 0.0, float("nan"), 1.0]
    first, second = bootstrap(scores), bootstrap(scores)
    assert first == second
    assert (first.mean, first.count) == (pytest.approx(2 / 3), 3)
    assert math.isnan(bootstrap([float("nan")]).mean)
    assert bootstrap([1.0] * 5).percent() == "100.0 % [100.0, 100.0]"


def test_paired_bootstrap_is_narrower_than_two_unpaired_intervals():
    rng = np.random.default_rng(1)
    difficulty = rng.random(200)
    first = (difficulty < 0.5).astype(float)
    second = (difficulty < 0.6).astype(float)
    paired = paired_bootstrap(first, second)
    assert paired.low > 0
    assert paired.high - paired.low < bootstrap(second).high - bootstrap(second).low
    with pytest.raises(ValueError, match=r"second: expected as many scores as first \(200\), got 3"):
        paired_bootstrap(first, [1, 2, 3])


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
