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
from typing import Any

from lapha.evaluation.grading.forms import LONGEST
from lapha.evaluation.grading.scheduling import Schedule
from lapha.evaluation.grading.verdicts import Verdict, plain_verdict

logger = logging.getLogger(__name__)

Pair = tuple[str | None, str]
_Request = Pair | tuple[str, None]
_START_SECONDS = 60.0
_PIPE_BYTES = 48_000  # of requests that a process has not answered: less than a pipe holds


class _Worker:
    """One process (see `lapha.evaluation.grading.scheduling.Worker`)."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8:surrogatepass",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lapha.evaluation.grading.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        self.ready = False
        self.held: deque[int] = deque()
        self.since = time.monotonic()
        self.work: dict[int, _Request] = {}
        self._buffer = b""
        self._sizes: dict[int, int] = {}

    @property
    def output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def send(self, identity: int) -> bool:
        assert self.process.stdin is not None
        line = json.dumps([identity, *self.work[identity]]).encode() + b"\n"
        if self.held and sum(self._sizes.values()) + len(line) > _PIPE_BYTES:
            return False  # a worker that hangs reads nothing, and a full pipe would hold up its killer
        if not self.held:
            self.since = time.monotonic()
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        self.held.append(identity)
        self._sizes[identity] = len(line)
        return True

    def receive(self) -> list[list[Any]] | None:
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
            del self._sizes[identity]
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
        work: dict[int, _Request] = {}
        verdicts: dict[int, Verdict] = {}
        for pair, index in distinct.items():
            long = max(len(pair[0] or ""), len(pair[1])) > LONGEST  # compared by its spelling, at once
            found = plain_verdict(*pair) if long else None
            if found is None:
                work[index] = pair
            else:
                verdicts[index] = found
                if on_verdict is not None:
                    on_verdict(index, found)
        verdicts |= self._run(work, on_verdict)
        return [verdicts[distinct[pair]] for pair in pairs]

    def canonical(self, texts: Sequence[str]) -> list[str | None]:
        """A text that equal mathematics shares for each text, from math-verify's parser; None where there is none in time."""
        found = self._run({index: (text, None) for index, text in enumerate(texts)}, None)
        for index, verdict in found.items():
            if verdict.method != "canonical":
                self.unread += 1
                logger.info("no form of %r: %s", texts[index], verdict.detail)
        return [found[index].detail if found[index].correct else None for index in range(len(texts))]

    def _run(self, work: dict[int, _Request], on_verdict: Callable[[int, Verdict], None] | None) -> dict[int, Verdict]:
        if not work:
            return {}
        schedule = Schedule(_Processes(self, work), sorted(work), on_verdict)
        try:
            return schedule.run()
        finally:
            for worker in schedule.active:
                if worker.held or not worker.ready:  # interrupted, or at work that others have done
                    worker.stop()
                else:
                    self._idle.append(worker)

    def recruit(self) -> _Worker:
        """The worker kept warm, or a new one; the next one starts to warm up."""
        worker = self._idle.pop() if self._idle else _Worker()
        if not self._idle:
            self._idle.append(_Worker())
        return worker


class _Processes:
    """The pool's processes for one batch (see `lapha.evaluation.grading.scheduling.Workers`)."""

    start_seconds = _START_SECONDS

    def __init__(self, pool: GraderPool, work: dict[int, _Request]) -> None:
        self._pool, self._work = pool, work

    @property
    def count(self) -> int:
        return self._pool.workers

    @property
    def timeout(self) -> float:
        return self._pool.timeout

    def recruit(self) -> _Worker:
        worker = self._pool.recruit()
        worker.work = self._work
        return worker

    def wait(self, workers: Sequence[_Worker], seconds: float) -> list[_Worker]:
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            return [key.data for key, _ in selector.select(seconds + 0.01)]

    def now(self) -> float:
        return time.monotonic()


def require_math_verify() -> None:
    """Raise `MissingExtraError` where math-verify is not installed, without importing it."""
    import importlib.util

    if importlib.util.find_spec("math_verify") is None:
        from lapha._imports import require

        require("math_verify", extra="llm")
