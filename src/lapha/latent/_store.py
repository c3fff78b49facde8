"""Where segments live: device buffers within a memory budget, CPU memory above it, and the optional mirror."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch

from lapha._checks import check
from lapha.latent._segment import FIRST_CAPACITY, Buffers, Segment
from lapha.latent._streams import make_order

RADIUS_BYTES = 4
_CPU = torch.device("cpu")


class SegmentStore:
    """Allocates, grows, offloads and loads segments. All methods are called under the bank's lock.

    Every method that can be refused is refused before anything that a reader sees has changed.

    Args:
        dim, dtype, device, mirror, memory_budget: as in `LatentBank`.
    """

    def __init__(
        self, dim: int, dtype: torch.dtype, device: torch.device, mirror: bool, memory_budget: int | None
    ) -> None:
        self.row_bytes = dim * dtype.itemsize + RADIUS_BYTES
        if memory_budget is not None:
            fits = memory_budget >= self.row_bytes
            check(fits, "memory_budget", f"at least one row of {self.row_bytes} bytes", memory_budget)
        self.dim = dim
        self.dtype = dtype
        self.device = device
        self.mirror = mirror
        self.budget = memory_budget
        self.order = make_order(device)
        self.device_bytes = 0
        self._recent: OrderedDict[int, Segment] = OrderedDict()  # by last append or load, oldest first

    def write(self, segment: Segment, direction: torch.Tensor, radius: torch.Tensor, new_ids: np.ndarray) -> None:
        """Append rows to a segment, and publish them."""
        start, stop = segment.size, segment.size + len(new_ids)
        ids = segment.grown_ids(stop)
        buffers = self.writable(segment, stop)
        self.order.before_write()
        buffers.write(start, direction, radius)
        self.order.after_write()
        if segment.device is not None and segment.host is not None:
            segment.host.write_async(start, buffers, stop, self.order)
        ids[start:stop] = new_ids
        segment.publish(ids, stop)
        self._recent[segment.tree_id] = segment
        self._recent.move_to_end(segment.tree_id)

    def writable(self, segment: Segment, needed: int, exact: bool = False) -> Buffers:
        """The buffers that appended rows go to, with room for `needed` rows."""
        on_host = segment.device is None and segment.host is not None
        current = segment.host if on_host else segment.device
        if current is not None and needed <= current.capacity:
            return current
        capacity = needed if exact else max(needed, FIRST_CAPACITY, 2 * (current.capacity if current else 0))
        if on_host:
            segment.host = self._copy_of(segment, capacity, on_device=False)
            return segment.host
        capacity = self._within_budget(segment, needed, capacity)
        grown = self._copy_of(segment, capacity, on_device=True)
        if self.mirror:
            host = Buffers(capacity, self.dim, self.dtype, _CPU, self.order.pinned)
            host.write_async(0, grown, segment.size, self.order)
            segment.host = host
        self.device_bytes += grown.nbytes - segment.device_bytes
        segment.device = grown
        return grown

    def _copy_of(self, segment: Segment, capacity: int, *, on_device: bool) -> Buffers:
        """New buffers that hold the segment's complete rows."""
        device = self.device if on_device else _CPU
        buffers = Buffers(capacity, self.dim, self.dtype, device, self.order.pinned and not on_device)
        if segment.size:
            self.order.before_write()
            rows = segment.rows
            buffers.write(0, rows.direction[: rows.size], rows.radius[: rows.size])
            self.order.after_write()
        return buffers

    def _within_budget(self, segment: Segment, needed: int, wanted: int) -> int:
        """The capacity that the budget allows a segment; offloads the longest untouched others to make room.

        Spare capacity pushes nobody out, but for the quarter that keeps appending amortised O(1).

        Raises:
            ValueError: `needed` rows of one segment exceed the whole budget.
        """
        if self.budget is None:
            return wanted
        most = self.budget // self.row_bytes
        if needed > most:
            raise ValueError(
                f"memory_budget: expected at least the {needed * self.row_bytes} bytes of tree {segment.tree_id}'s "
                f"segment of {needed} rows, got {self.budget}"
            )
        least = min(wanted, most, needed + needed // 4)
        for other in list(self._recent.values()):
            if self._free(segment) >= least * self.row_bytes:
                break
            if other is not segment:
                self.offload(other)
        return min(wanted, self._free(segment) // self.row_bytes)

    def _free(self, segment: Segment) -> int:
        """Bytes of the budget that other segments leave."""
        assert self.budget is not None
        return self.budget - self.device_bytes + segment.device_bytes

    def load_all(self, segments: Sequence[Segment]) -> None:
        """Bring segments to the device, all of them together.

        Raises:
            ValueError: they do not fit the budget together.
        """
        total = sum(segment.size for segment in segments) * self.row_bytes
        if self.budget is not None:
            check(total <= self.budget, "memory_budget", f"at least {total} bytes", self.budget)
        self._shrink(segments)
        for segment in segments:
            self._recent.move_to_end(segment.tree_id)
            self.load(segment)

    def _shrink(self, segments: Sequence[Segment]) -> None:
        """Give spare capacity back when all segments fit the budget only without it."""
        spare = sum(segment.device_bytes - segment.size * self.row_bytes for segment in segments if segment.device)
        loading = sum(segment.size for segment in segments if not segment.device) * self.row_bytes
        if self.budget is None or self.device_bytes + loading <= self.budget or not spare:
            return
        for segment in segments:
            if segment.device is not None and segment.device.capacity > segment.size:
                self.offload(segment)

    def offload(self, segment: Segment) -> None:
        """Move a segment to CPU memory; nothing if it is there."""
        if segment.device is None:
            return
        if segment.host is None:
            host = Buffers(segment.size, self.dim, self.dtype, _CPU, self.order.pinned)
            host.write_async(0, segment.device, segment.size, self.order)
            segment.host = host
        self.order.wait_for_copies()
        self.device_bytes -= segment.device_bytes
        segment.device = None
        segment.publish(segment.rows.ids, segment.size)

    def load(self, segment: Segment) -> None:
        """Move a segment to the device; nothing if it is there."""
        if segment.device is not None:
            return
        capacity = self._within_budget(segment, segment.size, segment.size)
        segment.device = self._copy_of(segment, capacity, on_device=True)
        self.device_bytes += segment.device_bytes
        if not self.mirror:
            segment.host = None
        segment.publish(segment.rows.ids, segment.size)
