"""Training sequences are exactly the contexts that the agent's environment builds at search time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from lapha.agent import ChatEnvironment
from lapha.tiny import DEPTH_LIMIT, generate, step_problem, verify
from lapha.tiny.encoding import LENGTH, PROMPT_LENGTH, Batch, Vocabulary, encode
from lapha.tiny.problems import question_text
from lapha.tiny.tokenizer import build_tokenizer
from lapha.tiny.walk import (
    MOVE_LIMIT,
    MOVES,
    TRIES,
    WALK_TRIES,
    Demonstrator,
    Rollouts,
    Walks,
    generate_walks,
    roll_out,
)
from lapha.types import Sample, State, Status


@pytest.fixture(scope="module")
def drawn() -> tuple[Any, Walks, Rollouts, Batch]:
    tokenizer = build_tokenizer()
    rng = np.random.default_rng(0)
    walks = generate_walks(12, rng)
    rollouts = roll_out(walks, 5, Demonstrator(0.5, 0.3), rng)
    return tokenizer, walks, rollouts, encode(walks, rollouts, Vocabulary(tokenizer))


def test_contexts_are_those_of_the_environment(drawn: tuple[Any, Walks, Rollouts, Batch]) -> None:
    """Replays every demonstration through ChatEnvironment: same tokens, same states, same verdicts."""
    tokenizer, walks, _, batch = drawn
    environment = ChatEnvironment(tokenizer, depth_limit=DEPTH_LIMIT)
    for row in range(len(batch.ids)):
        problem = row // batch.rollouts
        question = question_text(int(walks.start[problem]), int(walks.target[problem]), walks.avoid[problem].tolist())
        ids = batch.ids[row].tolist()
        state, turn = environment.start(question)
        assert list(state.token_ids) == ids[: int(batch.state_at[row, 0]) + 1]
        texts: list[str] = []
        length = int(batch.length[row])
        for depth in range(1, length + 1):
            before = len(state.token_ids) + len(turn.bridge_ids)
            end = int(batch.state_at[row, depth]) + 1
            completion = ids[before:end]
            child = State(state.token_ids + turn.bridge_ids + tuple(completion))
            assert list(child.token_ids) == ids[:end]
            assert int(batch.move_at[row, depth - 1, 0]) == before - 1
            assert step_problem(question, [*texts, tokenizer.decode(completion)]) is None
            texts.append(tokenizer.decode(completion))
            text = tokenizer.decode(completion, skip_special_tokens=True)
            sample = Sample(completion, [0.0] * len(completion), text, "stop", child)
            step = asyncio.run(environment.step(turn, sample, depth))
            assert step.well_formed
            assert step.status == (Status.ANSWERED if depth == length else Status.OPEN)
            state, turn = child, step.turn
        assert verify(question, step.answer) == bool(batch.correct[row])
        assert ids[len(state.token_ids) :] == [tokenizer.pad_token_id] * (LENGTH - len(state.token_ids))


def test_labels_are_what_the_model_writes(drawn: tuple[Any, Walks, Rollouts, Batch]) -> None:
    *_, batch = drawn
    for row in range(len(batch.ids)):
        ids, labels = batch.ids[row], batch.labels[row]
        learned = labels >= 0
        assert torch.equal(labels[:-1][learned[:-1]], ids[1:][learned[:-1]])
        moves = torch.zeros(LENGTH, dtype=torch.bool)
        moves[batch.move_at[row][batch.move_at[row] > 0]] = True
        assert not (learned & moves).any()  # moves are learned from the demonstrator's whole distribution
        sampled = torch.zeros(LENGTH, dtype=torch.bool)
        for depth in range(1, int(batch.length[row]) + 1):
            sampled[int(batch.move_at[row, depth - 1, 0]) : int(batch.state_at[row, depth])] = True
        assert torch.equal(learned | moves, sampled)


def test_every_try_is_predicted(drawn: tuple[Any, Walks, Rollouts, Batch]) -> None:
    """Behind each position of `move_at` stands the move that was tried there; the last is the move that was made."""
    tokenizer, _, rollouts, batch = drawn
    tried = np.concatenate([rollouts.tried, np.full((12, 5, MOVE_LIMIT, 1), -1)], axis=3)
    tried = tried.reshape(60, MOVE_LIMIT, TRIES + 1)
    attempts = (tried >= 0).sum(2)
    assert (attempts > 0).any()
    for row, step, attempt in batch.move_at.nonzero().tolist():
        move = tried[row, step, attempt]
        if attempt == attempts[row, step]:
            move = rollouts.moves.reshape(60, MOVE_LIMIT)[row, step]
        token = tokenizer.decode([int(batch.ids[row, batch.move_at[row, step, attempt] + 1])])
        assert token == (" " if attempt else "") + f"{MOVES[move]:+d}"
        assert batch.move_chances[row, step, attempt, move] > 0
    assert int((batch.move_at > 0).sum()) == int(batch.length.sum()) + int(attempts.sum())


def test_states_and_targets(drawn: tuple[Any, Walks, Rollouts, Batch]) -> None:
    _, _, rollouts, batch = drawn
    size = len(batch.ids)
    steps = torch.arange(MOVE_LIMIT + 1)
    assert torch.equal(batch.state_real, steps <= batch.length[:, None])
    assert (batch.state_at[batch.state_real].diff() != 0).all()
    last = batch.chance[torch.arange(size), batch.length]
    assert torch.equal(last, batch.correct.float())
    np.testing.assert_array_equal(batch.length.view(-1, 5).numpy(), rollouts.length)


def test_the_length_is_a_choice(drawn: tuple[Any, Walks, Rollouts, Batch]) -> None:
    tokenizer, walks, rollouts, batch = drawn
    fitted = encode(walks, rollouts, Vocabulary(tokenizer), length=None)
    width = fitted.ids.shape[1]
    assert torch.equal(fitted.ids, batch.ids[:, :width])
    assert (fitted.ids[:, -1] == tokenizer.eos_token_id).any()
    longest = replace(rollouts, tried=rollouts.moves[..., None].repeat(TRIES, axis=3))
    wide = encode(walks, longest, Vocabulary(tokenizer), length=None)
    assert wide.ids.shape[1] == LENGTH - 4 * WALK_TRIES + 4 * TRIES * MOVE_LIMIT


def test_a_vocabulary_needs_its_pieces() -> None:
    class Bytes:
        def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
            return list(text.encode())

    with pytest.raises(ValueError, match="tokenizer: expected one token"):
        Vocabulary(Bytes())


def test_questions_of_the_generator_encode_alike(drawn: tuple[Any, Walks, Rollouts, Batch]) -> None:
    tokenizer = drawn[0]
    environment = ChatEnvironment(tokenizer, depth_limit=DEPTH_LIMIT)
    lengths = {len(environment.start(problem.question)[0].token_ids) for problem in generate(20, seed=1)}
    assert lengths == {PROMPT_LENGTH}
