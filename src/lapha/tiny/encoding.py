"""Demonstrated walks as token arrays, with the training targets of every token and every state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lapha.tiny import tokenizer as text
from lapha.tiny.walk import AVOIDED, MOVE_LIMIT, MOVES, NUMBERS, TRIES, WALK_TRIES, Rollouts, Walks

PROMPT_LENGTH = AVOIDED + 9
LENGTH = PROMPT_LENGTH + 8 * MOVE_LIMIT + 4 * WALK_TRIES  # of the longest demonstration
LONGEST_LENGTH = PROMPT_LENGTH + 8 * MOVE_LIMIT + 4 * TRIES * MOVE_LIMIT  # of any walk


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
        self.equals, self.taken_back, self.think_end = one(text.EQUALS), one(text.TAKEN_BACK), one(text.THINK_END)
        self.answer, self.answer_end = one(text.ANSWER), one(text.ANSWER_END)
        self.move = np.array([[one(space + move) for move in text.MOVE_TEXT] for space in ("", " ")])
        self.first_move, self.later_move = self.move
        self.number = np.array([one(f" {number}") for number in range(NUMBERS)])
        self.header = np.array([one(text.header(step)) for step in range(1, MOVE_LIMIT + 1)])
        self.size = len(tokenizer)


@dataclass(frozen=True)
class Batch:
    """`B` = P·K sequences of length L, rollouts of one problem in a row.

    Attributes:
        ids: (B, L) int64, padded on the right.
        labels: (B, L) int64, the token that position t has to predict, −100 where nothing is learned.
        move_chances: (B, MOVE_LIMIT, TRIES + 1, 4) the demonstrator's probabilities at each try of each move; zero
            where there was none. Empty for walks that are not for training.
        move_at: (B, MOVE_LIMIT, TRIES + 1) int64 position that predicts the try; 0 where there was none.
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


class _Writer:
    """Writes tokens behind each other into the rows of a batch, each row at its own place."""

    def __init__(self, prompts: np.ndarray, pad: int, length: int) -> None:
        self.ids = np.full((len(prompts), length), pad, dtype=np.int64)
        self.ids[:, : prompts.shape[1]] = prompts
        self.learned = np.zeros(self.ids.shape, dtype=bool)
        self.at = np.full(len(prompts), prompts.shape[1])

    def write(self, rows: np.ndarray, *tokens: np.ndarray | int, learned: bool = True) -> None:
        """Append `tokens`, each one id or one for each of `rows`."""
        for token in tokens:
            at = self.at[rows]
            self.ids[rows, at] = token
            self.learned[rows, at] = learned
            self.at[rows] += 1


def encode(walks: Walks, rollouts: Rollouts, vocabulary: Vocabulary, length: int | None = LENGTH) -> Batch:
    """All rollouts of all problems as one batch.

    Args:
        walks: the problems.
        rollouts: their walks.
        vocabulary: ids of the tokenizer.
        length: tokens that sequences are padded to; None for those of the longest. The default holds every
            demonstration, and keeps the shape the same from batch to batch.
    """
    word = vocabulary
    problems, count = rollouts.length.shape
    size = problems * count
    steps_made = rollouts.length.reshape(size)
    moves, numbers = rollouts.moves.reshape(size, MOVE_LIMIT), rollouts.numbers.reshape(size, MOVE_LIMIT)
    tried = rollouts.tried.reshape(size, MOVE_LIMIT, TRIES)
    place = np.repeat(walks.start, count)
    writer = _Writer(np.repeat(encode_prompts(walks, word), count, axis=0), word.pad, length or LONGEST_LENGTH)
    move_at = np.zeros((size, MOVE_LIMIT, TRIES + 1), dtype=np.int64)
    state_at = np.zeros((size, MOVE_LIMIT + 1), dtype=np.int64)
    state_at[:, 0] = PROMPT_LENGTH - 1
    for step in range(MOVE_LIMIT):
        attempts = np.zeros(size, dtype=np.int64)
        for attempt in range(TRIES):
            rows = np.flatnonzero((steps_made > step) & (tried[:, step, attempt] >= 0))
            move = tried[rows, step, attempt]
            move_at[rows, step, attempt] = writer.at[rows] - 1
            landed = word.number[place[rows] + np.array(MOVES)[move]]
            table = word.first_move if attempt == 0 else word.later_move
            writer.write(rows, table[move], word.equals, landed, word.taken_back)
            attempts[rows] += 1
        rows = np.flatnonzero(steps_made > step)
        move = moves[rows, step]
        move_at[rows, step, attempts[rows]] = writer.at[rows] - 1
        first = np.where(attempts[rows] == 0, word.first_move[move], word.later_move[move])
        writer.write(rows, first, word.equals, word.number[numbers[rows, step]], word.think_end)
        place[rows] = numbers[rows, step]
        on = np.flatnonzero(steps_made > step + 1)
        writer.write(on, word.end)
        state_at[on, step + 1] = writer.at[on] - 1
        if step + 1 < MOVE_LIMIT:
            writer.write(on, word.assistant, word.header[step + 1], learned=False)
        last = np.flatnonzero(steps_made == step + 1)
        _write_answer(writer, last, moves[last, : step + 1], word)
        state_at[last, step + 1] = writer.at[last] - 1

    length = int(writer.at.max()) if length is None else length
    labels = np.full(writer.ids.shape, -100, dtype=np.int64)
    labels[:, :-1] = np.where(writer.learned[:, 1:], writer.ids[:, 1:], -100)
    row, *slot = np.nonzero(move_at)
    labels[row, move_at[row, slot[0], slot[1]]] = -100  # learned from the whole distribution
    return Batch(
        ids=torch.from_numpy(writer.ids[:, :length]),
        labels=torch.from_numpy(labels[:, :length]),
        move_chances=torch.from_numpy(rollouts.move_chances.reshape(-1, MOVE_LIMIT, TRIES + 1, len(MOVES))),
        move_at=torch.from_numpy(move_at),
        state_at=torch.from_numpy(state_at),
        state_real=torch.from_numpy(state_at > 0),
        chance=torch.from_numpy(rollouts.chance.reshape(-1, MOVE_LIMIT + 1)),
        length=torch.from_numpy(steps_made),
        correct=torch.from_numpy(rollouts.correct.reshape(size)),
        rollouts=count,
    )


def _write_answer(writer: _Writer, rows: np.ndarray, moves: np.ndarray, word: Vocabulary) -> None:
    """The answer of walks that have all made as many moves: `moves` (R, n)."""
    writer.write(rows, word.answer, word.first_move[moves[:, 0]])
    for step in range(1, moves.shape[1]):
        writer.write(rows, word.later_move[moves[:, step]])
    writer.write(rows, word.answer_end, word.end)
