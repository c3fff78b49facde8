"""The road for models whose cache is not made of plain attention layers: prefill every request whole.

Sliding-window, linear-attention and state-space layers keep a state that cannot be cut into segments. Their requests
run in batches of contexts of one length (so that no padding can leak into a recurrent state), each batch with the
model's own cache, until every row has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch

from lapha.engines.transformers_engine.jobs import Job, Room, Row, rows_of
from lapha.engines.transformers_engine.segments import Segment
from lapha.engines.transformers_engine.worker import Worker


class PlainBatcher(Worker):
    """Runs jobs on any causal LM; segments keep sums of hidden states, but no keys and values. As `Worker`."""

    _jobs: list[Job]

    @property
    def in_hand(self) -> bool:
        return False

    def _drop(self) -> list[Job]:
        return self._jobs

    def _advance(self) -> bool:
        unlimited = 1 << 60
        self._jobs = self.inbox.take(Room(self.limits.rows, self.limits.prefill_tokens, 0, 0, unlimited))
        by_length: dict[int, list[Job]] = {}
        for job in self._jobs:
            by_length.setdefault(job.context_length, []).append(job)
        for jobs in by_length.values():
            self._run_batch(jobs)
        return bool(self._jobs)

    def _run_batch(self, jobs: list[Job]) -> None:
        """Prefill one context a continuation, all of one length, and decode until all have ended."""
        device = self.model.device
        contexts = [job.context_ids for job in jobs for _ in range(max(job.n, 1))]
        ids = torch.tensor(contexts, device=device)
        hidden, cache = self._forward(ids, ids, {})
        self.stats.prefilled_tokens += ids.numel()
        sums = hidden.sum(dim=1, dtype=torch.float32)
        rows = self._rows(jobs, sums, hidden[:, -1])
        live = [index for index, row in enumerate(rows) if row is not None]
        while live:
            going = [row for index in live if (row := rows[index]) is not None]
            chosen = hidden[torch.tensor(live, device=device), -1]
            tokens = self._draw(going, self.model.logits(chosen), partial(_contexts, going, device))
            fed = torch.zeros(len(rows), 1, dtype=torch.int64, device=device)
            fed[live, 0] = tokens
            ids = torch.cat([ids, fed], dim=1)
            hidden, cache = self._forward(ids, fed, cache)
            sums[live] += hidden[live, -1]
            self.stats.steps += 1
            self.stats.rows += len(live)
            for row in going:
                row.length += 1
            ended = [index for index, row in zip(live, going) if row.reason]
            if ended:
                self._end([row for row in going if row.reason], sums[ended], hidden[ended, -1])
            live = [index for index, row in zip(live, going) if not row.reason]

    def _forward(
        self, ids: torch.Tensor, new: torch.Tensor, cache: dict[str, Any]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Hidden states at least of the `new` tokens at the end of `ids`, and the cache after them."""
        if self.model.own_cache:
            return self.model.own_forward(new, cache)
        return self.model.plain_forward(ids), {}

    def _rows(self, jobs: list[Job], sums: torch.Tensor, last: torch.Tensor) -> list[Row | None]:
        """The rows of a batch, one a context; a job that samples nothing gets its segment at once, and None."""
        rows: list[Row | None] = []
        for job in jobs:
            index = len(rows)
            segment = Segment(
                None, job.context_ids, None, sums[index].clone(), job.context_length, last[index].clone(), self.epoch
            )
            if job.n == 0:
                self.outbox.add(job, segment)
                rows.append(None)
            rows += rows_of(job, segment)
        return rows

    def _end(self, rows: list[Row], sums: torch.Tensor, last: torch.Tensor) -> None:
        segments = [
            Segment(None, row.job.context_ids + tuple(row.tokens), None, total, row.length, end, self.epoch)
            for row, total, end in zip(rows, sums.unbind(0), last.unbind(0))
        ]
        lengths = torch.tensor([row.length for row in rows], device=sums.device)
        self._finish(rows, segments, (sums / lengths.unsqueeze(1)).cpu())


def _contexts(rows: Sequence[Row], device: torch.device, members: Iterable[int]) -> torch.Tensor:
    """Token ids (b, L) of some rows so far, shorter ones filled up with their first token."""
    chosen = [[*rows[member].job.context_ids, *rows[member].tokens] for member in members]
    longest = max(map(len, chosen))
    return torch.tensor([ids + ids[:1] * (longest - len(ids)) for ids in chosen], device=device)
