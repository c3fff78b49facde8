"""The worker thread that decodes, and what both ways of decoding share."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from lapha.engines.errors import EngineError
from lapha.engines.transformers_engine.jobs import Inbox, Job, Outbox, Row, deliver, settle
from lapha.engines.transformers_engine.model import CausalDecoder
from lapha.engines.transformers_engine.sampling import TokenSampler, logprobs_of, uniforms
from lapha.engines.transformers_engine.segments import Segment, SegmentStore
from lapha.types import Sample, State

Decode = Callable[[list[list[int]]], list[str]]


@dataclass(slots=True)
class EngineStats:
    """What the worker has done.

    Attributes:
        steps: decoding passes; rows / steps is the mean batch.
        rows: rows over all passes, the pass that feeds a continuation's last token included.
        sampled_tokens, prefilled_tokens: tokens drawn, and tokens of contexts that went through the model.
        reused_tokens: context tokens whose keys and values were copied instead.
        busy_s, prefill_s: seconds in which there was work, and those of them spent on prefill.
    """

    steps: int = 0
    rows: int = 0
    sampled_tokens: int = 0
    prefilled_tokens: int = 0
    reused_tokens: int = 0
    busy_s: float = 0.0
    prefill_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much is in work at once, and who joins it.

    Attributes:
        rows: continuations decoded together (a request for more than that runs alone).
        prefill_tokens: context tokens that are started between two steps, about.
        slot_bytes: memory of the running batch's keys and values, about.
        lockstep: between two steps, wait for the tasks that have just been answered, so that it does not depend on
            timing which requests are decoded together.
        linger_s: how long an idle worker waits for company after the first request, where it is not in lockstep.
    """

    rows: int = 256
    prefill_tokens: int = 8192
    slot_bytes: int = 2 << 30
    lockstep: bool = False
    linger_s: float = 0.0005


class Worker(ABC):
    """Takes jobs from event loops, and runs them in a thread of its own while there are any.

    Args:
        model: the decoder.
        store: of segments.
        stop_ids: tokens that end a continuation.
        decode: token ids to texts.
        limits: batch limits.
    """

    def __init__(
        self, model: CausalDecoder, store: SegmentStore, stop_ids: frozenset[int], decode: Decode, limits: BatchLimits
    ) -> None:
        self.model, self.store, self.stop_ids, self.decode, self.limits = model, store, stop_ids, decode, limits
        self.stats = EngineStats()
        self.epoch: object = object()  # marks what the present weights have computed; replaced when they change
        self.inbox, self.outbox = Inbox(), Outbox()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lapha-engine")

    @abstractmethod
    def _advance(self) -> bool:
        """Take new jobs and make one step; False if there was nothing to do."""

    @abstractmethod
    def _drop(self) -> list[Job]:
        """Forget all jobs in hand, after an error, and name them."""

    def submit(self, jobs: Iterable[Job]) -> None:
        """Queue jobs; their futures will be resolved in their own loops."""
        with self.inbox.lock:
            self.inbox.waiting.extend(jobs)
            if self.inbox.running or not self.inbox.waiting:
                return
            self.inbox.running = True
        self._start_run()

    @property
    def busy(self) -> bool:
        """Whether anything is in work."""
        return self.inbox.running

    def close(self) -> None:
        """Wait for the work in hand and end the thread."""
        self._executor.shutdown(wait=True)

    def _start_run(self) -> None:
        self._executor.submit(self._run).add_done_callback(self._finished)

    def _run(self) -> None:
        """Work until nothing is left to do."""
        if self.limits.lockstep:
            self._settle(dict.fromkeys(job.loop for job in tuple(self.inbox.waiting)))
        else:
            time.sleep(self.limits.linger_s)
        began = time.perf_counter()
        with self.model.sampling_mode():
            while self._advance():
                if self.inbox.waiting or self.in_hand:
                    answered = self.outbox.flush()
                    if self.limits.lockstep:
                        self._settle(answered)
        self.stats.busy_s += time.perf_counter() - began

    def _settle(self, loops: Iterable[asyncio.AbstractEventLoop]) -> None:
        for loop in loops:
            settle(loop, self.inbox)

    @property
    @abstractmethod
    def in_hand(self) -> bool:
        """Whether rows are being decoded."""

    def _finished(self, run: Future[None]) -> None:
        """After a run: the model is back in its caller's mode, so only now are the last results handed out."""
        error = run.exception()
        with self.inbox.lock:
            failed: list[Job] = []
            if error is not None:
                failed = [*self._drop(), *self.inbox.waiting]
                self.inbox.waiting.clear()
            self.inbox.running = again = bool(self.inbox.waiting)
        self.outbox.flush()
        for job in dict.fromkeys(failed):
            deliver(job.loop, [(job, error)])
        if again:
            self._start_run()

    def _draw(
        self, rows: Sequence[Row], logits: torch.Tensor, context: Callable[[list[int]], torch.Tensor]
    ) -> torch.Tensor:
        """Draw the next token of `rows` and note which of them end with it.

        Args:
            rows: B rows.
            logits: (B, V) float32.
            context: gives token ids (b, L) of some of the rows, by position in `rows`.

        Returns:
            (B,) int64 tokens on the device.
        """
        noise = torch.from_numpy(uniforms([row.key for row in rows], [len(row.tokens) for row in rows]))
        noise = noise.to(logits.device)
        groups: dict[TokenSampler, list[int]] = {}
        for position, row in enumerate(rows):
            groups.setdefault(row.sampler, []).append(position)
        tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
        for sampler, members in groups.items():
            part = slice(None) if len(groups) == 1 else torch.tensor(members, device=logits.device)
            known = context(members) if sampler.needs_context else None
            tokens[part] = sampler.pick(logits[part], known, noise[part])
        # one transfer, and so one wait for the device
        drawn = torch.stack([tokens.double(), logprobs_of(logits, tokens).double()]).tolist()
        for row, logprob in zip(rows, drawn[1]):
            if logprob != logprob:
                message = (
                    f"expected finite logits, got NaN or infinite ones for continuation {row.index} (weights that "
                )
                raise EngineError(message + "have turned NaN?)", request=row.job.name)
        self.stats.sampled_tokens += len(rows)
        for row, token, logprob in zip(rows, drawn[0], drawn[1]):
            row.append(int(token), logprob, self.stop_ids)
        return tokens

    def _finish(self, rows: Sequence[Row], segments: Sequence[Segment], pooled: torch.Tensor) -> None:
        """Turn ended rows into samples; `pooled` (B, H) is on the CPU."""
        texts = self.decode([row.tokens[:-1] if row.reason == "stop" else row.tokens for row in rows])
        for row, segment, text, mean in zip(rows, segments, texts, pooled.unbind(0)):
            job = row.job
            state = State(job.context_ids + tuple(row.tokens), segment)
            job.results[row.index] = Sample(row.tokens, row.logprobs, text, row.reason, state, mean)
            job.remaining -= 1
            if job.remaining == 0:
                self.outbox.add(job, job.results)
