"""One run: a turn, a fork, the code, its limits, its result."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lapha.sandbox.jail import kernel, wire
from lapha.sandbox.jail.process import Message, Process
from lapha.sandbox.jail.registry import Processes
from lapha.sandbox.jail.states import Cell
from lapha.sandbox.jail.timers import Timers

MAX_PATHS = 4 << 20
"""Most bytes for the names and sizes of a session's files."""


@dataclass(frozen=True)
class Bounds:
    """The limits of a run, as `lapha.sandbox.Limits` names them."""

    wall_seconds: float
    cpu_seconds: float
    output_bytes: int
    file_bytes: int


Result = dict[str, Any]
"""``outcome``, ``output``, ``value``, ``error``, ``seconds``."""

Then = Callable[[Result, Process | None, bytes], None]
"""Gets the result, and if the run is to be kept its process and its files, as the process has packed them."""


class Turns:
    """How many runs may be under way, and who waits.

    Args:
        count: most at the same time.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, then: Callable[[], None]) -> None:
        """Call `then` as soon as it may; first come, first served."""
        if self._free:
            self._free -= 1
            then()
        else:
            self._waiting.append(then)

    def give_back(self) -> None:
        """A run is over."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1

    def abandon(self) -> deque[Callable[[], None]]:
        """Whoever still waits: the jail is gone."""
        queue, self._waiting = self._waiting, deque()
        return queue


class Run:
    """Runs code in a fork of a cell's process, and calls `then` once.

    Args:
        processes: the jail's.
        turns: how many runs may be under way.
        timers: for the limits.
        bounds: the limits.
        counters: outcomes are counted here.
        parent: the cell; it has a live process and is pinned.
        code: the code.
        then: gets the result.
    """

    def __init__(
        self,
        processes: Processes,
        turns: Turns,
        timers: Timers,
        bounds: Bounds,
        counters: Counter[str],
        parent: Cell,
        code: str,
        then: Then,
    ) -> None:
        self._processes, self._turns, self._timers, self._bounds = processes, turns, timers, bounds
        self._counters = counters
        self._parent, self._code, self._then = parent, code, then
        self._files = parent.files
        self._forked: Process | None = None
        self._process: Process | None = None
        self._breach = ""
        self._began = 0.0
        self._alarms: list[Callable[[], None]] = []
        turns.take(self._fork)

    def _fork(self) -> None:
        self._began = time.monotonic()
        if self._parent.process is None:  # died while this run waited for its turn
            self._finish(_result("lost"))
            return
        self._forked = self._parent.process
        self._alarms = [self._timers.after(self._bounds.wall_seconds, lambda: self._stop("timeout"))]
        self._processes.fork(self._forked, self._start, self._bounds.wall_seconds)

    def _start(self, process: Process | None) -> None:
        if process is None:
            self._finish(_result("lost"))
            return
        self._process = process
        bounds = self._bounds
        self._alarms.append(self._timers.after(bounds.cpu_seconds, self._check_cpu))
        limits = {"output_bytes": bounds.output_bytes, "file_bytes": bounds.file_bytes}
        self._processes.run(process, self._on_message, code=self._code, files=self._files, **limits)

    def _check_cpu(self) -> None:
        """One thread cannot use more processor time than time: look again when it may have."""
        if self._process is None or self._process.dead:
            return
        left = self._bounds.cpu_seconds - self._process.cpu_seconds()
        if left <= 0:
            self._stop("cpu")
        else:
            self._alarms.append(self._timers.after(max(left, 0.01), self._check_cpu))

    def _stop(self, breach: str) -> None:
        self._breach = breach
        if self._process is not None:
            self._processes.kill(self._process)
        elif self._forked is not None:  # the fork itself takes too long: what it forks has seen to that
            self._processes.give_up_fork(self._forked, self._start)
            self._finish(_result(breach))

    def _on_message(self, message: Message | None) -> None:
        result = _result(self._breach or "crashed") if message is None else _checked(message, self._bounds.output_bytes)
        process = self._process
        if message is None or process is None or process.dead or result["outcome"] not in ("ok", "error"):
            self._discard(result)
            return
        # what it says of its files is for its own successors to believe; nobody here looks into them
        files: bytes = message[1]["files"]
        if len(files) > self._bounds.file_bytes + MAX_PATHS or kernel.open_files(process.pid):
            self._discard(_result("files", result["output"]))
            return
        self._processes.send_home(process)  # nobody waits for that, but the next fork
        if process.dead:
            self._finish(_result("crashed", result["output"]))
        else:
            self._finish(result, process, files)

    def _discard(self, result: Result) -> None:
        if self._process is not None:
            self._processes.kill(self._process)
        self._finish(result)

    def _finish(self, result: Result, process: Process | None = None, files: bytes = b"") -> None:
        for cancel in self._alarms:
            cancel()
        result["seconds"] = time.monotonic() - self._began
        self._counters[result["outcome"]] += 1
        self._then(result, process, files)
        self._turns.give_back()


def _result(outcome: str, output: str = "", value: str | None = None, error: str | None = None) -> Result:
    return {"outcome": outcome, "output": output, "value": value, "error": error, "seconds": 0.0}


def _checked(message: Message, limit: int) -> Result:
    """A message that claims to be a result, as far as it can be believed."""
    kind, fields = message
    if kind != "result" or fields["outcome"] not in ("ok", "error", "memory", "output", "files"):
        return _result("crashed")
    value, error = (None if fields[name] is None else wire.cut(fields[name], limit) for name in ("value", "error"))
    return _result(fields["outcome"], wire.cut(fields["output"], limit, sign=""), value, error)
