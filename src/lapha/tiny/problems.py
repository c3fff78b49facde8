"""Problems of the number walk as a person reads them: questions, an exact verifier, the distance that is left.

A question is one sentence, such as ``Walk from 14 to 62 in at most 8 moves of +1 -1 +10 -10, avoiding 13 24 25 …``.
An answer is the list of moves, such as ``+10 +10 +1``. Each step of the agent makes one move and says where it leads,
``+10 = 25``; before that it may try moves and take them back, ``+1 = 16 no +10 = 25``.
The verifier reads the question's own text, so it needs no record of the problem.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from lapha._checks import check, check_choice
from lapha.tiny.walk import (
    FAR,
    MOVE_LIMIT,
    MOVES,
    NUMBERS,
    distances,
    generate_walks,
    successors,
)

SPLITS = ("train", "heldout")
_QUESTION = re.compile(
    r"Walk from (\d{1,2}) to (\d{1,2}) in at most (\d{1,2}) moves of \+1 -1 \+10 -10, avoiding((?: \d{1,2})*)"
)
_STEP = re.compile(r"([+-]\d{1,2}) = (-?\d{1,3})( no)?")


@dataclass(frozen=True, slots=True)
class Problem:
    """One number walk.

    Attributes:
        question: the text that the policy is asked.
        start: number to walk from, in 0..99.
        target: number to land on.
        avoid: numbers that no move may land on, ascending.
        distance: moves of a shortest walk.
        solution: the moves of one shortest walk, as an answer. Training and grading alone may look at it.
        limit: most moves of a walk.
    """

    question: str
    start: int
    target: int
    avoid: tuple[int, ...]
    distance: int = field(compare=False)
    solution: str = field(compare=False, repr=False)
    limit: int = MOVE_LIMIT


def generate(n: int, seed: int, split: str = "train") -> list[Problem]:
    """`n` problems of one split, decided by `seed`.

    A hash of start, target and avoided numbers decides which split a problem belongs to (one in ten is held out), so
    the splits are disjoint whatever the seeds. Within a draw problems may rarely recur.

    Args:
        n: number of problems, ≥ 0.
        seed: any integer ≥ 0.
        split: ``"train"`` or ``"heldout"``.

    Raises:
        ValueError: an argument outside its range.
    """
    check(isinstance(n, int) and n >= 0, "n", "an integer >= 0", repr(n))
    check(isinstance(seed, int) and seed >= 0, "seed", "an integer >= 0", repr(seed))
    check_choice(split, "split", SPLITS)
    if n == 0:
        return []
    walks = generate_walks(n, np.random.default_rng([seed, SPLITS.index(split)]), split)
    result = []
    for index in range(n):
        start, target = int(walks.start[index]), int(walks.target[index])
        avoid = tuple(int(number) for number in walks.avoid[index])
        moves = _shortest(walks.distance[index], walks.next[index], start)
        text = question_text(start, target, avoid)
        result.append(Problem(text, start, target, avoid, len(moves), answer_text(moves)))
    return result


def question_text(start: int, target: int, avoid: Sequence[int]) -> str:
    """The question of a problem; `parse_question` reads it back."""
    numbers = " ".join(str(number) for number in avoid)
    return f"Walk from {start} to {target} in at most {MOVE_LIMIT} moves of +1 -1 +10 -10, avoiding {numbers}"


def answer_text(moves: Sequence[int]) -> str:
    """The canonical answer: the moves in order, as ``+10 -1``."""
    return " ".join(f"{move:+d}" for move in moves)


def parse_question(question: str) -> tuple[int, int, int, tuple[int, ...]]:
    """(start, target, limit, avoid) of a question.

    Raises:
        ValueError: the text is no question of this kind.
    """
    check(isinstance(question, str), "question", "a string", type(question).__name__)
    found = _QUESTION.fullmatch(question.strip())
    if found is None:
        raise ValueError(f"question: expected 'Walk from A to B in at most … avoiding …', got {question[:80]!r}")
    start, target, limit = (int(found.group(index)) for index in (1, 2, 3))
    return start, target, limit, tuple(int(number) for number in found.group(4).split())


def parse_answer(answer: str) -> list[int] | None:
    """The moves of an answer, or None where it is no list of moves."""
    moves = []
    for word in answer.split():
        if word not in _MOVE_WORDS:
            return None
        moves.append(int(word))
    return moves


_MOVE_WORDS = frozenset(f"{move:+d}" for move in MOVES)


def verify(question: str, answer: str | None) -> bool:
    """Whether an answer is right: legal moves within the limit, no avoided number, and the last lands on the target.

    Raises:
        ValueError: the question is no question of this kind. No answer raises.
    """
    start, target, limit, avoid = parse_question(question)
    moves = parse_answer(answer) if isinstance(answer, str) else None
    if not moves or len(moves) > limit:
        return False
    place = start
    for move in moves:
        place += move
        if not 0 <= place < NUMBERS or place in avoid:
            return False
    return place == target


@dataclass(frozen=True, slots=True)
class TinyVerifier:
    """The verifier as a callable that can be pickled: 1.0 for a right answer, else 0.0."""

    def __call__(self, question: str, answer: str | None) -> float:
        return float(verify(question, answer))


def parse_step_moves(step: str) -> list[tuple[int, int]]:
    """The (move, number) pairs of a step in order, the one that it makes last; empty where it makes none.

    Args:
        step: a step's text, header and tags included or not. Those followed by `` no`` are taken back.
    """
    found = _STEP.findall(step)
    taken_back = [bool(no) for *_, no in found]
    if not found or taken_back[-1] or not all(taken_back[:-1]):
        return []
    return [(int(move), int(number)) for move, number, _ in found]


def remaining_distance(question: str, steps: Sequence[str] = ()) -> int | None:
    """Fewest moves to the target after the given steps.

    Args:
        question: the question's text.
        steps: the texts of the steps so far, headers and tags included or not.

    Returns:
        The distance; None if a step is invalid (see `step_problem`) or the target cannot be reached at all.

    Raises:
        ValueError: the question is no question of this kind.
    """
    start, target, _, avoid = parse_question(question)
    place = start
    for step in steps:
        if _problem(place, step, avoid) is not None:
            return None
        place = parse_step_moves(step)[-1][1]
    distance = _distances(target, tuple(sorted(avoid)))[place]
    return None if distance == FAR else int(distance)


def step_problem(question: str, steps: Sequence[str]) -> str | None:
    """What is wrong with the last of `steps`: ``"unreadable"``, ``"arithmetic"``, ``"illegal"``, or None.

    ``"illegal"`` is a move that is none of the four or leaves 0..99, or to make a move onto an avoided number (trying
    it and taking it back is allowed). ``"arithmetic"`` is a wrong sum. Earlier steps must be valid.

    Raises:
        ValueError: no step, an invalid earlier step, or a question of another kind.
    """
    start, _, _, avoid = parse_question(question)
    check(len(steps) > 0, "steps", "at least one step", "none")
    place = start
    for step in steps[:-1]:
        check(_problem(place, step, avoid) is None, "steps", "valid steps before the last", repr(step))
        place = parse_step_moves(step)[-1][1]
    return _problem(place, steps[-1], avoid)


def _problem(place: int, step: str, avoid: Sequence[int]) -> str | None:
    """What is wrong with a step taken at `place`."""
    pairs = parse_step_moves(step)
    if not pairs:
        return "unreadable"
    move = pairs[-1][0]
    if any(tried not in MOVES or not 0 <= place + tried < NUMBERS for tried, _ in pairs) or place + move in avoid:
        return "illegal"
    if any(stated != place + tried for tried, stated in pairs):
        return "arithmetic"
    return None


@lru_cache(maxsize=4096)
def _distances(target: int, avoid: tuple[int, ...]) -> np.ndarray:
    """(NUMBERS,) distances to the target."""
    following = successors(np.array([avoid], dtype=np.int64).reshape(1, -1))
    return distances(following, np.array([target]), reach=NUMBERS)[0]


def _shortest(distance: np.ndarray, following: np.ndarray, place: int) -> list[int]:
    """The moves of one shortest walk; among equals the first of `MOVES`."""
    moves = []
    while distance[place] > 0:
        move = next(
            m for m in range(len(MOVES)) if following[place, m] >= 0 and distance[following[place, m]] < distance[place]
        )
        moves.append(MOVES[move])
        place = int(following[place, move])
    return moves
