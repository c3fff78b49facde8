"""A sandbox on a server: the same protocol over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from lapha._checks import check
from lapha._http import LoopSessions
from lapha._imports import require
from lapha.sandbox.protocol import BREACHES, RunResult, SandboxError

_CONNECTIONS = 256  # of one event loop to all servers
_MAX_CLOSING = 1000  # of a request; each has room for many, and the rest goes with the next


class RemoteSandbox:
    """Sessions on one or several sandbox servers.

    `open` picks the servers in turn; a session's forks stay on its server. `open`, `fork` and `close` do no input or
    output: servers learn with a later run what is closed. A server that has let a state go, because it was idle for
    too long or the server was started anew, is given the code again.

    Args:
        urls: address of a server, or several.
        token: the servers' token, or None.
        busy_seconds: how long to try again while a server says that it is busy, or cannot be reached, ≥ 0.
        timeout_seconds: how long a run may take, queueing included, > 0.

    Raises:
        ValueError: an argument outside its range.
        MissingExtraError: aiohttp or httpx is not installed.
    """

    name = "remote"

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        token: str | None = None,
        busy_seconds: float = 60.0,
        timeout_seconds: float = 600.0,
    ) -> None:
        self.urls = [url.rstrip("/") for url in ([urls] if isinstance(urls, str) else urls)]
        good = bool(self.urls) and all(url.startswith(("http://", "https://")) for url in self.urls)
        check(good, "urls", "addresses that start with http:// or https://", self.urls)
        check(busy_seconds >= 0, "busy_seconds", "a number >= 0", busy_seconds)
        check(timeout_seconds > 0, "timeout_seconds", "a number > 0", timeout_seconds)
        self._aiohttp, self._httpx = require("aiohttp", extra="llm"), require("httpx", extra="llm")
        self._turn = itertools.cycle(self.urls)
        self._busy_seconds = busy_seconds
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._sessions = LoopSessions(timeout_seconds, headers=headers, connections=_CONNECTIONS)  # for runs
        self._options: dict[str, Any] = {"headers": headers, "timeout": 5.0}  # for what is done outside an event loop
        self._closing: dict[str, list[str]] = {url: [] for url in self.urls}
        self._closed = False

    def identity(self) -> list[str]:
        """Where code runs: what is installed there, the client does not know."""
        return sorted(self.urls)

    def open(self) -> RemoteSession:
        """A new session with fresh state, on the next server."""
        fresh: Future[_State] = Future()
        server = next(self._turn)
        fresh.set_result(_State(server, None, None, self._closing[server]))
        return RemoteSession(self, fresh)

    def close(self) -> None:
        """Tell the servers which states nobody holds. Those that somebody does expire."""
        self._closed = True
        with (
            self._httpx.Client(**self._options) as client,
            contextlib.suppress(self._httpx.HTTPError),
        ):
            for url, names in self._closing.items():
                while names:
                    client.delete(f"{url}/states/{names.pop()}")

    async def aclose(self) -> None:
        """`close`, and this event loop's connections too."""
        await self._sessions.aclose()
        await asyncio.to_thread(self.close)

    def describe(self) -> dict[str, Any]:
        """What each server says of its health."""
        with self._httpx.Client(**self._options) as client:
            servers = {url: client.get(f"{url}/health").raise_for_status().json() for url in self.urls}
        return {"backend": self.name, "servers": servers, "counters": {}}

    def __enter__(self) -> RemoteSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _run(self, state: _State, code: str) -> tuple[RunResult, _State]:
        """Run code in a state; the result and the state after it."""
        answer, after = await self._try_run(state, code)
        if answer is None:  # the server has let the state go: make it again
            codes = state.codes()
            state = _State(state.server, None, None, self._closing[state.server])
            for earlier in codes:
                answer, state = await self._try_run(state, earlier)
                if answer is None or answer["outcome"] in BREACHES:
                    raise SandboxError(f"the sandbox server at {state.server} lost a session, and it cannot be rebuilt")
            answer, after = await self._try_run(state, code)
        if answer is None:
            raise SandboxError(f"the sandbox server at {state.server} lost a session twice")
        return RunResult(**answer), after

    async def _try_run(self, state: _State, code: str) -> tuple[dict[str, Any] | None, _State]:
        """The same, with None for an answer if the server does not know the state."""
        closing = self._closing[state.server]
        closed = [closing.pop() for _ in range(min(len(closing), _MAX_CLOSING))]
        name = secrets.token_urlsafe(16)
        body = {"name": name, "of": state.name, "code": code, "close": closed}
        status, text = await self._post(f"{state.server}/runs", body)
        if status == 404 and state.name is not None:
            return None, state
        if status != 200:
            raise SandboxError(f"the sandbox server at {state.server} answered {status}: {text[:200]}")
        answer = json.loads(text)
        # a run that was stopped, or refused, is no part of the history
        kept = answer["outcome"] in ("ok", "error")
        history = (state.history, code) if kept else state.history
        return answer, _State(state.server, name, history, closing)

    async def _post(self, url: str, body: dict[str, Any]) -> tuple[int, str]:
        """Send a request, again while the server is busy or out of reach; status and text of the answer.

        Raises:
            SandboxError: that takes too long.
        """
        if self._closed:
            raise SandboxError("the sandbox is closed")
        loop, session = asyncio.get_running_loop(), await self._sessions.get()
        deadline = loop.time() + self._busy_seconds
        for attempt in itertools.count():
            try:
                async with session.post(url, json=body) as response:
                    if response.status != 503:
                        return response.status, await response.text()
                    reason = "busy"
            except (self._aiohttp.ClientError, TimeoutError) as error:
                reason = f"{type(error).__name__}: {error}"
            if loop.time() >= deadline:
                break
            await asyncio.sleep(min(0.05 * 2**attempt, 2.0))
        raise SandboxError(f"the sandbox server at {url} could not be used for {self._busy_seconds:g} s: {reason}")


class RemoteSession:
    """A `lapha.sandbox.SandboxSession` on a server. Not made by hand."""

    def __init__(self, sandbox: RemoteSandbox, state: Future[_State]) -> None:
        self._sandbox = sandbox
        self._state: Future[_State] | None = state
        self._lock = threading.Lock()

    async def run(self, code: str) -> RunResult:
        """See `SandboxSession.run`. A run that is cancelled, or that the server fails, is undone."""
        if not isinstance(code, str) or not _encodable(code):
            return RunResult("refused", error="code: expected text that UTF-8 can hold")
        after: Future[_State] = Future()
        with self._lock:
            before, self._state = self._live(), after
        try:
            state = await asyncio.shield(asyncio.wrap_future(before))
        except asyncio.CancelledError:
            before.add_done_callback(lambda done: after.set_result(done.result()))
            raise
        try:
            result, state = await self._sandbox._run(state, code)
        finally:
            after.set_result(state)
        return result

    def fork(self) -> RemoteSession:
        """See `SandboxSession.fork`."""
        with self._lock:
            return RemoteSession(self._sandbox, self._live())

    def close(self) -> None:
        """See `SandboxSession.close`."""
        with self._lock:
            self._state = None

    def _live(self) -> Future[_State]:
        if self._state is None:
            raise SandboxError("this session is closed")
        return self._state


_History = tuple[Any, str] | None


class _State:
    """A state on a server; None as a name is a fresh one.

    Remembers the code that made it, so that it can be made again when the server has let it go. When nobody holds it
    any more, its name goes to the list of those that the server may forget.
    """

    def __init__(self, server: str, name: str | None, history: _History, closing: list[str]) -> None:
        self.server, self.name, self.history = server, name, history
        if name is not None:
            weakref.finalize(self, closing.append, name).atexit = False

    def codes(self) -> list[str]:
        """The code of all runs that made it, in order."""
        codes, history = [], self.history
        while history is not None:
            history, code = history
            codes.append(code)
        return codes[::-1]


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
