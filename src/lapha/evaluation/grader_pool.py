"""Grading in worker processes with a hard time limit: no signals, works on any thread, one hang costs one problem."""

from __future__ import annotations

import json
import logging
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from lapha.evaluation.grading import Verdict

logger = logging.getLogger(__name__)

Pair = tuple[str | None, str]
_Request = Pair | tuple[str, None]
_IN_FLIGHT = 8  # requests a worker holds: enough to keep it busy, few to hand on when it hangs
_START_SECONDS = 60.0
_SLOW_SECONDS = 1.0  # a worker that has been at one pair for so long hands on those behind it, and another joins


class _Worker:
    """One process.

    Attributes:
        held: the requests that it has, in order; it is at the first of them.
        since: since when.
        slow: it has been at that one for so long that others do what is behind it.
        handed_on: those that others do.
    """

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lapha.evaluation.grader_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        self.ready = self.slow = False
        self.handed_on: set[int] = set()
        self.held: deque[int] = deque()
        self.since = time.monotonic()
        self._buffer = b""

    @property
    def output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def send(self, identity: int, pair: _Request) -> bool:
        """Hand over one request; False where the process is gone."""
        assert self.process.stdin is not None
        if not self.held:
            self.since = time.monotonic()
        try:
            self.process.stdin.write(json.dumps([identity, *pair]).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        self.held.append(identity)
        return True

    def receive(self) -> list[list] | None:
        """Replies that have arrived; None where the process has ended."""
        data = os.read(self.output, 1 << 16)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if lines and not self.ready:
            self.ready = True
            self.since = time.monotonic()
            lines = lines[1:]
        replies = [json.loads(line) for line in lines]
        for identity, *_ in replies:
            self.held.remove(identity)
            self.since = time.monotonic()
            self.slow = False
        return replies

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue


class GraderPool:
    """Grades (prediction, gold) pairs in `workers` processes. One thread at a time.

    Args:
        workers: processes, ≥ 1; one more is kept warm to take a killed one's place.
        timeout: seconds that one pair may take, > 0; its worker is then killed and the pair is ungradable.

    Raises:
        ValueError: an argument outside its range, or math-verify is missing.
    """

    def __init__(self, workers: int = 2, timeout: float = 10.0) -> None:
        if workers < 1:
            raise ValueError(f"workers: expected an integer >= 1, got {workers}")
        if not timeout > 0:
            raise ValueError(f"timeout: expected seconds > 0, got {timeout}")
        require_math_verify()
        self.workers = workers
        self.timeout = timeout
        self.unread = 0
        """Texts on which `canonical` failed, or for which it had no time."""
        self._idle: list[_Worker] = []

    def __enter__(self) -> GraderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        while self._idle:
            self._idle.pop().stop()

    def grade(self, pairs: Sequence[Pair], on_verdict: Callable[[int, Verdict], None] | None = None) -> list[Verdict]:
        """Verdicts in the order of `pairs`. Equal pairs are graded once.

        Args:
            pairs: (prediction or None, gold answer).
            on_verdict: called as verdicts come, with a pair's place (of equal pairs, the first) and its verdict.
        """
        distinct = {pair: index for index, pair in reversed(list(enumerate(pairs)))}
        if not distinct:
            return []
        verdicts = _Grading(self, {index: pair for pair, index in distinct.items()}, on_verdict).run()
        return [verdicts[distinct[pair]] for pair in pairs]

    def canonical(self, texts: Sequence[str]) -> list[str | None]:
        """A form of each text that equal mathematics shares (see `simplest_form`); None where there is none in time."""
        if not texts:
            return []
        found = _Grading(self, {index: (text, None) for index, text in enumerate(texts)}, None).run()
        for index, verdict in found.items():
            if verdict.method != "canonical":
                self.unread += 1
                logger.info("no form of %r: %s", texts[index], verdict.detail)
        return [found[index].detail if found[index].correct else None for index in range(len(texts))]

    def recruit(self) -> _Worker:
        """The worker kept warm, or a new one; the next one starts to warm up."""
        worker = self._idle.pop() if self._idle else _Worker()
        if not self._idle:
            self._idle.append(_Worker())
        return worker

    def release(self, worker: _Worker) -> None:
        """Take a worker back that has nothing to do."""
        self._idle.append(worker)


class _Grading:
    """One call of `GraderPool.grade`."""

    def __init__(
        self, pool: GraderPool, work: dict[int, _Request], on_verdict: Callable[[int, Verdict], None] | None
    ) -> None:
        self._pool, self._work, self._on_verdict = pool, work, on_verdict
        self._waiting = deque(sorted(work))
        self._verdicts: dict[int, Verdict] = {}
        self._active: list[_Worker] = []

    def run(self) -> dict[int, Verdict]:
        """Verdicts by place."""
        try:
            with selectors.DefaultSelector() as self._selector:
                for _ in range(min(self._pool.workers, len(self._work))):
                    self._join()
                while len(self._verdicts) < len(self._work):
                    self._feed()
                    for key, _ in self._selector.select(self._patience()):
                        self._take(key.data)
                    for worker in list(self._active):
                        self._look_at(worker)
            for worker in [worker for worker in self._active if not worker.held]:
                self._active.remove(worker)
                self._pool.release(worker)
        finally:
            for worker in self._active:  # interrupted, or at work that others have done: nobody wants what they hold
                worker.stop()
        return self._verdicts

    def _join(self) -> None:
        worker = self._pool.recruit()
        self._active.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)

    def _reinforce(self) -> None:
        """As many workers as there should be, beside those that are slow; at most twice as many in all."""
        able = sum(not worker.slow for worker in self._active)
        if able < self._pool.workers and len(self._active) < 2 * self._pool.workers:
            self._join()

    def _feed(self) -> None:
        for worker in self._active:
            while self._waiting and worker.ready and not worker.slow and len(worker.held) < _IN_FLIGHT:
                identity = self._waiting[0]
                if identity not in self._verdicts and not worker.send(identity, self._work[identity]):
                    break
                self._waiting.popleft()

    def _take(self, worker: _Worker) -> None:
        replies = worker.receive()
        if replies is None:
            self._end(worker, "the grader process ended")
            return
        for identity, correct, method, detail in replies:
            self._conclude(identity, Verdict(correct, method, detail))

    def _conclude(self, identity: int, verdict: Verdict) -> None:
        if identity not in self._verdicts:
            self._verdicts[identity] = verdict
            if self._on_verdict is not None:
                self._on_verdict(identity, verdict)

    def _look_at(self, worker: _Worker) -> None:
        """End a worker that hangs; let others do what waits behind one that is slow."""
        if not worker.held and worker.ready:
            return
        seconds = time.monotonic() - worker.since
        if seconds > self._limit(worker):
            self._end(worker, f"no verdict in {self._pool.timeout:g} s")
        elif worker.ready and not worker.slow and seconds > _SLOW_SECONDS:
            worker.slow = True
            self._hand_on(worker, list(worker.held)[1:])
            self._reinforce()

    def _hand_on(self, worker: _Worker, identities: Sequence[int]) -> None:
        """Put what a worker will not do, or not soon, back to the front of the queue, unless that was done before."""
        wanted = [identity for identity in identities if identity not in worker.handed_on]
        worker.handed_on.update(wanted)
        self._waiting.extendleft(reversed(wanted))

    def _end(self, worker: _Worker, why: str) -> None:
        """Kill `worker`; the pair it was at is ungradable, those behind it go back to the queue."""
        self._selector.unregister(worker.output)
        self._active.remove(worker)
        worker.stop()
        if not worker.ready:
            raise RuntimeError(
                "a grader process did not start; run `python -m lapha.evaluation.grader_worker` to see why"
            )
        if worker.held and worker.held[0] not in worker.handed_on:
            self._conclude(worker.held.popleft(), Verdict(None, "ungradable", why))
        self._hand_on(worker, worker.held)
        self._reinforce()

    def _limit(self, worker: _Worker) -> float:
        return self._pool.timeout if worker.ready else _START_SECONDS

    def _patience(self) -> float:
        """Seconds until a worker is to be looked at."""
        soonest = [
            worker.since
            + (self._limit(worker) if worker.slow or not worker.ready else min(self._limit(worker), _SLOW_SECONDS))
            for worker in self._active
            if worker.held or not worker.ready
        ]
        return max(0.0, min(soonest, default=self._pool.timeout + time.monotonic()) - time.monotonic()) + 0.01


def require_math_verify() -> None:
    """Raise `MissingExtraError` where math-verify is not installed, without importing it."""
    import importlib.util

    if importlib.util.find_spec("math_verify") is None:
        from lapha._imports import require

        require("math_verify", extra="llm")
