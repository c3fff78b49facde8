"""Sampling the policy on many problems in lock-step, for the measurements of the build. Searches use an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lapha.tiny import problems as text
from lapha.tiny.encoding import Vocabulary, encode_prompts
from lapha.tiny.walk import MOVE_LIMIT, MOVES, TRIES, Rollouts, Walks, walked

MAX_STEP_TOKENS = 40


@dataclass(frozen=True)
class SampledWalks:
    """What the policy did with `P` problems, `K` times each.

    Attributes:
        rollouts: the valid walks as arrays; an invalid one is cut before its first invalid step.
        valid: (P, K) whether every step is valid and the answer, if any, is the list of the moves made.
        solved: (P, K) the verifier's verdict.
        steps: number of steps sampled.
        problems_found: number of steps by what is wrong with them; ``"answer"`` is a well-made walk whose answer is
            not the list of its moves, ``"unended"`` a step without an end.
    """

    rollouts: Rollouts
    valid: np.ndarray
    solved: np.ndarray
    steps: int
    problems_found: dict[str, int]


@torch.no_grad()
def sample_steps(
    lm: Any, tokenizer: Any, vocabulary: Vocabulary, prompts: torch.Tensor, temperature: float, seed: int
) -> list[list[str]]:
    """The step texts of one episode for each of `prompts` (B, L), without headers."""
    size = len(prompts)
    generator = torch.Generator().manual_seed(seed)
    pending: list[list[int]] = [[] for _ in range(size)]  # forced tokens that follow a turn's end
    steps: list[list[list[int]]] = [[[]] for _ in range(size)]
    done = [False] * size
    output = lm(input_ids=prompts, use_cache=True)
    while not all(done):
        chances = (output.logits[:, -1].float() / temperature).softmax(-1)
        drawn = torch.multinomial(chances, 1, generator=generator)[:, 0].tolist()
        for row in range(size):
            if done[row]:
                drawn[row] = vocabulary.pad
            elif pending[row]:
                drawn[row] = pending[row].pop(0)
            else:
                step = steps[row][-1]
                step.append(drawn[row])
                if drawn[row] == vocabulary.end:
                    if vocabulary.answer in step or len(steps[row]) == MOVE_LIMIT:
                        done[row] = True
                    else:
                        pending[row] = [vocabulary.assistant, int(vocabulary.header[len(steps[row])])]
                        steps[row].append([])
                elif len(step) >= MAX_STEP_TOKENS:
                    done[row] = True
        output = lm(input_ids=torch.tensor(drawn)[:, None], past_key_values=output.past_key_values, use_cache=True)
    ends = vocabulary.end
    return [[tokenizer.decode(step) if step[-1:] == [ends] else "" for step in episode] for episode in steps]


def sample_walks(
    lm: Any,
    tokenizer: Any,
    vocabulary: Vocabulary,
    walks: Walks,
    questions: list[str],
    count: int,
    temperature: float = 1.0,
    seed: int = 0,
    chunk: int = 128,
) -> SampledWalks:
    """Sample `count` episodes of each problem and judge every step."""
    prompts = torch.from_numpy(np.repeat(encode_prompts(walks, vocabulary), count, axis=0))
    episodes: list[list[str]] = []
    for start in range(0, len(prompts), chunk):
        part = prompts[start : start + chunk]
        episodes += sample_steps(lm, tokenizer, vocabulary, part, temperature, seed + start)
    shape = (len(walks), count)
    moves = np.full((*shape, MOVE_LIMIT), -1, dtype=np.int64)
    numbers, tried = moves.copy(), np.full((*shape, MOVE_LIMIT, TRIES), -1, dtype=np.int64)
    valid, solved = np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)
    found: dict[str, int] = {}
    total = 0
    for index, episode in enumerate(episodes):
        where = divmod(index, count)
        total += _judge(questions[where[0]], episode, where, (moves, numbers, tried), valid, solved, found)
    arrived = (numbers == walks.target[:, None, None]).any(2)
    rollouts = walked(moves, numbers, arrived & valid, tried)
    return SampledWalks(rollouts, valid, solved, total, found)


def _judge(
    question: str,
    episode: list[str],
    where: tuple[int, int],
    written: tuple[np.ndarray, np.ndarray, np.ndarray],
    valid: np.ndarray,
    solved: np.ndarray,
    found: dict[str, int],
) -> int:
    """Judge one episode's steps into the arrays at `where`; return how many steps were judged.

    `written` are the moves, numbers and tried moves of all episodes. A step that tries more often than a demonstration
    may is valid, but only its last tries are kept.
    """
    moves, numbers, tried = written
    made: list[int] = []
    for depth, step in enumerate(episode):
        problem = text.step_problem(question, episode[: depth + 1]) if step else "unended"
        if problem is None:
            *taken_back, (move, number) = text.parse_step_moves(step)
            made.append(move)
            moves[where][depth], numbers[where][depth] = MOVES.index(move), number
            for attempt, (other, _) in enumerate(taken_back[-TRIES:]):
                tried[where][depth, attempt] = MOVES.index(other)
            _, opened, answer = step.partition("<answer>")
            if opened:
                answer = answer.partition("</answer>")[0]
                solved[where] = text.verify(question, answer)
                problem = None if text.parse_answer(answer) == made else "answer"
        if problem is not None:
            found[problem] = found.get(problem, 0) + 1
            valid[where] = False
            return depth + 1
    return len(episode)
