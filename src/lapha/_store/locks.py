"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from lapha._store.files import FileProblem, named

NAME = ".lock"

logger = logging.getLogger(__name__)


def hold(handle: int, path: Path, what: str, holder: Callable[[], str] = str) -> None:
    """Take the kernel's lock of an open file, until it is closed.

    Args:
        handle: the open file.
        path, what: name it in the message.
        holder: says who has it, if that is known.

    Raises:
        ValueError: another process has it, or this one does already.
        OSError: the file system has no locks; names `path`.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise OSError(problem.errno, problem.strerror, str(path)) from problem
        got = f"one held by {holder() or 'a process that does not say who it is'}"
        raise FileProblem(str(path), f"{what} that no other process has open", got) from problem


class FolderLock:
    """Holds a folder until `release`, or until this process ends, however it ends.

    The lock is the kernel's (`flock`), so that one left by a killed process is free; the file says who holds it.

    Args:
        folder: an existing folder.
        what: names the folder in the message, such as ``"a journal"``.

    Raises:
        ValueError: another process holds it, or this one does already; names that process.
        OSError: the file cannot be made; names it.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._path = folder / NAME
        self._handle = -1
        while self._handle < 0:
            with named(self._path):
                self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._take(folder, what)
            except (OSError, ValueError):
                self.close()
                raise
            if not self._is_there():  # it was released between opening and locking: a lock that nobody else would see
                self.close()

    def _take(self, folder: Path, what: str) -> None:
        hold(self._handle, folder, what, self._said)
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

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(self._path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let others in, as a killed process would: the file stays. More than once does no harm."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def release(self) -> None:
        """Let others in and remove the file: nothing was cut off. More than once does no harm."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):  # a folder that was removed meanwhile
                self._path.unlink()
        self.close()
