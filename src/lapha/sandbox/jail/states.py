"""What sessions are made of: cells, each a step's code on top of another cell.

A cell *is* a state: the code of all cells up to it, run in order. A live process may hold that state ready to be
forked; without one the state can be had again by running the code again. Sessions point at cells, and forking a
session copies the pointer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from lapha.sandbox.jail.process import Process


class Cell:
    """One state.

    Attributes:
        before: the state that the code ran in; None for the template.
        code: the code.
        files: the session's files after it, as its process has packed them; only with a process.
        process: who holds the state, or None if it must be rebuilt first.
        sessions: how many sessions are in this state.
        pins: how many runs are about to fork it; it is not evicted meanwhile.
        rebuilding: who waits for it to be rebuilt.
        size: private memory of its process when it was last measured, and its files, in bytes.
    """

    __slots__ = ("before", "code", "files", "pins", "process", "rebuilding", "sessions", "size")

    def __init__(self, before: Cell | None, code: str, files: bytes, process: Process | None) -> None:
        self.before = before
        self.code = code
        self.files = files
        self.process = process
        self.sessions = 0
        self.pins = 0
        self.size = 0
        self.rebuilding: list[Callable[[Process | None], None]] = []


class Session:
    """A name for a state that changes with every run.

    Attributes:
        cell: its state; None while the fork that makes it waits for its parent's runs.
        todo: what to do with it once it is not busy, in order.
        busy: whether a run is under way.
    """

    __slots__ = ("busy", "cell", "todo")

    def __init__(self, cell: Cell | None) -> None:
        self.cell = cell
        self.todo: deque[Callable[[], None]] = deque()
        self.busy = cell is None

    def enqueue(self, action: Callable[[], None]) -> None:
        """Do something with the session after what is under way."""
        self.todo.append(action)
        self.go_on()

    def go_on(self) -> None:
        """Do what can be done now."""
        while self.todo and not self.busy:
            self.todo.popleft()()
