import pytest

from lapha.evaluation.grading import gold_faults
from lapha.evaluation.grading.golds import gold_fault


@pytest.mark.parametrize("gold", ["", "  ", "$145$solution:", "\\frac{1}{2", "$5", "x=", "1, 2,"])
def test_an_empty_or_broken_gold_answer_is_found(gold):
    assert gold_fault(gold) is not None


@pytest.mark.parametrize(
    "gold", ["5", "$x=3$", "\\$5", "$5$ or $7$", "\\text{Evelyn}", "A", "1:58 am", "\\{1, 2\\}", "(-\\infty, 3]"]
)
def test_a_sound_one_is_not(gold):
    assert gold_fault(gold) is None


def test_they_are_listed_and_refused_where_that_is_wanted():
    golds = ["5", "", "\\{x|x=3k,k\\in \\mathbb{Z}\\}"]
    lines = gold_faults(golds)
    assert lines[0] == "problem 1: empty"
    assert lines[1].startswith("problem 2: not understood: only its own spelling will match it")
    with pytest.raises(
        ValueError, match=r"data: expected gold answers that can be matched, got in some.jsonl: problem 1: empty"
    ):
        gold_faults(golds, strict=True, source="some.jsonl")
    assert gold_faults(golds[2:], strict=True) != []  # it may be matched
