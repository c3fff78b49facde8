"""The supervisor: sessions on one side, the jail on the other. A process of its own, outside the jail, trusted.

It ends when the connection to lapha does, and the jail ends with it.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import subprocess
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from lapha.sandbox.jail import kernel, seccomp, walls
from lapha.sandbox.jail.broker import mount_options
from lapha.sandbox.jail.process import Process
from lapha.sandbox.jail.registry import Processes
from lapha.sandbox.jail.runs import MAX_PATHS, Bounds, Result, Run, Then, Turns
from lapha.sandbox.jail.states import Cell, Session
from lapha.sandbox.jail.timers import Timers

_HEAD = struct.Struct("=I")
_RESTARTS = 5
_MEASURE_AFTER = 0.2  # seconds
_PARENT_SECONDS = 2.0
_LEAST_SECONDS = 0.5  # of a second try


class Supervisor:
    """See the module.

    Args:
        client: connection to lapha.
        config: what `BubblewrapSandbox` asks for.
    """

    def __init__(self, client: socket.socket, config: dict[str, Any]) -> None:
        self._client, self._config = client, config
        self._selector = selectors.DefaultSelector()
        self._timers = Timers()
        self._counters: Counter[str] = Counter()
        self._bounds = Bounds(**{name: config[name] for name in Bounds.__dataclass_fields__})
        # code that has kept its limits once may be slower on a busier machine
        more_time = {name: 3 * getattr(self._bounds, name) for name in ("wall_seconds", "cpu_seconds")}
        self._wide_bounds = replace(self._bounds, **more_time)
        self._sessions: dict[int, Session] = {}
        self._recent: OrderedDict[Cell, None] = OrderedDict()  # live cells, least recently used first
        self._posted: deque[Callable[[], None]] = deque()
        self._bell, self._ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._incoming = bytearray()
        self._root = Cell(None, "", b"", None)
        self._turns = Turns(config["slots"])
        self._restarts = -1
        self._bwrap: subprocess.Popen[bytes] | None = None

    # The jail ------------------------------------------------------------------------------------------------

    def start_jail(self) -> None:
        """Start the jail, at first and whenever its template has died.

        Raises:
            walls.JailFailed: it does not start.
        """
        config = self._config
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        arguments = walls.command(config["packages"], theirs.fileno())
        guest = {name: config[name] for name in ("preload", "warm", "seed", "int_digits")}
        guest |= {"mount_options": mount_options(config["file_bytes"])}
        guest |= {"packages_at": walls.PACKAGES_AT, "filter": seccomp.program().hex()}
        with ours:
            self._bwrap, listener = walls.start(arguments, ours, theirs, guest, config["start_seconds"])
        args = (listener, self._selector, self._timers, self._max_message(), config["file_bytes"], self._bwrap.pid)
        self._processes = Processes(*args, self._counters)
        template = self._processes.first(config["start_seconds"])
        if template is None:
            raise walls.JailFailed(
                "the jail does not answer, or its memory may not be read (sysctl kernel.yama.ptrace_scope must be 0 or 1)"
            )
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._processes.on_notifications)
        walls.limit_memory(template.pid, config["memory_bytes"], config["file_bytes"])
        self._processes.command(template, lambda _: None, "huge", ranges=kernel.large_ranges(template.pid))
        self._root.process = template
        template.on_death = self._on_template_death
        self._restarts += 1
        waiting, self._root.rebuilding = self._root.rebuilding, []
        for then in waiting:
            then(template)

    def _max_message(self) -> int:
        """Longest message of a process: output, value and error, and its files."""
        return 4 * (4 * self._bounds.output_bytes + 1024) + self._bounds.file_bytes + MAX_PATHS

    def _on_template_death(self) -> None:
        """Nobody in the jail can do this; the kernel can, when memory runs out. Sessions rebuild their states."""
        self._root.process = None
        self._post(self._restart)

    def _restart(self) -> None:
        if self._bwrap is not None:
            self._bwrap.kill()
            self._bwrap.wait()
        queue = self._turns.abandon()
        self._processes.abandon()
        self._selector.unregister(self._listener)
        os.close(self._listener)
        if self._restarts >= _RESTARTS:
            raise walls.JailFailed(f"the jail died {_RESTARTS + 1} times")
        self.start_jail()
        for wanted in queue:
            self._turns.take(wanted)

    def _post(self, action: Callable[[], None]) -> None:
        """Do something in the main loop, soon. May be called from any thread."""
        self._posted.append(action)
        os.write(self._ring, b"!")

    def _on_bell(self) -> None:
        os.read(self._bell, 4096)
        while self._posted:
            self._posted.popleft()()

    # States --------------------------------------------------------------------------------------------------

    def _with_process(self, cell: Cell, then: Callable[[Process | None], None]) -> None:
        """Call `then` with a process in this state, rebuilt if need be, or None if that fails. Pins the cell."""
        cell.pins += 1
        if cell.process is not None:
            if cell in self._recent:
                self._recent.move_to_end(cell)
            then(cell.process)
            return
        cell.rebuilding.append(then)
        if cell.before is None:
            return  # the jail is being restarted, and calls back
        if len(cell.rebuilding) == 1:
            self._counters["rebuilt"] += 1
            self._run(cell.before, cell.code, partial(self._rebuilt, cell), self._wide_bounds)

    def _rebuilt(self, cell: Cell, _: Result, process: Process | None, files: bytes) -> None:
        waiting, cell.rebuilding = cell.rebuilding, []
        if process is not None:
            cell.files = files
            self._hold(cell, process)
        for then in waiting:
            then(process)
        self._let_go(cell)

    def _run(self, cell: Cell, code: str, then: Then, bounds: Bounds, *, again: bool = True) -> None:
        """Run code on top of a cell; once more with a rebuilt state if that could not be forked."""

        def start(process: Process | None) -> None:
            if process is None:
                cell.pins -= 1
                self._counters["lost"] += 1
                lost = {"outcome": "lost", "output": "", "value": None, "error": None, "seconds": 0.0}
                then(lost, None, b"")
                return
            args = (self._processes, self._turns, self._timers, bounds, self._counters, cell, code)
            Run(*args, done)

        def done(result: Result, process: Process | None, files: bytes) -> None:
            cell.pins -= 1
            if result["outcome"] == "lost" and again:
                left = max(bounds.wall_seconds - result["seconds"], _LEAST_SECONDS)
                self._run(cell, code, then, replace(bounds, wall_seconds=left), again=False)
                return
            then(result, process, files)
            self._let_go(cell)

        self._with_process(cell, start)

    def _hold(self, cell: Cell, process: Process) -> None:
        """From now on this process holds the cell's state."""
        cell.process = process

        def died() -> None:
            cell.process = None
            cell.files = b""  # they come back when the code is run again
            self._recent.pop(cell, None)

        process.on_death = died
        self._recent[cell] = None
        self._timers.after(_MEASURE_AFTER, lambda: self._measure(cell))
        if len(self._recent) > self._config["live"]:
            self._evict()

    def _measure(self, cell: Cell) -> None:
        """Measuring takes a millisecond, and many states do not live that long: it can wait a little."""
        if cell.process is not None:
            cell.size = kernel.private_bytes(cell.process.pid) + len(cell.files)
            self._evict()

    def _evict(self) -> None:
        """Keep the number of live states, and the memory that they take, within bounds."""
        total = sum(cell.size for cell in self._recent)
        for cell in list(self._recent):
            if len(self._recent) <= self._config["live"] and total <= self._config["total_bytes"]:
                break
            if cell.pins == 0 and cell.process is not None:
                total -= cell.size
                self._counters["evicted"] += 1
                self._processes.kill(cell.process)

    def _let_go(self, cell: Cell) -> None:
        """End the process of a state that no session is in."""
        if cell.sessions == 0 and cell.pins == 0 and cell.process is not None and cell is not self._root:
            self._processes.kill(cell.process)

    def _enter(self, session: Session, cell: Cell | None) -> None:
        """Move a session to another state."""
        before, session.cell = session.cell, cell
        if cell is not None:
            cell.sessions += 1
        if before is not None:
            before.sessions -= 1
            self._let_go(before)

    # What lapha asks for -------------------------------------------------------------------------------------

    def _on_request(self, request: dict[str, Any]) -> None:
        number = request.get("session", -1)
        if request["do"] == "open":
            session = self._sessions[number] = Session(self._root)
            self._root.sessions += 1
        elif request["do"] == "fork":
            child = self._sessions[number] = Session(None)
            parent = self._sessions[request["of"]]
            parent.enqueue(lambda: self._forked(child, parent))
        elif request["do"] == "close":
            session = self._sessions.pop(number)
            session.enqueue(lambda: self._enter(session, None))
        elif request["do"] == "run":
            session = self._sessions[number]
            session.enqueue(lambda: self._start(session, request))
        elif request["do"] == "describe":
            self._reply({"id": request["id"], **self._describe()})

    def _forked(self, child: Session, parent: Session) -> None:
        self._counters["forked"] += 1
        self._enter(child, parent.cell)
        child.busy = False
        child.go_on()

    def _start(self, session: Session, request: dict[str, Any]) -> None:
        session.busy = True
        cell = session.cell
        assert cell is not None

        def done(result: Result, process: Process | None, files: bytes) -> None:
            self._reply({"id": request["id"], **result})
            if process is not None:
                after = Cell(cell, request["code"], files, None)
                self._enter(session, after)
                self._hold(after, process)
            session.busy = False
            session.go_on()

        self._run(cell, request["code"], done, self._bounds)

    def _describe(self) -> dict[str, Any]:
        live = {"processes": len(self._processes), "sessions": len(self._sessions), "waiting": self._turns.waiting}
        memory = sum(cell.size for cell in self._recent)
        return {"counters": dict(self._counters), "restarts": self._restarts, "private_bytes": memory, **live}

    def _reply(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        self._client.sendall(_HEAD.pack(len(data)) + data)

    def _on_client(self) -> None:
        data = self._client.recv(1 << 20)
        if not data:
            raise EOFError
        self._incoming += data
        while len(self._incoming) >= _HEAD.size:
            end = _HEAD.size + _HEAD.unpack_from(self._incoming)[0]
            if len(self._incoming) < end:
                break
            request = json.loads(bytes(self._incoming[_HEAD.size : end]))
            del self._incoming[:end]
            self._on_request(request)

    def serve(self) -> None:
        """Serve until the connection ends."""
        self._selector.register(self._client, selectors.EVENT_READ, self._on_client)
        self._selector.register(self._bell, selectors.EVENT_READ, self._on_bell)
        self._look_for_parent()
        try:
            while True:
                for key, _ in self._selector.select(self._timers.due_in()):
                    key.data()
                # a result that is there already is not late, however late this process comes to look at it
                self._processes.on_notifications()
                self._timers.run_due()
        except (EOFError, ConnectionError):
            return

    def _look_for_parent(self) -> None:
        """lapha may end while a fork of it still holds the connection."""
        if os.getppid() != self._config["parent"]:
            self._client.shutdown(socket.SHUT_RDWR)
        self._timers.after(_PARENT_SECONDS, self._look_for_parent)

    def stop(self) -> None:
        """End the jail."""
        if self._bwrap is not None:
            self._bwrap.kill()
            self._bwrap.wait()


def main(descriptor: int) -> None:
    """Entry point of the supervisor's process."""
    client = socket.socket(fileno=descriptor)
    with client.makefile("rb") as lines:
        config = json.loads(lines.readline())
    supervisor = Supervisor(client, config)
    try:
        walls.allow_files(config["live"] + 4 * config["slots"] + 64)
        supervisor.start_jail()
        supervisor._reply({"ready": True, "supervisor": os.getpid()})
        supervisor.serve()
    except (walls.JailFailed, OSError) as error:
        missing = error.args[0] if isinstance(error, FileNotFoundError) else None
        supervisor._reply({"failed": str(error), "missing": missing})
        sys.exit(1)
    finally:
        supervisor.stop()
