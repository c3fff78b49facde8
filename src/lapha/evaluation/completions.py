"""What the models wrote, kept with a run: every completion of every mode, compressed, one line per mode and problem.

Each sitting of a run writes a file of its own in ``completions/``, so that one that was killed costs its last lines at
most and damages nothing that a later one writes.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lapha.evaluation.run_folder import COMPLETIONS


class CompletionWriter:
    """Writes one sitting's completions.

    Args:
        folder: of the run.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder) / COMPLETIONS
        self._file: gzip.GzipFile | None = None

    def add(self, index: int, mode: str, texts: Sequence[str]) -> None:
        """Append what a mode wrote for one problem; it is with the system when this returns."""
        if self._file is None:
            self._folder.mkdir(exist_ok=True)
            used = [int(path.name.partition(".")[0]) for path in self._folder.glob("*.jsonl.gz")]
            self._file = gzip.open(self._folder / f"{max(used, default=0) + 1:04d}.jsonl.gz", "xb")  # noqa: SIM115
        line = json.dumps({"index": index, "mode": mode, "texts": list(texts)}) + "\n"
        self._file.write(line.encode())
        self._file.flush()

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_completions(folder: str | Path) -> dict[tuple[str, int], list[str]]:
    """(mode, problem) -> what the mode wrote for it, the latest where it was asked again; empty where nothing was kept."""
    found: dict[tuple[str, int], list[str]] = {}
    for path in sorted((Path(folder) / COMPLETIONS).glob("*.jsonl.gz")):
        for record in _records(path):
            found[record["mode"], record["index"]] = record["texts"]
    return found


def _records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a sitting that was killed leaves one without an end.

    Raises:
        ValueError: a file that is damaged before its end; names it.
    """
    try:
        data = zlib.decompressobj(31).decompress(path.read_bytes())
        return [json.loads(line) for line in data.split(b"\n")[:-1]]
    except (zlib.error, ValueError) as error:
        raise ValueError(f"run: expected completions in {path}, got a damaged file ({error})") from error
