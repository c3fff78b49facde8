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
