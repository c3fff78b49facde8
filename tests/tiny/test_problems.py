"""Questions, the verifier and the remaining distance, as a person would check them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapha.shaping import Verifier
from lapha.tiny import Problem, TinyVerifier, generate, problems, remaining_distance, step_problem, verify

QUESTION = "Walk from 14 to 36 in at most 8 moves of +1 -1 +10 -10, avoiding 13 24 35 46 57 68 79 90"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("+1 +10 +1 +10", True),  # 15 25 26 36
        ("  +1 +10\n+1 +10 ", True),
        ("+1 +1 +10 +10", True),  # 15 16 26 36
        ("+10 +1 +1 +10", False),  # 24 is avoided
        ("+1 +10 +10 +1", False),  # 35 is avoided
        ("+1 +10 +1", False),  # stops at 26
        ("+1 +1 +10 +10 +1 -1", True),  # passing over the target and coming back is allowed
        ("+1 -1 +1 -1 +1 +1 +10 +10", True),  # eight moves
        ("+1 -1 +1 -1 +1 -1 +1 +1 +10 +10", False),  # ten moves
        ("-10 -10 +10 +10 +1 +1 +10 +10", False),  # leaves 0..99
        ("+22", False),
        ("+2 +10 +10", False),
        ("1 1 10 10", False),
        ("36", False),
        ("", False),
        (None, False),
    ],
)
def test_verify(answer: str | None, right: bool) -> None:
    assert verify(QUESTION, answer) is right
    assert TinyVerifier()(QUESTION, answer) == float(right)


@pytest.mark.parametrize("question", ["", "What is 2 + 2?", QUESTION + " and 12", QUESTION.replace("36", "136"), 7])
def test_other_questions_are_refused(question: object) -> None:
    with pytest.raises(ValueError, match="question: expected"):
        verify(question, "+1")  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_no_answer_raises(answer: str) -> None:
    assert verify(QUESTION, answer) in (True, False)


@given(st.lists(st.sampled_from([1, -1, 10, -10]), min_size=1, max_size=9))
def test_verify_is_the_walk(moves: list[int]) -> None:
    places = [14]
    for move in moves:
        places.append(places[-1] + move)
    avoid = {13, 24, 35, 46, 57, 68, 79, 90}
    right = len(moves) <= 8 and all(0 <= p < 100 and p not in avoid for p in places[1:]) and places[-1] == 36
    assert verify(QUESTION, problems.answer_text(moves)) is right


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_generated_problems(split: str) -> None:
    for problem in generate(60, seed=3, split=split):
        start, target, limit, avoid = problems.parse_question(problem.question)
        assert (start, target, limit, avoid) == (problem.start, problem.target, problem.limit, problem.avoid)
        assert verify(problem.question, problem.solution)
        assert len(problem.solution.split()) == problem.distance == remaining_distance(problem.question)
        assert 3 <= problem.distance <= 6


def test_splits_are_disjoint_and_seeds_decide() -> None:
    train = {problem for seed in range(5) for problem in generate(400, seed, "train")}
    held = {problem for seed in range(5) for problem in generate(400, seed, "heldout")}
    assert not train & held
    assert len(held) > 1900
    assert generate(20, 1) == generate(20, 1)
    assert generate(20, 1) != generate(20, 2)
    assert generate(0, 1) == []
    assert isinstance(generate(1, 1)[0], Problem)


@pytest.mark.parametrize(
    ("n", "seed", "split"), [(-1, 0, "train"), (2, -1, "train"), (2, 0, "test"), (2.0, 0, "train")]
)
def test_bad_arguments(n: object, seed: object, split: str) -> None:
    with pytest.raises(ValueError, match=r"(n|seed|split): expected"):
        generate(n, seed, split)  # type: ignore[arg-type]


def test_remaining_distance_follows_the_steps() -> None:
    assert remaining_distance(QUESTION) == 4
    assert remaining_distance(QUESTION, ["+1 = 15"]) == 3
    assert remaining_distance(QUESTION, ["STEP-1:\n<think>\n+1 = 15\n</think>", "+1 = 16\n</think>"]) == 2
    assert remaining_distance(QUESTION, ["-10 = 4"]) == 5
    assert remaining_distance(QUESTION, ["STEP-1:\n<think>\n+10 = 24 no +1 = 15\n</think>", "+1 = 16"]) == 2
    assert remaining_distance(QUESTION, ["+10 = 24"]) is None
    assert remaining_distance(QUESTION, ["+1 = 16"]) is None
    assert remaining_distance(QUESTION, ["on to 15"]) is None


def test_remaining_distance_beyond_the_limit() -> None:
    free = "Walk from 0 to 5 in at most 8 moves of +1 -1 +10 -10, avoiding 99"
    assert remaining_distance(free, ["+10 = 10"] + [f"+10 = {n}" for n in range(20, 100, 10)]) == 13
    walled = "Walk from 0 to 45 in at most 8 moves of +1 -1 +10 -10, avoiding 35 44 46 55"
    assert remaining_distance(walled) is None


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (["+1 = 15"], None),
        (["+1 = 16"], "arithmetic"),
        (["+10 = 24"], "illegal"),
        (["+2 = 16"], "illegal"),
        (["hm"], "unreadable"),
        (["-10 = 4", "-10 = 0"], "illegal"),
        (["+1 = 15", "+1 = 16"], None),
        (["+10 = 24 no +1 = 15"], None),
        (["-1 = 13 no +10 = 24 no +1 = 15\n</think>"], None),
        (["-10 = 4 no +1 = 15"], None),  # a second thought
        (["+10 = 24 no"], "unreadable"),
        (["+1 = 15 +1 = 16"], "unreadable"),
        (["+10 = 23 no +1 = 15"], "arithmetic"),
        (["-1 = 13 no +10 = 24"], "illegal"),
        (["+7 = 21 no +1 = 15"], "illegal"),
        (["-10 = 4", "-10 = -6 no +1 = 5"], "illegal"),
    ],
)
def test_step_problem(steps: list[str], problem: str | None) -> None:
    assert step_problem(QUESTION, steps) == problem


def test_step_problem_needs_valid_steps_before() -> None:
    with pytest.raises(ValueError, match="steps: expected"):
        step_problem(QUESTION, ["+10 = 24", "+1 = 25"])
    with pytest.raises(ValueError, match="steps: expected"):
        step_problem(QUESTION, [])


def test_the_verifier_pickles_and_is_one() -> None:
    verifier = pickle.loads(pickle.dumps(TinyVerifier()))
    assert verifier == TinyVerifier()
    assert isinstance(verifier, Verifier)
