"""`shape_rollouts` against the shaping functions on each tree alone."""

import random

import pytest
import torch

from lapha import potential, process_reward, sibling_advantages
from lapha.integrations import RolloutRecord, shape_rollouts
from lapha.latent import latent_points

PARENT = torch.tensor([-1, 0, 0, 1, 1, 2])


def one_tree(name, good, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(6, 8, generator=generator)
    records = [
        RolloutRecord(
            key=(name, node),
            parent=None if node == 0 else (name, int(PARENT[node])),
            hidden=hidden[node],
            terminal=node >= 3,
            correct=(node == good) if node >= 3 else None,
        )
        for node in range(6)
    ]
    return records, hidden


def interleave(*lists):
    rng, queues, merged = random.Random(0), [list(records) for records in lists], []
    while any(queues):
        merged.append(rng.choice([queue for queue in queues if queue]).pop(0))
    return merged


def test_interleaved_trees_equal_each_tree_alone():
    (first, h1), (second, h2) = one_tree("a", 4, 1), one_tree("b", 5, 2)
    records = interleave(first, second)
    shaped = shape_rollouts(records)
    for name, hidden, good in (("a", h1, 4), ("b", h2, 5)):
        rows = [index for index, record in enumerate(records) if record.key[0] == name]
        goal = torch.arange(6) == good
        failed = (torch.arange(6) >= 3) & ~goal
        value = potential(latent_points(hidden, hidden[0]), goal=goal, failed=failed)
        reward = process_reward(value, PARENT)
        torch.testing.assert_close(shaped.potential[rows], value)
        torch.testing.assert_close(shaped.reward[rows], reward)
        torch.testing.assert_close(shaped.advantage[rows], sibling_advantages(reward, PARENT), equal_nan=True)


def test_a_tree_without_a_correct_leaf_cannot_be_scored():
    records, _ = one_tree("a", None, 1)
    shaped = shape_rollouts(records)
    assert shaped.potential.eq(0).all()
    assert shaped.reward.isnan().all()
    assert shaped.advantage.isnan().all()


def test_adaptive_rewards_lie_in_the_unit_interval():
    records, _ = one_tree("a", 3, 4)
    reward = shape_rollouts(records, reward="adaptive").reward
    assert ((reward >= 0) & (reward <= 1)).all()
    assert float(reward.max()) > 0


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([RolloutRecord(0, None, torch.zeros(2)), RolloutRecord(0, 0, torch.zeros(2))], "occur once"),
        ([RolloutRecord(1, 0, torch.zeros(2)), RolloutRecord(0, None, torch.zeros(2))], "stands earlier"),
        ([RolloutRecord(0, None, torch.zeros(2)), RolloutRecord(1, 0, torch.zeros(3))], "hidden states"),
    ],
)
def test_bad_records_are_named(records, words):
    with pytest.raises(ValueError, match=words):
        shape_rollouts(records)


def test_reward_kind_is_checked():
    with pytest.raises(ValueError, match="reward"):
        shape_rollouts([], reward="loose")
