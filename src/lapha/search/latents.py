"""The latents of a growing tree, and keeping them in a file beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from lapha._checks import check
from lapha._store import FileProblem, checksum_of, leftovers, open_tensors, staged_tensors
from lapha.geometry import PolarPoints
from lapha.latent import latent_points

FORMAT = "lapha-latents"
VERSION = 2


class TreeLatents:
    """Collects h(s) of a tree's nodes as they come; centres them on the root when asked.

    Nodes are appended in index order, the root first. Rows stay where the evaluator put them until `points`.
    """

    def __init__(self) -> None:
        self._root: torch.Tensor | None = None
        self._fresh: list[torch.Tensor] = []
        self._points: PolarPoints | None = None  # of the nodes before the fresh ones

    def append(self, pooled: torch.Tensor | None) -> None:
        """Add the next node's h(s), (H,); None for a state whose h(s) the evaluator does not know.

        Raises:
            ValueError: not a vector of the root's length.
        """
        if pooled is None:
            pooled = torch.zeros(1)
        if self._root is None:
            check(pooled.dim() == 1, "pooled", "shape (H,)", f"shape {tuple(pooled.shape)}")
            self._root = _on_host(pooled)
        elif pooled.shape != self._root.shape:
            raise ValueError(f"pooled: expected shape {tuple(self._root.shape)}, got shape {tuple(pooled.shape)}")
        self._fresh.append(pooled)

    def __len__(self) -> int:
        return len(self._fresh) + (0 if self._points is None else len(self._points))

    def points(self) -> PolarPoints:
        """(N, H) root-centred latents on the CPU, in float32 (float64 where the evaluator gives float64)."""
        if self._fresh:
            assert self._root is not None
            fresh = latent_points(_on_host(torch.stack(self._fresh)), self._root)
            self._points = fresh if self._points is None else PolarPoints.cat([self._points, fresh])
            self._fresh = []  # an engine's device buffers are let go
        if self._points is None:
            raise ValueError("points: expected at least the root's latent, got none")
        return self._points


def _on_host(pooled: torch.Tensor) -> torch.Tensor:
    pooled = pooled.detach().cpu()
    return pooled if pooled.dtype == torch.float64 else pooled.float()


def save_latents(path: Path, latents: PolarPoints, key: str, *, sweep: bool = True) -> str:
    """Write latents to a safetensors file, durably and at once or not at all; the file's checksum.

    Raises:
        ValueError: the folder does not exist or cannot be written.
        OSError: a full disk, for instance; names `path`.
    """
    with staged_latents(path, latents, key, sweep=sweep) as (checksum, commit):
        commit()
    return checksum


def staged_latents(
    path: Path, latents: PolarPoints, key: str, *, sweep: bool = True
) -> AbstractContextManager[tuple[str, Callable[[], None]]]:
    """As `save_latents`, but the file takes its place by a call: (checksum, that call)."""
    tensors = {"direction": latents.direction, "radius": latents.radius}
    metadata = {"key": key, "curvature": repr(float(latents.curvature))}
    return staged_tensors(path, tensors, FORMAT, VERSION, metadata, sweep=sweep)


def load_latents(path: Path, key: str, checksum: str | None = None) -> PolarPoints:
    """Read what `save_latents` wrote for the result named `key`.

    Args:
        path: the file.
        key: the result's.
        checksum: of the file that belongs to the result; None for any of that key. Where another stands at `path`, a save
            was cut off between two files, and the one that belongs to the result is still under its temporary name.

    Raises:
        ValueError: the file is missing, foreign, truncated or damaged, or belongs to another result; names it.
    """
    try:
        return _load(path, path, key, checksum)
    except FileProblem:
        for other in leftovers(path.parent, path.name):
            with contextlib.suppress(FileProblem):
                return _load(other, path, key, checksum)
        raise


def _load(path: Path, called: Path, key: str, checksum: str | None) -> PolarPoints:
    from safetensors import SafetensorError

    with open_tensors(path, FORMAT, VERSION, str(called), before="lapha-latents-1") as file:
        metadata = file.metadata()
        if metadata.get("key") != key:
            raise FileProblem(str(called), f"the latents of {key!r}", f"those of {metadata.get('key')!r}")
        if checksum is not None and checksum_of(metadata) != checksum:
            raise FileProblem(str(called), "the latents that were saved with the result", "others of the same question")
        try:
            direction, radius = file.get_tensor("direction"), file.get_tensor("radius")
            return PolarPoints(direction, radius, curvature=float(metadata["curvature"]))
        except (KeyError, ValueError, SafetensorError) as problem:
            raise FileProblem(str(called), "a direction, a radius and a curvature", str(problem)) from problem
