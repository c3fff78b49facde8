"""The number walk as arrays: distances, the demonstrator and its chance of success, many problems at a time.

A walk starts at a number 0..99 and moves by +1, −1, +10 or −10. It may not leave 0..99 nor land on an avoided number,
and has to land on the target within `MOVE_LIMIT` moves. Everything here is a pure function of integer arrays;
`lapha.tiny.problems` is the same thing for people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lapha._checks import check

NUMBERS = 100
MOVES = (1, -1, 10, -10)
MOVE_LIMIT = 8
AVOIDED = 3
SHORTEST, LONGEST = 3, 6
TRIES = 2  # most moves that one step tries and takes back
WALK_TRIES = 3  # most of them in a whole demonstrated walk
FAR = 127  # distance of a number from which the target cannot be reached

_NEXT = np.array([[n + m if 0 <= n + m < NUMBERS else -1 for m in MOVES] for n in range(NUMBERS)], dtype=np.int64)
_HELD_OUT_EVERY = 10


@dataclass(frozen=True)
class Walks:
    """`P` problems.

    Attributes:
        start: (P,) int64.
        target: (P,) int64.
        avoid: (P, AVOIDED) int64, ascending.
        distance: (P, NUMBERS) int8, moves left to the target from each number, `FAR` where there is no way.
        next: (P, NUMBERS, 4) int64, where each of `MOVES` leads, −1 where the move is illegal.
    """

    start: np.ndarray
    target: np.ndarray
    avoid: np.ndarray
    distance: np.ndarray
    next: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def take(self, index: np.ndarray) -> Walks:
        """The problems at `index`."""
        return Walks(*(getattr(self, name)[index] for name in ("start", "target", "avoid", "distance", "next")))


def successors(avoid: np.ndarray) -> np.ndarray:
    """(P, NUMBERS, 4) where each move leads, −1 where it leaves 0..99 or lands on one of `avoid` (P, A)."""
    count = len(avoid)
    blocked = np.zeros((count, NUMBERS + 1), dtype=bool)  # the last column is what −1 indexes: off the line
    blocked[np.arange(count)[:, None], avoid] = True
    blocked[:, NUMBERS] = True
    return np.where(blocked[:, _NEXT], -1, _NEXT[None])


def distances(next_number: np.ndarray, target: np.ndarray, reach: int = MOVE_LIMIT + 1) -> np.ndarray:
    """(P, NUMBERS) int8 breadth-first distances to `target` (P,), up to `reach`; `FAR` beyond.

    Moves are their own inverses (+1 and −1, +10 and −10), so distance to the target is a relaxation over successors.
    """
    count = len(target)
    rows = np.arange(count)
    distance = np.full((count, NUMBERS + 1), FAR, dtype=np.int8)  # the last column is what −1 indexes: never reached
    distance[rows, target] = 0
    flat = next_number.reshape(count, -1)
    for _ in range(reach):
        around = np.take_along_axis(distance, np.where(flat < 0, NUMBERS, flat), axis=1)
        best = around.reshape(count, NUMBERS, len(MOVES)).min(axis=2)
        distance[:, :NUMBERS] = np.minimum(distance[:, :NUMBERS], np.where(best < FAR, best + 1, FAR))
    return distance[:, :NUMBERS]


def held_out(start: np.ndarray, target: np.ndarray, avoid: np.ndarray) -> np.ndarray:
    """(P,) bool: whether a problem belongs to the held-out split, decided by a hash of the problem alone."""
    mixed = np.zeros(len(start), dtype=np.uint64)
    for column in (start, target, *avoid.T):
        mixed = (mixed ^ column.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed % np.uint64(_HELD_OUT_EVERY) == 0


def _propose(count: int, rng: np.random.Generator) -> Walks:
    """`count` random problems, solvable or not. Avoided numbers crowd around the straight way, so that they matter."""
    start = rng.integers(NUMBERS, size=count)
    target = rng.integers(NUMBERS, size=count)
    number = np.arange(NUMBERS)

    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.abs(a // 10 - b // 10) + np.abs(a % 10 - b % 10)

    detour = apart(number, start[:, None]) + apart(number, target[:, None]) - apart(start, target)[:, None]
    score = rng.random((count, NUMBERS)) + 0.6 * (detour <= 2) + 0.4 * (detour <= 0)
    rows = np.arange(count)
    score[rows, start] = score[rows, target] = -1.0
    avoid = np.sort(np.argpartition(-score, AVOIDED, axis=1)[:, :AVOIDED], axis=1)
    following = successors(avoid)
    return Walks(start, target, avoid, distances(following, target), following)


def generate_walks(count: int, rng: np.random.Generator, split: str = "train") -> Walks:
    """`count` solvable problems of distance `SHORTEST`..`LONGEST` from one split, ``"train"`` or ``"heldout"``."""
    parts: list[Walks] = []
    found = 0
    share = 0.4 * (1 / _HELD_OUT_EVERY if split == "heldout" else 1 - 1 / _HELD_OUT_EVERY)
    while found < count:
        walks = _propose(int((count - found) / share) + 64, rng)
        away = walks.distance[np.arange(len(walks)), walks.start]
        right_split = held_out(walks.start, walks.target, walks.avoid) == (split == "heldout")
        walks = walks.take(np.flatnonzero((away >= SHORTEST) & (away <= LONGEST) & right_split))
        parts.append(walks)
        found += len(walks)
    names = ("start", "target", "avoid", "distance", "next")
    joined = Walks(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    return joined.take(np.arange(count))


@dataclass(frozen=True)
class Demonstrator:
    """Who shows how to walk, imperfectly: it knows the way, and it has a habit.

    Attributes:
        skill: share of its moves that lie on a shortest way.
        habit: share of its moves that are +1, wherever the target is. The rest is any move.
    """

    skill: float = 0.45
    habit: float = 0.4

    def __post_init__(self) -> None:
        check(0 <= self.skill <= 1, "skill", "a share in [0, 1]", self.skill)
        check(0 <= self.habit <= 1 - self.skill, "habit", f"a share in [0, {1 - self.skill:g}]", self.habit)

    def moves(self, walks: Walks) -> np.ndarray:
        """(P, NUMBERS, 4) probabilities of the move that it tries; zero for moves off the line.

        With probability `skill` a legal move on a shortest way (any of them alike), with probability `habit` +1, else
        any move that stays in 0..99, onto an avoided number too: it notices that, takes the move back, and tries
        another one. Where there is no way, or no +1, it takes any move instead.
        """
        inside = np.broadcast_to(_NEXT >= 0, walks.next.shape)
        legal = walks.next >= 0
        after = np.take_along_axis(
            np.concatenate([walks.distance, np.full((len(walks), 1), FAR, np.int8)], axis=1),
            np.where(legal, walks.next, NUMBERS).reshape(len(walks), -1),
            axis=1,
        ).reshape(legal.shape)
        good = legal & (after < walks.distance[:, :, None])
        uniform = inside / inside.sum(2, keepdims=True)
        directed = np.where(good.any(2, keepdims=True), good / np.maximum(good.sum(2, keepdims=True), 1), uniform)
        habitual = np.where(inside[:, :, :1], np.eye(len(MOVES))[0], uniform)
        rest = 1 - self.skill - self.habit
        return (self.skill * directed + self.habit * habitual + rest * uniform).astype(np.float32)


def walking_policy(walks: Walks, trying: np.ndarray) -> np.ndarray:
    """(P, NUMBERS, 4) probabilities of the move that is made in the end: `trying`, given that the move is legal.

    That is exact: drawing without replacement until a move is legal picks the legal ones in proportion.
    """
    legal = trying * (walks.next >= 0)
    return legal / np.maximum(legal.sum(2, keepdims=True), 1e-9)


def success_chances(walks: Walks, policy: np.ndarray) -> np.ndarray:
    """(P, MOVE_LIMIT + 1, NUMBERS) exact probability that `policy` reaches the target with so many moves left."""
    count = len(walks)
    rows = np.arange(count)
    where = np.where(walks.next < 0, NUMBERS, walks.next).reshape(count, -1)
    chance = np.zeros((count, MOVE_LIMIT + 1, NUMBERS + 1), dtype=np.float32)
    chance[rows, 0, walks.target] = 1.0
    for left in range(1, MOVE_LIMIT + 1):
        ahead = np.take_along_axis(chance[:, left - 1], where, axis=1).reshape(policy.shape)
        chance[:, left, :NUMBERS] = (policy * ahead).sum(2)
        chance[rows, left, walks.target] = 1.0
    return chance[:, :, :NUMBERS]


@dataclass(frozen=True)
class Rollouts:
    """`K` walks of each of `P` problems.

    Attributes:
        moves: (P, K, MOVE_LIMIT) index into `MOVES`, −1 after the walk has ended.
        numbers: (P, K, MOVE_LIMIT) where each move led, −1 after the walk has ended.
        tried: (P, K, MOVE_LIMIT, TRIES) moves onto avoided numbers that the step took back before, −1 where none.
        move_chances: (P, K, MOVE_LIMIT, TRIES + 1, 4) the demonstrator's probabilities at each try, the move that was
            made last; zero where there was no try. Empty for walks that are not for training.
        chance: (P, K, MOVE_LIMIT + 1) its exact chance of success before the first move and after each. Likewise.
        length: (P, K) moves made.
        correct: (P, K) whether the walk ends on the target.
    """

    moves: np.ndarray
    numbers: np.ndarray
    tried: np.ndarray
    move_chances: np.ndarray
    chance: np.ndarray
    length: np.ndarray
    correct: np.ndarray


def walked(moves: np.ndarray, numbers: np.ndarray, correct: np.ndarray, tried: np.ndarray | None = None) -> Rollouts:
    """Rollouts that were not drawn from the demonstrator: without its chances."""
    if tried is None:
        tried = np.full((*moves.shape, TRIES), -1, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.float32)
    return Rollouts(moves, numbers, tried, nothing, nothing, (moves >= 0).sum(2), correct)


def _draw(probability: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index for each row of unnormalised probabilities (…, 4), never one of probability zero."""
    mass = probability.cumsum(-1)
    move = (rng.random((*probability.shape[:-1], 1)) * mass[..., -1:] >= mass).sum(-1).clip(0, len(MOVES) - 1)
    possible = np.take_along_axis(probability, move[..., None], -1)[..., 0] > 0
    return np.where(possible, move, probability.argmax(-1))  # rounding may point behind the last possible one


def roll_out(walks: Walks, count: int, demonstrator: Demonstrator, rng: np.random.Generator) -> Rollouts:
    """Draw `count` demonstrations of every problem."""
    shape = (len(walks), count)
    trying = demonstrator.moves(walks)
    chances = success_chances(walks, walking_policy(walks, trying))
    row = np.broadcast_to(np.arange(len(walks))[:, None], shape)
    place = np.broadcast_to(walks.start[:, None], shape).copy()
    live = np.ones(shape, dtype=bool)
    budget = np.full(shape, WALK_TRIES)
    moves = np.full((*shape, MOVE_LIMIT), -1, dtype=np.int64)
    numbers, tried = moves.copy(), np.full((*shape, MOVE_LIMIT, TRIES), -1, dtype=np.int64)
    move_chances = np.zeros((*shape, MOVE_LIMIT, TRIES + 1, len(MOVES)), dtype=np.float32)
    chance = np.zeros((*shape, MOVE_LIMIT + 1), dtype=np.float32)
    chance[:, :, 0] = chances[row, MOVE_LIMIT, place]
    for step in range(MOVE_LIMIT):
        probability = trying[row, place].copy()
        legal = walks.next[row, place] >= 0
        unsettled = live.copy()
        for attempt in range(TRIES + 1):
            may_fail = (budget > 0) & (attempt < TRIES)
            probability = np.where(may_fail[:, :, None], probability, probability * legal)
            move = _draw(probability, rng)
            share = probability / np.maximum(probability.sum(2, keepdims=True), 1e-9)
            move_chances[:, :, step, attempt] = share * unsettled[:, :, None]
            fits = np.take_along_axis(legal, move[:, :, None], 2)[:, :, 0]
            made = unsettled & fits
            moves[:, :, step] = np.where(made, move, moves[:, :, step])
            place = np.where(made, walks.next[row, place, move], place)
            unsettled = unsettled & ~fits
            budget = budget - unsettled
            if attempt < TRIES:
                tried[:, :, step, attempt] = np.where(unsettled, move, -1)
            np.put_along_axis(probability, move[:, :, None], 0.0, 2)
            # `legal` and `place` of walks that have moved are not looked at again in this step
        numbers[:, :, step] = np.where(live, place, -1)
        chance[:, :, step + 1] = chances[row, MOVE_LIMIT - step - 1, place]
        live = live & (place != walks.target[:, None])
    correct = place == walks.target[:, None]
    return Rollouts(moves, numbers, tried, move_chances, chance, (moves >= 0).sum(2), correct)
