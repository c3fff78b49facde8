"""One process of the jail, and what the kernel says of processes."""

from __future__ import annotations

import os
import select
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from lapha.sandbox.jail import notify

_HUGE = 2 << 20
_TICKS = os.sysconf("SC_CLK_TCK")

Message = tuple[str, dict[str, Any]]
"""Kind and fields."""


class Process:
    """One process of the jail, which holds one branch's state.

    Attributes:
        pid: its number, as seen outside the jail.
        pidfd: a handle that cannot come to mean another process.
        waits: where it waits for a command; None while it works.
        then: who gets the next message of a working process (None if it died or wrote garbage).
        expects_child: who gets the process that it is about to fork.
        may_clone: whether the one `clone` of that fork is still to come.
        forks: who else wants a fork of it, and how long it may take.
        turn: counts its messages, so that a deadline knows whether it is still meant.
        refused: how often it has tried to start another process.
        trusted: whether it is the template, which runs nobody's code.
    """

    def __init__(self, pid: int, pidfd: int, waits: notify.Notification | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.waits = waits
        self.then: Callable[[Message | None], None] | None = None
        self.expects_child: Callable[[Process | None], None] | None = None
        self.may_clone = False
        self.forks: deque[tuple[Callable[[Process | None], None], float]] = deque()
        self.on_death: Callable[[], None] | None = None
        self.dead = False
        self.turn = 0
        self.refused = 0
        self.trusted = False

    def cpu_seconds(self) -> float:
        """Processor time used since it was forked."""
        return cpu_seconds(self.pid)

    def private_bytes(self) -> int:
        """Memory that would be free without it."""
        try:
            with open(f"/proc/{self.pid}/smaps_rollup", "rb") as file:
                lines = [line.split() for line in file if line.startswith(b"Private_")]
        except OSError:
            return 0
        return sum(int(line[1]) << 10 for line in lines)

    def has_ended(self) -> bool:
        """Whether it is gone, even if that has not been noticed yet."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def large_ranges(self) -> bytes:
        """Start and size of its private memory, in whole huge pages."""
        found = []
        with open(f"/proc/{self.pid}/maps") as file:
            for line in file:
                span, rights, _, _, inode, *name = line.split()
                start, end = (int(bound, 16) for bound in span.split("-"))
                start, end = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
                if inode == "0" and rights == "rw-p" and end > start and name != ["[stack]"]:
                    found.append(struct.pack("=QQ", start, end - start))
        return b"".join(found)

    def open_files(self) -> set[str]:
        """Its open file descriptors."""
        try:
            return set(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return set()


def cpu_seconds(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def parents() -> dict[int, int]:
    """Parent of every process of this machine."""
    return {int(name): parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}


def parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return -1
