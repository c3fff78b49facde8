"""How long vLLM servers had no request to work on, by their own count."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Sequence
from types import TracebackType

_METRIC = "vllm:num_requests_running{"


class RunningGauge:
    """Reads vLLM's gauge of running requests again and again while the context is open.

    Args:
        urls: of the servers; empty to read nothing.
        every_s: seconds between two readings, > 0.

    Attributes:
        idle_share: part of the readings, over all servers, that found no request running; None without a reading.
    """

    def __init__(self, urls: Sequence[str], every_s: float = 0.1) -> None:
        self._urls, self._every_s = list(urls), every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._idle = self._readings = 0

    @property
    def idle_share(self) -> float | None:
        return self._idle / self._readings if self._readings else None

    def __enter__(self) -> RunningGauge:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._urls and not self._ended.wait(self._every_s):
            for url in self._urls:
                self._idle += _running(url) == 0
                self._readings += 1


def _running(url: str) -> float:
    """Requests that the engines behind `url` are working on.

    Raises:
        ValueError: the server does not give the gauge.
    """
    with urllib.request.urlopen(url.rstrip("/").removesuffix("/v1") + "/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(_METRIC)]
    if not values:
        raise ValueError(f"{url}/metrics: expected vLLM's metrics with {_METRIC.rstrip('{')!r}, found none")
    return sum(values)
