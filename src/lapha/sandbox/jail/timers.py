"""Things to do later."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


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

    def due_in(self) -> float | None:
        """Seconds until something is due; None if there is nothing."""
        while self._heap and not self._heap[0][2]:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None

    def run_due(self) -> None:
        """Do what is due by now, and not what that makes due."""
        now = time.monotonic()
        while self._heap and (self._heap[0][0] <= now or not self._heap[0][2]):
            entry = heapq.heappop(self._heap)[2]
            if entry:
                entry[0]()
