"""JSON documents that say what they are and carry a checksum of their own text.

A document is ``{"crc32": "…", "format": …, "version": …, …}``: plain JSON, whose checksum is over every byte after its
own. Documents of version 1 were written without one and are read as they are.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

from lapha._store.files import FileProblem, check_writable, replace_file

_HEAD = re.compile(rb'\{"crc32": "([0-9a-f]{8})", ')
CHECKED_FROM = 2  # the version from which on a document has a checksum


def write_document(path: Path, kind: str, version: int, document: dict[str, Any], *, sweep: bool = True) -> None:
    """Write one JSON document that says what it is, durably and at once or not at all.

    Raises:
        ValueError: the folder does not exist or cannot be written.
        OSError: a full disk, for instance; names `path`.
    """
    check_writable(path)
    rest = json.dumps({"format": kind, "version": version, **document}, allow_nan=False).encode()[1:]
    replace_file(path, b'{"crc32": "%08x", %s' % (zlib.crc32(rest), rest), sweep=sweep)


def read_document(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read what `write_document` wrote.

    Raises:
        ValueError: the file is missing, truncated, damaged, of another kind, or of a newer version; names it.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise FileProblem(str(path), "a readable file", str(problem)) from problem
    head = _HEAD.match(content)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise FileProblem(str(path), "JSON that is not truncated", str(problem)) from problem
    found = document.get("format") if isinstance(document, dict) else None
    if found != kind:
        raise FileProblem(str(path), f"a file of format {kind!r}", repr(found))
    number = document.get("version")
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= version:
        raise FileProblem(str(path), f"version 1 to {version} of {kind!r}", repr(number))
    if head is None and number >= CHECKED_FROM:
        raise FileProblem(str(path), "a file that begins with its checksum", "one that is damaged")
    if head and zlib.crc32(content[head.end() :]) != int(head[1], 16):
        raise FileProblem(str(path), "a file as it was written", "one that is damaged: its checksum does not fit")
    document.pop("crc32", None)
    return document
