"""HTTP to several equal servers: the least busy one is asked, and a failing one's requests go to the others."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lapha._checks import check
from lapha._http import LoopSessions
from lapha._imports import require
from lapha.engines.breaker import CircuitBreaker
from lapha.engines.errors import BadAnswerError, EngineError, RequestRefusedError, ServerFailedError

logger = logging.getLogger(__name__)

_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failures are met.

    Attributes:
        attempts: most times that a request is sent, over all servers, ≥ 1.
        timeout_s: seconds for one answer, > 0.
        connect_timeout_s: seconds for one connection, > 0.
        backoff_s, longest_backoff_s: first and longest wait before the same server is asked again; it doubles each
            time, and up to as much again is added at random. A request that can go to another server does not wait.
        failure_threshold, recovery_s: of each server's circuit breaker.
    """

    attempts: int = 12
    timeout_s: float = 120.0
    connect_timeout_s: float = 5.0
    backoff_s: float = 0.25
    longest_backoff_s: float = 8.0
    failure_threshold: int = 3
    recovery_s: float = 1.0

    def __post_init__(self) -> None:
        check(self.attempts >= 1, "attempts", "an integer >= 1", self.attempts)
        for name in ("timeout_s", "connect_timeout_s", "recovery_s"):
            check(getattr(self, name) > 0, name, "seconds > 0", getattr(self, name))
        check(self.backoff_s >= 0, "backoff_s", "seconds >= 0", self.backoff_s)
        check(self.failure_threshold >= 1, "failure_threshold", "an integer >= 1", self.failure_threshold)


@dataclass(eq=False, slots=True)
class Server:
    """One server and what is known of it.

    Attributes:
        url: base URL without a trailing slash.
        outstanding: requests that it has not answered yet, weighted by their size.
        answered, failed: requests that it answered, and attempts that failed.
    """

    url: str
    breaker: CircuitBreaker
    outstanding: int = 0
    answered: int = 0
    failed: int = 0


@dataclass(slots=True)
class PoolStats:
    """Attempts beyond the first, and requests that moved to another server."""

    retries: int = 0
    failovers: int = 0
    last_errors: dict[str, str] = field(default_factory=dict)


class ServerPool:
    """Sends JSON requests to whichever of several servers is least busy.

    Args:
        urls: base URLs, such as ``"http://127.0.0.1:8000"``.
        policy: timeouts, retries and circuit breakers.
        api_key: sent as a bearer token, if given.

    Raises:
        ValueError: no URL, or one that is not http(s).
        MissingExtraError: aiohttp or tenacity is not installed.
    """

    def __init__(self, urls: Sequence[str], policy: RetryPolicy | None = None, api_key: str | None = None) -> None:
        self._aiohttp = require("aiohttp", extra="llm")
        self._tenacity = require("tenacity", extra="llm")
        check(not isinstance(urls, str) and len(urls) > 0, "urls", "a list of at least one URL", repr(urls))
        for url in urls:
            check(
                url.startswith(("http://", "https://")), "urls", "URLs that start with http:// or https://", repr(url)
            )
        self.policy = policy = policy or RetryPolicy()
        self.servers = [
            Server(url.rstrip("/").removesuffix("/v1"), CircuitBreaker(policy.failure_threshold, policy.recovery_s))
            for url in urls
        ]
        self.stats = PoolStats()
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._sessions = LoopSessions(policy.timeout_s, policy.connect_timeout_s, headers)

    def identity(self) -> list[str]:
        """Where answers come from: which weights a server holds, it does not say."""
        return sorted(server.url for server in self.servers)

    async def ask(
        self,
        path: str,
        payload: dict[str, Any] | None = None,
        *,
        name: str,
        weight: int = 1,
        read: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Ask some server and return its JSON answer, or what `read` makes of it.

        All attempts together take at most attempts × timeout_s. A server that refuses a request is not asked again, but
        each of the others is.

        Args:
            path: such as ``"/v1/completions"``.
            payload: JSON body to POST; None for a GET.
            name: of the request, for messages.
            weight: how much work it is, for balancing.
            read: checks and reads an answer; a `ServerFailedError` that it raises is the server's failure.

        Raises:
            RequestRefusedError: every server refuses the request.
            EngineError: all attempts failed; names the request and what each server last said.
        """
        tried: list[Server] = []
        limit = self.policy.attempts * self.policy.timeout_s
        try:
            async with asyncio.timeout(limit):
                return await self._persist(path, payload, name, weight, read, tried)
        except TimeoutError as error:
            message = f"gave up after {limit:g} s and {len(tried)} attempts ({self._said()})"
            raise EngineError(message, request=name, server=tried[-1].url if tried else "") from error

    def _said(self) -> str:
        """What each server last said that was no answer."""
        return "; ".join(f"{url}: {text}" for url, text in self.stats.last_errors.items()) or "no answer"

    async def _persist(
        self, path: str, payload: dict[str, Any] | None, name: str, weight: int,
        read: Callable[[Any], Any] | None, tried: list[Server],
    ) -> Any:  # fmt: skip
        """Ask until there is an answer; `tried` notes who was asked."""
        refused: dict[str, EngineError] = {}  # by servers that are not asked again
        attempts = self._tenacity.AsyncRetrying(
            stop=self._tenacity.stop_after_attempt(self.policy.attempts),
            wait=lambda state: self._pause(state, tried),
            retry=self._tenacity.retry_if_exception_type(ServerFailedError),
            before_sleep=self._note_retry,
            retry_error_cls=self._tenacity.RetryError,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    return await self._attempt(path, payload, name, weight, read, tried, refused)
        except self._tenacity.RetryError as error:
            message = f"gave up after {self.policy.attempts} attempts ({self._said()})"
            raise EngineError(message, request=name, server=tried[-1].url) from error.last_attempt.exception()
        raise AssertionError("unreachable: the loop above returns or raises")

    async def aclose(self) -> None:
        """Close this event loop's connections; they also close with the loop."""
        await self._sessions.aclose()

    async def _attempt(
        self, path: str, payload: dict[str, Any] | None, name: str, weight: int, read: Callable[[Any], Any] | None,
        tried: list[Server], refused: dict[str, EngineError],
    ) -> Any:  # fmt: skip
        server = await self._choose(tried, refused)
        if tried and tried[-1] is not server:
            self.stats.failovers += 1
        tried.append(server)
        server.outstanding += weight
        server.breaker.sent()
        try:
            answer = await self._send(server, path, payload, name)
            if read is not None:
                answer = _read(read, answer, name, server)
        except ServerFailedError as error:
            server.failed += 1
            server.breaker.failed()
            self.stats.last_errors[server.url] = error.message
            if isinstance(error, BadAnswerError) and tried.count(server) > 1:
                refused[server.url] = error  # twice is its way
            if len(refused) == len(self.servers):
                raise EngineError(
                    f"no server gives an answer that can be used ({self._said()})", request=name
                ) from error
            raise
        except RequestRefusedError as error:
            server.breaker.succeeded()  # it is alive and well
            refused[server.url] = error
            if len(refused) == len(self.servers):
                raise
            self.stats.last_errors[server.url] = error.message
            raise ServerFailedError(error.message, request=name, server=server.url) from error
        except asyncio.CancelledError:
            server.breaker.abandoned()
            raise
        finally:
            server.outstanding -= weight
        server.answered += 1
        server.breaker.succeeded()
        return answer

    async def _send(self, server: Server, path: str, payload: dict[str, Any] | None, name: str) -> Any:
        method = "GET" if payload is None else "POST"
        session = await self._sessions.get()
        try:
            async with session.request(method, server.url + path, json=payload) as response:
                status, body = response.status, await response.read()
        except (self._aiohttp.ClientError, TimeoutError) as error:
            message = f"{type(error).__name__} {error}".strip()
            raise ServerFailedError(message, request=name, server=server.url) from error
        if status != 200:
            kind = ServerFailedError if status in _TRY_AGAIN else RequestRefusedError
            raise kind(f"HTTP {status} {_excerpt(body)}", request=name, server=server.url)
        try:
            return json.loads(body)
        except ValueError as error:  # cut off, or a proxy's page
            message = f"not JSON: {_excerpt(body)}"
            raise ServerFailedError(message, request=name, server=server.url) from error

    async def _choose(self, tried: Sequence[Server], refused: Mapping[str, object]) -> Server:
        """The least busy server that may be asked, one that has not just failed this request if there is one."""
        while True:
            ready = [server for server in self.servers if server.breaker.passes and server.url not in refused]
            if ready:
                last = tried[-1] if tried else None
                return min(ready, key=lambda server: (server is last, server.outstanding, server.answered))
            await asyncio.sleep(min(server.breaker.wait_s for server in self.servers) + 0.001)

    def _pause(self, state: Any, tried: Sequence[Server]) -> float:
        """Seconds before the next attempt: none if another server can take it."""
        if any(server.breaker.state == "closed" and server not in tried for server in self.servers):
            return 0.0
        policy = self.policy
        wait = self._tenacity.wait_exponential_jitter(
            initial=policy.backoff_s, max=policy.longest_backoff_s, jitter=policy.backoff_s
        )
        return float(wait(state))

    def _note_retry(self, state: Any) -> None:
        self.stats.retries += 1
        logger.warning("attempt %d of %s", state.attempt_number, state.outcome.exception())


def _read(read: Callable[[Any], Any], answer: Any, name: str, server: Server) -> Any:
    try:
        return read(answer)
    except ServerFailedError as error:
        raise BadAnswerError(error.message, request=name, server=server.url) from error


def _excerpt(body: bytes, length: int = 300) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    return text if len(text) <= length else text[:length] + "…"
