"""The arrays of the number walk against plain Python."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from lapha.tiny import walk
from lapha.tiny.walk import FAR, LONGEST, MOVE_LIMIT, MOVES, NUMBERS, SHORTEST


def plain_distances(target: int, avoid: set[int]) -> list[int]:
    distance = {target: 0}
    queue = deque([target])
    while queue:
        here = queue.popleft()
        for move in MOVES:
            there = here + move
            if 0 <= there < NUMBERS and there not in avoid and there not in distance:
                distance[there] = distance[here] + 1
                queue.append(there)
    return [distance.get(number, FAR) for number in range(NUMBERS)]


@pytest.fixture(scope="module")
def walks() -> walk.Walks:
    return walk.generate_walks(200, np.random.default_rng(0))


def test_distances_are_breadth_first(walks: walk.Walks) -> None:
    for index in range(40):
        avoid = set(walks.avoid[index].tolist())
        expected = plain_distances(int(walks.target[index]), avoid)
        for number in set(range(NUMBERS)) - avoid:
            near = expected[number] if expected[number] <= MOVE_LIMIT + 1 else FAR
            assert walks.distance[index, number] == near


def test_problems_keep_their_promises(walks: walk.Walks) -> None:
    rows = np.arange(len(walks))
    away = walks.distance[rows, walks.start]
    assert away.min() >= SHORTEST
    assert away.max() <= LONGEST
    assert set(np.unique(away)) == set(range(SHORTEST, LONGEST + 1))
    assert (np.diff(walks.avoid, axis=1) > 0).all()
    assert not (walks.avoid == walks.start[:, None]).any()
    assert not (walks.avoid == walks.target[:, None]).any()


def test_avoided_numbers_matter(walks: walk.Walks) -> None:
    free = np.array([plain_distances(int(t), set())[int(s)] for s, t in zip(walks.start, walks.target)])
    longer = walks.distance[np.arange(len(walks)), walks.start] > free
    assert 0.2 < longer.mean() < 0.5


def test_successors_are_the_legal_moves(walks: walk.Walks) -> None:
    avoid = set(walks.avoid[0].tolist())
    for number in range(NUMBERS):
        for index, move in enumerate(MOVES):
            there = number + move
            legal = 0 <= there < NUMBERS and there not in avoid
            assert walks.next[0, number, index] == (there if legal else -1)


def test_the_hash_splits_one_in_ten() -> None:
    rng = np.random.default_rng(1)
    train, held = walk.generate_walks(500, rng), walk.generate_walks(500, rng, "heldout")
    assert not walk.held_out(train.start, train.target, train.avoid).any()
    assert walk.held_out(held.start, held.target, held.avoid).all()
    proposed = walk._propose(20_000, rng)
    assert abs(walk.held_out(proposed.start, proposed.target, proposed.avoid).mean() - 0.1) < 0.01


def test_the_hash_is_a_constant_of_the_problem() -> None:
    """A change of the hash would let held-out problems into the training of the packaged policy."""
    start, target = np.arange(40), 99 - np.arange(40)
    avoid = np.arange(40)[:, None] + np.arange(40, 43)
    assert np.flatnonzero(walk.held_out(start, target, avoid)).tolist() == [1, 2, 10, 17, 25, 31, 35]


@pytest.mark.parametrize(("skill", "habit"), [(0.0, 0.0), (0.35, 0.25), (1.0, 0.0), (0.3, 0.7)])
def test_demonstrator_mixes_shortest_habitual_and_other_moves(walks: walk.Walks, skill: float, habit: float) -> None:
    trying = walk.Demonstrator(skill, habit).moves(walks)
    made = walk.walking_policy(walks, trying)
    for index in range(10):
        distance, avoid = walks.distance[index].tolist(), set(walks.avoid[index].tolist())
        for number in set(range(NUMBERS)) - avoid:
            inside = [m for m in range(4) if 0 <= number + MOVES[m] < NUMBERS]
            legal = [m for m in inside if number + MOVES[m] not in avoid]
            good = [m for m in legal if distance[number + MOVES[m]] < distance[number]] or inside
            habitual = [0] if 0 in inside else inside  # +1
            parts = ((skill, good), (habit, habitual), (1 - skill - habit, inside))
            expected = [sum(share * (m in moves) / len(moves) for share, moves in parts) for m in range(4)]
            np.testing.assert_allclose(trying[index, number], expected, atol=1e-6)
            total = sum(expected[m] for m in legal)
            if total > 0:
                shares = [expected[m] * (m in legal) / total for m in range(4)]
                np.testing.assert_allclose(made[index, number], shares, atol=1e-6)


def test_success_chances_are_exact() -> None:
    walks = walk.generate_walks(3, np.random.default_rng(3))
    policy = walk.walking_policy(walks, walk.Demonstrator(0.5, 0.0).moves(walks))
    chances = walk.success_chances(walks, policy)

    def chance(problem: int, place: int, left: int) -> float:
        if place == walks.target[problem]:
            return 1.0
        if left == 0:
            return 0.0
        moves = [(m, walks.next[problem, place, m]) for m in range(4) if walks.next[problem, place, m] >= 0]
        return sum(float(policy[problem, place, m]) * chance(problem, int(there), left - 1) for m, there in moves)

    for problem in range(3):
        for left in range(5):
            for place in (int(walks.start[problem]), int(walks.target[problem]), 50):
                assert chances[problem, left, place] == pytest.approx(chance(problem, place, left), abs=1e-5)


def test_rollouts_are_legal_walks(walks: walk.Walks) -> None:
    rollouts = walk.roll_out(walks, 6, walk.Demonstrator(0.35, 0.3), np.random.default_rng(4))
    for problem in range(len(walks)):
        for k in range(6):
            place, length = int(walks.start[problem]), int(rollouts.length[problem, k])
            for step in range(length):
                move = int(rollouts.moves[problem, k, step])
                assert place != walks.target[problem]  # a walk ends where it arrives
                tried = [int(m) for m in rollouts.tried[problem, k, step] if m >= 0]
                assert len({*tried, move}) == len(tried) + 1
                for attempt, other in enumerate(tried):
                    assert walks.next[problem, place, other] == -1
                    assert 0 <= place + MOVES[other] < NUMBERS
                    assert rollouts.move_chances[problem, k, step, attempt, other] > 0
                chances = rollouts.move_chances[problem, k, step, len(tried)]
                assert chances[move] > 0
                assert not chances[tried].any()
                assert chances.sum() == pytest.approx(1, abs=1e-5)
                assert not rollouts.move_chances[problem, k, step, len(tried) + 1 :].any()
                place = int(walks.next[problem, place, move])
                assert place == rollouts.numbers[problem, k, step] >= 0
            assert rollouts.correct[problem, k] == (place == walks.target[problem])
            assert rollouts.correct[problem, k] or length == MOVE_LIMIT
            assert (rollouts.moves[problem, k, length:] == -1).all()
            assert rollouts.chance[problem, k, length] == rollouts.correct[problem, k]
            assert (rollouts.tried[problem, k] >= 0).sum() <= walk.WALK_TRIES
            assert not rollouts.move_chances[problem, k, length:].any()


def test_the_chance_predicts_the_outcome(walks: walk.Walks) -> None:
    rollouts = walk.roll_out(walks, 64, walk.Demonstrator(0.35, 0.3), np.random.default_rng(5))
    assert rollouts.correct.mean() == pytest.approx(rollouts.chance[:, 0, 0].mean(), abs=0.01)
    assert 0.15 < rollouts.correct.mean() < 0.35


def test_moves_are_drawn_in_proportion(walks: walk.Walks) -> None:
    """The first moves made are those of `walking_policy`, though avoided numbers are tried and taken back."""
    rollouts = walk.roll_out(walks, 400, walk.Demonstrator(0.35, 0.3), np.random.default_rng(6))
    policy = walk.walking_policy(walks, walk.Demonstrator(0.35, 0.3).moves(walks))[np.arange(len(walks)), walks.start]
    seen = (rollouts.moves[:, :, 0, None] == np.arange(4)).mean(1)
    assert np.abs(seen - policy).max() < 0.12  # 4.8 standard deviations of a share of 400
    assert abs((seen - policy).mean(0)).max() < 0.01
    assert 0.03 < (rollouts.tried[:, :, 0, 0] >= 0).mean() < 0.2


def test_the_same_seed_draws_the_same() -> None:
    one = walk.generate_walks(30, np.random.default_rng(7))
    two = walk.generate_walks(30, np.random.default_rng(7))
    np.testing.assert_array_equal(one.avoid, two.avoid)
    other = walk.generate_walks(30, np.random.default_rng(8))
    assert (one.start != other.start).any()


def test_the_habit_is_what_makes_greedy_walks_fail() -> None:
    """The figures of docs/tiny.md, exact for a policy that equals its demonstrator."""
    walks = walk.generate_walks(1000, np.random.default_rng(1), "heldout")

    def greedy(demonstrator: walk.Demonstrator) -> float:
        policy = walk.walking_policy(walks, demonstrator.moves(walks)).astype(np.float64)
        top = policy >= policy.max(2, keepdims=True) - 1e-6  # ties are drawn
        sharp = np.where(policy > 0, top, False) / np.maximum((top & (policy > 0)).sum(2, keepdims=True), 1)
        chance = walk.success_chances(walks, sharp)
        return float(chance[np.arange(len(walks)), walk.MOVE_LIMIT, walks.start].mean())

    assert greedy(walk.Demonstrator(0.45, 0.0)) > 0.999
    assert greedy(walk.Demonstrator()) == pytest.approx(0.795, abs=0.005)
