"""How lapha keeps things on disk: nothing lost by a kill, nothing changed unnoticed, nothing written by two at once.

* `replacing`, `replace_file`: a file is the old one or the new one, also after a power cut;
* `write_document`, `read_document`: one JSON object with its kind, version and checksum;
* `LineFile`, `read_lines`: records appended one by one, each line with its checksum;
* `write_tensors`, `open_tensors`: safetensors files with a checksum for every tensor and for the header;
* `FolderLock`: one process at a time.

Every checksum is a CRC-32 of the bytes as they stand in the file.
"""

from lapha._store.documents import read_document, write_document
from lapha._store.files import (
    FileProblem,
    check_writable,
    leftovers,
    named,
    remove_leftovers,
    replace_file,
    replacing,
    sync_folder,
)
from lapha._store.lines import LineFile, Lines, read_lines
from lapha._store.locks import FolderLock
from lapha._store.tensors import Column, checksum_of, open_tensors, read_tensors, staged_tensors, write_tensors

__all__ = [
    "Column",
    "FileProblem",
    "FolderLock",
    "LineFile",
    "Lines",
    "check_writable",
    "checksum_of",
    "leftovers",
    "named",
    "open_tensors",
    "read_document",
    "read_lines",
    "read_tensors",
    "remove_leftovers",
    "replace_file",
    "replacing",
    "staged_tensors",
    "sync_folder",
    "write_document",
    "write_tensors",
]
