"""A bank as one safetensors file: ``direction`` (N, D), ``radius`` (N,) and ``tree_id`` (N,), row i being id i.

The file is written and read in blocks, so that a bank of many gigabytes needs no second copy in memory. The layout of
safetensors is a little-endian length of 8 bytes, a JSON header, and the tensors' bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from lapha._checks import check
from lapha.geometry import PolarPoints
from lapha.latent import _queries
from lapha.latent._bank_checks import check_points
from lapha.latent._files import atomic_path, open_tensors
from lapha.latent.bank import LatentBank

FORMAT = "lapha.LatentBank"
VERSION = 1
BLOCK_ROWS = 16384
_DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_NAMES = {"direction", "radius", "tree_id"}


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK_ROWS, size)) for start in range(0, size, BLOCK_ROWS))


def save_bank(bank: LatentBank, path: Path) -> None:
    """See `LatentBank.save`."""
    size = len(bank)
    tree_of_segment = np.array(bank.tree_ids, dtype=np.int64)
    tree_id = tree_of_segment[bank._table[:size, 0]] if size else np.empty(0, np.int64)
    shapes = {
        "direction": (_DTYPE_NAMES[bank.dtype], [size, bank.dim], size * bank.dim * bank.dtype.itemsize),
        "radius": ("F32", [size], size * 4),
        "tree_id": ("I64", [size], size * 8),
    }
    metadata = {"format": FORMAT, "version": str(VERSION), "curvature": repr(bank.curvature), "dim": str(bank.dim)}
    radius = np.empty(size, np.float32)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        _write_header(file, shapes, metadata)
        for rows in _blocks(size):
            points = _queries.gather(bank, np.arange(rows.start, rows.stop))
            radius[rows] = points.radius.cpu().numpy()
            file.write(points.direction.cpu().contiguous().view(torch.uint8).numpy().data)
        file.write(radius.data)
        file.write(np.ascontiguousarray(tree_id).data)


def _write_header(file: BinaryIO, shapes: dict[str, tuple[str, list[int], int]], metadata: dict[str, str]) -> None:
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    for name, (dtype, shape, nbytes) in shapes.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    file.write(struct.pack("<Q", len(text)) + text)


def load_bank(path: Path, device: torch.device | str, *, mirror: bool, memory_budget: int | None) -> LatentBank:
    """See `LatentBank.from_file`."""
    with open_tensors(path, FORMAT, VERSION) as file:
        names = set(file.keys())
        check(names == _NAMES, "path", f"a bank with tensors {sorted(_NAMES)}", f"{path} with {sorted(names)}")
        metadata = file.metadata()
        try:
            curvature, dim = float(metadata["curvature"]), int(metadata["dim"])
        except (KeyError, ValueError) as error:
            raise ValueError(f"path: expected a bank with its metadata, got {path} ({error})") from error
        direction = file.get_slice("direction")
        radius, tree_id = file.get_tensor("radius"), file.get_tensor("tree_id")
        dtypes = {name: dtype for dtype, name in _DTYPE_NAMES.items()}
        dtype = dtypes.get(direction.get_dtype())
        if dtype is None:
            raise ValueError(f"path: expected directions in float32, bfloat16 or float16, got {path}")
        found = (list(direction.get_shape()), list(radius.shape), list(tree_id.shape), radius.dtype, tree_id.dtype)
        size = tree_id.numel()
        expected = ([size, dim], [size], [size], torch.float32, torch.int64)
        check(
            found == expected,
            "path",
            f"direction, radius and tree_id of {size} rows of dimension {dim}",
            f"{path} with {found}",
        )
        bank = LatentBank(dim, curvature, device, dtype, mirror=mirror, memory_budget=memory_budget)
        for rows in _blocks(size):
            _restore(bank, PolarPoints(direction[rows], radius[rows], curvature), tree_id[rows].numpy(), path)
    return bank


def _restore(bank: LatentBank, points: PolarPoints, tree_id: np.ndarray, path: Path) -> None:
    """Append a block of rows of several trees, each tree's at once, with the ids that the file's order gives them."""
    try:
        _, direction, radius = check_points(points, bank.dim, bank.curvature)
    except ValueError as error:
        raise ValueError(f"path: expected a bank of valid latents, got {path} ({error})") from error
    first = len(bank)
    trees, appearance = np.unique(tree_id, return_index=True)
    with bank._lock, torch.no_grad():
        for tree in trees[np.argsort(appearance)]:
            where = np.flatnonzero(tree_id == tree)
            rows = torch.from_numpy(where)
            bank._write(direction[rows], radius[rows], int(tree), first + where, first + where)
        bank._size = first + len(tree_id)
