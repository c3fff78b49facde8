"""What the sandbox server answers, and whom. Loaded by `lapha.sandbox.server`; needs FastAPI."""

import asyncio
import hmac
from dataclasses import asdict
from typing import Annotated, Any, Literal

import fastapi
from fastapi import exceptions, responses
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr

from lapha.sandbox.protocol import OUTCOMES, RunResult, SandboxError
from lapha.sandbox.server import Served, ServerConfig, is_loopback

MAX_BODY = 32 << 20
"""Largest request in bytes; code that is too long for the sandbox, but not absurd, gets the sandbox's own answer."""

_MAX_CLOSED = 10_000


def _encodable(text: str) -> str:
    text.encode()  # a ValueError for lone surrogates
    return text


StateName = Annotated[
    StrictStr, Field(pattern="^[A-Za-z0-9_-]{16,64}$", description="made up by the client, at random")
]
Code = Annotated[StrictStr, AfterValidator(_encodable), Field(description="Python")]


class RunRequest(BaseModel):
    """A run on top of a state."""

    model_config = ConfigDict(extra="forbid")

    name: StateName
    of: Annotated[StateName | None, Field(description="the state that the code runs in; null for a fresh one")] = None
    code: Code
    close: Annotated[list[StateName], Field(max_length=_MAX_CLOSED, description="states to let go of")] = []


class RunAnswer(BaseModel):
    """What came of a run: see `lapha.sandbox.RunResult`."""

    outcome: Literal[OUTCOMES]  # type: ignore[valid-type]
    output: str
    value: str | None
    error: str | None
    seconds: float


class Health(BaseModel):
    status: Literal["ok"]
    backend: str
    states: int


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


def _says(reasons: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": reason} for status, reason in reasons.items()}


_GUARDED = _says({401: "no valid token", 403: "from a web page, or not addressed to this server"})


def refusal(request: fastapi.Request, config: ServerConfig) -> tuple[int, str] | None:
    """Why a request is not even looked at: status and reason.

    A web page can make a browser send requests to loopback, as text, with its own Origin, or under a name of its own
    (DNS rebinding). It cannot send JSON without asking first, which is not answered, nor know the token.
    """
    headers = request.headers
    if config.token is not None:
        given = headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {config.token}".encode()):
            return 401, "a valid bearer token is required"
    elif not is_loopback(_host_of(headers.get("host", ""))):
        return 403, "without a token, only requests to localhost, 127.0.0.1 or [::1] are answered"
    if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
        return 403, "requests from web pages are not answered"
    if request.method in ("PUT", "POST", "PATCH"):
        length = headers.get("content-length")
        if length is None or not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"a body of known length, at most {MAX_BODY} bytes, is required"
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "a body of type application/json is required"
    return None


def _host_of(header: str) -> str:
    """The name in a Host header, without the port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def add_routes(app: fastapi.FastAPI, served: Served) -> None:
    """Give the application its routes, and its guard in front of all of them."""

    @app.middleware("http")
    async def guard(request: fastapi.Request, call_next: Any) -> Any:
        problem = refusal(request, served.config)
        if problem is not None:
            served.counters[f"http_{problem[0]}"] += 1
            return responses.JSONResponse({"detail": problem[1]}, problem[0])
        return await call_next(request)

    @app.exception_handler(exceptions.RequestValidationError)
    async def invalid(_: fastapi.Request, error: exceptions.RequestValidationError) -> Any:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        return responses.JSONResponse({"detail": f"{place}: {first['msg']}"}, 422)

    @app.post(
        "/runs",
        responses=_GUARDED
        | _says(
            {400: "a body that cannot be read", 404: "no state `of`", 413: "no length, or too long", 415: "no JSON"}
        )
        | _says({422: "a body of another form", 502: "the sandbox failed", 503: "busy; try again"}),
    )
    async def run(request: RunRequest) -> RunAnswer:
        """Run code in a fork of a state, and keep what comes of it; asked again, answer the same."""
        result = await _run(served, request)
        return RunAnswer(**asdict(result))

    @app.delete("/states/{name}", responses=_GUARDED | _says({422: "no name of a state"}))
    async def close_state(name: Annotated[StateName, fastapi.Path()]) -> dict[str, str]:
        """Let go of a state. One that is not there is no error."""
        served.close(name)
        return {}

    @app.get("/health", responses=_GUARDED)
    async def health() -> Health:
        """Whether the server answers, and what it runs."""
        return Health(status="ok", backend=getattr(served.sandbox, "name", "?"), states=len(served.states))

    @app.get("/metrics", responses=_GUARDED, response_class=responses.PlainTextResponse)
    async def metrics() -> str:
        """Counters and gauges as Prometheus text."""
        described = await asyncio.to_thread(served.sandbox.describe)
        return _metrics(served, described)


async def _run(served: Served, request: RunRequest) -> RunResult:
    entry = served.states.get(request.name)
    if entry is None:
        if not served.has_room():
            raise fastapi.HTTPException(503, "busy", headers={"Retry-After": "1"})
        if request.of is not None and request.of not in served.states:
            raise fastapi.HTTPException(404, "no such state; it may have expired")
        try:
            entry = served.start(request.name, request.of, request.code)
        except SandboxError as failure:
            raise fastapi.HTTPException(502, f"the sandbox failed: {failure}") from failure
        if request.of is not None:
            served.states[request.of].used = entry.used
    for old in request.close:
        served.close(old)
    try:
        return await asyncio.shield(entry.result)
    except SandboxError as failure:
        raise fastapi.HTTPException(502, f"the sandbox failed: {failure}") from failure


def _metrics(served: Served, described: dict[str, Any]) -> str:
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
