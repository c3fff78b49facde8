"""One run: a slot, a fork, the code, its limits, its result."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lapha.sandbox.jail.history import Cell
from lapha.sandbox.jail.process import Message, Process
from lapha.sandbox.jail.processes import Processes
from lapha.sandbox.jail.timers import Timers
from lapha.sandbox.jail.workspace import Slot, Slots

_LOOK_SECONDS = 0.05
_CUT = "…"

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


class Run:
    """Runs code in a fork of a cell's process, and calls `then` once.

    Args:
        processes: the jail's.
        slots: the jail's.
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
        slots: Slots,
        timers: Timers,
        bounds: Bounds,
        counters: Counter[str],
        parent: Cell,
        code: str,
        then: Then,
    ) -> None:
        self._processes, self._slots, self._timers, self._bounds = processes, slots, timers, bounds
        self._counters = counters
        self._parent, self._code, self._then = parent, code, then
        self._files = parent.files
        self._slot: Slot | None = None
        self._forked: Process | None = None
        self._process: Process | None = None
        self._breach = ""
        self._began = 0.0
        self._alarms: list[Callable[[], None]] = []
        slots.take(self._fork)

    def _fork(self, slot: Slot) -> None:
        self._slot = slot
        if self._parent.process is None:  # died while this run waited for a slot
            self._finish(_result("lost"), None, b"", clear=False)
            return
        self._began = time.monotonic()
        self._forked = self._parent.process
        self._alarms = [self._timers.after(self._bounds.wall_seconds, lambda: self._stop("timeout"))]
        self._processes.fork(self._forked, self._start, self._bounds.wall_seconds)

    def _start(self, process: Process | None) -> None:
        assert self._slot is not None
        if process is None:
            self._cancel()
            self._finish(_result("lost") | {"seconds": self._seconds()}, None, b"", clear=False)
            return
        self._process = process
        directory = self._slot.prepare()
        bounds = self._bounds
        self._alarms += [
            self._timers.after(bounds.cpu_seconds, self._check_cpu),
            self._timers.after(_LOOK_SECONDS, self._check_files),
        ]
        limits = {"output_bytes": bounds.output_bytes, "file_bytes": bounds.file_bytes}
        work: dict[str, Any] = {"code": self._code, "directory": directory, "files": self._files, **limits}
        self._processes.command(process, self._on_message, "run", **work)

    def _check_cpu(self) -> None:
        """One thread cannot use more processor time than time: look again when it may have."""
        if self._process is None or self._process.dead:
            return
        left = self._bounds.cpu_seconds - self._process.cpu_seconds()
        if left <= 0:
            self._stop("cpu")
        else:
            self._alarms.append(self._timers.after(max(left, 0.01), self._check_cpu))

    def _check_files(self) -> None:
        """The size of its folder is bounded, the number of files is not."""
        if self._process is None or self._process.dead or self._slot is None:
            return
        if self._slot.crowded:
            self._stop("files")
        else:
            self._alarms.append(self._timers.after(_LOOK_SECONDS, self._check_files))

    def _stop(self, breach: str) -> None:
        self._breach = breach
        if self._process is not None:
            self._processes.kill(self._process)
        elif self._forked is not None:  # the fork itself takes too long: what it forks has seen to that
            self._processes.give_up_fork(self._forked, self._start)
            self._finish(_result(breach) | {"seconds": self._seconds()}, None, b"", clear=False)

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _cancel(self) -> None:
        for cancel in self._alarms:
            cancel()

    def _on_message(self, message: Message | None) -> None:
        self._cancel()
        result = _result(self._breach or "crashed") if message is None else _checked(message, self._bounds.output_bytes)
        result["seconds"] = self._seconds()
        process = self._process
        if process is None or process.dead or result["outcome"] not in ("ok", "error"):
            self._discard(result)
            return
        assert self._slot is not None
        # what it says of its files is for its own successors to believe; nobody here opens one
        assert message is not None
        files: bytes = message[1]["files"]
        kept = not process.open_files() and len(files) <= self._bounds.file_bytes + MAX_PATHS
        if kept:
            self._slot.clear()
        if not kept or not self._slot.empty:
            self._discard(_result("files", result["output"]) | {"seconds": result["seconds"]})
            return
        self._finish(result, process, files, clear=False)

    def _discard(self, result: Result) -> None:
        if self._process is not None:
            self._processes.kill(self._process)
        self._finish(result, None, b"", clear=True)

    def _finish(self, result: Result, process: Process | None, files: bytes, *, clear: bool) -> None:
        slot, self._slot = self._slot, None
        self._counters[result["outcome"]] += 1
        self._then(result, process, files)
        if slot is not None:
            if clear:
                self._slots.clear_aside(slot)
            else:
                self._slots.give_back(slot)


def _result(outcome: str, output: str = "", value: str | None = None, error: str | None = None) -> Result:
    return {"outcome": outcome, "output": output, "value": value, "error": error, "seconds": 0.0}


def _checked(message: Message, limit: int) -> Result:
    """A message that claims to be a result, as far as it can be believed."""
    kind, fields = message
    if kind != "result" or fields["outcome"] not in ("ok", "error", "memory", "output", "files"):
        return _result("crashed")
    value, error = (None if fields[name] is None else cut(fields[name], limit) for name in ("value", "error"))
    return _result(fields["outcome"], cut(fields["output"], limit), value, error)


def cut(text: str, limit: int) -> str:
    """The text, or as much of it as fits into so many bytes with a sign that it is cut."""
    data = text.encode()
    if len(data) <= limit + len(_CUT.encode()):
        return text
    return data[:limit].decode("utf-8", "ignore") + _CUT
