"""Sandboxes: the time of a forked run, the memory of many branches, and a soak through the server.

Three parts:

* runs: fork a session that has imported sympy, and run ``1+1`` in the fork, in each back end and through the server. The
  "ceiling" is an unconfined `os.fork` of an interpreter with the same packages, which evaluates the same and exits.
* branches: many live branches of one tree, each with variables of its own; their memory (proportional set size of the
  supervisor and everything in the jail), and whether each still has its own state.
* soak: many runs, 32 at once, through the server and a bubblewrap jail; how many ended in an error that was not the
  code's own, and what was left behind of processes, open files and sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Case, Contestant, Session, Skipped
from benchmarks.records import write_records
from lapha.sandbox import (
    BubblewrapSandbox,
    Limits,
    MontySandbox,
    RemoteSandbox,
    Sandbox,
    SandboxError,
    SandboxUnavailable,
    create_app,
)

# enough time for a machine with other work: what is measured is the sandbox, not the limits
_LIMITS = Limits(wall_seconds=60.0, cpu_seconds=30.0, memory_bytes=256 << 20)
_AT_ONCE = 32
# (branches, soak runs)
_SIZES = {"smoke": (20, 100), "default": (1000, 10_000)}

# what each branch does; {} is its number
_BRANCH_WORK = {"variables": "mine = {}", "sympy": "mine = {}\nvalue = sp.expand((a + mine) ** 3)"}

# what the soak runs, over and over: code that works, fails, is slow, prints, allocates, writes, and breaks limits
_PROGRAMS = {
    "ok": [
        "x = x + 1\nx",
        "import sympy as sp\nsp.expand((sp.Symbol('a') + 1) ** 5)",
        "import numpy as np\nfloat(np.linalg.det(np.eye(3)))",
        "print('a' * 1000)",
        "y = [i * i for i in range(1000)]\nsum(y)",
        "open('f', 'a').write('x')",
        "y = bytearray(1 << 20)",
    ],
    "error": ["1 / 0", "undefined", "x = (", "import os\nos.fork()", "open('/etc/shadow')"],
    "crashed": ["import os\nos._exit(0)"],
    "memory": ["y = [0] * 10**9"],
    "output": ["print('a' * 10**6)"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="*", default=["runs", "branches", "soak"], help="which parts to run (all)")
    parser.add_argument("--branches", type=int, default=None, help="number of live branches (1000)")
    parser.add_argument("--soak", type=int, default=None, help="number of runs of the soak (10000)")


def run(args: argparse.Namespace, session: Session) -> None:
    branches, soak = _SIZES[args.sizes]
    if "runs" in args.parts:
        with ExitStack() as stack:
            session.measure(Case({"sessions": 1}, "text", _runs(stack)))
    if "branches" in args.parts:
        for work in _BRANCH_WORK:
            asyncio.run(_branches(session, args.branches or branches, work))
    if "soak" in args.parts:
        _soak(session, args.soak or soak)


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
        remote = stack.enter_context(_served(make))
        entries.append(Contestant(f"{name}, server", _forked_run(remote, name, stack)))
    return entries


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


@contextmanager
def _served(make: Callable[[], Any]) -> Any:
    """A client of a server of its own in a thread of this process."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(make()), port=port, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    client: AbstractContextManager[RemoteSandbox] = RemoteSandbox(f"http://127.0.0.1:{port}")
    try:
        with client as sandbox:
            yield sandbox
    finally:
        server.should_exit = True
        thread.join()


# Many branches -----------------------------------------------------------------------------------------------------


async def _branches(session: Session, count: int, work: str) -> None:
    with BubblewrapSandbox(_LIMITS, live=count + 8, total_bytes=64 << 30) as sandbox:
        before = _proportional_bytes(sandbox.supervisor_pid)
        root = sandbox.open()
        await root.run("import sympy as sp\na = sp.Symbol('a')\nmine = 'root'")
        gate = asyncio.Semaphore(_AT_ONCE)
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
    return sum(_pss(pid) for pid in _below(top))


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _below(top: int) -> list[int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {top}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


# Soak --------------------------------------------------------------------------------------------------------------


def _soak(session: Session, count: int) -> None:
    leftovers = _leftovers()
    begin = time.perf_counter()
    with _served(lambda: BubblewrapSandbox(_LIMITS, concurrency=16, live=64)) as sandbox:
        outcomes, wrong, failed = asyncio.run(_soak_runs(sandbox, count))
        backend = _backend_events(sandbox.urls[0])
    seconds = time.perf_counter() - begin
    left = {kind: after - leftovers[kind] for kind, after in _settled(leftovers).items()}
    record = {
        "name": "soak through the server, bubblewrap",
        "shape": {"runs": count, "at_once": _AT_ONCE},
        "outcomes": dict(outcomes),
        "backend": backend,
        "unexpected": wrong,
        "sandbox_errors": failed,
        "left_behind": left,
        "seconds": seconds,
        "runs_per_second": count / seconds,
    }
    _report(session, record)


def _backend_events(url: str) -> dict[str, int]:
    """What the server's sandbox has counted."""
    import httpx

    lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
    events = (line.split('event="')[1].split('"} ') for line in lines if "backend_events_total" in line)
    return {name: int(float(count)) for name, count in events}


async def _soak_runs(sandbox: RemoteSandbox, count: int) -> tuple[Counter[str], list[str], list[str]]:
    """Trees of runs: each worker goes down branches and starts again now and then."""
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    failed: list[str] = []
    programs = [(outcome, code) for outcome, codes in _PROGRAMS.items() for code in codes]
    numbers = iter(range(count))

    async def worker() -> None:
        branch, steps = None, 0
        for number in numbers:
            try:
                if branch is None or steps == 6:
                    branch, steps = sandbox.open(), 0
                    await branch.run("x = 0")
                expected, code = programs[number % len(programs)]
                branch = branch.fork()
                steps += 1
                result = await branch.run(code)
            except SandboxError as error:
                failed.append(str(error)[:200])
                branch = None
                continue
            outcomes[result.outcome] += 1
            if result.outcome != expected:
                wrong.append(f"{code!r}: expected {expected}, got {result.outcome}: {result.error}"[:300])

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))
    await sandbox.aclose()
    return outcomes, wrong[:20], failed[:20]


def _leftovers() -> dict[str, int]:
    """Processes below this one, its open files and sockets, and what lies in the temporary folder."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    sockets = sum(link.startswith("socket:") for link in links)
    return {"processes": len(_below(os.getpid())), "files": len(links) - sockets, "sockets": sockets}


def _settled(before: dict[str, int]) -> dict[str, int]:
    """The same, once there is no more than before, or after ten seconds."""
    deadline = time.monotonic() + 10
    while any((now := _leftovers())[kind] > before[kind] for kind in before) and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


def _report(session: Session, record: dict[str, Any]) -> None:
    full = {**session.facts, "suite": session.suite, "dtype": "text", **record}
    shown = {key: value for key, value in record.items() if key not in ("name", "shape")}
    print(f"{session.suite} {record['name']} {record['shape']}\n  {shown}", flush=True)
    write_records([full], session.output)
