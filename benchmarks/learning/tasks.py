"""Families of problems with exact verifiers and exact distances to the goal, and imperfect demonstrations of each.

A family gives questions as text; its verifier reads the question and the answer alone. One step of the agent is one move,
written as ``move = state``; the step that arrives answers with all moves made. All text is made of the embedded policy's
own tokens or of single bytes, so that one small model learns every family.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from lapha.tiny import problems

HELD_OUT_EVERY = 5  # one question in so many is held out, by a hash of its text


class Family(Protocol):
    """One family of problems."""

    @property
    def name(self) -> str:
        """Of the family and its difficulty."""
        ...

    @property
    def depth_limit(self) -> int:
        """Most steps of an episode."""
        ...

    def questions(self, count: int, seed: int, split: str) -> list[str]:
        """`count` questions of ``"train"`` or ``"heldout"``; the two share none."""
        ...

    def verify(self, question: str, answer: str) -> float:
        """1.0 for a right answer, 0.0 for a wrong one."""
        ...

    def remaining(self, question: str, steps: Sequence[str]) -> float:
        """Fewest moves to the goal after the given steps' texts; Inf where a step is invalid or there is no way."""
        ...

    def demonstration(self, question: str, skill: float, rng: np.random.Generator) -> list[str]:
        """The step texts of one episode: each move is on a shortest way with chance `skill`, else any legal one."""
        ...


@dataclass(frozen=True)
class Walk:
    """`lapha.tiny`'s number walks whose shortest solution has `least` to `most` moves."""

    name: str
    least: int
    most: int
    depth_limit: int = 8

    def questions(self, count: int, seed: int, split: str) -> list[str]:
        found: list[str] = []
        part = 0
        while len(found) < count:
            drawn = problems.generate(4 * count + 64, seed=1000 * seed + part, split=split)
            found += [p.question for p in drawn if self.least <= p.distance <= self.most]
            part += 1
        return found[:count]

    def verify(self, question: str, answer: str) -> float:
        return float(problems.verify(question, answer))

    def remaining(self, question: str, steps: Sequence[str]) -> float:
        left = problems.remaining_distance(question, steps)
        return math.inf if left is None else float(left)

    def demonstration(self, question: str, skill: float, rng: np.random.Generator) -> list[str]:
        start, target, limit, avoid = problems.parse_question(question)
        space = _Space(lambda place: _walk_moves(place, avoid), lambda place: place == target)
        moves = space.episode(start, limit, skill, rng)
        return _written(moves, lambda move, place: f"{move} = {place}", " ".join)


def _walk_moves(place: int, avoid: Sequence[int]) -> list[tuple[str, int]]:
    moves = [(f"{move:+d}", place + move) for move in (1, -1, 10, -10)]
    return [(move, to) for move, to in moves if 0 <= to < 100 and to not in avoid]


@dataclass(frozen=True)
class Jugs:
    """Two jugs of whole litres: fill, empty or pour until one holds the target. Moves are letters; states two numbers.

    ``Jugs 3 5 to 4``: moves ``fa fb ea eb ab ba`` (fill, empty, pour from a to b, from b to a). The structure differs from
    a walk: moves that look far apart lead to the same state, and shortest ways are unique or nearly so.
    """

    name: str
    least: int
    most: int
    largest: int = 20
    depth_limit: int = 8

    def questions(self, count: int, seed: int, split: str) -> list[str]:
        pool = [
            question
            for question, distance in _jug_problems(self.largest)
            if self.least <= distance <= self.most and _held_out(question) == (split == "heldout")
        ]
        rng = np.random.default_rng([seed, split == "heldout"])
        order = [int(i) for _ in range(-(-count // len(pool))) for i in rng.permutation(len(pool))]
        return [pool[i] for i in order[:count]]

    def verify(self, question: str, answer: str) -> float:
        sizes, target = _jug_question(question)
        place: tuple[int, int] | None = (0, 0)
        moves = answer.split()
        for move in moves:
            place = dict(_jug_moves(place, sizes)).get(move) if place is not None else None
        return float(place is not None and 0 < len(moves) <= self.depth_limit and target in place)

    def remaining(self, question: str, steps: Sequence[str]) -> float:
        sizes, target = _jug_question(question)
        place = (0, 0)
        for step in steps:
            found = re.search(r"\b([fe][ab]|ab|ba) = (\d+) (\d+)", step)
            if found is None or dict(_jug_moves(place, sizes)).get(found[1]) != (int(found[2]), int(found[3])):
                return math.inf
            place = (int(found[2]), int(found[3]))
        return _jug_space(sizes, target).distance(place)

    def demonstration(self, question: str, skill: float, rng: np.random.Generator) -> list[str]:
        sizes, target = _jug_question(question)
        moves = _jug_space(sizes, target).episode((0, 0), self.depth_limit, skill, rng)
        return _written(moves, lambda move, at: f"{move} = {at[0]} {at[1]}", " ".join)


def _jug_question(question: str) -> tuple[tuple[int, int], int]:
    found = re.fullmatch(r"Jugs (\d+) (\d+) to (\d+)", question)
    if found is None:
        raise ValueError(f"question: expected 'Jugs A B to C', got {question[:80]!r}")
    return (int(found[1]), int(found[2])), int(found[3])


def _jug_moves(place: tuple[int, int], sizes: tuple[int, int]) -> list[tuple[str, tuple[int, int]]]:
    (a, b), (A, B) = place, sizes
    into_b, into_a = min(a, B - b), min(b, A - a)
    reached = {
        "fa": (A, b), "fb": (a, B), "ea": (0, b), "eb": (a, 0),
        "ab": (a - into_b, b + into_b), "ba": (a + into_a, b - into_a),
    }  # fmt: skip
    return [(move, to) for move, to in reached.items() if to != place]


def _jug_space(sizes: tuple[int, int], target: int) -> _Space:
    return _Space(lambda at: _jug_moves(at, sizes), lambda at: target in at)


@lru_cache(maxsize=4)
def _jug_problems(largest: int) -> tuple[tuple[str, int], ...]:
    """(question, moves of a shortest solution) of every solvable pair of jugs."""
    found = []
    for A in range(2, largest + 1):
        for B in range(A + 1, largest + 1):
            for target in range(1, B + 1):
                distance = _jug_space((A, B), target).distance((0, 0))
                if math.isfinite(distance):
                    found.append((f"Jugs {A} {B} to {target}", int(distance)))
    return tuple(found)


@dataclass(frozen=True)
class Countdown:
    """Combine `count` numbers with + - * to a target, each used once. One step combines two of those that are left.

    ``Make 24 from 2 3 4``: steps such as ``2 * 3 = 6 left 4 6``. A wrong combination cannot be taken back: most states
    are dead ends, unlike those of a walk.
    """

    name: str
    count: int = 4
    largest: int = 9

    @property
    def depth_limit(self) -> int:
        return self.count - 1

    def questions(self, count: int, seed: int, split: str) -> list[str]:
        rng = np.random.default_rng([seed, self.count, split == "heldout"])
        found: list[str] = []
        while len(found) < count:
            numbers = tuple(sorted(int(n) for n in rng.integers(1, self.largest + 1, self.count)))
            place = numbers
            while len(place) > 1:
                moves = _countdown_moves(place)
                place = moves[int(rng.integers(len(moves)))][1]
            question = f"Make {place[0]} from {' '.join(map(str, numbers))}"
            if place[0] >= 10 and _held_out(question) == (split == "heldout"):
                found.append(question)
        return found

    def verify(self, question: str, answer: str) -> float:
        target, place = _countdown_question(question)
        for move in answer.split(", "):
            following = dict(_countdown_moves(place)).get(move)
            if following is None:
                return 0.0
            place = following
        return float(place == (target,))

    def remaining(self, question: str, steps: Sequence[str]) -> float:
        target, place = _countdown_question(question)
        for step in steps:
            found = re.search(r"(\d+ [-+*] \d+) = (\d+) left([ \d]*)", step)
            following = None if found is None else dict(_countdown_moves(place)).get(found[1])
            if found is None or following is None or following != tuple(int(n) for n in found[3].split()):
                return math.inf
            place = following
        return _Space(_countdown_moves, lambda at: at == (target,)).distance(place)

    def demonstration(self, question: str, skill: float, rng: np.random.Generator) -> list[str]:
        target, place = _countdown_question(question)
        moves = _Space(_countdown_moves, lambda at: at == (target,)).episode(place, self.depth_limit, skill, rng)

        def text(move: str, at: tuple[int, ...]) -> str:
            first, sign, second = move.split()
            value = {"+": int(first) + int(second), "-": int(first) - int(second), "*": int(first) * int(second)}[sign]
            return f"{move} = {value} left {' '.join(map(str, at))}"

        return _written(moves, text, ", ".join)


def _countdown_question(question: str) -> tuple[int, tuple[int, ...]]:
    found = re.fullmatch(r"Make (\d+) from((?: \d+)+)", question)
    if found is None:
        raise ValueError(f"question: expected 'Make A from …', got {question[:80]!r}")
    return int(found[1]), tuple(sorted(int(n) for n in found[2].split()))


def _countdown_moves(place: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """Every pair with every sign, the larger number first; results stay in 0..99."""
    found: dict[str, tuple[int, ...]] = {}
    for i in range(len(place)):
        for j in range(i):
            large, small = max(place[i], place[j]), min(place[i], place[j])
            rest = [n for k, n in enumerate(place) if k not in (i, j)]
            for sign, value in (("+", large + small), ("-", large - small), ("*", large * small)):
                if value < 100:
                    found[f"{large} {sign} {small}"] = tuple(sorted([*rest, value]))
    return list(found.items())


def _held_out(question: str) -> bool:
    return crc32(question.encode()) % HELD_OUT_EVERY == 0


@dataclass(frozen=True)
class _Space:
    """States, their moves, and which of them are goals."""

    moves: Callable[[Any], list[tuple[str, Any]]]
    is_goal: Callable[[Any], bool]

    def distance(self, place: Any, limit: int = 12) -> float:
        """Fewest moves to a goal, by breadth first search; Inf beyond `limit`."""
        seen, front = {place}, [place]
        for depth in range(limit + 1):
            if any(map(self.is_goal, front)):
                return float(depth)
            front = list(dict.fromkeys(to for at in front for _, to in self.moves(at) if to not in seen))
            seen.update(front)
            if not front:
                break
        return math.inf

    def episode(self, place: Any, limit: int, skill: float, rng: np.random.Generator) -> list[tuple[str, Any]]:
        """Moves with the states they lead to, until a goal, a dead end or the limit."""
        made: list[tuple[str, Any]] = []
        while len(made) < limit and not self.is_goal(place):
            options = self.moves(place)
            if not options:
                break
            distances = [self.distance(to) for _, to in options] if rng.random() < skill else []
            if distances and math.isfinite(min(distances)):
                options = [option for option, d in zip(options, distances, strict=True) if d == min(distances)]
            move, place = options[int(rng.integers(len(options)))]
            made.append((move, place))
        return made


def _written(
    moves: Iterable[tuple[str, Any]], text: Callable[[str, Any], str], joined: Callable[[list[str]], str]
) -> list[str]:
    """Step texts as the policy writes them behind the pre-filled header; the last one answers with all moves."""
    moves = list(moves)
    steps = [f"{text(move, place)}\n</think>" for move, place in moves]
    if steps:
        steps[-1] += f"\n<answer>{joined([move for move, _ in moves])}</answer>"
    return steps


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Walk("walk-easy", 3, 3),
        Walk("walk-medium", 4, 4),
        Walk("walk-hard", 5, 6),
        Jugs("jugs", 3, 6),
        Countdown("countdown", 4),
    )
}
