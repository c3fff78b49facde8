"""Shaped trees and training rows on a hand-made tree."""

import pytest
import torch

from lapha import PolarPoints, SearchTree
from lapha.integrations import ShapingConfig, rows_of_group, shape_tree
from lapha.types import Status


def make_tree():
    tree = SearchTree("q", [1, 2, 3])
    a = tree.add(0, tokens=[10, 11], logprobs=[-0.5, -0.5], well_formed=True, value=0.4)
    b = tree.add(0, tokens=[12], logprobs=[-1.0], well_formed=True, value=0.2)
    tree.add(a, tokens=[7, 13, 14], bridge_length=1, logprobs=[-1, -2], text="x", answer="good", status=Status.ANSWERED)
    tree.add(a, tokens=[7, 15], bridge_length=1, logprobs=[-1], text="y", answer="bad", status=Status.ANSWERED)
    tree.add(b, tokens=[7, 16], bridge_length=1, logprobs=[-1], text="z", status=Status.DEPTH_LIMIT)
    tree.add(b, tokens=[7, 17], bridge_length=1, logprobs=[-1], text="w", answer="odd", status=Status.ANSWERED)
    return tree


def make_latents(n=7, dim=5):
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(n, dim, generator=generator) * 0.3
    v[0] = 0
    return PolarPoints.from_tangent(v)


def verdict(question, answer):
    assert question == "q"
    return {"good": 1.0, "bad": 0.0, "odd": None}[answer]


def test_values_rewards_and_groups_of_a_small_tree():
    config = ShapingConfig(reward="strict", breadth=2)
    shaped = shape_tree(make_tree(), make_latents(), verdict, config)
    assert shaped.correct.tolist() == [False, False, False, True, False, False, False]
    assert shaped.ungraded == 1
    assert shaped.value[0] == 0
    assert shaped.value[3] == 1
    assert shaped.leaf_accuracy == pytest.approx(1 / 4)
    # rewards telescope along the path root -> 1 -> 3
    assert float(shaped.reward[1] + shaped.reward[3]) == pytest.approx(1.0)
    assert {group.parent for group in shaped.groups} <= {0, 1, 2}
    assert len(shaped.groups) == 2


def test_rows_append_tokens_and_carry_value_targets_of_the_whole_path():
    tree = make_tree()
    shaped = shape_tree(tree, make_latents(), verdict, ShapingConfig(reward="strict", breadth=2))
    group = next(group for group in shaped.groups if group.parent in (1, 2))
    rows = rows_of_group(shaped, group)
    for row, member in zip(rows, group.members.tolist(), strict=True):
        assert row.prompt_ids + row.completion_ids == list(tree.context_ids(member))
        assert row.completion_ids == list(tree.sampled_ids(member))
        path = tree.path(member)
        assert row.value_ends == [len(tree.context_ids(node)) for node in path]
        assert row.value_targets == pytest.approx([float(shaped.value[node]) for node in path])
    assert rows[0].prompt_ids == rows[1].prompt_ids
    advantages = torch.tensor([row.advantage for row in rows])
    assert float(advantages.sum()) == pytest.approx(0, abs=1e-6)
    assert torch.equal(advantages, torch.tensor([row.advantage for row in rows]))


def test_without_a_correct_leaf_there_is_no_signal():
    shaped = shape_tree(make_tree(), make_latents(), lambda q, a: 0.0, ShapingConfig(breadth=2))
    assert not shaped.has_goal
    assert shaped.groups == []
    assert shaped.value.eq(0).all()
    assert shaped.value_target.isnan().all()


def test_success_rate_target_is_known_without_a_correct_leaf():
    config = ShapingConfig(breadth=2, value_target="success_rate")
    shaped = shape_tree(make_tree(), make_latents(), lambda q, a: 0.0, config)
    assert shaped.value_target[0] == 0
    shaped = shape_tree(make_tree(), make_latents(), verdict, config)
    assert float(shaped.value_target[1]) == pytest.approx(1 / 2)


def test_easy_trees_feed_the_value_loss_alone():
    shaped = shape_tree(make_tree(), make_latents(), lambda q, a: 1.0, ShapingConfig(breadth=2, easy_accuracy=0.7))
    assert shaped.has_goal
    assert shaped.groups == []
    assert not shaped.value_target.isnan().any()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"reward": "loose"}, "reward"),
        ({"gamma": 0.0}, "gamma"),
        ({"breadth": 1}, "breadth"),
        ({"value_target": "oracle"}, "value_target"),
        ({"easy_accuracy": 0.0}, "easy_accuracy"),
    ],
)
def test_bad_settings_are_named(change, name):
    with pytest.raises(ValueError, match=name):
        ShapingConfig(**change)


def test_latents_must_match_the_tree():
    with pytest.raises(ValueError, match="latents"):
        shape_tree(make_tree(), make_latents(6), verdict, ShapingConfig(breadth=2))


def test_failed_leaves_lose_their_potential_unless_the_paper_s_form_is_asked_for():
    tree, latents = make_tree(), make_latents()
    paper = shape_tree(tree, latents, verdict, ShapingConfig(reward="strict", breadth=2, failed_leaves="geometry"))
    zero = shape_tree(tree, latents, verdict, ShapingConfig(reward="strict", breadth=2))
    assert paper.value[4] > 0
    assert zero.value[[4, 5]].tolist() == [0, 0]  # a wrong answer, and a path that ran out of steps
    assert zero.value[6] == paper.value[6] > 0  # nobody could grade it
    assert torch.equal(zero.value[:4], paper.value[:4])
    assert zero.reward[4] == -zero.value[1]


def test_an_easy_accuracy_of_one_keeps_every_tree():
    shaped = shape_tree(make_tree(), make_latents(), lambda q, a: 1.0, ShapingConfig(breadth=2, easy_accuracy=1.0))
    assert shaped.groups
