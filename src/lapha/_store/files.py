"""Files that are replaced as a whole, durably; what a killed writer left is removed by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lapha._checks import check
from lapha.errors import FileProblem as FileProblem

_LEFTOVER = re.compile(r"^\.(?P<name>.+)\.(?:[0-9a-f]{12}\.partial|[0-9a-f]{8})$", re.DOTALL)
_LONGEST = 200  # bytes of a file's name that fit beside what a temporary's name adds


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within the block, an `OSError` that names no file or a temporary one (a full disk, say) names `path`."""
    try:
        yield
    except OSError as error:
        told = error.filename
        if told is not None and not _is_temporary(os.fsdecode(told) if isinstance(told, (str, bytes)) else ""):
            raise
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


def check_writable(path: Path) -> None:
    """Raise `ValueError` unless a file can be written at `path`; found out before there is anything to lose."""
    folder = path.parent
    check(folder.is_dir(), "path", "a file in an existing folder", str(path))
    check(os.access(folder, os.W_OK), "path", "a file in a writable folder", str(path))
    check(not path.is_dir(), "path", "a file", f"the folder {path}")


@contextlib.contextmanager
def staging(path: Path, *, sweep: bool = True) -> Iterator[tuple[BinaryIO, Callable[[], None]]]:
    """A file to write to, and what makes it take the place of `path`, durably; without that call it is removed.

    Args:
        path: where the file is to be.
        sweep: remove what killed writers left beside it. A folder that is swept when it is opened does without.

    Raises:
        ValueError: the folder does not exist or cannot be written.
        OSError: a full disk, for instance; names `path`.
    """
    check_writable(path)
    if sweep:
        remove_leftovers(path.parent, path.name)
    with named(path):
        temporary, handle = _create(path)
        try:
            with os.fdopen(handle, "w+b") as file:

                def commit() -> None:
                    with named(path):
                        sync_file(file)
                        os.replace(temporary, path)
                        sync_folder(path.parent)

                yield file, commit
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path, *, sweep: bool = True) -> Iterator[BinaryIO]:
    """A file to write to; it takes the place of `path` when the block ends well, and is removed when it does not.

    Readers see the old file or the new one, after a kill or a power cut too. Arguments and errors as for `staging`.
    """
    with staging(path, sweep=sweep) as (file, commit):
        yield file
        commit()


def sync_file(file: BinaryIO) -> None:
    """Make what was written to `file` survive a power failure."""
    file.flush()
    os.fsync(file.fileno())


def replace_file(path: Path, content: bytes, *, sweep: bool = True) -> None:
    """Put `content` at `path`; see `replacing`."""
    with replacing(path, sweep=sweep) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Make renames and new files in `folder` durable."""
    with named(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Temporary files that writers have in `folder`, or left there when they were killed.

    Args:
        folder: where to look.
        name: of the file that they are to become; None for any.
    """
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    found = [(entry, _LEFTOVER.match(entry)) for entry in entries if entry.startswith(".")]
    return [folder / entry for entry, match in found if match and (name is None or match["name"] == _short(name))]


def remove_leftovers(folder: Path, name: str | None = None) -> int:
    """Remove the temporary files of writers that were killed; how many there were. What cannot be removed stays.

    A writer that lives holds a lock on its temporary file, and keeps it. Arguments as for `leftovers`.
    """
    return sum(_remove_unlocked(path) for path in leftovers(folder, name))


def _remove_unlocked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile, or another user's
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:  # its writer lives
        return False
    finally:
        os.close(handle)
    return True


def _create(path: Path) -> tuple[Path, int]:
    """A new temporary file for `path`, locked; its name and descriptor."""
    while True:
        temporary = path.with_name(f".{_short(path.name)}.{secrets.token_hex(6)}.partial")
        # readable for whom any new file is: one that tempfile makes is for its owner alone
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks: nobody removes what cannot be locked
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            return temporary, handle
        os.close(handle)  # taken for a leftover before it was locked


def _short(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST else hashlib.blake2b(encoded, digest_size=16).hexdigest()


def _is_temporary(path: str) -> bool:
    return path == "" or _LEFTOVER.match(os.path.basename(path)) is not None
