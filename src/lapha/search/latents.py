"""The latents of a growing tree, and keeping them in a file beside it."""

from __future__ import annotations

from pathlib import Path

import torch

from lapha._checks import check
from lapha.geometry import PolarPoints
from lapha.latent import latent_points
from lapha.tree.storage import FileProblem, check_writable, replace_file

FORMAT = "lapha-latents-1"


class TreeLatents:
    """Collects h(s) of a tree's nodes as they come; centres them on the root when asked.

    Nodes are appended in index order, the root first. Rows stay where the evaluator put them until `points`.
    """

    def __init__(self) -> None:
        self._rows: list[torch.Tensor] = []
        self._stacked: torch.Tensor | None = None

    def append(self, pooled: torch.Tensor) -> None:
        """Add the next node's h(s), (H,).

        Raises:
            ValueError: not a vector of the root's length.
        """
        check(pooled.dim() == 1, "pooled", "shape (H,)", f"shape {tuple(pooled.shape)}")
        first = self._rows[0] if self._rows else pooled
        check(pooled.shape == first.shape, "pooled", f"shape {tuple(first.shape)}", f"shape {tuple(pooled.shape)}")
        self._rows.append(pooled)

    def __len__(self) -> int:
        return len(self._rows)

    def points(self) -> PolarPoints:
        """(N, H) root-centred latents on the CPU, in float32 (float64 where the evaluator gives float64)."""
        have = 0 if self._stacked is None else len(self._stacked)
        if have < len(self._rows):
            rows = torch.stack(self._rows[have:]).detach().cpu()
            rows = rows if rows.dtype == torch.float64 else rows.float()
            self._stacked = rows if self._stacked is None else torch.cat([self._stacked, rows])
            # what has been copied is released: on a device it would hold the engine's buffers
            self._rows = [*self._stacked.unbind(0)]
        assert self._stacked is not None
        return latent_points(self._stacked, self._stacked[0])


def save_latents(path: Path, latents: PolarPoints, key: str) -> None:
    """Write latents to a safetensors file, durably and at once or not at all.

    Raises:
        ValueError: the folder does not exist or cannot be written.
    """
    from safetensors.torch import save

    check_writable(path)
    tensors = {"direction": latents.direction.contiguous().cpu(), "radius": latents.radius.contiguous().cpu()}
    replace_file(path, save(tensors, {"format": FORMAT, "key": key, "curvature": repr(float(latents.curvature))}))


def load_latents(path: Path, key: str) -> PolarPoints:
    """Read what `save_latents` wrote for the result named `key`.

    Raises:
        ValueError: the file is missing, foreign or truncated, or belongs to another result.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise FileProblem(str(path), f"latents in the format {FORMAT!r}", repr(metadata.get("format")))
            if metadata.get("key") != key:
                raise FileProblem(str(path), f"the latents of {key!r}", f"those of {metadata.get('key')!r}")
            direction, radius = file.get_tensor("direction"), file.get_tensor("radius")
    except (OSError, SafetensorError) as problem:
        raise FileProblem(str(path), "a readable safetensors file", str(problem)) from problem
    return PolarPoints(direction, radius, curvature=float(metadata["curvature"]))
