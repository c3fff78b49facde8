"""Who grades what: requests over workers of which some are slow, hang or die. No process and no clock in here.

Every unfinished request has owners: the queue, or live workers. One count per request says how many, and it is never 0:
a request that nobody owns would be waited for without end.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from lapha.evaluation.grading.verdicts import Verdict

logger = logging.getLogger(__name__)

IN_FLIGHT = 6
"""Requests that a worker holds: enough to keep it busy, few to hand on when it hangs."""
SLOW_SECONDS = 1.0
"""A worker that has been at one request for so long hands on those behind it, and another joins."""
_IDLE_DEATHS = 8  # workers that may end while they have nothing to do


class Worker(Protocol):
    """A process, or what a test has in its place.

    Attributes:
        ready: it has started.
        held: the requests that it has, in order; it is at the first of them.
        since: the time since when.
    """

    ready: bool
    held: deque[int]
    since: float

    def send(self, identity: int) -> bool:
        """Hand over one request, which it then holds; False where it takes none now, or has ended."""
        ...

    def receive(self) -> list[list[Any]] | None:
        """Replies ``[identity, correct, method, detail]`` that have arrived, no longer held; None where it has ended."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class Workers(Protocol):
    """Where workers come from, and how to wait for them."""

    @property
    def count(self) -> int:
        """How many work at once."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds that one request may take."""
        ...

    @property
    def start_seconds(self) -> float:
        """Seconds that a worker may take to start."""
        ...

    def recruit(self) -> Any:
        """A worker, which may not be ready yet."""
        ...

    def wait(self, workers: Sequence[Any], seconds: float) -> list[Any]:
        """Those of the workers that have replied or ended, after at most so many seconds."""
        ...

    def now(self) -> float:
        """The time in seconds."""
        ...


class Schedule:
    """One batch of requests.

    Args:
        workers: who does them.
        requests: their identities, in the order in which they are handed out.
        on_verdict: called as verdicts come.

    Attributes:
        verdicts: by identity.
        active: the live workers.
        rescued: requests that had no owner; always 0 unless this class is wrong.
    """

    def __init__(
        self, workers: Workers, requests: Iterable[int], on_verdict: Callable[[int, Verdict], None] | None = None
    ) -> None:
        self.workers = workers
        self.verdicts: dict[int, Verdict] = {}
        self.active: list[Any] = []
        self.rescued = 0
        self._on_verdict = on_verdict
        self._queue = deque(requests)
        self._queued = set(self._queue)
        self._owners = dict.fromkeys(self._queue, 1)
        self._orphans: set[int] = set()
        self._slow: set[int] = set()  # ids of workers
        self._idle_deaths = 0

    def run(self) -> dict[int, Verdict]:
        """Verdicts of all requests.

        Raises:
            RuntimeError: a worker does not start, or workers keep ending while they have nothing to do.
        """
        while len(self.verdicts) < len(self._owners):
            self._reinforce()
            self._feed()
            self._rescue()
            for worker in self.workers.wait(self.active, self._patience()):
                self._take(worker)
            for worker in list(self.active):
                self._look_at(worker)
        return self.verdicts

    def _own(self, identity: int, change: int) -> None:
        """The one place where owners are counted."""
        self._owners[identity] += change
        if self._owners[identity] > 0 or identity in self.verdicts:
            self._orphans.discard(identity)
        else:
            self._orphans.add(identity)

    def _rescue(self) -> None:
        """Queue what nobody owns. There is none such; if there were, it would be logged and not waited for."""
        for identity in sorted(self._orphans):
            logger.error("request %d had no owner", identity)
            self.rescued += 1
            self._enqueue([identity])

    def _enqueue(self, identities: Sequence[int]) -> None:
        """To the front of the queue, in order, what is unfinished and not in it."""
        wanted = [i for i in identities if i not in self.verdicts and i not in self._queued]
        self._queue.extendleft(reversed(wanted))
        self._queued.update(wanted)
        for identity in wanted:
            self._own(identity, 1)

    def _reinforce(self) -> None:
        """As many workers as there should be beside those that are slow; at most twice as many in all."""
        unfinished = len(self._owners) - len(self.verdicts)
        wanted = min(self.workers.count, unfinished)
        while len(self.active) - len(self._slow) < wanted and len(self.active) < 2 * self.workers.count:
            self.active.append(self.workers.recruit())

    def _feed(self) -> None:
        for worker in self.active:
            if not worker.ready or id(worker) in self._slow:
                continue
            passed = []
            while self._queue and len(worker.held) < IN_FLIGHT:
                identity = self._queue.popleft()
                if identity in self.verdicts:
                    self._queued.discard(identity)
                    self._own(identity, -1)
                elif identity in worker.held:
                    passed.append(identity)  # it has that one already, behind others
                elif worker.send(identity):
                    self._queued.discard(identity)  # the worker is the owner now, in the queue's place
                else:
                    passed.append(identity)
                    break
            self._queue.extendleft(reversed(passed))

    def _take(self, worker: Any) -> None:
        replies = worker.receive()
        if replies is None:
            self._end(worker, "the grader process ended")
            return
        if replies:
            self._slow.discard(id(worker))
        for identity, correct, method, detail in replies:
            self._conclude(identity, Verdict(correct, method, detail))
            self._own(identity, -1)

    def _conclude(self, identity: int, verdict: Verdict) -> None:
        if identity not in self.verdicts:
            self.verdicts[identity] = verdict
            if self._on_verdict is not None:
                self._on_verdict(identity, verdict)

    def _look_at(self, worker: Any) -> None:
        """End a worker that hangs; let others do what waits behind one that is slow."""
        if not worker.held and worker.ready:
            return
        now = self.workers.now()
        if now >= worker.since + self._limit(worker):
            self._end(worker, f"no verdict in {self.workers.timeout:g} s")
        elif worker.ready and id(worker) not in self._slow and now >= worker.since + SLOW_SECONDS:
            self._slow.add(id(worker))
            self._enqueue(list(worker.held)[1:])

    def _end(self, worker: Any, why: str) -> None:
        """End a worker: what it was at is ungradable, what was behind that goes to whoever comes."""
        self.active.remove(worker)
        self._slow.discard(id(worker))
        held = list(worker.held)
        worker.stop()
        if not worker.ready:
            raise RuntimeError(
                "a grader process did not start; run `python -m lapha.evaluation.grading.worker` to see why"
            )
        if held:
            self._conclude(held[0], Verdict(None, "ungradable", why))
        else:
            self._idle_deaths += 1
            if self._idle_deaths > _IDLE_DEATHS:
                raise RuntimeError(
                    "grader processes keep ending; run `python -m lapha.evaluation.grading.worker` to see why"
                )
        for identity in held:
            self._own(identity, -1)
        self._enqueue(held[1:])

    def _limit(self, worker: Any) -> float:
        return self.workers.timeout if worker.ready else self.workers.start_seconds

    def _patience(self) -> float:
        """Seconds until a worker is to be looked at."""
        ends = []
        for worker in self.active:
            if worker.held or not worker.ready:
                limit = self._limit(worker)
                early = worker.ready and id(worker) not in self._slow
                ends.append(worker.since + (min(limit, SLOW_SECONDS) if early else limit))
        return max(0.0, min(ends, default=self.workers.now() + self.workers.timeout) - self.workers.now())
