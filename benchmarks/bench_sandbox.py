"""Sandboxes: the time of a forked run, the memory of many branches, and a soak through the server.

Four parts:

* runs: fork a session that has imported sympy, and run ``1+1`` in the fork, in each back end and through the server. The
  "ceiling" is an unconfined `os.fork` of an interpreter with the same packages, which evaluates the same and exits.
* live: the same in bubblewrap, with many live sessions beside it.
* branches: many live branches of one tree, each with variables of its own; their memory (proportional set size of the
  supervisor and everything in the jail), and whether each still has its own state.
* soak: many runs, 32 at once, through the server and a bubblewrap jail; how many ended in an error that was not the
  code's own, and what was left behind of processes, open files and sockets: while the server still runs, when all
  sessions are closed, and after it has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness import Case, Contestant, Session, Skipped
from benchmarks.records import write_records
from benchmarks.sandbox_soak import AT_ONCE, below, served, soak
from lapha.sandbox import BubblewrapSandbox, Limits, MontySandbox, Sandbox, SandboxUnavailable

# enough time for a machine with other work: what is measured is the sandbox, not the limits
_LIMITS = Limits(wall_seconds=60.0, cpu_seconds=30.0, memory_bytes=256 << 20)
# (branches, soak runs, live sessions beside a forked run)
_SIZES = {"smoke": (20, 100, 10), "default": (1000, 10_000, 300)}

# what each branch does; {} is its number
_BRANCH_WORK = {"variables": "mine = {}", "sympy": "mine = {}\nvalue = sp.expand((a + mine) ** 3)"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parts", nargs="*", default=["runs", "live", "branches", "soak"], help="which parts to run (all)"
    )
    parser.add_argument("--branches", type=int, default=None, help="number of live branches (1000)")
    parser.add_argument("--soak", type=int, default=None, help="number of runs of the soak (10000)")


def run(args: argparse.Namespace, session: Session) -> None:
    branches, runs, live = _SIZES[args.sizes]
    if "runs" in args.parts:
        with ExitStack() as stack:
            session.measure(Case({"sessions": 1}, "text", _runs(stack)))
    if "live" in args.parts:
        with ExitStack() as stack:
            session.measure(Case({"sessions": live}, "text", _runs_beside(stack, live)))
    if "branches" in args.parts:
        for work in _BRANCH_WORK:
            asyncio.run(_branches(session, args.branches or branches, work))
    if "soak" in args.parts:
        _report(session, soak(lambda: BubblewrapSandbox(_LIMITS, concurrency=16, live=64), args.soak or runs))


# One forked run ----------------------------------------------------------------------------------------------------


def _runs(stack: ExitStack) -> list[Contestant | Skipped]:
    entries: list[Contestant | Skipped] = [Contestant("bare fork", _bare_fork(stack), ceiling=True)]
    backends: dict[str, Callable[[], Any]] = {
        "monty": lambda: MontySandbox(_LIMITS),
        "bubblewrap": lambda: BubblewrapSandbox(_LIMITS),
    }
    for name, make in backends.items():
        try:
            sandbox = stack.enter_context(make())
        except SandboxUnavailable as error:
            entries.append(Skipped(name, str(error)))
            continue
        entries.append(Contestant(name, _forked_run(sandbox, name, stack)))
        remote = stack.enter_context(served(make))
        entries.append(Contestant(f"{name}, server", _forked_run(remote, name, stack)))
    return entries


def _runs_beside(stack: ExitStack, live: int) -> list[Contestant | Skipped]:
    """The same for bubblewrap alone, with so many live sessions."""
    entries: list[Contestant | Skipped] = [Contestant("bare fork", _bare_fork(stack), ceiling=True)]
    try:
        sandbox = stack.enter_context(BubblewrapSandbox(_LIMITS, live=live + 16))
    except SandboxUnavailable as error:
        return [*entries, Skipped("bubblewrap", str(error))]
    once = _forked_run(sandbox, "bubblewrap", stack)
    held = [sandbox.open() for _ in range(live)]

    async def fill() -> None:
        for number, opened in enumerate(held):
            await opened.run(f"mine = {number}")

    asyncio.run(fill())
    stack.callback(held.clear)
    return [*entries, Contestant("bubblewrap", once)]


def _forked_run(sandbox: Sandbox, backend: str, stack: ExitStack) -> Callable[[], str | None]:
    """Fork a session, run ``1+1`` in the fork, let the fork go. One event loop for all calls."""
    runner = stack.enter_context(asyncio.Runner())
    root = sandbox.open()
    runner.run(root.run("import sympy" if backend == "bubblewrap" else "import math"))

    async def once() -> str | None:
        fork = root.fork()
        result = await fork.run("1+1")
        fork.close()
        return result.value

    return lambda: runner.run(once())


_FORKER = """
import os, sys
import numpy, sympy
while sys.stdin.buffer.read(1):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, repr(eval("1+1")).encode())
        os._exit(0)
    sys.stdout.buffer.write(os.read(reader, 1))
    sys.stdout.buffer.flush()
    os.wait()
    os.close(reader)
    os.close(writer)
"""


def _bare_fork(stack: ExitStack) -> Callable[[], bytes]:
    """What any fork of this much Python costs: a process of its own, asked over pipes."""
    process = subprocess.Popen(
        [sys.executable, "-c", _FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    stack.callback(process.wait)
    requests, answers = process.stdin, process.stdout
    assert requests is not None
    assert answers is not None
    stack.callback(requests.close)

    def once() -> bytes:
        requests.write(b"x")
        return answers.read(1)

    return once


# Many branches -----------------------------------------------------------------------------------------------------


async def _branches(session: Session, count: int, work: str) -> None:
    with BubblewrapSandbox(_LIMITS, live=count + 8, total_bytes=64 << 30) as sandbox:
        before = _proportional_bytes(sandbox.supervisor_pid)
        root = sandbox.open()
        await root.run("import sympy as sp\na = sp.Symbol('a')\nmine = 'root'")
        gate = asyncio.Semaphore(AT_ONCE)
        begin = time.perf_counter()

        async def grow(number: int) -> Any:
            async with gate:
                branch = root.fork()
                await branch.run(_BRANCH_WORK[work].format(number))
                return branch

        branches = await asyncio.gather(*(grow(number) for number in range(count)))
        grown = time.perf_counter() - begin
        used = _proportional_bytes(sandbox.supervisor_pid)
        described = sandbox.describe()

        async def independent(number: int) -> bool:
            async with gate:
                return (await branches[number].run("mine")).value == str(number)

        intact = sum(await asyncio.gather(*(independent(number) for number in range(count))))
        intact += (await root.run("mine")).value == "'root'"
        record = {
            "name": f"live branches, bubblewrap, {work}",
            "shape": {"branches": count},
            "live": described["processes"],
            "evicted": described["counters"].get("evicted", 0),
            "bytes": used,
            "bytes_before": before,
            "bytes_per_branch": (used - before) / count,
            "seconds": grown,
            "independent": intact == count + 1,
        }
        _report(session, record)


def _proportional_bytes(top: int) -> int:
    """Memory of a process and all below it, shared pages counted once."""
    return sum(_pss(pid) for pid in below(top))


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _report(session: Session, record: dict[str, Any]) -> None:
    full = {**session.facts, "suite": session.suite, "dtype": "text", **record}
    shown = {key: value for key, value in record.items() if key not in ("name", "shape")}
    print(f"{session.suite} {record['name']} {record['shape']}\n  {shown}", flush=True)
    write_records([full], session.output)
