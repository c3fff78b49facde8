"""The monty back end: Pydantic's Python interpreter in Rust, in worker processes. No privileges, no OS packages.

Monty is a subset of Python (no third-party packages, part of the standard library) whose interpreter has no file
system, network or process access to give away. A session is the interpreter's dumped state; forking copies a pointer
to it, and a run loads it into a worker, runs, and dumps again: about a quarter of a millisecond.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, ClassVar

from lapha._checks import check
from lapha.sandbox.jail.wire import cut
from lapha.sandbox.protocol import (
    BREACHES,
    Limits,
    RunResult,
    SandboxError,
    SandboxUnavailable,
    breach_message,
    refuse,
)

_RECURSION = 1000


class MontySandbox:
    """Python sessions in monty workers.

    Args:
        limits: what a run may use. `wall_seconds` and `cpu_seconds` are one clock here, the smaller counts: monty has
            no threads, and `time.sleep` returns at once. `file_bytes` means nothing: there are no files.
        concurrency: number of worker processes, ≥ 1; None for the number of processors.
        total_bytes: most bytes of all sessions' states together, ≥ 1 MiB; a run beyond that is a ``"memory"`` breach.
        seed: of `random` in every new session.

    Raises:
        ValueError: an argument outside its range.
        SandboxUnavailable: pydantic-monty is not installed.
    """

    name = "monty"

    identity_excludes: ClassVar[frozenset[str]] = frozenset(
        ("counters", "_monty", "_total_bytes", "_held", "_pool", "_threads", "_finalizer")
    )

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        concurrency: int | None = None,
        total_bytes: int = 4 << 30,
        seed: int = 0,
    ) -> None:
        try:
            import pydantic_monty
        except ModuleNotFoundError as error:
            raise SandboxUnavailable(
                f"The monty sandbox needs 'pydantic-monty' ({error}). Install it with: pip install 'lapha[sandbox]'"
            ) from error
        concurrency = concurrency or os.cpu_count() or 1
        check(concurrency >= 1, "concurrency", "an integer >= 1", concurrency)
        check(total_bytes >= 1 << 20, "total_bytes", f"an integer >= {1 << 20}", total_bytes)
        self.limits = limits or Limits()
        self.counters: Counter[str] = Counter()
        self._monty = pydantic_monty
        self._seconds = min(self.limits.wall_seconds, self.limits.cpu_seconds)
        self._resources: Any = {
            "max_feed_duration_secs": self._seconds,
            "max_memory": self.limits.memory_bytes,
            "max_recursion_depth": _RECURSION,
        }
        self._policy: Any = {"sleep": "zero", "random_start": {"seed": seed}}
        self._total_bytes = total_bytes
        self._held = _Held()
        # the interpreter keeps its own time; the pool kills a worker that does not
        self._pool = pydantic_monty.Monty(max_processes=concurrency, request_timeout=self._seconds + 1.0)
        self._pool.__enter__()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="lapha-monty")
        self._finalizer = weakref.finalize(self, _shut_down, self._threads, self._pool)

    def open(self) -> MontySession:
        """A new session with fresh state."""
        fresh: Future[_State] = Future()
        fresh.set_result(_State(None, self._held))
        return MontySession(self, fresh)

    def close(self) -> None:
        """End all workers, after the runs under way. Those that still wait, and later ones, raise `SandboxError`."""
        self._finalizer()

    def describe(self) -> dict[str, Any]:
        """Counters (outcomes) and the size of all states in bytes."""
        counters = {"counters": dict(self.counters), "state_bytes": self._held.bytes}
        return {"backend": self.name, "limits": asdict(self.limits), **counters}

    def __enter__(self) -> MontySandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, state: _State, code: str) -> tuple[RunResult, _State]:
        """The result, and the state after it: the same one if the run was stopped."""
        printed = _Printed(self.limits.output_bytes)
        began = time.perf_counter()
        value, outcome, error = None, "ok", None
        dumped = b""
        try:
            with self._pool.checkout(limits=self._resources, os_policy=self._policy, script_name="step") as session:
                if state.dumped is not None:
                    session.load_session(state.dumped)
                try:
                    result = session.feed_run(code, print_callback=printed)
                    value = None if result is None else _shown(result, self.limits.output_bytes)
                except (self._monty.MontySyntaxError, self._monty.MontyRuntimeError) as raised:
                    outcome, error = self._classify(raised, printed)
                if outcome not in BREACHES:
                    dumped = session.dump()
        except self._monty.MontyCrashedError as crash:
            outcome = "timeout" if crash.timed_out else "crashed"
        seconds = time.perf_counter() - began
        if outcome not in BREACHES and self._held.bytes + len(dumped) > self._total_bytes:
            outcome = "memory"
        if outcome in BREACHES:
            message = breach_message(outcome, self.limits)
            return RunResult(outcome, printed.text(), None, message, seconds), state
        return RunResult(outcome, printed.text(), value, error, seconds), _State(dumped, self._held)

    def _classify(self, error: Any, printed: _Printed) -> tuple[str, str]:
        message = str(error)
        if printed.full:
            return "output", message
        if "time limit exceeded" in message:
            return "timeout", message
        if message.startswith("MemoryError: memory limit exceeded"):
            return "memory", message
        shown = error.display("traceback")
        limit = self.limits.output_bytes
        return "error", shown if len(shown) <= limit else "…" + shown[-limit:]


class MontySession:
    """A `lapha.sandbox.SandboxSession`. Not made by hand."""

    def __init__(self, sandbox: MontySandbox, state: Future[_State]) -> None:
        self._sandbox = sandbox
        self._state: Future[_State] | None = state
        self._lock = threading.Lock()

    async def run(self, code: str) -> RunResult:
        """See `SandboxSession.run`."""
        if refused := refuse(code, self._sandbox.limits):
            return refused
        after: Future[_State] = Future()
        with self._lock:
            before, self._state = self._live(), after
        answer = _Job(self._sandbox, before, code, after).answer
        del before, after  # the session alone decides how long its states live
        return await asyncio.wrap_future(answer)

    def fork(self) -> MontySession:
        """See `SandboxSession.fork`."""
        with self._lock:
            return MontySession(self._sandbox, self._live())

    def close(self) -> None:
        """See `SandboxSession.close`."""
        with self._lock:
            self._state = None

    def _live(self) -> Future[_State]:
        if self._state is None:
            raise SandboxError("this session is closed")
        return self._state


class _Job:
    """A run on top of a state, once there is one.

    It lets go of both states before it answers: whoever has the answer and closes the session has freed the memory.

    Args:
        sandbox: where it runs.
        before: the state that the code runs in.
        code: the code.
        after: gets the state that comes of it.

    Attributes:
        answer: gets the result, or `SandboxError`.
    """

    def __init__(self, sandbox: MontySandbox, before: Future[_State], code: str, after: Future[_State]) -> None:
        self.answer: Future[RunResult] = Future()
        self._sandbox, self._code = sandbox, code
        self._after: Future[_State] | None = after
        before.add_done_callback(self._start)  # `before` may outlive the session by long, and keeps this object

    def _start(self, before: Future[_State]) -> None:
        try:
            working = self._sandbox._threads.submit(self._work, [before])
        except RuntimeError as error:  # the executor is shut down
            self._fail(SandboxError("the sandbox is closed"), error)
        else:
            working.add_done_callback(self._closed)

    def _closed(self, working: Future[None]) -> None:
        if working.cancelled():  # it waited for a worker when the sandbox was closed
            self._fail(SandboxError("the sandbox is closed"), None)

    def _work(self, before: list[Future[_State]]) -> None:
        """The boundary to the worker thread: what goes wrong in the sandbox itself is the caller's to see."""
        try:
            result = self._advance(before.pop())
        except Exception as error:  # noqa: BLE001 - the caller gets it as a SandboxError, with its cause; counted
            self._sandbox.counters["sandbox_error"] += 1
            known = isinstance(error, SandboxError)
            self._fail(error if known else SandboxError(f"{type(error).__name__}: {error}"), None if known else error)
            return
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(result)

    def _advance(self, before: Future[_State]) -> RunResult:
        result, state = self._sandbox._run(before.result(), self._code)
        self._sandbox.counters[result.outcome] += 1
        self._take_after().set_result(state)
        return result

    def _take_after(self) -> Future[_State]:
        after, self._after = self._after, None
        assert after is not None
        return after

    def _fail(self, failure: BaseException, cause: BaseException | None) -> None:
        if cause is not None:
            failure.__cause__ = cause
        self._take_after().set_exception(failure)
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(failure)


class _Held:
    """How many bytes all states have together."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self.bytes += size


class _State:
    """A dumped interpreter; None is a fresh one. Counted as long as anybody holds it."""

    def __init__(self, dumped: bytes | None, held: _Held) -> None:
        self.dumped = dumped
        size = len(dumped or b"")
        held.add(size)
        weakref.finalize(self, held.add, -size).atexit = False


class _Printed:
    """Collects what is printed, up to a limit, beyond which it stops the run."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._parts: list[str] = []
        self.full = False

    def __call__(self, stream: str, text: str) -> None:
        room = self._limit - self._size
        self._size += len(text.encode("utf-8", "backslashreplace"))
        encoded = text.encode("utf-8", "backslashreplace")
        self._parts.append(encoded[: max(room, 0)].decode("utf-8", "ignore"))
        if self._size > self._limit:
            self.full = True
            raise MemoryError("too much output")

    def text(self) -> str:
        return "".join(self._parts)


def _shown(value: Any, limit: int) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError) as error:  # too deep, or an integer of too many digits
        return f"<{type(value).__name__} that cannot be shown: {error}>"
    return cut(text, limit)


def _shut_down(threads: ThreadPoolExecutor, pool: Any) -> None:
    threads.shutdown(wait=True, cancel_futures=True)
    pool.__exit__(None, None, None)
