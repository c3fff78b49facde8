"""LatentBank: the append-only store of visited states' latents."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lapha._checks import check
from lapha._typed import typed
from lapha.geometry import PolarPoints
from lapha.latent import _queries
from lapha.latent._bank_checks import check_points, check_tree_id, ids_to_array
from lapha.latent._segment import FIRST_CAPACITY, Segment
from lapha.latent._store import SegmentStore

Ids = int | Sequence[int] | np.ndarray | torch.Tensor
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _device(name: torch.device | str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected a torch device, got {name!r}") from error


def _with_index(device: torch.device) -> torch.device:
    """``"cuda"`` as ``"cuda:0"``, the form in which tensors give their device: the two do not compare equal."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


class LatentBank:
    """Latents of visited states: one growing segment per tree, stable ids, nothing ever changed or removed.

    Row i's id is i: the order of appending over all trees. A segment's rows are contiguous, so a tree's latents are a
    view, never a copy. Directions are kept in `dtype` exactly as they come (rounded to it, never normalised), radii in
    float32. Points are detached: the bank holds no graph.

    Any number of threads and tasks may append and read at once. A reader sees rows that are complete, or not at all;
    a view that it holds stays valid whatever is appended, offloaded or loaded meanwhile. Views share the bank's
    memory: do not write into them.

    Args:
        dim: D of the latents, ≥ 1.
        curvature: c > 0; the space has curvature −c.
        device: where latents live and distances are computed.
        dtype: of directions: float32, bfloat16 or float16.
        mirror: keep a copy of every row in CPU memory (pinned beside a CUDA device, filled by asynchronous copies), so
            that `offload` has nothing left to copy. On a CPU bank it is a second copy that only tests need.
        memory_budget: bytes that segments may take on the device, spare capacity included, or None for no limit.
            Above it, the segments whose last append or `load` is longest ago live in CPU memory only. While a buffer grows, the
            old one exists beside the new one.

    Raises:
        ValueError: a value outside its range, or a budget smaller than one row.
    """

    @typed
    def __init__(
        self,
        dim: int,
        curvature: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        mirror: bool = False,
        memory_budget: int | None = None,
    ) -> None:
        check(isinstance(dim, int) and dim >= 1, "dim", "an integer >= 1", dim)
        check(0 < curvature < float("inf"), "curvature", "a finite number > 0", curvature)
        check(dtype in _DTYPES, "dtype", "one of " + ", ".join(map(str, _DTYPES)), dtype)
        self.dim = dim
        self.curvature = float(curvature)
        self.device = _with_index(_device(device))
        self.dtype = dtype
        self._store = SegmentStore(dim, dtype, self.device, bool(mirror), memory_budget)
        self._lock = threading.RLock()
        self._segments: list[Segment] = []
        self._by_tree: dict[int, Segment] = {}
        # id -> (segment index, row); rows below _size are complete, and _size is set last
        self._table = np.empty((FIRST_CAPACITY, 2), np.int64)
        self._size = 0

    # ---- appending ---------------------------------------------------------------------------------------------

    @typed
    def append(self, points: PolarPoints, tree_id: int = 0) -> torch.Tensor:
        """Add latents to a tree's segment; amortised O(1) a row.

        Args:
            points: batch shape (n,) or (); any device.
            tree_id: which tree they belong to; an id that is new starts a segment.

        Returns:
            their ids, int64 on the CPU, in the points' batch shape. Ids of one call are consecutive.

        Raises:
            ValueError: another D or curvature than the bank's, NaN or Inf, a negative radius, a direction that is not
                a unit vector, or a segment that would no longer fit the memory budget. The bank is then unchanged.
        """
        shape, direction, radius = check_points(points, self.dim, self.curvature)
        tree_id = check_tree_id(tree_id)
        count = radius.shape[0]
        if count == 0:
            return torch.empty(shape, dtype=torch.int64)
        with self._lock:
            first = self._size
            ids = np.arange(first, first + count)
            self._write(direction, radius, tree_id, ids, slice(first, first + count))
            self._size = first + count
        return torch.from_numpy(ids if shape else ids.reshape(()))

    def reserve(self, rows: int, tree_id: int = 0) -> None:
        """Make room for `rows` more rows of a tree that has a segment, so that appending them copies nothing old.

        Raises:
            ValueError: unknown tree, or rows that do not fit the memory budget.
        """
        check(rows >= 0, "rows", "an integer >= 0", rows)
        with self._lock:
            segment = self._segment(tree_id)
            self._store.writable(segment, segment.size + rows, exact=True)
            segment.publish(segment.rows.ids, segment.size)

    def _write(
        self, direction: torch.Tensor, radius: torch.Tensor, tree_id: int, ids: np.ndarray, where: slice | np.ndarray
    ) -> None:
        """Copy checked rows into a tree's segment. They can be read by id once `_size` is set past their ids.

        `where` is `ids` again, as a slice if they follow each other: numpy is several times faster then.
        """
        segment = self._by_tree.get(tree_id)
        if segment is None:
            segment = Segment(tree_id, len(self._segments), self.dim, self.dtype)
        start, stop = segment.size, segment.size + len(ids)
        needed = int(ids[-1]) + 1
        if needed > len(self._table):
            grown = np.empty((max(needed, 2 * len(self._table)), 2), np.int64)
            grown[: len(self._table)] = self._table
            self._table = grown
        self._store.write(segment, direction, radius, ids)
        if stop - start == 1:
            self._table[needed - 1] = segment.index, start
        else:
            self._table[where, 0] = segment.index
            self._table[where, 1] = np.arange(start, stop)
        if segment.index == len(self._segments):
            self._segments.append(segment)
            self._by_tree[tree_id] = segment

    # ---- tiers -------------------------------------------------------------------------------------------------

    def offload(self, tree_id: int | None = None) -> None:
        """Keep a tree's segment (None: all of them) in CPU memory only. Reads then fetch slices; appends go there.

        Raises:
            ValueError: unknown tree.
        """
        with self._lock:
            for segment in [self._segment(tree_id)] if tree_id is not None else self._segments:
                self._store.offload(segment)

    def load(self, tree_id: int | None = None) -> None:
        """Bring a tree's segment (None: all of them) back to the device. The opposite of `offload`.

        One segment may push the oldest others out, as appending does.

        Raises:
            ValueError: unknown tree, or segments that do not fit the memory budget. The bank is then unchanged.
        """
        with self._lock:
            self._store.load_all([self._segment(tree_id)] if tree_id is not None else self._segments)

    # ---- reading -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._size

    @property
    def tree_ids(self) -> list[int]:
        """Trees that have a segment, in order of their first append."""
        return [segment.tree_id for segment in list(self._segments)]

    @property
    def mirror(self) -> bool:
        """Whether every row on the device has a copy in CPU memory."""
        return self._store.mirror

    @property
    def memory_budget(self) -> int | None:
        """Bytes that segments may take on the device, or None."""
        return self._store.budget

    @property
    def device_bytes(self) -> int:
        """Bytes that segments take on the device, spare capacity included."""
        return self._store.device_bytes

    def is_offloaded(self, tree_id: int) -> bool:
        """Whether a tree's segment lives in CPU memory only. `ValueError` for an unknown tree."""
        return self._segment(tree_id).device is None

    def ids(self, tree_id: int) -> torch.Tensor:
        """Ids of a tree's latents in append order, (n,) int64 on the CPU. `ValueError` for an unknown tree."""
        rows = self._segment(tree_id).rows
        return torch.from_numpy(rows.ids[: rows.size].copy())

    @typed
    def segment(self, tree_id: int, start: int = 0, stop: int | None = None) -> PolarPoints:
        """A tree's latents in append order, rows [start, stop): a view, or, if offloaded from a GPU, a fetched slice.

        Raises:
            ValueError: unknown tree, or a range outside [0, n].
        """
        rows = self._segment(tree_id).rows
        stop = rows.size if stop is None else stop
        check(0 <= start <= stop <= rows.size, "start, stop", f"a range within [0, {rows.size}]", (start, stop))
        return self._points(rows.direction[start:stop], rows.radius[start:stop])

    def __getitem__(self, ids: Ids) -> PolarPoints:
        """Latents by id: (n,) ids give batch shape (n,), one int gives shape (). A copy on the bank's device.

        Raises:
            ValueError: unknown ids.
        """
        array = ids_to_array(ids, self._size, "ids")
        points = _queries.gather(self, array.reshape(-1))
        return points if array.ndim else points[0]

    def _segment(self, tree_id: int) -> Segment:
        segment = self._by_tree.get(check_tree_id(tree_id))
        if segment is None:
            raise ValueError(f"tree_id: expected a tree that has latents in the bank, got {tree_id}")
        return segment

    def _points(self, direction: torch.Tensor, radius: torch.Tensor) -> PolarPoints:
        """Rows as points on the bank's device, safe to use on the current stream."""
        self._store.order.before_read(direction, radius)
        if direction.device != self.device:
            direction = direction.to(self.device, non_blocking=True)
            radius = radius.to(self.device, non_blocking=True)
        return PolarPoints(direction, radius, self.curvature)

    # ---- distances on ids --------------------------------------------------------------------------------------

    @typed
    def pairwise(self, ids: Ids, other: Ids | None = None) -> torch.Tensor:
        """Geodesic distances between latents, (N, M) float32; `other` defaults to `ids`.

        Raises:
            ValueError: unknown ids.
        """
        return _queries.pairwise(self, ids, other)

    @typed
    def nearest(self, ids: Ids, among: Ids, *, exclude_self: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest latent of `among` for each of `ids`: distances (N,) float32 and ids (N,) int64.

        Args:
            exclude_self: leave each id itself out of its own candidates.

        Raises:
            ValueError: unknown ids, or no candidate.
        """
        return _queries.nearest(self, ids, among, exclude_self=exclude_self)

    @typed
    def knn(self, ids: Ids, among: Ids, k: int, *, exclude_self: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """The `k` nearest latents of `among`, nearest first: distances (N, k) float32 and ids (N, k) int64.

        Raises:
            ValueError: unknown ids, or `k` outside [1, number of candidates].
        """
        return _queries.knn(self, ids, among, k, exclude_self=exclude_self)

    @typed
    def potential(self, ids: Ids, goal_ids: Ids, eps: float = 1e-8) -> torch.Tensor:
        """V(s) = d_root / (d_root + d_goal + eps) with the latents `goal_ids` as goals, (N,) in [0, 1].

        Without goals the tree carries no signal, and V is zero (method: potential and process reward).

        Raises:
            ValueError: unknown ids.
        """
        return _queries.potential(self, ids, goal_ids, eps)

    # ---- files -------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all latents to one safetensors file, atomically and in blocks. Rows appended meanwhile are left out.

        Raises:
            ValueError: a folder that does not exist or cannot be written.
            OSError: a full disk, for instance; names the file.
        """
        from lapha.latent._bank_files import save_bank

        save_bank(self, Path(path))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        *,
        mirror: bool = False,
        memory_budget: int | None = None,
    ) -> LatentBank:
        """Read a bank that `save` wrote: same ids, same trees, same bits.

        Raises:
            ValueError: no such file, a truncated or damaged one, one that is not a bank, or another version (named in the message).
        """
        from lapha.latent._bank_files import load_bank

        return load_bank(Path(path), device, mirror=mirror, memory_budget=memory_budget)
