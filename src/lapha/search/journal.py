"""A journal of finished trees, from which a killed run resumes without losing one and without repeating one.

A folder with ``header.json`` (format, settings, and what else determines the trees), ``results.jsonl`` (one line a
finished tree, appended) and ``latents/`` (one safetensors file a tree). Latents are durable before the line that refers
to them is written, and the line before the result is handed out: what a line says is there, is there. Lines and latents
carry checksums; a line that a kill cut short is dropped on opening, and its tree is searched again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lapha
from lapha._checks import check
from lapha._identity import differences
from lapha._store import (
    FileProblem,
    FolderLock,
    LineFile,
    read_document,
    remove_leftovers,
    sync_folder,
    write_document,
)
from lapha._store.lines import decode_checked
from lapha.search.config import SearchConfig
from lapha.search.latents import load_latents, save_latents
from lapha.search.result import SearchResult

FORMAT = "lapha-search-journal"
VERSION = 2
_HEADER, _RESULTS, _LATENTS = "header.json", "results.jsonl", "latents"


class Journal:
    """An open journal; one process at a time. Make it with `open`.

    ``len(journal)`` trees; ``key in journal``; `read` one, `append` one.
    """

    def __init__(self, folder: Path, lock: FolderLock, file: LineFile) -> None:
        self.folder = folder
        self._lock = lock
        self._file = file
        self._offsets = dict(zip(file.found.records, file.found.offsets))

    @classmethod
    def open(cls, folder: str | Path, config: SearchConfig, identity: Mapping[str, Any] | None = None) -> Journal:
        """Open the journal in `folder`, made if absent.

        Args:
            folder: its parent must exist.
            config: settings of the run. A journal holds trees of one set of settings.
            identity: what else determines its trees, see `Search.identity`; they are of one identity. None takes them
                whatever they are of.

        Raises:
            ValueError: the folder cannot be written, holds something else, is a journal of other settings or of another
                identity (the message names the differences), is open in another process, or has a damaged line before
                its last.
            OSError: a full disk, for instance; names the file.
        """
        folder = _prepared(folder)
        lock = FolderLock(folder, "a journal")
        try:
            remove_leftovers(folder)
            remove_leftovers(folder / _LATENTS)
            _check_header(folder, config, identity)
            file = LineFile(folder / _RESULTS, decode=_decode, keep=lambda document: document["key"])
        except (ValueError, OSError):
            lock.release()
            raise
        return cls(folder, lock, file)

    @staticmethod
    def adopt(folder: str | Path, config: SearchConfig, identity: Mapping[str, Any]) -> None:
        """Say what the trees of a journal were made with, where an older version did not, or where it is known better.

        Nothing is checked: whoever calls this vouches for it. The journal then opens with `config` and `identity`.

        Raises:
            ValueError: `folder` holds no journal, or another process has it open.
        """
        folder = Path(folder)
        read_document(folder / _HEADER, FORMAT, VERSION)
        lock = FolderLock(folder, "a journal")
        try:
            _write_header(folder, _plain(config.to_dict()), _plain(identity))
        finally:
            lock.release()

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, key: object) -> bool:
        return key in self._offsets

    def append(self, result: SearchResult) -> None:
        """Write a finished result, durably.

        Raises:
            ValueError: the journal holds this result already.
            OSError: a full disk, for instance; names the file. The journal then holds what it held before.
        """
        check(result.key not in self, "result", "one that is not in the journal yet", result.key)
        checksum = save_latents(self._latents_path(result.key), result.latents, result.key, sweep=False)
        self._offsets[result.key] = self._file.append({**result.to_dict(), "latents": checksum}, sync=True)

    def read(self, key: str, index: int) -> SearchResult:
        """The finished result named `key`, as question `index` of this run.

        Raises:
            ValueError: its line or its latents' file is missing or damaged.
        """
        document = self._file.read(self._offsets[key])
        latents = load_latents(self._latents_path(key), key, document.get("latents"))
        result = SearchResult.from_dict(document, latents, str(self.folder))
        result.index = index
        return result

    def close(self) -> None:
        """Let other processes open the journal."""
        self._file.close()
        self._lock.release()

    def _latents_path(self, key: str) -> Path:
        return self.folder / _LATENTS / f"{key}.safetensors"


def read_journal(folder: str | Path, limit: int | None = None) -> Iterator[SearchResult]:
    """The finished results of a journal, in the order in which they were written. Changes nothing and takes no lock.

    Args:
        folder: the journal.
        limit: most results, or None.

    Raises:
        ValueError: no journal, or a damaged one. A last line that is cut short, as in a journal in use, is left out.
    """
    folder = Path(folder)
    read_document(folder / _HEADER, FORMAT, VERSION)
    with open(folder / _RESULTS, "rb") as file:
        for index, line in enumerate(file):
            if index == limit:
                return
            document = _decode(line[:-1]) if line.endswith(b"\n") else None
            if document is None:
                if not file.read(1):
                    return
                raise FileProblem(str(folder / _RESULTS), "good lines", f"a damaged line {index + 1}")
            latents = load_latents(folder / _LATENTS / f"{document['key']}.safetensors", document["key"])
            yield SearchResult.from_dict(document, latents, str(folder))


def _prepared(folder: str | Path) -> Path:
    folder = Path(folder)
    check(folder.parent.is_dir(), "journal", "a folder in an existing one", str(folder))
    check(not folder.exists() or folder.is_dir(), "journal", "a folder", f"the file {folder}")
    folder.mkdir(exist_ok=True)
    check(os.access(folder, os.W_OK), "journal", "a writable folder", str(folder))
    (folder / _LATENTS).mkdir(exist_ok=True)
    sync_folder(folder)
    return folder


def _check_header(folder: Path, config: SearchConfig, identity: Mapping[str, Any] | None) -> None:
    path, results = folder / _HEADER, folder / _RESULTS
    settings, own = _plain(config.to_dict()), _plain(identity)
    empty = not results.exists() or results.stat().st_size == 0
    if not path.exists():
        check(empty, str(folder), "a journal with a header.json", "one without")
        _write_header(folder, settings, own)
        return
    known = read_document(path, FORMAT, VERSION)
    _refuse(folder, "settings", _plain(known.get("config") or {}), settings)
    if own is None:
        return
    if known.get("identity") is None and not empty:
        raise FileProblem(
            str(folder),
            "a journal that says which policy, evaluator, environment and hooks its trees are of",
            "one of an older version; if they are this search's, say so once: "
            "Journal.adopt(folder, search.config, search.identity())",
        )
    if known.get("identity") is None:
        _write_header(folder, settings, own)
        return
    _refuse(folder, "search", known["identity"], own, ". What it cannot tell by itself, Search(identity=…) says")


def _refuse(folder: Path, what: str, known: Mapping[str, Any], now: Mapping[str, Any], advice: str = "") -> None:
    if found := differences(known, now):
        raise FileProblem(str(folder), f"a journal of the same {what}", f"one whose {'; '.join(found)}{advice}")


def _write_header(folder: Path, settings: Any, identity: Any) -> None:
    document = {"config": settings, "identity": identity, "lapha": lapha.__version__}
    write_document(folder / _HEADER, FORMAT, VERSION, document, sweep=False)


def _plain(value: Any) -> Any:
    """As it comes back from a file."""
    return json.loads(json.dumps(value))


def _decode(line: bytes) -> dict[str, Any] | None:
    """The document in a line, or None if it is cut short or damaged; older versions put the checksum first."""
    if line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(line[9:]):
        document: dict[str, Any] = json.loads(line[9:])
        return document
    return decode_checked(line)
