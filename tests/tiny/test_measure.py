"""The measurements themselves: siblings, shares, calibration, and the judge of sampled episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from lapha.tiny import evaluation, measure, sampling
from lapha.tiny.encoding import Vocabulary, encode
from lapha.tiny.tokenizer import build_tokenizer
from lapha.tiny.walk import MOVE_LIMIT, MOVES, TRIES, Demonstrator, generate_walks, roll_out

QUESTION = "Walk from 14 to 26 in at most 8 moves of +1 -1 +10 -10, avoiding 13 24 35"


def test_ordered_share_by_hand() -> None:
    value = np.array([[0.9, 0.5, 0.5, 0.1], [0.2, 0.8, 0.3, 0.3]])
    distance = np.array([[1, 2, 3, 2], [1, 2, 2, 2]], dtype=np.int8)
    everything = np.ones((2, 4), dtype=bool)
    # first row: 0-1, 0-2, 0-3 right, 1-2 equal values, 2-3 wrong, 1-3 equally far; second row: 0-1, 0-2, 0-3 wrong
    assert measure.ordered_share(value, distance, everything) == (pytest.approx(3.5 / 8), 8)
    only = np.array([[True, True, False, False], [False, False, False, True]])
    assert measure.ordered_share(value, distance, only) == (1.0, 1)
    assert measure.ordered_share(-value, distance, only) == (0.0, 1)


def test_children_are_all_legal_moves() -> None:
    rng = np.random.default_rng(0)
    walks = generate_walks(60, rng)
    rollouts = roll_out(walks, 1, Demonstrator(0.4, 0.3), rng)
    depth = rng.integers(0, rollouts.length[:, 0])
    children = measure.children_of(walks, rollouts.moves[:, 0], rollouts.numbers[:, 0], depth)
    batch = encode(walks, children.rollouts, Vocabulary(build_tokenizer()))
    assert batch.state_real[torch.arange(240), torch.from_numpy(children.depth).repeat_interleave(4)].all()
    for p in range(60):
        here = int(walks.start[p]) if depth[p] == 0 else int(rollouts.numbers[p, 0, depth[p] - 1])
        for m in range(4):
            there = here + MOVES[m]
            legal = 0 <= there < 100 and there not in walks.avoid[p]
            assert children.legal[p, m] == legal
            if not legal:
                continue
            assert children.place[p, m] == there
            assert children.distance[p, m] == walks.distance[p, there]
            moves = children.rollouts.moves[p, m]
            np.testing.assert_array_equal(moves[: depth[p]], rollouts.moves[p, 0, : depth[p]])
            assert moves[depth[p]] == m
            # an open child is followed by one more move, so that its state is that of an open step
            is_open = there != walks.target[p] and depth[p] + 1 < MOVE_LIMIT
            assert children.rollouts.length[p, m] == depth[p] + 1 + is_open
            assert children.rollouts.correct[p, m] == (there == walks.target[p])


def test_calibration() -> None:
    predicted = torch.tensor([0.05, 0.05, 0.95, 1.0])
    outcome = torch.tensor([0.0, 1.0, 1.0, 1.0])
    bins, error = evaluation._calibration(predicted, outcome)
    assert [row["states"] for row in bins] == [2, 2]
    assert [row["solved"] for row in bins] == [0.5, 1.0]
    assert error == pytest.approx(0.5 * 0.45 + 0.5 * 0.025, abs=1e-6)


def test_auc_agrees_with_sklearn() -> None:
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    outcome = (torch.rand(200, generator=generator) < 0.3).float()
    score = (outcome + torch.randn(200, generator=generator)).round(decimals=1)  # with ties
    assert evaluation._auc(score, outcome) == pytest.approx(roc_auc_score(outcome, score))


@pytest.mark.parametrize(
    ("episode", "judged", "problem", "solved"),
    [
        (["+1 = 15\n</think>", "+1 = 16\n</think>", "+10 = 26\n</think>\n<answer>+1 +1 +10</answer>"], 3, None, True),
        (["+10 = 24 no +1 = 15\n</think>", "+10 = 25\n</think>\n<answer>+1 +10</answer>"], 2, None, False),
        (["+1 = 15\n</think>", "+1 = 17\n</think>", "+10 = 27\n</think>"], 2, "arithmetic", False),
        (["+10 = 24\n</think>", "+1 = 25\n</think>"], 1, "illegal", False),
        (
            ["+1 = 15\n</think>", "+1 = 16\n</think>", "+10 = 26\n</think>\n<answer>+1 +10 +1</answer>"],
            3,
            "answer",
            True,
        ),
        (["+1 = 15\n</think>", ""], 2, "unended", False),
        (["walk\n</think>"], 1, "unreadable", False),
    ],
)
def test_judging_an_episode(episode: list[str], judged: int, problem: str | None, solved: bool) -> None:
    moves = np.full((1, 1, MOVE_LIMIT), -1)
    tried = np.full((1, 1, MOVE_LIMIT, TRIES), -1)
    numbers, valid, right = moves.copy(), np.ones((1, 1), bool), np.zeros((1, 1), bool)
    found: dict[str, int] = {}
    count = sampling._judge(QUESTION, episode, (0, 0), (moves, numbers, tried), valid, right, found)
    assert count == judged
    assert found == ({} if problem is None else {problem: 1})
    assert valid[0, 0] == (problem is None)
    assert right[0, 0] == solved
    if problem is None:
        assert MOVES[moves[0, 0, 0]] == 1
        assert numbers[0, 0, 0] == 15
        assert (tried[0, 0, 0, 0] >= 0) == ("no" in episode[0])
