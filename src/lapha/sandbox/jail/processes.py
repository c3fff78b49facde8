"""The jail's processes as the supervisor sees them: waiting, forking, running, dead."""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import json
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from lapha.sandbox.jail import notify
from lapha.sandbox.jail.seccomp import FORK_FLAGS, HYPERCALL, NR_CLONE

FORK_SECONDS = 5.0
"""How long a fork may take, of both sides: milliseconds, on a machine that is not overloaded."""

MAX_REFUSED = 100
"""How often a process may try to start another before it is ended: each try costs the supervisor time."""

_HUGE = 2 << 20
_TICKS = os.sysconf("SC_CLK_TCK")

Message = dict[str, Any]


class Timers:
    """Things to do later."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, list[Callable[[], None]]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        """Call `action` in a while; returns a function that takes this back."""
        entry = [action]
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), entry))
        return entry.clear

    def run_due(self) -> float | None:
        """Do what is due; seconds until the next one, or None."""
        while self._heap:
            when, _, entry = self._heap[0]
            if entry and (wait := when - time.monotonic()) > 0:
                return wait
            heapq.heappop(self._heap)
            if entry:
                entry[0]()
        return None


class Process:
    """One process of the jail, which holds one branch's state.

    Attributes:
        pid: its number, as seen outside the jail.
        pidfd: a handle that cannot come to mean another process.
        waits: where it waits for a command; None while it works.
        then: who gets the next message of a working process (None if it died or wrote garbage).
        expects_child: who gets the process that it is about to fork.
        may_clone: whether the one `clone` of that fork is still to come.
        forks: who else wants a fork of it.
        turn: counts its messages, so that a deadline knows whether it is still meant.
        refused: how often it has tried to start another process.
    """

    def __init__(self, pid: int, pidfd: int, waits: notify.Notification | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.waits = waits
        self.then: Callable[[Message | None], None] | None = None
        self.expects_child: Callable[[Process | None], None] | None = None
        self.may_clone = False
        self.forks: deque[Callable[[Process | None], None]] = deque()
        self.on_death: Callable[[], None] | None = None
        self.dead = False
        self.turn = 0
        self.refused = 0

    def cpu_seconds(self) -> float:
        """Processor time used since it was forked."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def private_bytes(self) -> int:
        """Memory that would be free without it."""
        try:
            with open(f"/proc/{self.pid}/smaps_rollup", "rb") as file:
                lines = [line.split() for line in file if line.startswith(b"Private_")]
        except OSError:
            return 0
        return sum(int(line[1]) << 10 for line in lines)

    def large_ranges(self) -> list[tuple[int, int]]:
        """Start and size of its private memory, in whole huge pages."""
        found = []
        with open(f"/proc/{self.pid}/maps") as file:
            for line in file:
                span, rights, _, _, inode, *name = line.split()
                start, end = (int(bound, 16) for bound in span.split("-"))
                start, end = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
                if inode == "0" and rights == "rw-p" and end > start and name != ["[stack]"]:
                    found.append((start, end - start))
        return found

    def open_files(self) -> set[str]:
        """Its open file descriptors, but for the three standard ones."""
        try:
            return set(os.listdir(f"/proc/{self.pid}/fd")) - {"0", "1", "2"}
        except OSError:
            return set()


class Processes:
    """All processes of one jail; wakes them, and hears what they say.

    Args:
        listener: the filter's file descriptor.
        selector: where process handles are watched; their data is a callable.
        timers: for deadlines.
        max_message: longest message of a process, in bytes.
        top: pid of bwrap, from which all of them descend.
    """

    def __init__(
        self, listener: int, selector: selectors.BaseSelector, timers: Timers, max_message: int, top: int
    ) -> None:
        self._top = top
        self._outsiders: set[int] = set()
        self._listener = listener
        self._selector = selector
        self._timers = timers
        self._max_message = max_message
        self._by_pid: dict[int, Process] = {}

    def __len__(self) -> int:
        return len(self._by_pid)

    def first(self, seconds: float) -> Process | None:
        """The template: the first process to ask, within `seconds`; None if there is none, or it may not be read."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._listener, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if waiting.select(left) and (notification := notify.receive(self._listener)):
                    # at this moment bwrap and its reaper are the only others in there
                    parents = _parents()
                    self._outsiders = {pid for pid in parents if self._inside(pid, parents)} - {notification.pid}
                    return None if self._read(notification) is None else self._adopt(notification)
        return None

    def on_notification(self) -> None:
        """A process waits in a system call that is the supervisor's to answer."""
        notification = notify.receive(self._listener)
        if notification is None:
            return
        process = self._by_pid.get(notification.pid)
        if notification.number == NR_CLONE:
            self._on_clone(process, notification)
        elif notification.number == HYPERCALL:
            self._on_message(process or self._newborn(notification), notification)
        else:  # the filter sends nothing else
            notify.answer(self._listener, notification.id, error=errno.ENOSYS)

    def fork(self, parent: Process, then: Callable[[Process | None], None]) -> None:
        """Fork a waiting process; `then` gets the child, waiting, or None if there is none to be had."""
        if parent.dead:
            then(None)
        elif parent.expects_child or parent.waits is None:
            parent.forks.append(then)
        else:
            parent.expects_child, parent.may_clone = then, True
            turn = parent.turn

            def too_late() -> None:
                if parent.turn == turn or parent.expects_child is then:
                    self.kill(parent)

            self._timers.after(FORK_SECONDS, too_late)
            self._wake(parent, {"do": "fork"})

    def command(self, process: Process, command: Message, then: Callable[[Message | None], None]) -> None:
        """Give a waiting process work; `then` gets its next message, or None if it dies or writes garbage."""
        process.then = then
        self._wake(process, command)

    def kill(self, process: Process) -> None:
        """End a process now. Whoever waits for it is told."""
        if process.dead:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        self._forget(process)

    def sweep(self) -> None:
        """End processes of the jail that nobody expects: born of a fork that was given up, and silent."""
        parents = _parents()
        forking = {pid for pid, process in self._by_pid.items() if process.expects_child is not None}
        for pid, parent in parents.items():
            stranger = pid not in self._by_pid and parent not in forking and pid not in self._outsiders
            if stranger and self._inside(pid, parents):
                with contextlib.suppress(OSError):
                    pidfd = os.pidfd_open(pid)
                    # the handle is taken: look again whether it is still the same process
                    if _parent_of(pid) == parent:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    os.close(pidfd)

    def _inside(self, pid: int, parents: dict[int, int]) -> bool:
        """Whether a process descends from the jail's first."""
        while pid > 1 and pid != self._top:
            pid = parents.get(pid, 0)
        return pid == self._top

    # What processes do ---------------------------------------------------------------------------------------

    def _on_clone(self, process: Process | None, notification: notify.Notification) -> None:
        allowed = process is not None and process.may_clone and notification.arguments[0] == FORK_FLAGS
        if allowed and process is not None:
            process.may_clone = False
            notify.answer(self._listener, notification.id, let_through=True)
            return
        notify.answer(self._listener, notification.id, error=errno.EPERM)
        if process is not None:
            process.refused += 1
            if process.refused > MAX_REFUSED:
                self.kill(process)

    def _on_message(self, process: Process | None, notification: notify.Notification) -> None:
        if process is None:
            return
        message = self._read(notification)
        process.waits = notification
        process.turn += 1
        if message is None:
            self.kill(process)
        elif process.then is not None:
            then, process.then = process.then, None
            then(message)
        elif process.may_clone:  # told to fork, and came back without
            self.kill(process)
        self._next_fork(process)

    def _newborn(self, notification: notify.Notification) -> Process | None:
        """A process that nobody knows yet: the child of whoever was told to fork, or an intruder."""
        parent = self._by_pid.get(_parent_of(notification.pid))
        if parent is None or parent.expects_child is None or parent.may_clone:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(notification.pid)
                if notify.still_waits(self._listener, notification.id):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
            return None
        child = self._adopt(notification)
        then, parent.expects_child = parent.expects_child, None
        then(child)
        self._next_fork(parent)
        return None

    def _next_fork(self, process: Process) -> None:
        if process.forks and not process.dead and process.expects_child is None and process.waits is not None:
            self.fork(process, process.forks.popleft())

    def _adopt(self, notification: notify.Notification) -> Process | None:
        try:
            pidfd = os.pidfd_open(notification.pid)
        except OSError:
            return None
        if not notify.still_waits(self._listener, notification.id):
            os.close(pidfd)
            return None
        process = Process(notification.pid, pidfd, notification)
        self._by_pid[process.pid] = process
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._forget(process))
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/oom_score_adj", "w") as file:
            file.write("800")  # if memory runs out, branches go first
        return process

    def _read(self, notification: notify.Notification) -> Message | None:
        address, size = notification.arguments[:2]
        if size > self._max_message:
            return None
        data = notify.read_memory(notification.pid, address, size)
        try:
            message = json.loads(data or b"")
        except (ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    def _wake(self, process: Process, command: Message) -> None:
        data = json.dumps(command).encode()
        waits, process.waits = process.waits, None
        if waits is None:
            raise RuntimeError("a process that works cannot take a command")
        address, capacity = waits.arguments[2:4]
        fits = len(data) <= capacity and notify.write_memory(process.pid, address, data)
        if not fits or not notify.answer(self._listener, waits.id, len(data)):
            self.kill(process)

    def _forget(self, process: Process) -> None:
        """A process has died."""
        if process.dead:
            return
        process.dead = True
        self._selector.unregister(process.pidfd)
        os.close(process.pidfd)
        del self._by_pid[process.pid]
        if process.expects_child is not None and not process.may_clone:
            self._timers.after(0.1, self.sweep)  # its child is born, and has not been heard of
        waiting = [process.expects_child, *process.forks]
        process.expects_child = None
        process.forks.clear()
        if process.on_death is not None:
            process.on_death()
        if process.then is not None:
            then, process.then = process.then, None
            then(None)
        for wanted in waiting:
            if wanted is not None:
                wanted(None)


def _parents() -> dict[int, int]:
    """Parent of every process of this machine."""
    return {int(name): _parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}


def _parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return -1
