"""The storage of one tree's latents: growing buffers, of which only complete rows are ever shown."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from lapha.latent._streams import CudaOrder, HostOrder

FIRST_CAPACITY = 64


class Rows(NamedTuple):
    """What a reader sees of a segment; replaced as one reference, so that it is never half old and half new."""

    direction: torch.Tensor  # (capacity, D)
    radius: torch.Tensor  # (capacity,) float32
    ids: np.ndarray  # (capacity,) int64
    size: int  # rows that are complete


class Buffers:
    """A direction and a radius buffer of equal capacity."""

    def __init__(self, capacity: int, dim: int, dtype: torch.dtype, device: torch.device, pinned: bool) -> None:
        # A bank may be filled from inside inference_mode and read outside it: its buffers must be ordinary tensors.
        with torch.inference_mode(False):
            self.direction = torch.empty(capacity, dim, dtype=dtype, device=device, pin_memory=pinned)
            self.radius = torch.empty(capacity, dtype=torch.float32, device=device, pin_memory=pinned)
            # Writes go through aliases with version counters of their own: appending a row must not make autograd
            # believe that a view of earlier rows, saved for a backward pass, was modified.
            self._direction = self.direction.data
            self._radius = self.radius.data
        # one number enters CPU memory several times faster through numpy than through a tensor
        self._numbers = self._radius.numpy() if device.type == "cpu" else None
        self.capacity = capacity

    @property
    def nbytes(self) -> int:
        return self.capacity * (self.direction.shape[1] * self.direction.element_size() + 4)

    def write(self, start: int, direction: torch.Tensor, radius: torch.Tensor) -> None:
        count = radius.shape[0]
        self._direction.narrow(0, start, count).copy_(direction)
        if count == 1 and self._numbers is not None:
            self._numbers[start] = radius.item()
        else:
            self._radius.narrow(0, start, count).copy_(radius)

    def write_async(self, start: int, source: Buffers, stop: int, order: HostOrder | CudaOrder) -> None:
        """Copy rows [start, stop) of `source` here; on CUDA the copy may still be under way on return."""
        order.copy_to_host(self._direction[start:stop], source.direction[start:stop])
        order.copy_to_host(self._radius[start:stop], source.radius[start:stop])


class Segment:
    """Latents of one tree, in append order. Every method but `rows` is called under the bank's lock.

    Attributes:
        device: buffers on the bank's device, or None while the segment is offloaded.
        host: buffers in CPU memory (pinned beside a CUDA device), or None. Beside `device` buffers they are the mirror.
        rows: what readers see.
    """

    def __init__(self, tree_id: int, index: int, dim: int, dtype: torch.dtype) -> None:
        self.tree_id = tree_id
        self.index = index
        self.device: Buffers | None = None
        self.host: Buffers | None = None
        empty = torch.empty(0, dim, dtype=dtype)
        self.rows = Rows(empty, torch.empty(0), np.empty(0, np.int64), 0)

    @property
    def size(self) -> int:
        return self.rows.size

    @property
    def device_bytes(self) -> int:
        return self.device.nbytes if self.device is not None else 0

    def publish(self, ids: np.ndarray, size: int) -> None:
        """Show `size` rows of the buffers that readers should use."""
        buffers = self.device if self.device is not None else self.host
        assert buffers is not None  # a segment is published only after a buffer was made
        self.rows = Rows(buffers.direction, buffers.radius, ids, size)

    def grown_ids(self, needed: int) -> np.ndarray:
        """The id buffer, with room for `needed` ids."""
        ids = self.rows.ids
        if needed <= len(ids):
            return ids
        grown = np.empty(max(needed, 2 * len(ids), FIRST_CAPACITY), np.int64)
        grown[: self.size] = ids[: self.size]
        return grown
