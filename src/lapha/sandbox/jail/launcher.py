"""The first process behind the outer wall: it starts the supervisor and the jail, and the jail again when it is asked to.

The supervisor is a fork of it that then gives up what starting a jail needs. This process reads one byte for each jail
that it starts, and nothing else after its configuration. When the supervisor ends, it ends, and with it (it is the
parent of the outer wall's first process' only child) everything behind the wall.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import subprocess
import sys
from typing import Any

from lapha.sandbox.jail import confine, seccomp, walls, wire
from lapha.sandbox.jail.broker import mount_options

STARTED = struct.Struct("=q")
"""Before the answer to a request for a jail: the number of its first process, or -1 and then why there is none."""


def main(descriptor: int) -> None:
    """Entry point of the process."""
    client = socket.socket(fileno=descriptor)
    with client.makefile("rb") as lines:
        config = json.loads(lines.readline())
    ours, theirs = socket.socketpair()
    try:
        walls.allow_files(config["live"] + 4 * config["slots"] + 64)
    except walls.JailFailed as error:
        client.sendall(wire.frame(wire.encode(wire.TO_LAPHA, "failed", reason=str(error))))
        return
    if os.fork() == 0:
        from lapha.sandbox.jail.supervisor import run

        ours.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # its one writable file is standard error
        run(client, theirs, config)
        sys.exit()
    client.close()
    theirs.close()
    confine.hide_memory()
    serve(ours, config)


def serve(requests: socket.socket, config: dict[str, Any]) -> None:
    """Start a jail for each byte; end it before the next, and at the end."""
    jail: subprocess.Popen[bytes] | None = None
    while requests.recv(1):
        end(jail)
        try:
            jail, listener = start(config)
        except (walls.JailFailed, OSError) as error:
            requests.sendmsg([STARTED.pack(-1), str(error).encode("utf-8", "replace")[:2000]])
            continue
        socket.send_fds(requests, [STARTED.pack(jail.pid)], [listener])
        os.close(listener)
    end(jail)


def start(config: dict[str, Any]) -> tuple[subprocess.Popen[bytes], int]:
    """A jail: bwrap's process, and the descriptor on which its filter asks.

    Raises:
        walls.JailFailed: it does not start.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    guest = {name: config[name] for name in ("preload", "warm", "seed", "int_digits", "memory_bytes", "file_bytes")}
    guest |= {"packages_at": walls.PACKAGES_AT, "filter": seccomp.branch_program().hex()}
    guest |= {"mount_options": mount_options(config["file_bytes"])}
    with ours:
        return walls.start(
            walls.inner(config["packages"], theirs.fileno()), ours, theirs, guest, config["start_seconds"]
        )


def end(jail: subprocess.Popen[bytes] | None) -> None:
    """Kill everything in a jail."""
    if jail is not None:
        jail.kill()
        jail.wait()
