"""A sandbox over HTTP, so that many searches share a pool of machines. FastAPI.

::

    POST   /runs            {"name": …, "of": name or null, "code": …, "close": [names]} → the result
    DELETE /states/{name}
    GET    /health          GET /metrics (Prometheus text)

The server keeps *states*. A run forks the state `of` (null: a fresh one), runs the code there, and keeps what comes of
it under `name`, which the client made up. A state never changes, so forking is the client's affair alone, and asking
again because an answer was lost gives the same answer. States that nobody uses for a while are closed. At most `queue`
runs wait; more are answered 503, and clients try again. On any interface but loopback a token is required.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from lapha._checks import check
from lapha._imports import require
from lapha.sandbox.protocol import RunResult, Sandbox, SandboxError, SandboxSession

MAX_BODY = 32 << 20
"""Largest request in bytes; code that is too long for the sandbox, but not absurd, gets the sandbox's own answer."""

_NAME = re.compile(r"[A-Za-z0-9_-]{16,64}")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How a server behaves.

    Attributes:
        token: what clients must send as a bearer token, ≥ 16 characters; None for no token.
        queue: most runs that wait or run, ≥ 1.
        states: most states kept, ≥ 1.
        expire_seconds: a state unused for so long is closed, > 0.

    Raises:
        ValueError: a value outside its range.
    """

    token: str | None = None
    queue: int = 256
    states: int = 10_000
    expire_seconds: float = 900.0

    def __post_init__(self) -> None:
        check(self.token is None or len(self.token) >= 16, "token", "at least 16 characters", "a shorter one")
        check(self.queue >= 1, "queue", "an integer >= 1", self.queue)
        check(self.states >= 1, "states", "an integer >= 1", self.states)
        check(self.expire_seconds > 0, "expire_seconds", "a number > 0", self.expire_seconds)


@dataclass(slots=True)
class _Entry:
    """A state: the session that is in it, and the run that made it."""

    session: SandboxSession
    used: float
    result: asyncio.Future[RunResult]


@dataclass(slots=True)
class _Served:
    """Everything a server holds."""

    sandbox: Sandbox
    config: ServerConfig
    states: dict[str, _Entry] = field(default_factory=dict)
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

    def start(self, name: str, of: str | None, code: Any) -> _Entry:
        """Start a run. It goes on even if the one who asked hangs up.

        Raises:
            KeyError: there is no state `of`.
        """
        session = self.sandbox.open() if of is None else self.states[of].session.fork()
        entry = _Entry(session, time.monotonic(), asyncio.get_running_loop().create_future())
        self.states[name] = entry
        self.running += 1
        task = asyncio.create_task(self._run(entry, code))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return entry

    async def _run(self, entry: _Entry, code: Any) -> None:
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


def check_host(host: str, token: str | None) -> None:
    """Only loopback may be served without a token.

    Raises:
        ValueError: another interface, and no token.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    check(loopback or token is not None, "token", f"one, to serve on {host!r} (only loopback goes without)", None)


def create_app(sandbox: Sandbox, config: ServerConfig | None = None) -> Any:
    """The FastAPI application. It closes the sandbox when it ends.

    Args:
        sandbox: where code runs.
        config: how the server behaves.

    Raises:
        MissingExtraError: FastAPI is not installed.
    """
    fastapi = require("fastapi", extra="sandbox")
    served = _Served(sandbox, config or ServerConfig())

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        sweep = asyncio.create_task(_sweep(served))
        yield
        sweep.cancel()
        await asyncio.to_thread(sandbox.close)

    app = fastapi.FastAPI(title="lapha sandbox", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.lapha = served

    @app.middleware("http")
    async def guard(request: Any, call_next: Any) -> Any:
        problem = _problem(request, served.config)
        if problem is not None:
            served.counters[f"http_{problem[0]}"] += 1
            return fastapi.responses.JSONResponse({"detail": problem[1]}, problem[0])
        return await call_next(request)

    _add_routes(app, served, fastapi)
    return app


async def _sweep(served: _Served) -> None:
    while True:
        await asyncio.sleep(min(served.config.expire_seconds / 4, 30.0))
        served.expire()


def _problem(request: Any, config: ServerConfig) -> tuple[int, str] | None:
    """Why a request is not even looked at: status and reason."""
    if config.token is not None:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {config.token}".encode()):
            return 401, "a valid bearer token is required"
    length = request.headers.get("content-length")
    if request.method in ("PUT", "POST") and (length is None or not length.isdigit() or int(length) > MAX_BODY):
        return 413, f"a body of known length, at most {MAX_BODY} bytes, is required"
    return None


def _add_routes(app: Any, served: _Served, fastapi: Any) -> None:
    """The routes of the module's docstring."""
    error = fastapi.HTTPException

    async def run(request: Any) -> dict[str, Any]:
        body = await _body(request, error)
        name, of = body.get("name"), body.get("of")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise error(422, "name: expected 16 to 64 letters, digits, - or _")
        if not (of is None or isinstance(of, str)):
            raise error(422, "of: expected a name or null")
        entry = served.states.get(name)
        if entry is None:
            _check_room(served, error)
            if of is not None and of not in served.states:
                raise error(404, "no such state; it may have expired")
            try:
                entry = served.start(name, of, body.get("code"))
            except SandboxError as failure:
                raise error(502, f"the sandbox failed: {failure}") from failure
            if of is not None:
                served.states[of].used = entry.used
        closed = body.get("close")
        for old in closed if isinstance(closed, list) else ():
            served.close(str(old))
        try:
            return asdict(await asyncio.shield(entry.result))
        except SandboxError as failure:
            raise error(502, f"the sandbox failed: {failure}") from failure

    async def close_state(name: str) -> dict[str, Any]:
        served.close(name)
        return {}

    async def health() -> dict[str, Any]:
        return {"status": "ok", "backend": getattr(served.sandbox, "name", "?"), "states": len(served.states)}

    async def metrics() -> Any:
        described = await asyncio.to_thread(served.sandbox.describe)
        return fastapi.responses.PlainTextResponse(_metrics(served, described))

    # FastAPI reads annotations, and would look for `Request` in this module, which does without FastAPI
    run.__annotations__["request"] = fastapi.Request
    app.post("/runs")(run)
    app.delete("/states/{name}")(close_state)
    app.get("/health")(health)
    app.get("/metrics", response_model=None)(metrics)


def _check_room(served: _Served, error: Any) -> None:
    """Whether another run, and another state, fit in."""
    if len(served.states) >= served.config.states:
        served.expire()
    if served.running >= served.config.queue or len(served.states) >= served.config.states:
        served.counters["busy"] += 1
        raise error(503, "busy", headers={"Retry-After": "1"})


async def _body(request: Any, error: Any) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as failure:
        raise error(422, "the body is no JSON") from failure
    if not isinstance(body, dict):
        raise error(422, "the body is no JSON object")
    return body


def _metrics(served: _Served, described: dict[str, Any]) -> str:
    """Prometheus text."""
    values: dict[str, float] = {
        "lapha_sandbox_states": len(served.states),
        "lapha_sandbox_runs_waiting": served.running,
        "lapha_sandbox_run_seconds_total": served.seconds,
    }
    for name, count in served.counters.items():
        values[f'lapha_sandbox_events_total{{event="{name}"}}'] = count
    for name, count in described.get("counters", {}).items():
        values[f'lapha_sandbox_backend_events_total{{event="{name}"}}'] = count
    for name in ("processes", "private_bytes", "state_bytes", "restarts", "waiting"):
        if name in described:
            values[f"lapha_sandbox_backend_{name}"] = described[name]
    return "".join(f"{name} {value:g}\n" for name, value in values.items())


def serve(sandbox: Sandbox, host: str, port: int, config: ServerConfig, log_level: str = "info") -> None:
    """Serve until interrupted.

    Raises:
        ValueError: `host` is not loopback, and there is no token.
        MissingExtraError: FastAPI or uvicorn is not installed.
    """
    check_host(host, config.token)
    uvicorn = require("uvicorn", extra="sandbox")
    uvicorn.run(create_app(sandbox, config), host=host, port=port, log_level=log_level, access_log=False)
