"""A sandbox over HTTP, so that many searches share a pool of machines. FastAPI; ``GET /openapi.json`` describes it.

::

    POST   /runs            {"name": …, "of": name or null, "code": …, "close": [names]} → the result
    DELETE /states/{name}
    GET    /health          GET /metrics (Prometheus text)

The server keeps *states*. A run forks the state `of` (null: a fresh one), runs the code there, and keeps what comes of
it under `name`, which the client made up. A state never changes, so forking is the client's affair alone, and asking
again because an answer was lost gives the same answer. States that nobody uses for a while are closed. At most `queue`
runs wait; more are answered 503, and clients try again. On any interface but loopback a token is required. Without one,
a request must be addressed to loopback; with one or without, none may come from a web page (`lapha.sandbox._routes`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from lapha import __version__
from lapha._checks import check
from lapha._imports import require
from lapha.sandbox.protocol import RunResult, Sandbox, SandboxError, SandboxSession


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How a server behaves.

    Attributes:
        token: what clients must send as a bearer token, ≥ 16 characters; None for no token.
        queue: most runs that wait or run, ≥ 1.
        states: most states kept, ≥ 1.
        expire_seconds: a state unused for so long is closed, > 0.
        receive_seconds: a request that has not arrived whole after so long is dropped, with its connection, > 0.

    Raises:
        ValueError: a value outside its range.
    """

    token: str | None = None
    queue: int = 256
    states: int = 10_000
    expire_seconds: float = 900.0
    receive_seconds: float = 10.0

    def __post_init__(self) -> None:
        check(self.token is None or len(self.token) >= 16, "token", "at least 16 characters", "a shorter one")
        check(self.queue >= 1, "queue", "an integer >= 1", self.queue)
        check(self.states >= 1, "states", "an integer >= 1", self.states)
        check(self.expire_seconds > 0, "expire_seconds", "a number > 0", self.expire_seconds)
        check(self.receive_seconds > 0, "receive_seconds", "a number > 0", self.receive_seconds)


@dataclass(slots=True)
class Entry:
    """A state: the session that is in it, and the run that made it."""

    session: SandboxSession
    used: float
    result: asyncio.Future[RunResult]


@dataclass(slots=True)
class Served:
    """Everything a server holds."""

    sandbox: Sandbox
    config: ServerConfig
    states: dict[str, Entry] = field(default_factory=dict)
    running: int = 0
    seconds: float = 0.0
    counters: Counter[str] = field(default_factory=Counter)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def close(self, name: str) -> None:
        """Let go of a state."""
        entry = self.states.pop(name, None)
        if entry is not None:
            entry.session.close()

    def expire(self) -> None:
        """Close what nobody has used for a while."""
        limit = time.monotonic() - self.config.expire_seconds
        for name, entry in list(self.states.items()):
            if entry.used < limit and entry.result.done():
                self.counters["expired"] += 1
                self.close(name)

    def has_room(self) -> bool:
        """Whether another run, and another state, fit in."""
        if len(self.states) >= self.config.states:
            self.expire()
        if self.running < self.config.queue and len(self.states) < self.config.states:
            return True
        self.counters["busy"] += 1
        return False

    def start(self, name: str, of: str | None, code: Any) -> Entry:
        """Start a run. It goes on even if the one who asked hangs up.

        Raises:
            KeyError: there is no state `of`.
        """
        session = self.sandbox.open() if of is None else self.states[of].session.fork()
        entry = Entry(session, time.monotonic(), asyncio.get_running_loop().create_future())
        self.states[name] = entry
        self.running += 1
        task = asyncio.create_task(self._run(entry, code))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return entry

    async def _run(self, entry: Entry, code: Any) -> None:
        try:
            result = await entry.session.run(code)
            self.counters[f"run_{result.outcome}"] += 1
            self.seconds += result.seconds
            entry.result.set_result(result)
        except SandboxError as failure:
            self.counters["failed"] += 1
            entry.result.set_exception(failure)
            entry.result.exception()  # it may be that nobody waits any more
        finally:
            self.running -= 1
            entry.used = time.monotonic()


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, token: str | None) -> None:
    """Only loopback may be served without a token.

    Raises:
        ValueError: another interface, and no token.
    """
    check(
        is_loopback(host) or token is not None, "token", f"one, to serve on {host!r} (only loopback goes without)", None
    )


def create_app(sandbox: Sandbox, config: ServerConfig | None = None) -> Any:
    """The FastAPI application. It closes the sandbox when it ends.

    Args:
        sandbox: where code runs.
        config: how the server behaves.

    Raises:
        MissingExtraError: FastAPI is not installed.
    """
    fastapi = require("fastapi", extra="sandbox")
    from lapha.sandbox._routes import add_routes

    served = Served(sandbox, config or ServerConfig())

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        sweep = asyncio.create_task(_sweep(served))
        yield
        sweep.cancel()
        await asyncio.to_thread(sandbox.close)

    app = fastapi.FastAPI(title="lapha sandbox", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.lapha = served
    add_routes(app, served)
    return app


async def _sweep(served: Served) -> None:
    while True:
        await asyncio.sleep(min(served.config.expire_seconds / 4, 30.0))
        served.expire()


def server_of(app: Any, host: str = "127.0.0.1", port: int = 8765, log_level: str = "info") -> Any:
    """A uvicorn server of `create_app`'s application that drops what does not arrive.

    Raises:
        MissingExtraError: uvicorn is not installed.
    """
    uvicorn = require("uvicorn", extra="sandbox")
    from lapha.sandbox._receiving import receiving_within

    protocol = receiving_within(app.state.lapha.config.receive_seconds)
    settings = {"http": protocol, "ws": "none", "access_log": False, "log_level": log_level}
    return uvicorn.Server(uvicorn.Config(app, host=host, port=port, **settings))


def serve(sandbox: Sandbox, host: str, port: int, config: ServerConfig, log_level: str = "info") -> None:
    """Serve until interrupted.

    Raises:
        ValueError: `host` is not loopback, and there is no token.
        MissingExtraError: FastAPI or uvicorn is not installed.
    """
    check_host(host, config.token)
    server_of(create_app(sandbox, config), host, port, log_level).run()
