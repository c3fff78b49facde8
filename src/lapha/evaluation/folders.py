"""Output folders and the files in them that must survive an interrupt."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any, TextIO

from lapha._checks import check
from lapha._store import named
from lapha._text import decoded

PROBE = ".probe-"
"""How the files are named that are made to see whether a folder can be written to."""


def prepare_folder(path: str | Path, name: str = "out") -> Path:
    """Make the folder and prove that files can be written there, before anything is worth losing.

    Raises:
        ValueError: it cannot be made or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=PROBE):
            pass
    except OSError as error:
        raise ValueError(
            f"{name}: expected a folder that can be written to, got {folder} ({error.strerror})"
        ) from error
    return folder


class JsonLines:
    """Appends records to a JSONL file, each whole and flushed before the next thing happens.

    Args:
        path: the file; made if absent.
        append: keep what is there.
    """

    def __init__(self, path: str | Path, *, append: bool = False) -> None:
        self.path = Path(path)
        with named(self.path):
            self._file: TextIO = self.path.open("a" if append else "w", encoding="utf-8", errors="backslashreplace")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; NaN becomes null. A full disk is an `OSError` that names the file."""
        with named(self.path):
            self._file.write(json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Make what was written survive a power failure."""
        with named(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Records of a JSONL file. A last line that was cut off in the middle is left out.

    Raises:
        ValueError: a line in the middle is not JSON; names file and line.
    """
    lines = decoded(Path(path).read_bytes(), str(path), "it").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # no newline after it: the writer was killed here
                break
            raise ValueError(f"{path}: expected one JSON record per line, got {error} in line {number}") from error
        check(isinstance(record, dict), str(path), f"a JSON object in line {number}", type(record).__name__)
        records.append(record)
    return records


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities as None, arrays and tuples as lists."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
