"""A circuit breaker: a server that keeps failing gets no requests for a while, then one to try it with."""

from __future__ import annotations

import time
from collections.abc import Callable

from lapha._checks import check


class CircuitBreaker:
    """Counts failures in a row.

    Closed: requests pass. After `failure_threshold` failures in a row it opens, and nothing passes for `recovery_s`
    seconds. Then it is half open: one request passes as a trial; its success closes the breaker, and its failure
    opens it again for twice as long, up to `longest_s`.

    Args:
        failure_threshold: failures in a row that open it, ≥ 1.
        recovery_s: seconds until the first trial, > 0.
        longest_s: most seconds between trials.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        failure_threshold: int = 3,
        recovery_s: float = 1.0,
        longest_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check(failure_threshold >= 1, "failure_threshold", "an integer >= 1", failure_threshold)
        check(recovery_s > 0, "recovery_s", "seconds > 0", recovery_s)
        self.failure_threshold = failure_threshold
        self.recovery_s = recovery_s
        self.longest_s = max(longest_s, recovery_s)
        self.failures = 0
        self.opened = 0
        self._clock = clock
        self._pause = recovery_s
        self._open_until: float | None = None
        self._trial = False

    @property
    def state(self) -> str:
        """``"closed"``, ``"open"`` or ``"half_open"``."""
        if self._open_until is None:
            return "closed"
        return "half_open" if self._clock() >= self._open_until else "open"

    @property
    def passes(self) -> bool:
        """Whether a request may be sent now."""
        state = self.state
        return state == "closed" or (state == "half_open" and not self._trial)

    @property
    def wait_s(self) -> float:
        """Seconds until a request may be sent; 0 if now, and a short while if a trial is under way."""
        if self.passes:
            return 0.0
        if self._open_until is None or self._trial:
            return min(0.1, self.recovery_s)
        return max(self._open_until - self._clock(), 0.0)

    def sent(self) -> None:
        """A request is on its way: in the half-open state it is the trial."""
        if self.state == "half_open":
            self._trial = True

    def succeeded(self) -> None:
        """A request was answered."""
        self.failures = 0
        self._pause = self.recovery_s
        self._open_until = None
        self._trial = False

    def failed(self) -> None:
        """A request failed for the server's reasons."""
        self.failures += 1
        if self._open_until is not None:
            if not self._trial:
                return  # sent before the breaker opened: the server has been found out already
            self._pause = min(2 * self._pause, self.longest_s)
        elif self.failures < self.failure_threshold:
            return
        self._trial = False
        self.opened += 1
        self._open_until = self._clock() + self._pause

    def abandoned(self) -> None:
        """A request was cancelled by its sender, which says nothing about the server."""
        self._trial = False
