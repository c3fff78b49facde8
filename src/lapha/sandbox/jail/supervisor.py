"""The supervisor: sessions on one side, the jail on the other. A process behind the outer wall, with a filter of its own.

It is trusted with the branches, and with nothing of the host. It ends when the connection to lapha does, and the jail
ends with it.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from lapha.sandbox.jail import confine, kernel, seccomp, walls, wire
from lapha.sandbox.jail.launcher import STARTED
from lapha.sandbox.jail.process import Process
from lapha.sandbox.jail.registry import Processes
from lapha.sandbox.jail.runs import MAX_PATHS, Bounds, Result, Run, Then, Turns
from lapha.sandbox.jail.states import Cell, Session
from lapha.sandbox.jail.timers import Timers

_RESTARTS = 5
_MEASURE_AFTER = 0.2  # seconds
_LEAST_SECONDS = 0.5  # of a second try


class Supervisor:
    """See the module.

    Args:
        client: connection to lapha.
        launcher: connection to the process that starts jails.
        config: what `BubblewrapSandbox` asks for.
    """

    def __init__(self, client: socket.socket, launcher: socket.socket, config: dict[str, Any]) -> None:
        self._client, self._launcher, self._config = client, launcher, config
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

    # The jail ------------------------------------------------------------------------------------------------

    def start_jail(self) -> None:
        """Start the jail, at first and whenever its template has died.

        Raises:
            walls.JailFailed: it does not start.
        """
        config = self._config
        self._launcher.sendall(b"!")
        answer, descriptors, _, _ = socket.recv_fds(self._launcher, 4096, 1)
        if not descriptors:
            raise walls.JailFailed(answer[STARTED.size :].decode("utf-8", "replace") or "its launcher has ended")
        top, listener = STARTED.unpack(answer)[0], descriptors[0]
        args = (listener, self._selector, self._timers, self._max_message(), config["file_bytes"], top)
        self._processes = Processes(*args, self._counters)
        template = self._processes.first(config["start_seconds"])
        if template is None:
            raise walls.JailFailed(
                "the jail does not answer, or its memory may not be read (sysctl kernel.yama.ptrace_scope must be 0 or 1)"
            )
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._processes.on_notifications)
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

    def _on_request(self, kind: str, request: dict[str, Any]) -> None:
        number = request.get("session", -1)
        if kind == "open":
            session = self._sessions[number] = Session(self._root)
            self._root.sessions += 1
        elif kind == "fork":
            child = self._sessions[number] = Session(None)
            parent = self._sessions[request["of"]]
            parent.enqueue(lambda: self._forked(child, parent))
        elif kind == "close":
            session = self._sessions.pop(number)
            session.enqueue(lambda: self._enter(session, None))
        elif kind == "run":
            session = self._sessions[number]
            session.enqueue(lambda: self._start(session, request))
        elif kind == "describe":
            self._reply("description", id=request["id"], **self._describe())

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
            self._reply("result", id=request["id"], **result)
            if process is not None:
                after = Cell(cell, request["code"], files, None)
                self._enter(session, after)
                self._hold(after, process)
            session.busy = False
            session.go_on()

        self._run(cell, request["code"], done, self._bounds)

    def _describe(self) -> dict[str, dict[str, int]]:
        gauges = {"processes": len(self._processes), "sessions": len(self._sessions), "waiting": self._turns.waiting}
        gauges |= {"private_bytes": sum(cell.size for cell in self._recent), "restarts": self._restarts}
        return {"counters": dict(self._counters), "gauges": gauges}

    def _reply(self, kind: str, **fields: Any) -> None:
        self._client.sendall(wire.frame(wire.encode(wire.TO_LAPHA, kind, **fields)))

    def _on_client(self) -> None:
        data = self._client.recv(1 << 20)
        if not data:
            raise EOFError
        self._incoming += data
        while (message := wire.take_frame(self._incoming, self._config["code_bytes"] + 4096)) is not None:
            self._on_request(*wire.decode(wire.TO_SUPERVISOR, message))

    def serve(self) -> None:
        """Serve until the connection ends."""
        self._selector.register(self._client, selectors.EVENT_READ, self._on_client)
        self._selector.register(self._bell, selectors.EVENT_READ, self._on_bell)
        try:
            while True:
                for key, _ in self._selector.select(self._timers.due_in()):
                    key.data()
                # a result that is there already is not late, however late this process comes to look at it
                self._processes.on_notifications()
                self._timers.run_due()
        except (EOFError, ConnectionError):
            return


def run(client: socket.socket, launcher: socket.socket, config: dict[str, Any]) -> None:
    """The supervisor's life: start the jail, give up all rights but those that watching it takes, and serve.

    Args:
        client: connection to lapha.
        launcher: connection to the process that starts jails.
        config: what `BubblewrapSandbox` asks for.
    """
    supervisor = Supervisor(client, launcher, config)
    try:
        supervisor.start_jail()
        confine.install(seccomp.supervisor_program(), listen=False)
        supervisor._reply("ready")
        supervisor.serve()
    except (walls.JailFailed, OSError) as error:
        supervisor._reply("failed", reason=str(error))
        sys.exit(1)
