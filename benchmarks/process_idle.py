"""How long processes on this machine had nothing to do (Linux)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType


class IdleShare:
    """Looks at the state of processes' main threads again and again while the context is open.

    A thread that computes, or waits for a core, is at work; one that sleeps is idle. vLLM's engine process runs its
    model in its main thread where the server has no worker process.

    Args:
        pids: process ids; empty to watch nothing.
        every_s: seconds between two looks, > 0.

    Attributes:
        share: part of the looks, over all processes, that found it idle; None without a look.
    """

    def __init__(self, pids: Sequence[int], every_s: float = 0.005) -> None:
        self._files = [Path(f"/proc/{pid}/task/{pid}/stat") for pid in pids]
        for file in self._files:
            if not file.is_file():
                raise ValueError(f"engine_pids: expected processes of this machine, got none with {file}")
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._idle = self._looks = 0

    @property
    def share(self) -> float | None:
        return self._idle / self._looks if self._looks else None

    def __enter__(self) -> IdleShare:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._files and not self._ended.wait(self._every_s):
            for file in self._files:
                state = (
                    file.read_text().rpartition(")")[2].split()[0]
                )  # after the command's name, which may hold spaces
                self._idle += state != "R"
                self._looks += 1
