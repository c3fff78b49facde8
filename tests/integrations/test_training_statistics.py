"""What the trainer logs about its trees means what an evaluation means by the same name."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from lapha.integrations.trl import statistics


def tree(answers, values, correct, accuracy):
    leaves = np.array([place for place, answer in enumerate(answers) if answer is not None], dtype=int)
    inner = SimpleNamespace(
        answered=lambda: leaves,
        answer=answers,
        value=np.array(values),
        multiplicity=lambda: np.ones(len(answers), dtype=int),
    )
    return SimpleNamespace(tree=inner, correct=np.array(correct), leaf_accuracy=accuracy)


def test_a_tree_without_an_answer_is_wrong():
    right = tree([None, "1", "2"], [0.5, 0.9, 0.1], [False, True, False], 0.5)
    silent = tree([None], [0.5], [False], math.nan)
    for rule in ("value", "majority"):  # those that are logged
        assert statistics.chosen_correct(right, rule) == 1.0
        assert statistics.chosen_correct(silent, rule) == 0.0
    assert statistics.leaf_accuracy(silent) == 0.0
    assert statistics.mean(map(statistics.leaf_accuracy, [right, silent])) == pytest.approx(0.25)
