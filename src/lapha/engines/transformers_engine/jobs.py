"""Requests in the worker: a job is one `sample` or one state to evaluate, a row one continuation being written."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch

from lapha.engines.transformers_engine.sampling import TokenSampler, sampler_for, stream_keys
from lapha.engines.transformers_engine.segments import Segment
from lapha.types import Sample, SampleRequest, State

_QUIET_ROUNDS = 32  # turns of an event loop without a new job, after which nobody is expected to come
_SETTLE_SECONDS = 1.0  # a loop that is still busy then is not waited for


@dataclass(eq=False, slots=True)
class Job:
    """One request on its way: `n` continuations of a context, or (n = 0) only its segment.

    Attributes:
        state, bridge_ids: the context, as in `SampleRequest`.
        n, seed, max_tokens, sampler: what to sample; the sampler is None where n = 0.
        future, loop: where the result goes.
        results: the continuations so far, by index.
        remaining: continuations that are still being written.
    """

    state: State
    bridge_ids: tuple[int, ...]
    n: int
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    name: str = ""
    seed: int = 0
    max_tokens: int = 0
    sampler: TokenSampler | None = None
    stop_ids: frozenset[int] = frozenset()
    results: list[Sample | None] = field(default_factory=list)
    remaining: int = 0

    @classmethod
    def of(cls, request: SampleRequest, loop: asyncio.AbstractEventLoop) -> Job:
        return cls(
            state=request.state, bridge_ids=tuple(request.bridge_ids), n=request.n, future=loop.create_future(),
            loop=loop, name=request.name, seed=request.seed, max_tokens=request.params.max_tokens,
            sampler=sampler_for(request.params), stop_ids=frozenset(request.stop_token_ids), results=[None] * request.n, remaining=request.n,
        )  # fmt: skip

    @property
    def context_ids(self) -> tuple[int, ...]:
        return self.state.token_ids + self.bridge_ids

    @property
    def context_length(self) -> int:
        return len(self.state.token_ids) + len(self.bridge_ids)

    @property
    def rows(self) -> int:
        """Rows that it takes."""
        return max(self.n, 1)

    @property
    def longest(self) -> int:
        """Length that its rows may reach."""
        return self.context_length + self.max_tokens

    @property
    def fresh_tokens(self) -> int:
        """Context tokens to prefill, about: a context with a handle is mostly kept already."""
        return len(self.bridge_ids) if isinstance(self.state.handle, Segment) else self.context_length

    @property
    def abandoned(self) -> bool:
        """Nobody waits for the result any more."""
        return self.future.done()


@dataclass(eq=False, slots=True)
class Row:
    """One continuation being written, in one slot of the buffer.

    Attributes:
        job, index: whose continuation it is.
        sampler: the job's.
        parent: segment of the context it continues.
        start: length of that context.
        length: tokens whose keys and values the slot holds; one less than it has, until the last is fed.
        key: of its random stream.
        reason: why it ended, or "" while it goes on.
    """

    job: Job
    index: int
    sampler: TokenSampler
    parent: Segment
    start: int
    length: int
    key: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: str = ""

    def append(self, token: int, logprob: float, stop_ids: frozenset[int]) -> None:
        """Write one token, and note if it is the last."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in stop_ids or token in self.job.stop_ids:
            self.reason = "stop"
        elif len(self.tokens) >= self.job.max_tokens or self.job.abandoned:
            self.reason = "length"


def rows_of(job: Job, parent: Segment) -> list[Row]:
    """The rows of a job whose context is in `parent`; none if the job samples nothing."""
    length, sampler = job.context_length, job.sampler
    if sampler is None:
        return []
    keys = stream_keys(job.seed, job.n)
    return [Row(job, index, sampler, parent, length, length, key) for index, key in enumerate(keys)]


class Outbox:
    """Results on their way back to the event loops that wait for them, one wake-up for many."""

    def __init__(self) -> None:
        self._ready: list[tuple[Job, Any]] = []

    def add(self, job: Job, result: Any) -> None:
        self._ready.append((job, result))

    def flush(self) -> list[asyncio.AbstractEventLoop]:
        """Deliver what has been added; returns the loops that got something."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, Any]]] = {}
        for job, result in self._ready:
            by_loop.setdefault(job.loop, []).append((job, result))
        self._ready = []
        for loop, results in by_loop.items():
            deliver(loop, results)
        return list(by_loop)


def deliver(loop: asyncio.AbstractEventLoop, results: list[tuple[Job, Any]]) -> None:
    """Set results or exceptions in the loop's own thread; a loop that is closed waits for nothing."""

    def resolve() -> None:
        for job, result in results:
            if job.future.done():
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(resolve)
        except RuntimeError:  # closed between the question and the call
            return


@dataclass(slots=True)
class Room:
    """What there is place for beside the rows that are being decoded.

    Attributes:
        rows: free rows.
        tokens: context tokens that may be prefilled now.
        used: rows in use.
        longest: length that the longest row in use may reach.
        slots: most tokens of all rows, each counted at the longest one's length, as they lie in memory.
    """

    rows: int
    tokens: int
    used: int
    longest: int
    slots: int

    def fits(self, job: Job) -> bool:
        """Whether `job` can start now."""
        longest = max(self.longest, job.longest)
        return (
            job.rows <= self.rows and job.fresh_tokens <= self.tokens and (self.used + job.rows) * longest <= self.slots
        )

    def enter(self, job: Job) -> None:
        """Count `job` in."""
        self.rows -= job.rows
        self.tokens -= job.fresh_tokens
        self.used += job.rows
        self.longest = max(self.longest, job.longest)


class Inbox:
    """Jobs that wait for the worker; first come, first served."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: deque[Job] = deque()
        self.running = False

    def take(self, room: Room) -> list[Job]:
        """Jobs to start now: those that fit into `room`; an idle worker gets one however large it is."""
        jobs: list[Job] = []
        with self.lock:
            while self.waiting:
                job = self.waiting[0]
                if not job.abandoned:
                    if not room.fits(job) and (jobs or room.used):
                        break
                    jobs.append(job)
                    room.enter(job)
                self.waiting.popleft()
        return jobs


def settle(loop: asyncio.AbstractEventLoop, inbox: Inbox) -> None:
    """Wait, in another thread than the loop's, until the loop's tasks have submitted all that they now can.

    A loop whose tasks wait for something else (a sandbox, a network) may go on later: it is not waited for.
    """
    settled = threading.Event()

    def look_again(rounds: int, seen: int) -> None:
        waiting = len(inbox.waiting)
        rounds = _QUIET_ROUNDS if waiting != seen else rounds - 1
        if rounds == 0:
            settled.set()
        else:
            loop.call_soon(look_again, rounds, waiting)

    if loop.is_running():
        try:
            loop.call_soon_threadsafe(look_again, _QUIET_ROUNDS, len(inbox.waiting))
        except RuntimeError:  # closed between the question and the call
            return
        settled.wait(_SETTLE_SECONDS)


def empty_sum(hidden_size: int, device: torch.device) -> torch.Tensor:
    """The sum of no hidden states."""
    return torch.zeros(hidden_size, dtype=torch.float32, device=device)
