"""A bank as one safetensors file: ``direction`` (N, D), ``radius`` (N,) and ``tree_id`` (N,), row i being id i.

The file is written, checked and read in blocks, so that a bank of many gigabytes needs no second copy in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from lapha._checks import check
from lapha._store import Column, open_tensors, write_tensors
from lapha.geometry import PolarPoints
from lapha.latent import _queries
from lapha.latent._bank_checks import check_points
from lapha.latent.bank import LatentBank

FORMAT = "lapha.LatentBank"
VERSION = 2
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
    radius = torch.empty(size)

    def directions() -> Iterator[torch.Tensor]:
        for rows in _blocks(size):
            points = _queries.gather(bank, np.arange(rows.start, rows.stop))
            radius[rows] = points.radius.cpu()
            yield points.direction.cpu().contiguous()

    columns: dict[str, torch.Tensor | Column] = {
        "direction": Column(bank.dtype, (size, bank.dim), directions()),
        "radius": Column(torch.float32, (size,), (radius,)),  # filled by the blocks that are written before it
        "tree_id": torch.from_numpy(tree_id),
    }
    write_tensors(path, columns, FORMAT, VERSION, {"curvature": repr(bank.curvature), "dim": str(bank.dim)})


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
