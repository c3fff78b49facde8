"""Demonstrated walks as token arrays, with the training targets of every token and every state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lapha.tiny import tokenizer as text
from lapha.tiny.walk import AVOIDED, MOVE_LIMIT, MOVES, NUMBERS, Rollouts, Walks

PROMPT_LENGTH = AVOIDED + 9
STEP_LENGTH = 7  # move, equals, number, end of thought, end of turn, assistant, header
LENGTH = PROMPT_LENGTH + 8 * MOVE_LIMIT


class Vocabulary:
    """Ids of the tokenizer's pieces, as arrays that the encoder indexes."""

    def __init__(self, tokenizer: Any) -> None:
        def one(piece: str) -> int:
            ids = tokenizer.encode(piece, add_special_tokens=False)
            if len(ids) != 1:
                raise ValueError(f"tokenizer: expected one token for {piece!r}, got {ids}")
            return ids[0]

        self.pad, self.end = one(text.PAD), one(text.END)
        self.user, self.assistant = one(text.USER), one(text.ASSISTANT)
        self.begin, self.to, self.rule = one(text.FROM), one(text.TO), one(text.RULE)
        self.equals, self.think_end = one(text.EQUALS), one(text.THINK_END)
        self.answer, self.answer_end = one(text.ANSWER), one(text.ANSWER_END)
        self.first_move = np.array([one(move) for move in text.MOVE_TEXT])
        self.later_move = np.array([one(" " + move) for move in text.MOVE_TEXT])
        self.number = np.array([one(f" {number}") for number in range(NUMBERS)])
        self.header = np.array([one(text.header(step)) for step in range(1, MOVE_LIMIT + 1)])
        self.size = len(tokenizer)


@dataclass(frozen=True)
class Batch:
    """`B` = P·K sequences of length L, rollouts of one problem in a row.

    Attributes:
        ids: (B, L) int64, padded on the right.
        labels: (B, L) int64, the token that position t has to predict, −100 where nothing is learned.
        move_chances: (B, MOVE_LIMIT, 4) the demonstrator's move probabilities; zero after the walk's end.
        move_at: (B, MOVE_LIMIT) int64 position that predicts the move.
        state_at: (B, MOVE_LIMIT + 1) int64 last position of the root (the prompt with the first header) and of each
            step; 0 after the walk's end.
        state_real: (B, MOVE_LIMIT + 1) bool.
        chance: (B, MOVE_LIMIT + 1) chance of success of the state's continuations.
        length: (B,) moves made.
        correct: (B,) whether the walk's answer is right.
        rollouts: K.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    move_chances: torch.Tensor
    move_at: torch.Tensor
    state_at: torch.Tensor
    state_real: torch.Tensor
    chance: torch.Tensor
    length: torch.Tensor
    correct: torch.Tensor
    rollouts: int


def encode_prompts(walks: Walks, vocabulary: Vocabulary) -> np.ndarray:
    """(P, PROMPT_LENGTH) ids of the questions as chats, up to and including the first step's header."""
    word = vocabulary
    ids = np.empty((len(walks), PROMPT_LENGTH), dtype=np.int64)
    ids[:, :2] = word.user, word.begin
    ids[:, 2], ids[:, 3], ids[:, 4], ids[:, 5] = word.number[walks.start], word.to, word.number[walks.target], word.rule
    ids[:, 6 : 6 + AVOIDED] = word.number[walks.avoid]
    ids[:, 6 + AVOIDED :] = word.end, word.assistant, word.header[0]
    return ids


def encode(walks: Walks, rollouts: Rollouts, vocabulary: Vocabulary) -> Batch:
    """All rollouts of all problems as one batch."""
    word = vocabulary
    problems, count = rollouts.length.shape
    size = problems * count
    length = rollouts.length.reshape(size)
    moves = rollouts.moves.reshape(size, MOVE_LIMIT)
    numbers = rollouts.numbers.reshape(size, MOVE_LIMIT)
    ids = np.full((size, LENGTH), word.pad, dtype=np.int64)
    learned = np.zeros((size, LENGTH), dtype=bool)
    ids[:, :PROMPT_LENGTH] = np.repeat(encode_prompts(walks, word), count, axis=0)
    for step in range(MOVE_LIMIT):
        at = PROMPT_LENGTH + STEP_LENGTH * step
        here = np.flatnonzero(length > step)
        ids[here, at] = word.first_move[moves[here, step]]
        ids[here, at + 1] = word.equals
        ids[here, at + 2] = word.number[numbers[here, step]]
        ids[here, at + 3] = word.think_end
        learned[here, at : at + 4] = True
        on = np.flatnonzero(length > step + 1)
        ids[on, at + 4], ids[on, at + 5] = word.end, word.assistant
        learned[on, at + 4] = True
        if step + 1 < MOVE_LIMIT:
            ids[on, at + 6] = word.header[step + 1]
    rows = np.arange(size)
    close = PROMPT_LENGTH + STEP_LENGTH * (length - 1) + 4
    ids[rows, close] = word.answer
    learned[rows, close] = True
    for step in range(MOVE_LIMIT):
        here = np.flatnonzero(length > step)
        table = word.first_move if step == 0 else word.later_move
        ids[here, close[here] + 1 + step] = table[moves[here, step]]
        learned[here, close[here] + 1 + step] = True
    ids[rows, close + 1 + length], ids[rows, close + 2 + length] = word.answer_end, word.end
    learned[rows, close + 1 + length] = learned[rows, close + 2 + length] = True

    labels = np.full((size, LENGTH), -100, dtype=np.int64)
    labels[:, :-1] = np.where(learned[:, 1:], ids[:, 1:], -100)
    steps = np.arange(MOVE_LIMIT)
    move_at = np.broadcast_to(PROMPT_LENGTH - 1 + STEP_LENGTH * steps, (size, MOVE_LIMIT))
    made = steps < length[:, None]
    labels[rows[:, None].repeat(MOVE_LIMIT, 1)[made], move_at[made]] = -100  # learned from the whole distribution
    state_at = np.zeros((size, MOVE_LIMIT + 1), dtype=np.int64)
    state_at[:, 0] = PROMPT_LENGTH - 1
    state_at[:, 1:] = np.where(made, PROMPT_LENGTH + STEP_LENGTH * steps + 4, 0)
    state_at[rows, length] = close + 2 + length
    real = np.concatenate([np.ones((size, 1), bool), made], axis=1)
    return Batch(
        ids=torch.from_numpy(ids),
        labels=torch.from_numpy(labels),
        move_chances=torch.from_numpy(rollouts.move_chances.reshape(-1, MOVE_LIMIT, len(MOVES))),
        move_at=torch.from_numpy(np.where(made, move_at, 0)),
        state_at=torch.from_numpy(state_at),
        state_real=torch.from_numpy(real),
        chance=torch.from_numpy(rollouts.chance.reshape(-1, MOVE_LIMIT + 1)),
        length=torch.from_numpy(length),
        correct=torch.from_numpy(rollouts.correct.reshape(size)),
        rollouts=count,
    )
