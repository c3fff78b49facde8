"""What a bank refuses. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lapha._checks import check
from lapha.geometry import PolarPoints

# How far a direction's length may be from 1: more than the rounding of any dtype that it may have come through.
_UNIT_TOLERANCE = 1e-2
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def check_points(points: Any, dim: int, curvature: float) -> tuple[torch.Size, torch.Tensor, torch.Tensor]:
    """Batch shape, direction (n, D) and radius (n,), both detached, of points that may enter the bank.

    Raises:
        ValueError: not PolarPoints, another D or curvature, or numbers that are no latents.
    """
    check(isinstance(points, PolarPoints), "points", "PolarPoints", type(points).__name__)
    direction, radius = points.direction, points.radius
    shape = radius.shape
    if len(shape) > 1:
        raise ValueError(f"points: expected batch shape (n,) or (), got shape {tuple(shape)}")
    if direction.shape[-1] != dim:
        raise ValueError(f"points: expected dimension {dim}, got {direction.shape[-1]}")
    if points.curvature != curvature:
        raise ValueError(f"points: expected curvature {curvature}, got {points.curvature}")
    if points.requires_grad:
        direction, radius = direction.detach(), radius.detach()
    if len(shape) == 0:
        direction, radius = direction.unsqueeze(0), radius.unsqueeze(0)
    # One norm finds NaN, Inf and directions that are not unit vectors: a comparison with NaN is False.
    wide = torch.float64 if direction.dtype == torch.float64 else torch.float32
    norm = torch.linalg.vector_norm(direction, dim=-1, dtype=wide)
    if radius.shape[0] == 1:  # the common case of a search: Python numbers are several times faster than tensors
        good = abs(norm.item() - 1) <= _UNIT_TOLERANCE and 0 <= radius.item() < float("inf")
    else:
        good = bool((((norm - 1).abs() <= _UNIT_TOLERANCE) & (radius >= 0) & torch.isfinite(radius)).all())
    if not good:
        _refuse(norm, radius)
    return shape, direction, radius


def _refuse(norm: torch.Tensor, radius: torch.Tensor) -> None:
    """Say what is wrong with the first bad row."""
    checks = (
        (torch.isfinite(norm) & torch.isfinite(radius), "finite numbers", "NaN or Inf"),
        ((norm - 1).abs() <= _UNIT_TOLERANCE, "unit directions", "a direction of another length"),
        (radius >= 0, "radii >= 0", "a negative radius"),
    )
    for good, expected, got in checks:
        if not bool(good.all()):
            raise ValueError(f"points: expected {expected}, got {got}, the first at row {int((~good).nonzero()[0, 0])}")


def check_tree_id(tree_id: Any) -> int:
    """`tree_id` as an int that fits in int64."""
    if type(tree_id) is not int:
        good = isinstance(tree_id, int | np.integer) and not isinstance(tree_id, bool)
        check(good, "tree_id", "an integer", repr(tree_id))
    if not _INT64_MIN <= tree_id <= _INT64_MAX:
        raise ValueError(f"tree_id: expected a 64-bit integer, got {tree_id}")
    return int(tree_id)


def ids_to_array(ids: int | Sequence[int] | np.ndarray | torch.Tensor, size: int, name: str) -> np.ndarray:
    """Ids as an int64 array of shape () or (n,), each in [0, size).

    Raises:
        ValueError: not integers, more than one dimension, or an unknown id.
    """
    array = ids.detach().cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, np.int64)
    check(array.dtype.kind in "iu", name, "integers", f"dtype {array.dtype}")
    check(array.ndim <= 1, name, "shape (n,) or ()", f"shape {array.shape}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= size:
        raise ValueError(f"{name}: expected ids in [0, {size}), got {low if low < 0 else high}")
    return array.astype(np.int64, copy=False)
