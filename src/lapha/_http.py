"""HTTP sessions that live as long as the event loop they belong to."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator
from typing import Any

from lapha._imports import require

# An idle connection is let go before the server does so (vLLM: after 5 s); a request on one that the server is just
# closing would fail.
_KEEP_ALIVE_S = 3.0


class LoopSessions:
    """One `aiohttp.ClientSession` for each event loop that asks.

    A session's connections belong to its loop. It closes with the loop (`asyncio.run` and `asyncio.Runner` see to that)
    or with `aclose`, whichever comes first.

    Args:
        timeout_s: seconds for one answer, > 0.
        connect_timeout_s: seconds for one connection, > 0; None for `timeout_s`.
        headers: sent with every request.
        connections: most of one session, ≥ 1; requests beyond it wait. 0 for no limit.

    Raises:
        MissingExtraError: aiohttp is not installed.
    """

    def __init__(
        self,
        timeout_s: float,
        connect_timeout_s: float | None = None,
        headers: dict[str, str] | None = None,
        connections: int = 0,
    ) -> None:
        self._aiohttp = require("aiohttp", extra="llm")
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._headers, self._connections = headers or {}, connections
        self._open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[Any, None]]]
        self._open = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()  # loops may run in several threads

    def __len__(self) -> int:
        """Sessions that have been made and not yet forgotten."""
        return len(self._open)

    async def get(self) -> Any:
        """The running loop's session."""
        loop = asyncio.get_running_loop()
        session, _ = self._open.get(loop, (None, None))
        if session is None or session.closed:
            life = self._life()
            session = await anext(life)
            with self._lock:
                for ended in [other for other in self._open if other.is_closed()]:
                    del self._open[ended]  # a session keeps its loop alive
                self._open[loop] = (session, life)
        return session

    async def aclose(self) -> None:
        """Close the running loop's session."""
        with self._lock:
            _, life = self._open.pop(asyncio.get_running_loop(), (None, None))
        if life is not None:
            await life.aclose()

    async def _life(self) -> AsyncGenerator[Any, None]:
        """Yields a session and closes it at its end, which a loop brings about for its generators before it closes."""
        aiohttp = self._aiohttp
        connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=self._connect_timeout_s)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers)
        try:
            yield session
        finally:
            await session.close()
