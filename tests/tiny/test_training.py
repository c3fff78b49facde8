"""The training step: its targets against independent computations, its determinism, and that it learns."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from lapha.geometry import PolarPoints
from lapha.shaping import potential
from lapha.tiny import training
from lapha.tiny.encoding import PROMPT_LENGTH, Vocabulary, encode
from lapha.tiny.tokenizer import build_tokenizer
from lapha.tiny.training import TinyModel, TrainingConfig, train
from lapha.tiny.walk import Demonstrator, generate_walks, roll_out

SMALL = TrainingConfig(steps=4, problems=2, rollouts=3, warmup=2)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


def test_pooled_states_are_means_of_prefixes() -> None:
    hidden = torch.randn(3, 10, 4, generator=torch.Generator().manual_seed(0))
    state_at = torch.tensor([[2, 5, 9], [0, 1, 2], [4, 4, 7]])
    pooled = training.pooled_states(hidden, state_at)
    for row in range(3):
        for column in range(3):
            expected = hidden[row, : int(state_at[row, column]) + 1].mean(0)
            torch.testing.assert_close(pooled[row, column], expected)


def test_distances_are_hyperbolic() -> None:
    """Against the ball's own formula in float64."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(2, n, 5, generator=generator, dtype=torch.float64) * 0.5 for n in (4, 3))

    def ball(v: torch.Tensor) -> torch.Tensor:
        radius = v.norm(dim=-1, keepdim=True)
        return radius.tanh() * v / radius

    x, y = ball(a)[:, :, None], ball(b)[:, None]
    top = 2 * (x - y).square().sum(-1)
    bottom = (1 - x.square().sum(-1)) * (1 - y.square().sum(-1))
    torch.testing.assert_close(training.hyperbolic_distance(a, b), torch.acosh(1 + top / bottom))
    assert float(training.hyperbolic_distance(a, a).diagonal(dim1=-2, dim2=-1).abs().max()) < 1e-12


def test_the_potential_is_laphas() -> None:
    generator = torch.Generator().manual_seed(2)
    pooled = torch.randn(2, 6, 16, generator=generator)
    root = torch.randn(2, 16, generator=generator)
    goals = torch.stack([pooled[0, [2, 4, 5]], pooled[1, [0, 1, 2]]])
    is_goal = torch.tensor([[True, True, False], [False, False, False]])
    value = training.potentials(pooled, root, goals, is_goal)
    points = PolarPoints.from_tangent((pooled[0] - root[0]) / 4)
    correct = torch.tensor([False, False, True, False, True, False])
    torch.testing.assert_close(value[0], potential(points, goal=correct), rtol=1e-5, atol=1e-6)
    assert value[1].eq(0).all()


def test_potential_targets_of_a_batch(tokenizer: Any) -> None:
    """0 at the root and 1 at correct leaves; problems without a correct rollout are left out of the loss."""
    rng = np.random.default_rng(0)
    walks = generate_walks(8, rng)
    batch = encode(walks, roll_out(walks, 4, Demonstrator(0.5, 0.3), rng), Vocabulary(tokenizer))
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(*batch.ids.shape, 8, generator=generator)
    prompt = slice(0, PROMPT_LENGTH)
    hidden[:, prompt] = hidden[:: batch.rollouts, prompt].repeat_interleave(
        batch.rollouts, 0
    )  # rollouts share the prompt
    value, has_goal = training.potential_targets(training.pooled_states(hidden, batch.state_at), batch)
    solved = batch.correct.view(8, 4).any(1).repeat_interleave(4)
    assert solved.any()
    assert not solved.all()
    assert torch.equal(has_goal[:, 0], solved)
    leaf = value[torch.arange(32), batch.length]
    torch.testing.assert_close(leaf[batch.correct], torch.ones(int(batch.correct.sum())), atol=1e-3, rtol=0)
    assert value[:, 0].abs().max() < 1e-6
    assert value[~solved].eq(0).all()


def test_number_embeddings_add_alike() -> None:
    """What one more one changes depends on the ones alone, and what one more ten changes on the tens alone."""
    torch.manual_seed(0)
    rows = training.number_embeddings(128, 0.02)
    assert rows.std() == pytest.approx(0.02, rel=1e-4)
    grid = rows.view(10, 10, 128)
    for change in (grid[:, 1:] - grid[:, :-1], (grid[1:] - grid[:-1]).transpose(0, 1)):  # [where alike, digit, hidden]
        alike = torch.nn.functional.cosine_similarity(change[1:], change[:-1], dim=-1)
        other = torch.nn.functional.cosine_similarity(change[:, 1:], change[:, :-1], dim=-1)
        assert alike.mean() > 0.8
        assert other.mean() < 0.5


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_parameter_is_optimised_once(tokenizer: Any, optimizer: str) -> None:
    model = TinyModel(Vocabulary(tokenizer), 0)
    made = training.make_optimizers(model, TrainingConfig(optimizer=optimizer))
    held = [id(p) for one in made for group in one.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_the_schedule_warms_up_and_cools_down() -> None:
    config = TrainingConfig(steps=100, warmup=10)
    rates = [training.schedule(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.05, abs=0.01)


def test_the_seed_decides_the_run(tokenizer: Any) -> None:
    one, first = train(SMALL, tokenizer)
    two, second = train(SMALL, tokenizer)
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    _, other = train(TrainingConfig(steps=1, problems=2, rollouts=3, warmup=2, seed=1), tokenizer)
    assert other[0] != first[0]


def test_losses_fall(tokenizer: Any) -> None:
    _, history = train(TrainingConfig(steps=30, problems=4, rollouts=4, warmup=5), tokenizer)
    assert all(math.isfinite(value) for row in history for value in row.values())
    for name in ("text", "move", "success_rate", "potential"):
        # a batch without a right demonstration has no potential to miss: its loss is 0
        early, late = next(row[name] for row in history if row[name] > 0), np.mean([row[name] for row in history[-5:]])
        assert late < early, name


def test_minutes_cut_a_run_short(tokenizer: Any) -> None:
    _, history = train(SMALL, tokenizer, minutes=1e-9)
    assert len(history) < SMALL.steps


def test_ctrl_c_keeps_what_was_trained(tokenizer: Any) -> None:
    def interrupt(step: int, parts: dict[str, float], model: TinyModel) -> None:
        if step == 1:
            raise KeyboardInterrupt

    model, history = train(SMALL, tokenizer, report=interrupt)
    assert len(history) == 2
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_what_is_learned_of_a_move_can_be_written(tokenizer: Any) -> None:
    """The tokens that the move loss teaches are the tokens that demonstrations hold, behind a ``no`` too."""
    rng = np.random.default_rng(1)
    walks = generate_walks(40, rng)
    rollouts = roll_out(walks, 4, Demonstrator(0.3, 0.3), rng)
    vocabulary = Vocabulary(tokenizer)
    batch = encode(walks, rollouts, vocabulary)
    positions = torch.arange(batch.ids.shape[1]).float().expand(len(batch.ids), -1)
    rows = torch.arange(len(batch.ids)).float()[:, None].expand_as(positions)
    where, ids, chances = training.tries_of(
        torch.stack([rows, positions], -1), batch, torch.from_numpy(vocabulary.move)
    )
    written = batch.ids[where[:, 0].long(), where[:, 1].long() + 1]
    before = batch.ids[where[:, 0].long(), where[:, 1].long()]
    assert (before == vocabulary.taken_back).sum() > 50
    at = ids == written[:, None]
    assert at.sum(1).eq(1).all()
    assert (chances[at] > 0).all()
    torch.testing.assert_close(chances.sum(1), torch.ones(len(chances)))
