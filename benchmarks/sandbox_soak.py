"""The soak of the sandbox benchmark: many runs, 32 at once, through a server, and what they leave behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from lapha.sandbox import RemoteSandbox, Sandbox, SandboxError, create_app
from lapha.sandbox.server import server_of

AT_ONCE = 32

# what the soak runs, over and over: code that works, fails, is slow, prints, allocates, writes, and breaks limits
PROGRAMS = {
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


@contextmanager
def served(make: Callable[[], Any]) -> Any:
    """A client of a server of its own in a thread of this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = server_of(create_app(make()), port=port, log_level="warning")
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


def below(top: int) -> list[int]:
    """A process and all that descend from it."""
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


def soak(make: Callable[[], Sandbox], count: int) -> dict[str, Any]:
    """The record of `count` runs through a server of its own over the sandbox that `make` makes."""
    leftovers = _leftovers()
    begin = time.perf_counter()
    with served(make) as sandbox:
        (url,) = sandbox.urls
        asyncio.run(_soak_runs(url, 2 * AT_ONCE))  # what is there for good has been opened
        before = _idle(url)
        outcomes, wrong, failed = asyncio.run(_soak_runs(url, count))
        after = _idle(url, before)
        backend = _backend_events(url)
    seconds = time.perf_counter() - begin
    settled = _settled(leftovers)
    return {
        "name": "soak through the server, bubblewrap",
        "shape": {"runs": count, "at_once": AT_ONCE},
        "outcomes": dict(outcomes),
        "backend": backend,
        "unexpected": wrong,
        "sandbox_errors": failed,
        "left_while_serving": {kind: after[kind] - before[kind] for kind in before},
        "left_behind": {kind: settled[kind] - leftovers[kind] for kind in leftovers},
        "seconds": seconds,
        "runs_per_second": count / seconds,
    }


def _idle(url: str, before: dict[str, int] | None = None) -> dict[str, int]:
    """States, processes and their open files (sockets too) once clients have let everything go.

    What was killed takes a moment to be gone: waits until there is no more than `before`, or ten seconds.
    """
    deadline = time.monotonic() + 10
    while _gauge(url, "lapha_sandbox_states") or _gauge(url, "lapha_sandbox_backend_processes") > 1:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    time.sleep(0.5)
    while True:
        processes = below(os.getpid())
        files = sum(map(_open_files, processes))
        found = {"states": _gauge(url, "lapha_sandbox_states"), "processes": len(processes), "open_files": files}
        settled = before is None or all(found[kind] <= before[kind] for kind in before)
        if settled or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _gauge(url: str, name: str) -> int:
    lines = _metrics(url)
    return next((int(float(line.split()[1])) for line in lines if line.split()[0] == name), 0)


def _metrics(url: str) -> list[str]:
    import httpx

    return httpx.get(f"{url}/metrics", timeout=60).text.splitlines()


def _backend_events(url: str) -> dict[str, int]:
    """What the server's sandbox has counted."""
    events = (line.split('event="')[1].split('"} ') for line in _metrics(url) if "backend_events_total" in line)
    return {name: int(float(count)) for name, count in events}


async def _soak_runs(url: str, count: int) -> tuple[Counter[str], list[str], list[str]]:
    """Trees of runs: each worker goes down branches and starts again now and then."""
    sandbox = RemoteSandbox(url)
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    failed: list[str] = []
    programs = [(outcome, code) for outcome, codes in PROGRAMS.items() for code in codes]
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

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    gc.collect()  # the last sessions
    await sandbox.aclose()
    return outcomes, wrong[:20], failed[:20]


def _leftovers() -> dict[str, int]:
    """Processes below this one, and its own open files and sockets."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    sockets = sum(link.startswith("socket:") for link in links)
    return {"processes": len(below(os.getpid())), "files": len(links) - sockets, "sockets": sockets}


def _settled(before: dict[str, int]) -> dict[str, int]:
    """The same, once there is no more than before, or after ten seconds."""
    deadline = time.monotonic() + 10
    while any((now := _leftovers())[kind] > before[kind] for kind in before) and time.monotonic() < deadline:
        time.sleep(0.05)
    return now
