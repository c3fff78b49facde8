"""A journal of finished trees, from which a killed run resumes without losing one and without repeating one.

A folder with ``header.json`` (format and settings), ``results.jsonl`` (one line a finished tree, appended) and
``latents/`` (one safetensors file a tree). Latents are durable before the line that refers to them is written, and the
line before the result is handed out: what a line says is there, is there. Each line carries a checksum; a line that a
kill cut short is dropped on opening, and its tree is searched again.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from lapha._checks import check
from lapha.search.config import SearchConfig
from lapha.search.latents import load_latents, save_latents
from lapha.search.result import SearchResult
from lapha.tree.storage import FileProblem, read_document, sync_folder, write_document

FORMAT = "lapha-search-journal"
VERSION = 1


class Journal:
    """An open journal; one process at a time. Make it with `open`.

    ``len(journal)`` trees; ``key in journal``; `read` one, `append` one.
    """

    def __init__(self, folder: Path, file: BinaryIO, offsets: dict[str, int]) -> None:
        self.folder = folder
        self._file = file
        self._offsets = offsets

    @classmethod
    def open(cls, folder: str | Path, config: SearchConfig) -> Journal:
        """Open the journal in `folder`, made if absent.

        Args:
            folder: its parent must exist.
            config: settings of the run. A journal holds trees of one set of settings.

        Raises:
            ValueError: the folder cannot be written, holds something else, is a journal of other settings (the
                message names them), is open in another process, or has a damaged line before its last.
        """
        folder = Path(folder)
        check(folder.parent.is_dir(), "journal", "a folder in an existing one", str(folder))
        check(not folder.exists() or folder.is_dir(), "journal", "a folder", f"the file {folder}")
        folder.mkdir(exist_ok=True)
        check(os.access(folder, os.W_OK), "journal", "a writable folder", str(folder))
        (folder / "latents").mkdir(exist_ok=True)
        file = open(folder / "results.jsonl", "a+b")  # noqa: SIM115 (closed by `close`)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            file.close()
            raise FileProblem(str(folder), "a journal that no other process has open", str(problem)) from problem
        try:
            _check_header(folder, config)
            offsets = _read_offsets(file, folder)
        except ValueError:
            file.close()
            raise
        sync_folder(folder)
        return cls(folder, file, offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, key: object) -> bool:
        return key in self._offsets

    def append(self, result: SearchResult) -> None:
        """Write a finished result, durably.

        Raises:
            ValueError: the journal holds this result already.
        """
        check(result.key not in self, "result", "one that is not in the journal yet", result.key)
        save_latents(self._latents_path(result.key), result.latents, result.key)
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(_encode(result.to_dict()))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._offsets[result.key] = offset

    def read(self, key: str, index: int) -> SearchResult:
        """The finished result named `key`, as question `index` of this run.

        Raises:
            ValueError: its latents' file is missing or damaged.
        """
        self._file.seek(self._offsets[key])
        document = _decode(self._file.readline())
        assert document is not None, "the line was good when the journal was opened"
        latents = load_latents(self._latents_path(key), key)
        result = SearchResult.from_dict(document, latents, str(self.folder))
        result.index = index
        return result

    def close(self) -> None:
        """Let other processes open the journal."""
        self._file.close()

    def _latents_path(self, key: str) -> Path:
        return self.folder / "latents" / f"{key}.safetensors"


def _check_header(folder: Path, config: SearchConfig) -> None:
    path = folder / "header.json"
    settings = json.loads(json.dumps(config.to_dict()))
    if not path.exists():
        empty = (folder / "results.jsonl").stat().st_size == 0
        check(empty, str(folder), "a journal with a header.json", "one without")
        write_document(path, FORMAT, VERSION, {"config": settings})
        return
    known = read_document(path, FORMAT, VERSION).get("config")
    if known != settings:
        differ = sorted(
            name for name in {*settings, *(known or {})} if (known or {}).get(name) != settings.get(name)
        )  # fmt: skip
        raise FileProblem(str(folder), "a journal of the same settings", f"one that differs in {', '.join(differ)}")


def _read_offsets(file: BinaryIO, folder: Path) -> dict[str, int]:
    """Where each key's line begins; a cut last line is dropped from the file."""
    offsets: dict[str, int] = {}
    file.seek(0)
    good = 0
    for line in iter(file.readline, b""):
        document = _decode(line)
        if document is None:
            rest = file.read()
            if b"\n" in line and rest:
                raise FileProblem(str(folder / "results.jsonl"), "good lines", f"a damaged one at byte {good}")
            break
        offsets[document["key"]] = good
        good += len(line)
    if file.seek(0, os.SEEK_END) != good:
        file.truncate(good)
        os.fsync(file.fileno())
    return offsets


def _encode(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode(line: bytes) -> dict[str, Any] | None:
    """The document in a line, or None if the line is cut short or damaged."""
    if not line.endswith(b"\n") or line[8:9] != b" ":
        return None
    text = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(text):
        return None
    return json.loads(text)
