"""The host's end of the connection to the bubblewrap jail: starts it, asks it, believes nothing that is not in the schema."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from lapha.sandbox.jail import walls, wire
from lapha.sandbox.protocol import SandboxError, SandboxUnavailable

_UNAVAILABLE = (
    "The bubblewrap sandbox does not start on this machine: {}. It needs Linux 5.9 or later on x86-64, with user "
    "namespaces inside user namespaces for this user (sysctl kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces; in a container, its seccomp profile, and "
    "a /proc that is not masked)."
)
_HOW = "apt-get install bubblewrap (or your system's package of that name)"


class Link:
    """The connection to the supervisor. Any thread and any event loop may use it.

    Args:
        config: what the launcher and the supervisor are told; see `BubblewrapSandbox`.

    Attributes:
        pid: the outer wall's process.

    Raises:
        SandboxUnavailable: the jail does not start; says why.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._closed = False
        self._broken = ""
        self._owner = os.getpid()
        self._most = 4 * (4 * config["output_bytes"] + 1024) + (64 << 10)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the link
        started: Future[None] = Future()
        # the jail ends with the thread that starts it, which is therefore the one that lives as long as the link
        self._thread = threading.Thread(target=self._thread_of_link, args=(config, theirs, started), daemon=True)
        self._thread.start()
        ready = False
        try:
            started.result()
            ready = True
        finally:
            if not ready:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
                self._thread.join()
                self._close_files()

    def _thread_of_link(self, config: dict[str, Any], theirs: socket.socket, started: Future[None]) -> None:
        try:
            self._live(config, theirs, started)
        except OSError as error:  # no process, memory or descriptor to be had
            if not started.done():
                started.set_exception(SandboxUnavailable(_UNAVAILABLE.format(error)))
            self._fail(f"the sandbox has failed: {error}")
        finally:
            theirs.close()
            if not started.done():
                started.set_exception(SandboxError("the sandbox could not be started"))

    def _live(self, config: dict[str, Any], theirs: socket.socket, started: Future[None]) -> None:
        """The reader's thread: starts everything, reads what comes, and waits for the end."""
        try:
            command = walls.outer(config["packages"], theirs.fileno())
        except FileNotFoundError:
            theirs.close()
            why = f"The bubblewrap sandbox needs the program 'bwrap'. Install it with: {_HOW}"
            started.set_exception(SandboxUnavailable(why))
            return
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": self._errors}
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={}, **streams)
        theirs.close()
        self.pid = self._process.pid
        messages = self._messages(config)
        kind, hello = next(messages, ("failed", {"reason": ""}))
        if kind != "ready":
            self._process.kill()
            self._process.wait()
            reason = hello.get("reason") or self._last_words() or "it ended before it was ready"
            started.set_exception(SandboxUnavailable(_UNAVAILABLE.format(reason)))
            return
        started.set_result(None)
        reason = ""
        for kind, answer in messages:
            if kind == "failed":
                reason = f"the sandbox has failed: {answer['reason']}"
            elif "id" in answer:
                self._settle(answer)
        self._process.kill()
        self._process.wait()
        self._fail(reason or f"the sandbox's supervisor has ended ({self._last_words() or 'killed'})")

    def _messages(self, config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the supervisor says, as far as it keeps to the schema; ends when it ends, or does not."""
        buffer = bytearray()
        try:
            self._socket.sendall(json.dumps(config).encode() + b"\n")
            while data := self._socket.recv(1 << 20):
                buffer += data
                while (message := wire.take_frame(buffer, self._most)) is not None:
                    yield wire.decode(wire.TO_LAPHA, message)
        except (OSError, wire.Garbled):
            return  # closed under way, or compromised: whoever waits is told that it has ended

    def _settle(self, answer: dict[str, Any]) -> None:
        with self._lock:
            future = self._waiting.pop(answer["id"], None)
        if future is not None and future.set_running_or_notify_cancel():
            future.set_result(answer)

    def _last_words(self) -> str:
        """The last line that anything behind the outer wall has written to standard error."""
        size = os.fstat(self._errors.fileno()).st_size
        said = os.pread(self._errors.fileno(), 2000, max(0, size - 2000)).decode("utf-8", "replace").strip()
        return said.splitlines()[-1] if said else ""

    def ask(self, kind: str, **fields: Any) -> Future[dict[str, Any]]:
        """Send a request; the future gets the answer, or `SandboxError`."""
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            self._send(kind, id=number, **fields)
        return future

    def new_session(self, how: str, of: int | None = None) -> int:
        """Open or fork a session; its number."""
        with self._lock:
            number = next(self._numbers)
            self._send(how, session=number, **({} if of is None else {"of": of}))
        return number

    def close_session(self, number: int) -> None:
        with self._lock:
            if not self._closed:
                with contextlib.suppress(SandboxError):
                    self._send("close", session=number)

    def close(self) -> None:
        """End the supervisor, and with it the jail. In a fork of this process there is nothing to end."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        if self._thread.is_alive():
            self._process.kill()  # everything behind the wall dies with it
            self._thread.join()
        self._close_files()
        self._fail("the sandbox is closed")

    def _close_files(self) -> None:
        self._socket.close()
        self._errors.close()

    def _send(self, kind: str, **fields: Any) -> None:
        if self._closed or self._broken:
            raise SandboxError("the sandbox is closed" if self._closed else self._broken)
        if os.getpid() != self._owner:
            raise SandboxError("the sandbox belongs to the process that made it, and this is a fork of that")
        try:
            self._socket.sendall(wire.frame(wire.encode(wire.TO_SUPERVISOR, kind, **fields)))
        except OSError as error:
            raise SandboxError(f"the sandbox's supervisor has ended ({error})") from error

    def _fail(self, reason: str) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
            self._broken = self._broken or reason
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(SandboxError(reason))
