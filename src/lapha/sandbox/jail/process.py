"""One process of the jail, which holds one branch's state."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import Any

from lapha.sandbox.jail import kernel

Message = tuple[str, dict[str, Any]]
"""Kind and fields."""


class Process:
    """One process of the jail.

    Attributes:
        pid: its number, as seen outside the jail.
        pidfd: a handle that cannot come to mean another process.
        waits: where it waits for a command; None while it works.
        then: who gets the next message of a working process (None if it died or wrote garbage).
        expects_child: who gets the process that it is about to fork.
        may_clone: whether the one `clone` of that fork is still to come.
        forks: who else wants a fork of it, and how long it may take.
        steps: the changes of namespaces that it has been told to make, in order.
        turn: counts its messages, so that a deadline knows whether it is still meant.
        refused: how often it has tried what it was not told to do.
        trusted: whether it is the template, which runs nobody's code.
    """

    def __init__(self, pid: int, pidfd: int, waits: kernel.Notification | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.waits = waits
        self.then: Callable[[Message | None], None] | None = None
        self.expects_child: Callable[[Process | None], None] | None = None
        self.may_clone = False
        self.forks: deque[tuple[Callable[[Process | None], None], float]] = deque()
        self.steps: deque[int] = deque()
        self.on_death: Callable[[], None] | None = None
        self.dead = False
        self.turn = 0
        self.refused = 0
        self.trusted = False

    def cpu_seconds(self) -> float:
        """Processor time used since it was forked."""
        return kernel.cpu_seconds(self.pid)

    def has_ended(self) -> bool:
        """Whether it is gone, even if that has not been noticed yet."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))
