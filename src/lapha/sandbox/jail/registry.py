"""All processes of the jail: waking them, forking them, hearing what they say, ending them."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable

from lapha.sandbox.jail import kernel, wire
from lapha.sandbox.jail.broker import MOUNT, SETNS, STEPS, UNSHARE, Broker
from lapha.sandbox.jail.kernel import parent_of, parents
from lapha.sandbox.jail.process import Message, Process
from lapha.sandbox.jail.seccomp import FORK_FLAGS, HYPERCALL, NR_CLONE
from lapha.sandbox.jail.timers import Timers

FORK_LOOK_SECONDS = 0.4
"""How often a fork that is not done is looked at: whether its child still lives. Its limit is the run's own."""

HOME_SECONDS = 1.0
"""How long a process may take to leave its namespaces; what does not, after giving its result, is ended."""

MAX_REFUSED = 100
"""How often a process may try to start another before it is ended: each try costs the supervisor time."""


_MOST_AT_ONCE = 256


class Processes:
    """All processes of one jail; wakes them, and hears what they say.

    Args:
        listener: the filter's file descriptor.
        selector: where process handles are watched; their data is a callable.
        timers: for deadlines.
        max_message: longest message of a process, in bytes.
        file_bytes: size of a run's private folder.
        top: pid of bwrap, from which all of them descend.
        counters: what is out of the ordinary is counted here.
    """

    def __init__(
        self,
        listener: int,
        selector: selectors.BaseSelector,
        timers: Timers,
        max_message: int,
        file_bytes: int,
        top: int,
        counters: Counter[str],
    ) -> None:
        self._counters = counters
        self._top = top
        self._outsiders: set[int] = set()
        self._listener = listener
        self._selector = selector
        self._timers = timers
        self._max_message, self._file_bytes = max_message, file_bytes
        self._by_pid: dict[int, Process] = {}

    def __len__(self) -> int:
        return sum(not process.dead for process in self._by_pid.values())

    def first(self, seconds: float) -> Process | None:
        """The template: the first process to ask, within `seconds`; None if there is none, or it may not be read."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(1000 * left) and (notification := kernel.receive(self._listener)):
                # at this moment bwrap and its reaper are the only others in there
                family = parents()
                self._outsiders = {pid for pid in family if self._inside(pid, family)} - {notification.pid}
                template = None if self._read(notification) is None else self._adopt(notification)
                if template is not None:
                    template.trusted = True
                    self._broker = Broker(self._listener, template, self._file_bytes)
                return template
        return None

    def on_notifications(self) -> None:
        """Answer the processes that wait in system calls that are the supervisor's to answer."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        for _ in range(_MOST_AT_ONCE):
            if not poll.poll(0):
                return
            notification = kernel.receive(self._listener)
            if notification is not None:
                self._on_notification(notification)

    def _on_notification(self, notification: kernel.Notification) -> None:
        process = self._by_pid.get(notification.pid)
        if process is not None and process.has_ended():
            self._gone(process)  # and its number has been given to another one
            process = None
        if process is not None and process.dead:
            return  # killed, and not yet gone: what it still says must not be taken for a newborn's
        if notification.number == NR_CLONE:
            self._on_clone(process, notification)
        elif notification.number == HYPERCALL:
            self._on_message(process or self._newborn(notification), notification)
        elif notification.number in STEPS:
            if not self._broker.answer(process, notification):
                self._refused(process)
        else:  # the filter sends nothing else
            kernel.answer(self._listener, notification.id, error=errno.ENOSYS)

    def fork(self, parent: Process, then: Callable[[Process | None], None], seconds: float) -> None:
        """Fork a waiting process; `then` gets the child, waiting, or None if there is none to be had.

        Within `seconds` the process must be back from it; it is ended otherwise.
        """
        if parent.dead:
            then(None)
        elif parent.expects_child or parent.waits is None:
            parent.forks.append((then, seconds))
        else:
            parent.expects_child, parent.may_clone = then, True
            if not parent.trusted:
                turn, deadline = parent.turn, time.monotonic() + seconds
                self._timers.after(FORK_LOOK_SECONDS, lambda: self._check_fork(parent, then, turn, deadline))
            self._wake(parent, wire.encode(wire.TO_GUEST, "fork"))

    def _check_fork(self, parent: Process, then: Callable[[Process | None], None], turn: int, deadline: float) -> None:
        """End a process that has come back from a fork whose child is dead, or that does not come back in time."""
        back, born = parent.turn != turn, parent.expects_child != then
        if parent.dead or (back and born):
            return
        newborn = (pid for pid, of in parents().items() if of == parent.pid and pid not in self._by_pid)
        childless = back and not born and next(newborn, None) is None
        if childless or (not back and time.monotonic() > deadline):
            self._counters["stuck_fork"] += 1
            self.kill(parent)
        else:
            self._timers.after(FORK_LOOK_SECONDS, lambda: self._check_fork(parent, then, turn, deadline))

    def give_up_fork(self, parent: Process, then: Callable[[Process | None], None]) -> None:
        """`then` no longer wants its fork of this process, which has taken too long."""
        queued = next((fork for fork in parent.forks if fork[0] == then), None)
        if queued is not None:
            parent.forks.remove(queued)
        elif parent.expects_child == then:
            parent.expects_child = self._unwanted
            if not parent.trusted:
                self._counters["stuck_fork"] += 1
                self.kill(parent)

    def _unwanted(self, child: Process | None) -> None:
        if child is not None:
            self.kill(child)

    def abandon(self) -> None:
        """The jail is gone: so are all its processes, whether that has been noticed or not."""
        for process in list(self._by_pid.values()):
            self.kill(process)

    def command(
        self, process: Process, then: Callable[[Message | None], None], kind: str, **fields: str | int | bytes
    ) -> None:
        """Give a waiting process work; `then` gets its next message, or None if it dies or writes garbage."""
        message = wire.encode(wire.TO_GUEST, kind, **fields)
        if process.waits is not None and len(message) > process.waits.arguments[3]:

            def grown(answer: Message | None) -> None:
                if answer is None:
                    then(None)
                else:
                    process.then = then
                    self._wake(process, message)

            process.then = grown
            self._wake(process, wire.encode(wire.TO_GUEST, "grow", size=len(message)))
        else:
            process.then = then
            self._wake(process, message)

    def run(self, process: Process, then: Callable[[Message | None], None], **fields: str | int | bytes) -> None:
        """Have a newborn process go into namespaces of its own and run code there; `then` gets the result."""
        process.steps.extend((UNSHARE, MOUNT))
        self.command(process, then, "run", **fields)

    def send_home(self, process: Process) -> None:
        """Have a process that has run code leave its namespaces, and all of its files with them.

        Forks that are asked for meanwhile wait. One that does not come home is ended.
        """

        def came(message: Message | None) -> None:
            cancel()
            if message is not None and not self._broker.is_home(process):
                self._counters["not_home"] += 1
                self.kill(process)

        process.steps.clear()
        process.steps.append(SETNS)
        cancel = self._timers.after(HOME_SECONDS, lambda: self.kill(process))
        self.command(process, came, "leave")

    def kill(self, process: Process) -> None:
        """End a process now. Whoever waits for it is told; its number stays taken until the kernel says it is gone."""
        if process.dead:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        self._mourn(process)

    def sweep(self) -> None:
        """End processes of the jail that nobody expects: born of a fork that was given up, and silent."""
        family = parents()
        forking = {pid for pid, process in self._by_pid.items() if process.expects_child is not None}
        for pid, parent in family.items():
            stranger = pid not in self._by_pid and parent not in forking and pid not in self._outsiders
            if stranger and self._inside(pid, family):
                with contextlib.suppress(OSError):
                    pidfd = os.pidfd_open(pid)
                    # the handle is taken: look again whether it is still the same process
                    if parent_of(pid) == parent:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    os.close(pidfd)

    def _inside(self, pid: int, family: dict[int, int]) -> bool:
        """Whether a process descends from the jail's first."""
        while pid > 1 and pid != self._top:
            pid = family.get(pid, 0)
        return pid == self._top

    # What processes do ---------------------------------------------------------------------------------------

    def _on_clone(self, process: Process | None, notification: kernel.Notification) -> None:
        allowed = process is not None and process.may_clone and notification.arguments[0] == FORK_FLAGS
        if allowed and process is not None:
            process.may_clone = False
            kernel.answer(self._listener, notification.id, let_through=True)
            return
        kernel.answer(self._listener, notification.id, error=errno.EPERM)
        self._refused(process)

    def _refused(self, process: Process | None) -> None:
        if process is not None:
            process.refused += 1
            if process.refused > MAX_REFUSED:
                self._counters["fork_bomb"] += 1
                self.kill(process)

    def _on_message(self, process: Process | None, notification: kernel.Notification) -> None:
        if process is None:
            return
        message = self._read(notification)
        process.waits = notification
        process.turn += 1
        if message is None:
            self._counters["garbled"] += 1
            self.kill(process)
        elif process.then is not None:
            then, process.then = process.then, None
            then(message)
        elif process.may_clone:  # told to fork, and came back without
            self._counters["no_fork"] += 1
            self.kill(process)
        self._next_fork(process)

    def _newborn(self, notification: kernel.Notification) -> Process | None:
        """A process that nobody knows yet: the child of whoever was told to fork, or an intruder."""
        parent = self._by_pid.get(parent_of(notification.pid))
        if parent is None or parent.expects_child is None or parent.may_clone:
            self._counters["intruder"] += 1
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(notification.pid)
                if kernel.still_waits(self._listener, notification.id):
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
            self.fork(process, *process.forks.popleft())

    def _adopt(self, notification: kernel.Notification) -> Process | None:
        try:
            pidfd = os.pidfd_open(notification.pid)
        except OSError:
            return None
        if not kernel.still_waits(self._listener, notification.id):
            os.close(pidfd)
            return None
        process = Process(notification.pid, pidfd, notification)
        self._by_pid[process.pid] = process
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._gone(process))
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/oom_score_adj", "w") as file:
            file.write("800")  # if memory runs out, branches go first
        return process

    def _read(self, notification: kernel.Notification) -> Message | None:
        address, size = notification.arguments[:2]
        if size > self._max_message:
            return None
        data = kernel.read_memory(notification.pid, address, size)
        if data is None:
            return None
        try:
            return wire.decode(wire.FROM_GUEST, data)
        except wire.Garbled:
            return None

    def _wake(self, process: Process, data: bytes) -> None:
        waits, process.waits = process.waits, None
        if waits is None:
            raise RuntimeError("a process that works cannot take a command")
        address, capacity = waits.arguments[2:4]
        fits = len(data) <= capacity and kernel.write_memory(process.pid, address, data)
        if not fits or not kernel.answer(self._listener, waits.id, len(data)):
            self.kill(process)

    def _gone(self, process: Process) -> None:
        """The kernel says that a process has ended."""
        if self._by_pid.get(process.pid) is not process:
            return
        self._selector.unregister(process.pidfd)
        os.close(process.pidfd)
        del self._by_pid[process.pid]
        if not process.dead:
            self._mourn(process)

    def _mourn(self, process: Process) -> None:
        """Tell everybody who waits for a process that it is dead."""
        process.dead = True
        if process.expects_child is not None and not process.may_clone:
            self._timers.after(0.1, self.sweep)  # its child is born, and has not been heard of
        waiting = [process.expects_child, *(then for then, _ in process.forks)]
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
