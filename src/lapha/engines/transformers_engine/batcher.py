"""Continuous batching: the rows of all live requests are decoded together, and come and go between steps."""

from __future__ import annotations

import time

import torch

from lapha.engines.transformers_engine.jobs import Job, Room, Row, rows_of
from lapha.engines.transformers_engine.model import CausalDecoder
from lapha.engines.transformers_engine.prefill import Prefiller
from lapha.engines.transformers_engine.segments import Segment, SegmentStore
from lapha.engines.transformers_engine.slots import SlotBuffer, SlotCache
from lapha.engines.transformers_engine.worker import BatchLimits, Decode, Worker


class SlotBatcher(Worker):
    """Runs jobs on a model whose cache fits into slots.

    A step feeds every row's last token: that gives the hidden state that completes h(s) and the keys and values that
    its children will attend to, and the logits that the next token is drawn from. The last token of a continuation is
    fed too, though nothing is drawn after it: without that pass h(s) would lack a token.

    Args and raises: as `Worker`; ValueError for a model that has no slots.
    """

    def __init__(
        self, model: CausalDecoder, store: SegmentStore, stop_ids: frozenset[int], decode: Decode, limits: BatchLimits
    ) -> None:
        super().__init__(model, store, stop_ids, decode, limits)
        if model.kv_shape is None:
            raise ValueError("model: expected one whose cache fits into slots, got one where " + model.why_not)
        self.buffer = SlotBuffer(model.kv_shape, model.hidden_size)
        self.cache = SlotCache(self.buffer)
        self.prefiller = Prefiller(model, self.buffer, self.cache, store)
        self.live: list[Row | None] = []  # row i is in slot i; None is a hole, between steps only
        self._starting: list[Job] = []

    @property
    def in_hand(self) -> bool:
        return any(row is not None for row in self.live)

    def _advance(self) -> bool:
        admitted = self._admit()
        if self.live:
            self._step()
        return admitted or self.in_hand

    def _drop(self) -> list[Job]:
        jobs = self._starting + [row.job for row in self.live if row is not None]
        self._starting, self.live = [], []
        return jobs

    def _admit(self) -> bool:
        """Start what fits of the waiting jobs, then close the holes that retired rows left."""
        rows = [row for row in self.live if row is not None]
        room = Room(
            rows=self.limits.rows - len(rows),
            tokens=self.limits.prefill_tokens,
            used=len(rows),
            longest=max((row.job.longest for row in rows), default=0),
            slots=self.limits.slot_bytes // self.buffer.shape.bytes_per_token,
        )
        self._starting = jobs = self.inbox.take(room)
        if jobs:
            began = time.perf_counter()
            self._start(jobs)
            self.stats.prefill_s += time.perf_counter() - began
            self._starting = []
        self._compact()
        return bool(jobs)

    def _start(self, jobs: list[Job]) -> None:
        """Prefill `jobs`, give every continuation a slot, and draw its first token."""
        self.prefiller.epoch = self.epoch
        plans = [self.prefiller.plan(job) for job in jobs]
        for plan in plans:
            self.stats.reused_tokens += plan.cached
            self.stats.prefilled_tokens += plan.job.context_length - plan.cached
        holes = [slot for slot, row in enumerate(self.live) if row is None]
        segments = self.prefiller.run(plans, len(self.live))
        self.live += [None] * len(plans)
        drawing: list[int] = []
        sources: list[int] = []
        for index, (plan, segment) in enumerate(zip(plans, segments)):
            if plan.job.n == 0:
                self.outbox.add(plan.job, segment)
                continue
            slots = self._place_rows(rows_of(plan.job, segment), plan.row, holes)
            drawing += slots
            sources += [index] * len(slots)
        if drawing:
            logits = self.model.logits(torch.stack([segment.last_hidden for segment in segments]))
            self._draw_slots(drawing, logits[torch.tensor(sources, device=logits.device)])

    def _place_rows(self, rows: list[Row], source: int, holes: list[int]) -> list[int]:
        """Copy the context in slot `source` to a slot for each of `rows`: itself, then `holes`, then the end."""
        slots = [source]
        while holes and len(slots) < len(rows):
            slots.append(holes.pop())
        length = rows[0].length
        for slot in slots[1:]:
            self.buffer.repeat(source, slot, slot + 1, length)
        end = len(self.live)
        fresh = len(rows) - len(slots)
        if fresh:
            self.buffer.ensure(end + fresh, length)
            self.buffer.repeat(source, end, end + fresh, length)
            self.live += [None] * fresh
            slots += range(end, end + fresh)
        if len(slots) > 1:
            self.buffer.copy_rows([source] * (len(slots) - 1), slots[1:])
        for slot, row in zip(slots, rows):
            self.live[slot] = row
        return slots

    def _compact(self) -> None:
        """Move rows from the end into the holes, so that rows fill slots 0 … B − 1."""
        live = self.live
        sources: list[int] = []
        targets: list[int] = []
        hole = 0
        while True:
            while live and live[-1] is None:
                live.pop()
            while hole < len(live) and live[hole] is not None:
                hole += 1
            if hole >= len(live):
                break
            sources.append(len(live) - 1)
            targets.append(hole)
            live[hole] = live.pop()
        if sources:
            self.buffer.move(sources, targets, [row.length for slot in targets if (row := live[slot]) is not None])

    def _step(self) -> None:
        """Feed every row its last token; retire the rows that had ended, and draw a token for the others."""
        buffer, count = self.buffer, len(self.live)
        rows = [row for row in self.live if row is not None]
        visible = max(row.length for row in rows) + 1
        buffer.ensure(count, visible)
        where = buffer.place(count)
        ended = [slot for slot, row in enumerate(rows) if row.reason]
        going = [slot for slot, row in enumerate(rows) if not row.reason]
        token = buffer.tokens[:count]
        if any(row.sampler.needs_context for row in rows):
            buffer.ids.view(-1).index_copy_(0, where, token)
        bias = buffer.bias[:count, None, None, :visible]
        start = buffer.lengths[:count].clone()
        hidden = self.model.slot_forward(
            self.cache, (0, count), token.unsqueeze(1), start, bias, where.unsqueeze(1), visible
        ).squeeze(1)
        buffer.lengths[:count] += 1
        buffer.sums[:count] += hidden
        for row in rows:
            row.length += 1
        self.stats.steps += 1
        self.stats.rows += count
        if ended:
            self._retire(ended, hidden)
        if going:
            chosen = hidden if len(going) == count else hidden[torch.tensor(going, device=hidden.device)]
            self._draw_slots(going, self.model.logits(chosen))

    def _draw_slots(self, slots: list[int], logits: torch.Tensor) -> None:
        """Draw the next token of the rows in `slots` from `logits` (B, V)."""
        rows = [row for slot in slots if (row := self.live[slot]) is not None]
        index = torch.tensor(slots, device=logits.device)
        longest = max(row.length for row in rows)
        ids = self.buffer.ids
        self.buffer.tokens[index] = self._draw(rows, logits, lambda members: ids[index[members], :longest])

    def _retire(self, slots: list[int], hidden: torch.Tensor) -> None:
        """Turn finished rows into samples, keep their segments, and leave holes."""
        index = torch.tensor(slots, device=hidden.device)
        sums, last = self.buffer.sums[index], hidden[index]
        pooled = (sums / self.buffer.lengths[index, None]).cpu()
        rows = [row for slot in slots if (row := self.live[slot]) is not None]
        segments = []
        for slot, row, total, end in zip(slots, rows, sums.unbind(0), last.unbind(0)):
            segment = Segment(row.parent, tuple(row.tokens), None, total, row.length, end, self.epoch)
            self.store.put(segment, self.buffer.extract(slot, row.start, row.length))
            segments.append(segment)
            self.live[slot] = None
        self._finish(rows, segments, pooled)
