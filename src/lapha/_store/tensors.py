"""safetensors files that say what they are, with a checksum for every tensor and one for the header.

The layout of safetensors is a little-endian length of 8 bytes, a JSON header, and the tensors' bytes. The checksums
stand in the header's own metadata (``crc32:NAME`` and ``crc32``), so that any reader of safetensors reads the file.
Files are written and checked in blocks: one of many gigabytes needs no second copy in memory. Files of version 1 were
written without checksums and are read as they are.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lapha._store.files import FileProblem, staging, sync_file

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_BLOCK = 8 << 20
_CRC = "crc32"
CHECKED_FROM = 2  # the version from which on a file has checksums


@dataclass(frozen=True)
class Column:
    """A tensor to be written block by block.

    Attributes:
        dtype, shape: of the whole tensor.
        blocks: its rows, in order, as contiguous CPU tensors.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    blocks: Iterable[torch.Tensor]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Column:
        """One block."""
        tensor = tensor.detach().cpu().contiguous()
        return cls(tensor.dtype, tuple(tensor.shape), (tensor,))

    @property
    def nbytes(self) -> int:
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor | Column],
    kind: str,
    version: int,
    metadata: Mapping[str, str],
    *,
    sweep: bool = True,
) -> str:
    """Write `tensors`, with ``format``, ``version``, `metadata` and checksums in the header, durably.

    Returns:
        the checksum of the whole file, see `checksum_of`.

    Raises:
        ValueError: the folder does not exist or cannot be written, or a tensor's dtype has no name in the format.
        OSError: a full disk, for instance; names `path`.
    """
    with staged_tensors(path, tensors, kind, version, metadata, sweep=sweep) as (checksum, commit):
        commit()
    return checksum


@contextmanager
def staged_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor | Column],
    kind: str,
    version: int,
    metadata: Mapping[str, str],
    *,
    sweep: bool = True,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """As `write_tensors`, but the file, whole and durable, takes its place by a call: (checksum, that call)."""
    columns = {name: value if isinstance(value, Column) else Column.of(value) for name, value in tensors.items()}
    for name, column in columns.items():
        if column.dtype not in _DTYPES:
            raise ValueError(f"{name}: expected a dtype that safetensors files hold, got {column.dtype}")
    said = {"format": kind, "version": str(version), **metadata}
    sums = dict.fromkeys(columns, 0)
    with staging(path, sweep=sweep) as (file, commit):
        file.write(_header(columns, said, sums)[0])  # room for the checksums, which are known at the end
        for name, column in columns.items():
            count = 0
            for block in column.blocks:
                content = block.reshape(-1).view(torch.uint8).numpy().data if block.numel() else b""
                sums[name] = zlib.crc32(content, sums[name])
                count += file.write(content)
            assert count == column.nbytes, f"{name}: {count} bytes of {column.nbytes}"
        file.seek(0)
        header, checksum = _header(columns, said, sums)
        file.write(header)
        sync_file(file)
        yield checksum, commit


def _header(columns: Mapping[str, Column], metadata: Mapping[str, str], sums: Mapping[str, int]) -> tuple[bytes, str]:
    """The first bytes of a file, and the checksum of all that they say."""
    entries: dict[str, Any] = {}
    offset = 0
    for name, column in columns.items():
        shape, end = list(column.shape), offset + column.nbytes
        entries[name] = {"dtype": _DTYPES[column.dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    told = {**metadata, **{f"{_CRC}:{name}": f"{value:08x}" for name, value in sums.items()}}
    checksum = _header_sum(told, entries)
    text = json.dumps({"__metadata__": {**told, _CRC: checksum}, **entries}).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return struct.pack("<Q", len(text)) + text, checksum


def checksum_of(metadata: Mapping[str, str]) -> str | None:
    """The checksum of a whole file, by its metadata: that of its header, in which the tensors' checksums stand."""
    return metadata.get(_CRC)


def _header_sum(metadata: Mapping[str, str], entries: Mapping[str, Any]) -> str:
    """Checksum of what a header says, whatever the order and the spaces in which it says it."""
    return f"{zlib.crc32(json.dumps([metadata, entries], sort_keys=True).encode()):08x}"


@contextmanager
def open_tensors(
    path: Path, kind: str, version: int, name: str = "path", *, before: str | None = None
) -> Iterator[Any]:
    """An open safetensors file whose format and version are as expected and whose checksums fit.

    Args:
        path: the file.
        kind, version: its format, and the newest version of it that can be read.
        name: begins the message.
        before: what files of version 1 called their format, if that was another name.

    Raises:
        ValueError: no such file, not a complete safetensors file, a damaged one, another format or a newer version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileProblem(name, "a file that exists", str(path))
    try:
        handle = safe_open(path, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise FileProblem(name, "a complete safetensors file", f"{path} ({error})") from error
    with handle as file:
        metadata = file.metadata() or {}
        old = before is not None and metadata.get("format") == before
        if metadata.get("format") != kind and not old:
            raise FileProblem(name, f"a {kind} file", f"{path} with format {metadata.get('format')}")
        found = "1" if old else metadata.get("version", "")
        if not (found.isdecimal() and 1 <= int(found) <= version):
            raise FileProblem(name, f"a {kind} file of version 1 to {version}", f"{path} of version {found or None}")
        if int(found) >= CHECKED_FROM or any(key.startswith(_CRC) for key in metadata):
            _verify(path, name)
        yield file


def _verify(path: Path, name: str) -> None:
    """Compare a file with its checksums."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        expected = metadata.pop(_CRC, None)
        if expected != _header_sum(metadata, header):
            raise FileProblem(
                name, "a file as it was written", f"{path} with a damaged header: its checksum does not fit"
            )
        for tensor, entry in header.items():
            first, last = entry["data_offsets"]
            file.seek(8 + length + first)
            left, crc = last - first, 0
            while left:
                block = file.read(min(_BLOCK, left))
                crc, left = zlib.crc32(block, crc), left - len(block)
            if metadata.get(f"{_CRC}:{tensor}") != f"{crc:08x}":
                got = f"{path} with a damaged tensor {tensor!r}: its checksum does not fit"
                raise FileProblem(name, "a file as it was written", got)


def read_tensors(
    path: Path, kind: str, version: int, name: str = "path"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors and the metadata of a file; errors as in `open_tensors`."""
    with open_tensors(path, kind, version, name) as file:
        tensors = {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118
        metadata = {key: value for key, value in file.metadata().items() if not key.startswith(_CRC)}
    return tensors, metadata
