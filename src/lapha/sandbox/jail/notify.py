"""The supervisor's end of seccomp notifications (Linux ≥ 5.5), and the memory of waiting processes."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import NamedTuple

_RECEIVE, _SEND, _STILL_VALID = 0xC0502100, 0xC0182101, 0x40082102
_CONTINUE = 1
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")


class Notification(NamedTuple):
    """A process, as seen from here, waits in a system call.

    Attributes:
        id: the kernel's name for this wait.
        pid: the process.
        number: the system call.
        arguments: its six arguments.
    """

    id: int
    pid: int
    number: int
    arguments: tuple[int, ...]


def receive(listener: int) -> Notification | None:
    """The next waiting process, or None if it is gone already."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer, True)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    ident, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
    return Notification(ident, pid, number, tuple(arguments))


def still_waits(listener: int, ident: int) -> bool:
    """Whether that process still waits there: its pid is then certain to be its own."""
    try:
        fcntl.ioctl(listener, _STILL_VALID, struct.pack("=Q", ident))
    except OSError:
        return False
    return True


def answer(listener: int, ident: int, value: int = 0, error: int = 0, *, let_through: bool = False) -> bool:
    """Wake a waiting process; False if it is gone.

    Args:
        listener: the filter's file descriptor.
        ident: the wait's name.
        value: what the system call returns.
        error: an errno to fail with instead.
        let_through: run the real system call instead.
    """
    try:
        fcntl.ioctl(listener, _SEND, _RESPONSE.pack(ident, value, -error, _CONTINUE if let_through else 0))
    except OSError as failed:
        if failed.errno in (errno.ENOENT, errno.EINPROGRESS):
            return False
        raise
    return True


def read_memory(pid: int, address: int, size: int) -> bytes | None:
    """`size` bytes of a process's memory, or None where it has none."""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.pread(memory, size, address)
    except (OSError, OverflowError):
        return None
    finally:
        os.close(memory)
    return data if len(data) == size else None


def write_memory(pid: int, address: int, data: bytes) -> bool:
    """Write into a process's memory; False where it has none."""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pwrite(memory, data, address) == len(data)
    except (OSError, OverflowError):
        return False
    finally:
        os.close(memory)
