"""The bubblewrap back end: full CPython with numpy and sympy, in namespaces of its own. See `lapha.sandbox.jail`."""

from __future__ import annotations

import asyncio
import importlib.util
import platform
import sys
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha.sandbox._link import Link
from lapha.sandbox.protocol import (
    BREACHES,
    OUTCOMES,
    Limits,
    RunResult,
    SandboxError,
    SandboxUnavailable,
    breach_message,
    refuse,
)

# what these packages load or build at first use, done once for all branches: it saves each branch time and memory
_WARM = {
    "numpy": "import numpy as np\nnp.linalg.solve(np.eye(2), np.ones(2))\nstr(np.random.rand(2))",
    "sympy": (
        "import sympy as sp\nx, y = sp.symbols('x y')\nsp.expand((x + y) ** 2)\nsp.factor(x**2 - y**2)\n"
        "sp.solve([x + y - 1, x * y], x, y)\nsp.integrate(sp.sin(x) ** 2, (x, 0, 1)).evalf()\n"
        "sp.simplify(sp.sin(x) ** 2 + sp.cos(x) ** 2)\nsp.series(sp.exp(x), x)\nsp.limit(sp.sin(x) / x, x, 0)\n"
        "sp.Matrix([[1, 2], [3, x]]).det()\nsp.factorint(360)\nsp.latex(x / y)\nrepr(sp.sqrt(8))"
    ),
}


class BubblewrapSandbox:
    """Python sessions in a bubblewrap jail.

    Confined: no network, no /proc, a read-only file system that holds the C library, Python's standard library and
    `packages`, a private folder for each run (its working directory and ``TMPDIR``), one process and one thread for
    each branch, an allow-list of system calls, and the limits. Files that a run leaves in its folder belong to the
    session like its variables; files do not stay open between runs. See ``docs/sandbox.md`` for what is not defended.

    Forks are forked processes that share memory until they write to it. At most `live` states are kept in memory; the
    least recently used are ended, and are rebuilt, when they are needed again, by running their code again (from the
    same seeds of `random` and `numpy.random`; code that reads the clock may then see another state).

    Args:
        limits: what a run may use.
        packages: top-level packages that code may import beside the standard library; those they need too.
        preload: packages imported once, at the start, for all sessions.
        concurrency: most runs at the same time, 1 to 256; others wait.
        live: most states kept in memory, ≥ 1.
        total_bytes: most memory for them, ≥ 16 MiB; private pages, as measured after each state's own run.
        seed: of `random` and `numpy.random` in every new session.
        start_seconds: how long the start may take.

    Raises:
        ValueError: an argument outside its range, or a package that is not installed.
        SandboxUnavailable: this machine cannot do it; the message says why, and how to get it.
    """

    name = "bubblewrap"

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        packages: Sequence[str] = ("numpy", "sympy", "mpmath"),
        preload: Sequence[str] = ("numpy", "sympy"),
        concurrency: int = 16,
        live: int = 1024,
        total_bytes: int = 4 << 30,
        seed: int = 0,
        start_seconds: float = 60.0,
    ) -> None:
        check(1 <= concurrency <= 256, "concurrency", "an integer in [1, 256]", concurrency)
        check(live >= 1, "live", "an integer >= 1", live)
        check(total_bytes >= 16 << 20, "total_bytes", f"an integer >= {16 << 20}", total_bytes)
        self.limits = limits or Limits()
        _check_platform()
        config = {
            **asdict(self.limits),
            "packages": find_packages(packages),
            "preload": [name for name in preload if name in packages],
            "warm": [_WARM[name] for name in preload if name in _WARM],
            "slots": concurrency,
            "live": live,
            "total_bytes": total_bytes,
            "seed": seed,
            "start_seconds": start_seconds,
            "int_digits": 100_000,
        }
        check(set(preload) <= set(packages), "preload", "some of the packages", list(preload))
        self._told = {"limits": self.limits, "packages": list(packages), "preload": list(preload), "seed": seed}
        self._link = Link(config)
        self._finalizer = weakref.finalize(self, self._link.close)

    def identity(self) -> dict[str, Any]:
        """What determines a run's result."""
        return self._told

    def open(self) -> BubblewrapSession:
        """A new session with fresh state.

        Raises:
            SandboxError: the sandbox is closed, or has died.
        """
        return BubblewrapSession(self, self._link.new_session("open"))

    def close(self) -> None:
        """End all sessions and processes. Runs under way raise `SandboxError`."""
        self._finalizer()

    def describe(self) -> dict[str, Any]:
        """Counters (outcomes, forks, evictions, rebuilt states), live processes and their memory."""
        answer = self._link.ask("describe").result(30)
        counts = [{name: int(value) for name, value in answer[kind].items()} for kind in ("counters", "gauges")]
        return {"backend": self.name, "limits": asdict(self.limits), "counters": counts[0], **counts[1]}

    @property
    def supervisor_pid(self) -> int:
        """The outer wall's process: all others of the sandbox are below it, and end with it."""
        return self._link.pid

    def __enter__(self) -> BubblewrapSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BubblewrapSession:
    """A `lapha.sandbox.SandboxSession`. Not made by hand."""

    def __init__(self, sandbox: BubblewrapSandbox, number: int) -> None:
        self._sandbox, self._number = sandbox, number
        self._finalizer = weakref.finalize(self, sandbox._link.close_session, number)

    async def run(self, code: str) -> RunResult:
        """See `SandboxSession.run`."""
        sandbox = self._sandbox
        if refused := refuse(code, sandbox.limits):
            return refused
        answer = await asyncio.wrap_future(sandbox._link.ask("run", session=self._live(), code=code))
        outcome = answer["outcome"]
        error = breach_message(outcome, sandbox.limits) if outcome in BREACHES else answer["error"]
        if outcome not in OUTCOMES:
            raise SandboxError(f"the sandbox's supervisor says that a run came to {outcome!r}, which no run does")
        return RunResult(outcome, answer["output"], answer["value"], error, answer["seconds"])

    def fork(self) -> BubblewrapSession:
        """See `SandboxSession.fork`."""
        return BubblewrapSession(self._sandbox, self._sandbox._link.new_session("fork", self._live()))

    def close(self) -> None:
        """See `SandboxSession.close`."""
        self._finalizer()

    def _live(self) -> int:
        if not self._finalizer.alive:
            raise SandboxError("this session is closed")
        return self._number


def find_packages(names: Sequence[str]) -> dict[str, str]:
    """File name → path of top-level packages and the libraries that their wheels carry.

    Raises:
        ValueError: a package is not installed.
    """
    found: dict[str, str] = {}
    for name in names:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        check(spec is not None and spec.origin is not None, "packages", "installed top-level packages", repr(name))
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        path = origin.parent if spec.submodule_search_locations else origin
        found[path.name] = str(path)
        libraries = path.parent / f"{name}.libs"
        if libraries.is_dir():
            found[libraries.name] = str(libraries)
    return found


def _check_platform() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise SandboxUnavailable(
            f"The bubblewrap sandbox needs Linux on x86-64, and this is {sys.platform} on {platform.machine()}. "
            "Use the monty sandbox (pip install 'lapha[sandbox]'), or a sandbox server on another machine."
        )
