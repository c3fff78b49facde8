"""A process's way into namespaces of its own, and back: three system calls that the supervisor lets through one by one.

A branch's processes have the right to change namespaces, in the jail's user namespace and no other, and no system call
with which to use it but these, each of which waits for the supervisor. Before a run, a process goes into a mount and an
IPC namespace of its own, and mounts its private folder there, which nobody else can see; after it, it comes home to
those that all waiting processes share and nobody can write in. The old ones, and all files, are then gone. What is let
through is checked to the byte. The process has one thread and shares no memory, so that nothing changes in between.
"""

from __future__ import annotations

import errno

from lapha.sandbox.jail import kernel
from lapha.sandbox.jail.confine import HOME_NUMBER, MOUNT_FLAGS, NAMESPACES, WORK_AT
from lapha.sandbox.jail.process import Process

UNSHARE, MOUNT, SETNS = 272, 165, 308
STEPS = (UNSHARE, MOUNT, SETNS)

MAX_INODES = 4096
"""Most files and folders that a run may make: they cost kernel memory that no other limit counts."""


def mount_options(size: int) -> str:
    """Of a run's private folder."""
    return f"size={size},nr_inodes={MAX_INODES},mode=700"


class Broker:
    """Lets processes change namespaces exactly as they are told to.

    Args:
        listener: the filter's file descriptor.
        home: the template, in whose namespaces all waiting processes are.
        size: bytes of a run's private folder.
    """

    def __init__(self, listener: int, home: Process, size: int) -> None:
        self._listener = listener
        self._home = home
        self._at_home = kernel.namespaces(home.pid)
        strings = {0: "tmpfs", 1: WORK_AT, 2: "tmpfs", 4: mount_options(size)}
        self._strings = {index: text.encode() + b"\0" for index, text in strings.items()}

    def answer(self, process: Process | None, notification: kernel.Notification) -> bool:
        """Let a step through if it is the one that this process has been told to take; whether it was."""
        told = process is not None and bool(process.steps) and process.steps[0] == notification.number
        if not told or process is None or not self._allowed(notification):
            kernel.answer(self._listener, notification.id, error=errno.EPERM)
            return False
        process.steps.popleft()
        kernel.answer(self._listener, notification.id, let_through=True)
        return True

    def is_home(self, process: Process) -> bool:
        """Whether a waiting process has nothing but its memory: no namespace of its own, and no open file."""
        return kernel.namespaces(process.pid) == self._at_home and not kernel.open_files(process.pid)

    def _allowed(self, notification: kernel.Notification) -> bool:
        arguments = notification.arguments
        if notification.number == UNSHARE:
            return arguments[0] == NAMESPACES
        if notification.number == MOUNT:
            away = all(own != home for own, home in zip(self._namespaces(notification), self._at_home, strict=True))
            return (
                away
                and arguments[3] == MOUNT_FLAGS
                and all(
                    kernel.read_memory(notification.pid, arguments[index], len(text)) == text
                    for index, text in self._strings.items()
                )
            )
        handed = arguments[:2] == (HOME_NUMBER, NAMESPACES)
        return handed and kernel.give_descriptor(self._listener, notification.id, self._home.pidfd, HOME_NUMBER)

    def _namespaces(self, notification: kernel.Notification) -> tuple[str, ...]:
        return kernel.namespaces(notification.pid) or self._at_home
