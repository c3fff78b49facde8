"""Grading in worker processes with a hard time limit: no signals, works on any thread, one hang costs one problem."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from lapha.evaluation.grading import Verdict

Pair = tuple[str | None, str]
_IN_FLIGHT = 8  # requests a worker holds: enough to keep it busy, few to hand on when it hangs
_START_SECONDS = 60.0


class _Worker:
    """One process, the requests it holds in order, and since when it has been at the first of them."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lapha.evaluation.grader_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        self.ready = False
        self.held: deque[int] = deque()
        self.since = time.monotonic()
        self._buffer = b""

    @property
    def output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def send(self, identity: int, pair: Pair) -> bool:
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
    """Grades (prediction, gold) pairs in `workers` processes.

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
        self.workers = workers
        self.timeout = timeout
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

    def grade(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Verdicts in the order of `pairs`. Equal pairs are graded once."""
        _require_math_verify()
        distinct = {pair: index for index, pair in reversed(list(enumerate(pairs)))}
        verdicts: dict[int, Verdict] = {}
        if distinct:
            self._run({index: pair for pair, index in distinct.items()}, verdicts)
        return [verdicts[distinct[pair]] for pair in pairs]

    def _run(self, work: dict[int, Pair], verdicts: dict[int, Verdict]) -> None:
        waiting = deque(sorted(work))
        active = [self._idle.pop() if self._idle else _Worker() for _ in range(min(self.workers, len(work)))]
        if not self._idle:
            self._idle.append(_Worker())
        try:
            with selectors.DefaultSelector() as selector:
                for worker in active:
                    selector.register(worker.output, selectors.EVENT_READ, worker)
                while len(verdicts) < len(work):
                    self._feed(active, waiting, work)
                    for key, _ in selector.select(self._patience(active)):
                        self._take(key.data, active, waiting, verdicts, selector)
                    for worker in [worker for worker in active if self._overdue(worker)]:
                        self._replace(worker, active, waiting, verdicts, selector, f"no verdict in {self.timeout:g} s")
            self._idle += active
            active = []
        finally:
            for worker in active:  # interrupted: what they hold is nobody's any more
                worker.stop()

    def _feed(self, active: list[_Worker], waiting: deque[int], work: dict[int, Pair]) -> None:
        for worker in active:
            while waiting and worker.ready and len(worker.held) < _IN_FLIGHT:
                if not worker.send(waiting[0], work[waiting[0]]):
                    break
                waiting.popleft()

    def _take(
        self,
        worker: _Worker,
        active: list[_Worker],
        waiting: deque[int],
        verdicts: dict[int, Verdict],
        selector: selectors.BaseSelector,
    ) -> None:
        replies = worker.receive()
        if replies is None:
            self._replace(worker, active, waiting, verdicts, selector, "the grader process ended")
            return
        for identity, correct, method, detail in replies:
            verdicts[identity] = Verdict(correct, method, detail)

    def _replace(
        self, worker: _Worker, active: list[_Worker], waiting: deque[int], verdicts: dict[int, Verdict],
        selector: selectors.BaseSelector, why: str,
    ) -> None:  # fmt: skip
        """Kill `worker`; the pair it was at is ungradable, those behind it go back to the front of the queue."""
        selector.unregister(worker.output)
        active.remove(worker)
        worker.stop()
        if not worker.ready:
            raise RuntimeError(
                "a grader process did not start; run `python -m lapha.evaluation.grader_worker` to see why"
            )
        if worker.held:
            verdicts[worker.held.popleft()] = Verdict(None, "ungradable", why)
        waiting.extendleft(reversed(worker.held))
        successor = self._idle.pop() if self._idle else _Worker()
        self._idle.append(_Worker())
        active.append(successor)
        selector.register(successor.output, selectors.EVENT_READ, successor)

    def _limit(self, worker: _Worker) -> float:
        return self.timeout if worker.ready else _START_SECONDS

    def _overdue(self, worker: _Worker) -> bool:
        return (bool(worker.held) or not worker.ready) and time.monotonic() - worker.since > self._limit(worker)

    def _patience(self, active: list[_Worker]) -> float:
        now = time.monotonic()
        busy = [worker.since + self._limit(worker) - now for worker in active if worker.held or not worker.ready]
        return max(0.0, min(busy, default=self.timeout)) + 0.01


def _require_math_verify() -> None:
    import importlib.util

    if importlib.util.find_spec("math_verify") is None:
        from lapha._imports import require

        require("math_verify", extra="llm")
