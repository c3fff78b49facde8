"""A policy, evaluator and environment without a language model, for tests and scheduling benchmarks.

Everything that `ScriptedEngine` returns is a pure function of what it is asked: a sample of (context, seed, index),
h(s) and v̂(s) of the state. Two runs that ask for the same things get the same answers, in whatever order they ask
and whatever else is in flight, so a search over it must give the same trees at any concurrency.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import ClassVar

import numpy as np
import torch

from lapha._checks import check
from lapha._typed import check_fields
from lapha.types import Evaluation, Sample, SampleRequest, State, Status, Step, Turn

# A question's UTF-8 bytes are its tokens 0–255; the script adds these.
BOS, END, STEP, ANSWER, GARBLED = 256, 257, 258, 259, 260
DIGIT, WORD = 261, 271  # DIGIT + 0 … DIGIT + 9, WORD + 0 … WORD + 28
VOCABULARY = 300
_NAMES = {BOS: "<bos>", END: "", STEP: "STEP:", ANSWER: "answer", GARBLED: "???"}


def render(token: int) -> str:
    """One token as text."""
    if token < BOS:
        return chr(token)
    if DIGIT <= token < WORD:
        return str(token - DIGIT)
    return _NAMES.get(token, f"w{token - WORD}")


@dataclass(slots=True)
class ScriptedStats:
    """What the engine has done: counts, and the time in which it worked on something.

    Attributes:
        requests, samples, tokens: finished requests, and what they returned.
        evaluations: states evaluated.
        largest_in_flight: most continuations that were in work at once.
    """

    requests: int = 0
    samples: int = 0
    tokens: int = 0
    evaluations: int = 0
    largest_in_flight: int = 0


@dataclass(slots=True)
class _Handle:
    """Running sum of the token vectors; integers, so that every order of summation gives the same bits."""

    total: np.ndarray
    count: int


class _Slots:
    """`capacity` slots, given out first come, first served; a request takes several at once.

    They keep a clock of their own, as an engine on another machine does: a slot that falls free at a time goes to the
    next in line from that time on, even if this process was too busy to take notice.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = self.most_taken = 0
        self._free_since = [-math.inf] * capacity  # a heap, of the slots that are free
        self._waiting: deque[tuple[int, asyncio.Future[float]]] = deque()

    async def work(self, count: int, seconds: float) -> None:
        """Hold `count` slots for `seconds`, once they are free."""
        count = min(count, self.capacity)  # a request larger than the engine has it to itself
        loop = asyncio.get_running_loop()
        end = await self._take(count, loop) + seconds
        try:
            if end > loop.time():
                await asyncio.sleep(end - loop.time())
        finally:
            self._release(count, min(end, loop.time()))  # earlier if it was cancelled

    async def _take(self, count: int, loop: asyncio.AbstractEventLoop) -> float:
        """The time at which `count` slots became this request's."""
        now = loop.time()
        if not self._waiting and self.taken + count <= self.capacity:
            return max(now, self._occupy(count))
        turn: asyncio.Future[float] = loop.create_future()
        self._waiting.append((count, turn))
        try:
            return max(now, await turn)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(count, loop.time())
            raise

    def _occupy(self, count: int) -> float:
        """Take the `count` slots that have been free for longest; the time since when all of them are."""
        self.taken += count
        self.most_taken = max(self.most_taken, self.taken)
        return [heappop(self._free_since) for _ in range(count)][-1]

    def _release(self, count: int, time: float) -> None:
        self.taken -= count
        for _ in range(count):
            heappush(self._free_since, time)
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if self.taken + wanted > self.capacity:
                return
            self._waiting.popleft()
            turn.set_result(self._occupy(wanted))


@dataclass(frozen=True, slots=True)
class ScriptedEnvironment:
    """Steps are words; a step that holds the answer token answers with the digits after it.

    Attributes:
        depth_limit: depth at which a state that has not answered ends, ≥ 1.
    """

    depth_limit: int = 6

    def start(self, question: str) -> tuple[State, Turn]:
        check(bool(question.strip()), "question", "text that is not blank", repr(question))
        return State(token_ids=(BOS, *question.encode(), STEP)), Turn()

    async def step(self, turn: Turn, sample: Sample, depth: int) -> Step:
        tokens = sample.token_ids
        text = "STEP: " + sample.text
        well_formed = sample.finish_reason == "stop" and GARBLED not in tokens
        if ANSWER in tokens:
            digits = "".join(str(t - DIGIT) for t in tokens[tokens.index(ANSWER) + 1 :] if DIGIT <= t < WORD)
            return Step(Status.ANSWERED, text, digits, well_formed, Turn())
        if depth >= self.depth_limit:
            return Step(Status.DEPTH_LIMIT, text, None, well_formed, Turn())
        return Step(Status.OPEN, text, None, well_formed, Turn(bridge_ids=(STEP,)))

    def close(self, turn: Turn) -> None:
        """Nothing is held."""


@dataclass
class ScriptedEngine:
    """Deterministic `Policy`, `Evaluator` and (as `.environment`) `Environment`.

    Args:
        latency: seconds that a sample request takes once it has its slots, ≥ 0.
        capacity: continuations in work at once, ≥ 1; a request for n of them waits for n free slots.
        evaluate_latency: seconds that an `evaluate` call takes, ≥ 0.
        jitter: up to this many times `latency` is added, by a hash of the request, so that requests finish out of
            order; ≥ 0.
        answer_rate: probability that a step answers, in [0, 1].
        garbled_rate: probability that a step is not well formed, in [0, 1].
        step_tokens: (fewest, most) words of a step.
        depth_limit: of the environment.
        hidden_size: H, the length of h(s).
        fail: called with every sample request; an exception that it returns is raised instead of sampling.

    Raises:
        ValueError: an argument outside its range.
    """

    # they change when answers come, not which
    identity_excludes: ClassVar[frozenset[str]] = frozenset(
        ("latency", "capacity", "evaluate_latency", "jitter", "fail", "stats", "_slots")
    )

    latency: float = 0.0
    capacity: int = 256
    evaluate_latency: float = 0.0
    jitter: float = 0.0
    answer_rate: float = 0.25
    garbled_rate: float = 0.1
    step_tokens: tuple[int, int] = (3, 8)
    depth_limit: int = 6
    hidden_size: int = 16
    fail: Callable[[SampleRequest], BaseException | None] | None = None
    stats: ScriptedStats = field(default_factory=ScriptedStats)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("latency", "evaluate_latency", "jitter"):
            check(getattr(self, name) >= 0, name, "a number >= 0", getattr(self, name))
        for name in ("answer_rate", "garbled_rate"):
            check(0 <= getattr(self, name) <= 1, name, "a probability in [0, 1]", getattr(self, name))
        for name in ("capacity", "depth_limit", "hidden_size"):
            check(getattr(self, name) >= 1, name, "an integer >= 1", getattr(self, name))
        fewest, most = self.step_tokens
        check(1 <= fewest <= most <= 24, "step_tokens", "1 <= fewest <= most <= 24", self.step_tokens)
        self.environment = ScriptedEnvironment(self.depth_limit)
        self._slots = _Slots(self.capacity)
        script = np.random.Generator(np.random.PCG64(20260209))
        self._vectors = script.integers(-64, 65, size=(VOCABULARY, self.hidden_size), dtype=np.int64)
        self._value_weight = script.integers(-8, 9, size=self.hidden_size).astype(np.float64)

    async def sample(self, request: SampleRequest) -> list[Sample]:
        """`request.n` continuations, after `latency` seconds in the request's slots."""
        key, stats = self._key(request), self.stats
        await self._slots.work(request.n, self.latency * (1.0 + self.jitter * key[0] / 255))
        stats.largest_in_flight = self._slots.most_taken
        error = self.fail(request) if self.fail is not None else None
        if error is not None:
            raise error
        samples = self._continuations(request, key)
        stats.requests += 1
        stats.samples += len(samples)
        stats.tokens += sum(len(sample.token_ids) for sample in samples)
        return samples

    async def evaluate(self, states: Sequence[State]) -> list[Evaluation]:
        """h(s) and v̂(s) of `states`, after `evaluate_latency` seconds."""
        if self.evaluate_latency > 0:
            await asyncio.sleep(self.evaluate_latency)
        self.stats.evaluations += len(states)
        if not states:
            return []
        pooled = np.stack([self._mean(self._handle(state)) for state in states])
        logits = (pooled * self._value_weight).sum(axis=1) / 8
        values = 1.0 / (1.0 + np.exp(-logits))
        rows = torch.from_numpy(pooled.astype(np.float32)).unbind(0)
        return [Evaluation(row, value) for row, value in zip(rows, values.tolist())]

    @staticmethod
    def _key(request: SampleRequest) -> bytes:
        context = array("q", request.state.token_ids)
        context.extend(request.bridge_ids)
        context.append(request.seed)
        return hashlib.blake2b(context.tobytes(), digest_size=32).digest()

    def _continuations(self, request: SampleRequest, key: bytes) -> list[Sample]:
        prefix = request.state.token_ids + tuple(request.bridge_ids)
        parent = self._extend(self._handle(request.state), request.bridge_ids)
        drafts = []
        for index in range(request.n):
            # temperature 0 is the mode: all continuations are the first one
            tag = index if request.params.temperature > 0 else 0
            drafts.append(self._draft(hashlib.blake2b(key + tag.to_bytes(4, "little")).digest(), request))
        handles = [self._extend(parent, tokens) for tokens, _, _ in drafts]
        pooled = np.stack([self._mean(handle) for handle in handles]).astype(np.float32)
        return [
            Sample(
                token_ids=tokens,
                logprobs=logprobs,
                text=" ".join(filter(None, map(render, tokens))),
                finish_reason=reason,
                state=State(prefix + tuple(tokens), handle),
                pooled=row,
            )
            for (tokens, logprobs, reason), handle, row in zip(drafts, handles, torch.from_numpy(pooled).unbind(0))
        ]

    def _draft(self, noise: bytes, request: SampleRequest) -> tuple[list[int], list[float], str]:
        fewest, most = self.step_tokens
        words = fewest + noise[0] % (most - fewest + 1)
        tokens = [WORD + byte % (VOCABULARY - WORD) for byte in noise[8 : 8 + words]]
        if noise[1] < 256 * self.garbled_rate:
            tokens[0] = GARBLED
        if noise[2] < 256 * self.answer_rate:
            tokens += [ANSWER, DIGIT + noise[3] % 10]
        tokens.append(END)
        reason = "stop"
        if len(tokens) > request.params.max_tokens:
            tokens, reason = tokens[: request.params.max_tokens], "length"
        logprobs = [-(byte + 1) / 128 for byte in noise[32 : 32 + len(tokens)]]
        return tokens, logprobs, reason

    def _handle(self, state: State) -> _Handle:
        if isinstance(state.handle, _Handle):
            return state.handle
        check(len(state.token_ids) > 0, "state.token_ids", "at least one token", "none")
        return self._extend(_Handle(np.zeros(self.hidden_size, dtype=np.int64), 0), state.token_ids)

    def _extend(self, handle: _Handle, tokens: Sequence[int]) -> _Handle:
        if not tokens:
            return handle
        return _Handle(handle.total + self._vectors[list(tokens)].sum(axis=0), handle.count + len(tokens))

    @staticmethod
    def _mean(handle: _Handle) -> np.ndarray:
        return handle.total / (64.0 * handle.count)
