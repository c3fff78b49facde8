"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import logging
import os
import socket
from pathlib import Path

from lapha._store.files import FileProblem, named

NAME = ".lock"

logger = logging.getLogger(__name__)


class FolderLock:
    """Holds a folder until `close`, or until this process ends, however it ends.

    The lock is the kernel's (`flock`), so that one left by a killed process is free; the file says who holds it.

    Args:
        folder: an existing folder.
        what: names the folder in the message, such as ``"a journal"``.

    Raises:
        ValueError: another process holds it, or this one does already; names that process.
        OSError: the file cannot be made; names it.
    """

    def __init__(self, folder: Path, what: str) -> None:
        path = folder / NAME
        with named(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._take(folder, what)
        except (OSError, ValueError):
            self.close()
            raise

    def _take(self, folder: Path, what: str) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise OSError(problem.errno, problem.strerror, str(folder / NAME)) from problem
            holder = self._said() or "a process that does not say who it is"
            raise FileProblem(
                str(folder), f"{what} that no other process has open", f"one held by {holder}"
            ) from problem
        if before := self._said():
            logger.info("%s: taken over from %s, which ended without closing it", folder, before)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._say(f"process {os.getpid()} on {socket.gethostname()} since {now}")

    def _said(self) -> str:
        return os.pread(self._handle, 500, 0).decode(errors="replace").strip()

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # for messages only: a full disk is found out by what matters
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, text.encode(), 0)

    def close(self) -> None:
        """Let others in; more than once does no harm."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def release(self) -> None:
        """`close`, and leave no name behind: nothing was cut off."""
        if self._handle >= 0:
            self._say("")
        self.close()
