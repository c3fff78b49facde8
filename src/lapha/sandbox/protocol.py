"""What every sandbox promises, whatever it is built on.

A *session* is one Python interpreter's state: variables, functions and imports stay between runs. A session is an
immutable snapshot with a name: `run` executes code in a copy of the snapshot and, if the code stays within its limits,
the copy becomes the session's new snapshot. So

* `fork` costs nothing and is independent of its parent from then on;
* a run that breaks a limit is thrown away whole: the session is as it was before that run, and so is everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from lapha._checks import check
from lapha.errors import SandboxError as SandboxError
from lapha.errors import SandboxUnavailable as SandboxUnavailable

BREACHES = ("timeout", "cpu", "memory", "output", "files", "crashed", "lost")
"""Outcomes after which the session is as it was before the run."""

OUTCOMES = ("ok", "error", *BREACHES, "refused")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use.

    Attributes:
        wall_seconds: longest duration, > 0.
        cpu_seconds: most processor time, > 0.
        memory_bytes: most memory on top of the interpreter's own, ≥ 16 MiB.
        output_bytes: most printed output, ≥ 1; also the longest value and error that are returned.
        code_bytes: longest code in UTF-8, ≥ 1.
        file_bytes: most bytes in the session's own files, ≥ 4096. (monty has no files.)

    Raises:
        ValueError: a value outside its range.
    """

    wall_seconds: float = 10.0
    cpu_seconds: float = 10.0
    memory_bytes: int = 512 << 20
    output_bytes: int = 64 << 10
    code_bytes: int = 256 << 10
    file_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        least: dict[str, float] = {"memory_bytes": 16 << 20, "output_bytes": 1, "code_bytes": 1, "file_bytes": 4096}
        for name, bound in least.items():
            value = getattr(self, name)
            check(isinstance(value, int) and value >= bound, f"limits.{name}", f"an integer >= {bound}", repr(value))
        for name in ("wall_seconds", "cpu_seconds"):
            value = getattr(self, name)
            good = isinstance(value, int | float) and 0 < value < float("inf")
            check(good, f"limits.{name}", "a finite number > 0", repr(value))


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run came to.

    Attributes:
        outcome: ``"ok"``; ``"error"`` (the code raised: its effects up to there stay); a breach, after which the
            session is as it was (``"timeout"``, ``"cpu"``, ``"memory"``, ``"output"``, ``"files"``, ``"crashed"``: the
            interpreter died; ``"lost"``: the session's state was gone and could not be made again); or ``"refused"``
            (the code never ran).
        output: what the code printed, on standard output and standard error, in order.
        value: ``repr`` of the last line's value, or None where there is none.
        error: what went wrong, for the agent to read; None if `outcome` is ``"ok"``.
        seconds: how long the run took inside the sandbox, its fork included.

    All text can be encoded in UTF-8: a lone surrogate that the code has made is written as ``\\udc80``.
    """

    outcome: str
    output: str = ""
    value: str | None = None
    error: str | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("output", "value", "error"):
            text = getattr(self, name)
            if text is not None and not text.isascii():
                object.__setattr__(self, name, clean(text))

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def breach(self) -> bool:
        """Whether the run was stopped, and undone."""
        return self.outcome in BREACHES

    def message(self) -> str:
        """What the agent reads: output, value and error, in this order."""
        parts = [part.rstrip("\n") for part in (self.output, self.value or "", self.error or "")]
        return "\n".join(part for part in parts if part) or "(no output)"


@runtime_checkable
class SandboxSession(Protocol):
    """One interpreter's state."""

    async def run(self, code: str) -> RunResult:
        """Run code. Runs of one session follow one another in the order they were asked for.

        Raises:
            SandboxError: the sandbox failed. What the code does never raises.
        """
        ...

    def fork(self) -> SandboxSession:
        """A new session with a copy of the state that this one has after the runs asked for so far."""
        ...

    def close(self) -> None:
        """Let go of the state. Forks stay. Closing twice is allowed."""
        ...


@runtime_checkable
class Sandbox(Protocol):
    """Where sessions come from. A context manager: leaving it closes it."""

    def open(self) -> SandboxSession:
        """A new session with fresh state."""
        ...

    def close(self) -> None:
        """End all sessions, processes and files of this sandbox."""
        ...

    def describe(self) -> dict[str, Any]:
        """What is confined how, and counters of what has happened so far."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def clean(text: str) -> str:
    """The text with what UTF-8 cannot hold (lone surrogates) written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def refuse(code: Any, limits: Limits) -> RunResult | None:
    """Why the code is not even tried, or None."""
    if not isinstance(code, str):
        return RunResult("refused", error=f"code: expected text, got {type(code).__name__}")
    try:
        size = len(code.encode("utf-8"))
    except UnicodeEncodeError as error:
        return RunResult(
            "refused", error=f"code: expected text that UTF-8 can hold, got a lone surrogate at {error.start}"
        )
    if size > limits.code_bytes:
        return RunResult("refused", error=f"code: expected at most {limits.code_bytes} bytes, got {size}")
    return None


def breach_message(outcome: str, limits: Limits) -> str:
    """One line for the agent about a breach."""
    what = {
        "timeout": f"it ran longer than {limits.wall_seconds:g} s",
        "cpu": f"it used more than {limits.cpu_seconds:g} s of processor time",
        "memory": f"it needed more than {limits.memory_bytes >> 20} MiB of memory",
        "output": f"it printed more than {limits.output_bytes} bytes",
        "files": f"it left more than {limits.file_bytes} bytes of files, too many files, or files that stay open",
        "crashed": "the interpreter died",
        "lost": "the session's state could not be continued, nor made again by running its code again",
    }[outcome]
    return f"Stopped: {what}. The session is as it was before this run."
