"""Bringing contexts into slots: what segments hold is copied, the rest goes through the model once."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch

from lapha.engines.transformers_engine.jobs import Job, empty_sum
from lapha.engines.transformers_engine.model import CausalDecoder
from lapha.engines.transformers_engine.segments import Segment, SegmentStore
from lapha.engines.transformers_engine.slots import SlotBuffer, SlotCache

_CHUNK_TOKENS = 8192  # most tokens, padding included, of one forward pass


@dataclass(eq=False, slots=True)
class Plan:
    """How one job's context comes into its slot.

    Attributes:
        job: whose context it is.
        loaded: segments whose keys and values are at hand, from the start of the context.
        pieces: what follows, in order: (segment that exists but lost its keys and values, or None; its tokens).
        remember: whether the state came without a handle, and is to be remembered by its token ids.
        row: slot that it goes to.
    """

    job: Job
    loaded: list[Segment]
    pieces: list[tuple[Segment | None, tuple[int, ...]]]
    remember: bool = False
    row: int = -1

    @property
    def cached(self) -> int:
        return sum(len(segment.token_ids) for segment in self.loaded)

    @property
    def new_ids(self) -> tuple[int, ...]:
        return tuple(token for _, tokens in self.pieces for token in tokens)


class Prefiller:
    """Computes the segment of every job's context, and leaves its keys and values in the job's slot."""

    def __init__(self, model: CausalDecoder, buffer: SlotBuffer, cache: SlotCache, store: SegmentStore) -> None:
        self.model, self.buffer, self.cache, self.store = model, buffer, cache, store
        self.epoch = object()

    def plan(self, job: Job) -> Plan:
        """Find out what is kept of a job's context."""
        token_ids, bridge_ids = job.state.token_ids, job.bridge_ids
        handle = job.state.handle
        if not isinstance(handle, Segment) or handle.epoch is not self.epoch:
            handle = self.store.root(token_ids)
        if handle is not None:
            path, rest = handle.path(), [bridge_ids]
            bridged = handle.bridged(bridge_ids)
            if bridged is not None:
                path, rest = [*path, bridged], []
        else:
            prefix, length = self.store.longest_prefix(token_ids)
            path, rest = prefix.path() if prefix is not None else [], [token_ids[length:], bridge_ids]
        held = next((index for index, segment in enumerate(path) if segment.kv is None), len(path))
        pieces: list[tuple[Segment | None, tuple[int, ...]]] = [(None, ids) for ids in rest if ids]
        self.store.touch(path)
        return Plan(job, path[:held], [*((part, part.token_ids) for part in path[held:]), *pieces], handle is None)

    def run(self, plans: list[Plan], first_row: int) -> list[Segment]:
        """Prefill `plans` into rows from `first_row` on.

        Returns:
            The segment of each plan's whole context, in the order of `plans`. `plan.row` says where it went.
        """
        plans = list(plans)
        order = sorted(range(len(plans)), key=lambda index: len(plans[index].new_ids))
        length = max(plan.job.context_length for plan in plans)
        self.buffer.ensure(first_row + len(plans), length + 1)
        for row, index in enumerate(order, start=first_row):
            plans[index].row = row
            self._load(plans[index])
        for bucket in _buckets([plans[index] for index in order]):
            self._forward(bucket)
        for plan in plans:
            self.buffer.set_row(plan.row, plan.job.context_length, plan.loaded[-1].hidden_sum)
        return [plan.loaded[-1] for plan in plans]

    def _load(self, plan: Plan) -> None:
        end = 0
        for segment in plan.loaded:
            if segment.kv is None:
                raise RuntimeError("a planned segment lost its keys and values before it was loaded")
            end = self.buffer.load(plan.row, end, segment.kv)
        if plan.job.sampler is not None and plan.job.sampler.needs_context:
            self.buffer.set_ids(plan.row, plan.job.state.token_ids + plan.job.bridge_ids)

    def _forward(self, plans: list[Plan]) -> None:
        """Padded passes over plans in consecutive rows; extends each plan's `loaded` to its whole context."""
        steps = len(plans[-1].new_ids)
        if steps == 0:
            return
        # long contexts go in pieces: the mask of one pass is (B, 1, T, visible)
        chunk = max(1, min(steps, _CHUNK_TOKENS // len(plans)))
        parts = [self._pass(plans, first, min(first + chunk, steps)) for first in range(0, steps, chunk)]
        for plan, hidden in zip(plans, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)):
            self._keep(plan, hidden)

    def _pass(self, plans: list[Plan], first: int, last: int) -> torch.Tensor:
        """Hidden states (B, last − first, H) of new tokens [first, last) of each plan."""
        buffer = self.buffer
        device = buffer.kv.device
        rows = (plans[0].row, plans[-1].row + 1)
        new = [plan.new_ids[first:last] for plan in plans]
        ids = torch.tensor([part + (0,) * (last - first - len(part)) for part in new], device=device)
        start = torch.tensor([plan.cached + first for plan in plans], device=device)
        count = torch.tensor([len(part) for part in new], device=device).unsqueeze(1)
        step = torch.arange(last - first, device=device)
        position = start.unsqueeze(1) + step
        row = torch.arange(rows[0], rows[1], device=device).unsqueeze(1)
        # padding goes to the spare last row, where nobody looks
        where = torch.where(step < count, row * buffer.length + position, buffer.rows * buffer.length)
        visible = max(min(plan.cached + last, plan.job.context_length) for plan in plans)
        beyond = torch.arange(visible, device=device) > position.unsqueeze(-1)
        bias = torch.zeros(beyond.shape, dtype=buffer.bias.dtype, device=device)
        bias = bias.masked_fill_(beyond, buffer.hidden).unsqueeze(1)
        return self.model.slot_forward(self.cache, rows, ids, start, bias, where, visible)

    def _keep(self, plan: Plan, hidden: torch.Tensor) -> None:
        """Cut a plan's fresh tokens into segments: new ones, and old ones that had lost their keys and values."""
        position, used = plan.cached, 0
        parent = plan.loaded[-1] if plan.loaded else None
        for known, token_ids in plan.pieces:
            states = hidden[used : used + len(token_ids)]
            segment = known if known is not None else self._new_segment(parent, token_ids, states)
            if known is None and parent is not None:
                parent.bridge = weakref.ref(segment)
            end = position + len(token_ids)
            self.store.put(segment, self.buffer.extract(plan.row, position, end))
            if plan.remember and end == len(plan.job.state.token_ids):
                self.store.add_root(plan.job.state.token_ids, segment)
            plan.loaded.append(segment)
            parent, position, used = segment, end, used + len(token_ids)
        plan.pieces = []

    def _new_segment(self, parent: Segment | None, token_ids: tuple[int, ...], hidden: torch.Tensor) -> Segment:
        before = parent.hidden_sum if parent is not None else empty_sum(hidden.shape[-1], hidden.device)
        return Segment(
            parent=parent,
            token_ids=token_ids,
            kv=None,
            hidden_sum=before + hidden.sum(dim=0, dtype=torch.float32),
            count=(parent.count if parent is not None else 0) + len(token_ids),
            last_hidden=hidden[-1].clone(),
            epoch=self.epoch,
        )


def _buckets(plans: list[Plan]) -> list[list[Plan]]:
    """Split plans, shortest first, where padding would more than double the work."""
    buckets: list[list[Plan]] = []
    shortest = 0
    for plan in plans:
        count = len(plan.new_ids)
        if not buckets or count > max(2 * shortest, shortest + 8):
            buckets.append([])
            shortest = count
        buckets[-1].append(plan)
    return buckets
