"""What the kernel is asked: who waits in which system call, what is in a process's memory, what a process has open.

Seccomp notifications need Linux 5.9. Paths here are all in /proc, of a process by its number, and never a guest's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import NamedTuple

_RECEIVE, _SEND, _STILL_VALID, _ADD_DESCRIPTOR = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
_CONTINUE = 1
_AT_NUMBER = 1
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_ADDED = struct.Struct("=QIIII")
_HUGE = 2 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


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


def give_descriptor(listener: int, ident: int, ours: int, theirs: int) -> bool:
    """Open a file descriptor of ours in a waiting process, at a number; False if that cannot be done."""
    try:
        fcntl.ioctl(listener, _ADD_DESCRIPTOR, _ADDED.pack(ident, _AT_NUMBER, ours, theirs, os.O_CLOEXEC))
    except OSError:
        return False
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


def namespaces(pid: int) -> tuple[str, ...]:
    """The kernel's names for a process's mount and IPC namespaces; empty if it is gone."""
    try:
        return tuple(os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "ipc"))
    except OSError:
        return ()


def open_files(pid: int) -> set[str]:
    """A process's open file descriptors; empty if it is gone."""
    try:
        return set(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return set()


def private_bytes(pid: int) -> int:
    """Memory that would be free without a process."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            lines = [line.split() for line in file if line.startswith(b"Private_")]
    except OSError:
        return 0
    return sum(int(line[1]) << 10 for line in lines)


def large_ranges(pid: int) -> bytes:
    """Start and size of a process's private memory, in whole huge pages, packed."""
    found = []
    with open(f"/proc/{pid}/maps") as file:
        for line in file:
            span, rights, _, _, inode, *name = line.split()
            start, end = (int(bound, 16) for bound in span.split("-"))
            start, end = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
            if inode == "0" and rights == "rw-p" and end > start and name != ["[stack]"]:
                found.append(struct.pack("=QQ", start, end - start))
    return b"".join(found)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def parent_of(pid: int) -> int:
    """A process's parent; -1 if it is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else -1


def parents() -> dict[int, int]:
    """Parent of every process that can be seen."""
    return {int(name): parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}


def _stat(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []
