"""safetensors files with a format name and a version: written atomically, refused by name when they are not ours."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lapha._checks import check


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well, and is removed when it does not."""
    check(path.parent.is_dir(), "path", "a file in a folder that exists", path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], kind: str, version: int, metadata: Mapping[str, str]
) -> None:
    """Write `tensors` with ``format``, ``version`` and `metadata` in the header."""
    from safetensors.torch import save_file

    header = {"format": kind, "version": str(version), **metadata}
    with atomic_path(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, header)


@contextmanager
def open_tensors(path: Path, kind: str, version: int) -> Iterator[Any]:
    """An open safetensors file whose format and version are as expected.

    Raises:
        ValueError: no such file, not a complete safetensors file, another format or another version.
    """
    from safetensors import SafetensorError, safe_open

    check(path.is_file(), "path", "a file that exists", path)
    try:
        handle = safe_open(path, framework="pt", device="cpu")
    except SafetensorError as error:
        raise ValueError(f"path: expected a complete safetensors file, got {path} ({error})") from error
    with handle as file:
        metadata = file.metadata() or {}
        check(metadata.get("format") == kind, "path", f"a {kind} file", f"{path} with format {metadata.get('format')}")
        found = metadata.get("version")
        check(found == str(version), "path", f"a {kind} file of version {version}", f"{path} of version {found}")
        yield file


def read_tensors(path: Path, kind: str, version: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors and the metadata of a file; errors as in `open_tensors`."""
    with open_tensors(path, kind, version) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
