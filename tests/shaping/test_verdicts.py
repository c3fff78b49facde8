import pytest
import torch

from lapha.shaping import leaf_accuracy, mark_correct
from lapha.tree import SearchTree
from lapha.types import Status


def small_tree() -> SearchTree:
    tree = SearchTree("1 + 1", [1])
    tree.add(0, tokens=[2], answer="2", status=Status.ANSWERED)
    tree.add(0, tokens=[3], answer="3", status=Status.ANSWERED)
    middle = tree.add(0, tokens=[4])
    tree.add(middle, tokens=[5], answer="2", status=Status.ANSWERED)
    tree.add(middle, tokens=[6], status=Status.DEPTH_LIMIT)
    return tree


def test_each_distinct_answer_is_graded_once():
    asked = []

    def verifier(question: str, answer: str) -> bool:
        asked.append((question, answer))
        return answer == "2"

    verdicts = mark_correct(small_tree(), verifier)
    assert verdicts.correct.tolist() == [False, True, False, False, True, False]
    assert verdicts.ungraded == 0
    assert sorted(asked) == [("1 + 1", "2"), ("1 + 1", "3")]


def test_what_cannot_be_graded_is_counted_and_is_no_goal():
    verdicts = mark_correct(small_tree(), lambda question, answer: {"2": None, "3": 0.75}[answer])
    assert verdicts.correct.tolist() == [False, False, True, False, False, False]
    assert verdicts.ungraded == 2
    assert not mark_correct(small_tree(), lambda question, answer: 0.75, correct_at=0.8).correct.any()


def test_a_verdict_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"verifier: expected a reward in \[0, 1\] or None, got 2 for answer '2'"):
        mark_correct(small_tree(), lambda question, answer: 2)


def test_leaf_accuracy_counts_terminal_leaves_alone():
    tree = small_tree()
    correct = mark_correct(tree, lambda question, answer: answer == "2").correct
    terminal = torch.from_numpy(tree.status != Status.OPEN)
    parent = torch.from_numpy(tree.parent.copy())
    assert leaf_accuracy(parent, terminal, correct) == 0.5
    lone = torch.zeros(1, dtype=torch.bool)
    assert leaf_accuracy(torch.tensor([-1]), lone, lone) != leaf_accuracy(torch.tensor([-1]), lone, lone)  # NaN
