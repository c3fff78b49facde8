"""Records appended to a file, one JSON object a line, each with a checksum of its own line.

A line is ``{…, "crc32": "…"}``: plain JSON Lines, whose checksum is over every byte of the line before it. A tail that
a kill cut off, or that is damaged, is dropped with a warning; damage before good lines is refused by name.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapha._store.files import FileProblem, named, sync_folder
from lapha._store.locks import hold

_TAIL = re.compile(rb'(?:, )?"crc32": "([0-9a-f]{8})"\}$')
_TAIL_BYTES = len(b', "crc32": "00000000"}')

logger = logging.getLogger(__name__)

Decoder = Callable[[bytes], dict[str, Any] | None]
"""The record in a line (without its line feed), or None if the line is cut short or damaged."""


def _same(record: dict[str, Any]) -> dict[str, Any]:
    return record


def encode_line(record: dict[str, Any]) -> bytes:
    """`record` as a line with its checksum. Text stays readable; lone surrogates are escaped."""
    try:
        body = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        body = json.dumps(record, allow_nan=False).encode()
    body = body[:-1] + (b", " if record else b"") + b'"crc32": "'
    return body + b'%08x"}\n' % zlib.crc32(body)


def decode_checked(line: bytes) -> dict[str, Any] | None:
    """The record in a line that must have a checksum."""
    tail = _TAIL.search(line, max(0, len(line) - _TAIL_BYTES))
    if tail is None or zlib.crc32(line[: tail.start(1)]) != int(tail[1], 16):
        return None
    record: dict[str, Any] = json.loads(line)
    del record["crc32"]
    return record


def decode_any(line: bytes) -> dict[str, Any] | None:
    """The record in a line that may have a checksum, which must then fit."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    return decode_checked(line) if "crc32" in record else record


@dataclass
class Lines:
    """What a file of lines holds.

    Attributes:
        records: in the file's order, or what `keep` made of them.
        offsets: where each record's line begins, in bytes.
        size: bytes up to the end of the last good line.
        dropped: bytes of the damaged tail after it.
    """

    records: list[Any] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    size: int = 0
    dropped: int = 0


def read_lines(
    path: Path, *, checked: bool = True, decode: Decoder | None = None, keep: Callable[[dict[str, Any]], Any] = _same
) -> Lines:
    """All records of a file; none where there is no file.

    Args:
        path: the file.
        checked: whether every line must have a checksum; lines that older versions wrote have none.
        decode: reads one line instead.
        keep: what of each record is to be kept; default: all.

    Raises:
        ValueError: a damaged line before a good one, or a file that cannot be read; names file and line.
    """
    read = decode or (decode_checked if checked else decode_any)
    found = Lines()
    damaged: int | None = None
    start = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                record = read(line[:-1]) if line.endswith(b"\n") else None
                if record is not None:
                    if damaged is not None:
                        raise FileProblem(str(path), "lines as they were written", f"a damaged one: line {damaged}")
                    found.records.append(keep(record))
                    found.offsets.append(start)
                    found.size = start + len(line)
                elif checked or line.strip():
                    damaged = damaged or number
                start += len(line)
    except FileNotFoundError:
        return Lines()
    except OSError as problem:
        raise FileProblem(str(path), "a readable file", str(problem)) from problem
    found.dropped = start - found.size
    if damaged is not None:
        text = "%s: the last %d bytes, from line %d on, were cut off or damaged and are left out"
        logger.warning(text, path, found.dropped, damaged)
    return found


class LineFile:
    """A file of lines that is appended to, by one process at a time.

    Opening one drops its damaged tail from the file. Where a write fails, a full disk say, the part that was written is
    taken back.

    Args:
        path: made if absent.
        checked, decode, keep: as for `read_lines`.

    Attributes:
        found: what it held when it was opened.

    Raises:
        ValueError: a damaged line before a good one, or another process has the file open.
        OSError: the file cannot be opened or written; names it.
    """

    def __init__(
        self,
        path: Path,
        *,
        checked: bool = True,
        decode: Decoder | None = None,
        keep: Callable[[dict[str, Any]], Any] = _same,
    ) -> None:
        self.path = path
        self._decode = decode or (decode_checked if checked else decode_any)
        with named(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            hold(self._handle, path, "a file")
            self.found = read_lines(path, checked=checked, decode=decode, keep=keep)
            self._end = self.found.size
            with named(path):
                if self.found.dropped:
                    os.ftruncate(self._handle, self._end)
                    os.fsync(self._handle)
            sync_folder(path.parent)
        except (ValueError, OSError):
            self.close()
            raise

    def append(self, record: dict[str, Any], *, sync: bool = False) -> int:
        """Append one record, whole; the byte at which its line begins.

        Args:
            record: JSON values.
            sync: have it survive a power failure before this returns.

        Raises:
            OSError: a full disk, for instance; names the file, which then holds what it held before.
        """
        line, offset = encode_line(record), self._end
        with named(self.path):
            try:
                written = 0
                while written < len(line):
                    written += os.pwrite(self._handle, line[written:], offset + written)
                if sync:
                    os.fsync(self._handle)
            except OSError:
                os.ftruncate(self._handle, offset)
                raise
        self._end = offset + len(line)
        return offset

    def read(self, offset: int) -> dict[str, Any]:
        """The record whose line begins at `offset`.

        Raises:
            ValueError: it was damaged meanwhile.
        """
        with named(self.path):
            chunks, where = [], offset
            while where < self._end:
                chunk = os.pread(self._handle, min(1 << 18, self._end - where), where)
                end = chunk.find(b"\n")
                chunks.append(chunk if end < 0 else chunk[:end])
                where += len(chunk)
                if end >= 0 or not chunk:
                    break
        record = self._decode(b"".join(chunks))
        if record is None:
            raise FileProblem(str(self.path), "lines as they were written", f"a damaged one at byte {offset}")
        return record

    def sync(self) -> None:
        """Make what was written survive a power failure."""
        with named(self.path):
            os.fsync(self._handle)

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
