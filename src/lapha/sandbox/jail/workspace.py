"""Private folders for runs.

Each slot is a small file system of its own (so its size is a hard quota), and a run has a slot to itself. In it the
run gets a folder with a random name in a parent that nobody in the jail can list or write: no other run finds it.
When the run ends, its own process packs its files into the result, with its own rights, and the supervisor empties the
slot. The supervisor keeps the packed files as bytes that it does not look into, and hands them to the runs that continue
from there. Files are thus as independent between branches as variables are, and nobody outside opens one.

What lies in a slot is hostile: emptying it takes single names, relative to open folders, and follows no link.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
import threading
from collections.abc import Callable

MAX_INODES = 4096
"""Most that a run may make on its way; beyond, it is stopped: they cost kernel memory that no other limit counts."""

_BATCH = 1000
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Slot:
    """One private file system.

    Args:
        path: where it is inside the jail.
        folder: open file descriptor of its root.
    """

    def __init__(self, path: str, folder: int) -> None:
        self.path = path
        self.folder = folder
        os.fchmod(folder, 0o111)
        self._empty = self._used()

    def _used(self) -> tuple[int, int]:
        usage = os.fstatvfs(self.folder)
        return usage.f_blocks - usage.f_bfree, usage.f_files - usage.f_ffree

    @property
    def crowded(self) -> bool:
        """Whether a run has made more files than it may."""
        return self._used()[1] - self._empty[1] > MAX_INODES

    @property
    def empty(self) -> bool:
        """Whether nothing is left in it, not even a deleted file that a process still holds open."""
        return self._used() == self._empty

    def prepare(self) -> str:
        """Make a run's folder; its path inside the jail."""
        name = secrets.token_hex(16)
        os.fchmod(self.folder, 0o300)
        try:
            os.mkdir(name, 0o700, dir_fd=self.folder)
        finally:
            os.fchmod(self.folder, 0o111)
        return f"{self.path}/{name}"

    def clear(self) -> None:
        """Delete everything in it."""
        os.fchmod(self.folder, 0o700)
        try:
            _empty_folder(self.folder)
        finally:
            os.fchmod(self.folder, 0o111)


class Slots:
    """The free slots, and who waits for one.

    Args:
        slots: all of them.
        later: called from another thread with a function to run in the supervisor's.
    """

    def __init__(self, slots: list[Slot], later: Callable[[Callable[[], None]], None]) -> None:
        self._free = list(slots)
        self._waiting: list[Callable[[Slot], None]] = []
        self._later = later

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, then: Callable[[Slot], None]) -> None:
        """Call `then` with a slot as soon as one is free; first come, first served."""
        if self._free:
            then(self._free.pop())
        else:
            self._waiting.append(then)

    def give_back(self, slot: Slot) -> None:
        """Take an emptied slot back."""
        if self._waiting:
            self._waiting.pop(0)(slot)
        else:
            self._free.append(slot)

    def abandon(self) -> list[Callable[[Slot], None]]:
        """Whoever still waits: the jail that the slots belong to is gone."""
        queue, self._waiting = self._waiting, []
        return queue

    def clear_aside(self, slot: Slot) -> None:
        """Empty a slot that may hold very much in a thread, and take it back when that is done."""

        def work() -> None:
            for _ in range(600):  # a killed process may hold a file for a moment
                with contextlib.suppress(OSError):
                    slot.clear()
                if slot.empty:
                    break
                threading.Event().wait(0.05)
            self._later(lambda: self.give_back(slot))

        threading.Thread(target=work, daemon=True).start()


def _names(folder: int, most: int) -> list[str]:
    """At most so many names in a folder: a hostile one has millions."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in itertools.islice(entries, most)]


def _empty_folder(top: int) -> None:
    """Delete all that is below `top` with a constant number of open files, however deep it is.

    A folder's subfolders are moved up beside it before it is removed, so that the tree becomes flat.
    """
    moved = 0
    while names := _names(top, _BATCH):
        for name in names:
            mode = os.stat(name, dir_fd=top, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                os.unlink(name, dir_fd=top)
                continue
            _make_accessible(name, top)
            descriptor = os.open(name, _OPEN_FOLDER, dir_fd=top)
            try:
                while inners := _names(descriptor, _BATCH):
                    for inner in inners:
                        moved += _remove_or_move(descriptor, inner, top, moved)
            finally:
                os.close(descriptor)
            os.rmdir(name, dir_fd=top)


def _remove_or_move(folder: int, name: str, top: int, number: int) -> int:
    """Delete a file, or move a folder up beside its own; how many were moved."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=folder)
        return 0
    _make_accessible(name, folder)
    os.rename(name, f".moved-{number}", src_dir_fd=folder, dst_dir_fd=top)
    return 1


def _make_accessible(name: str, folder: int) -> None:
    """Give a folder back the rights that its maker may have taken away."""
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)
