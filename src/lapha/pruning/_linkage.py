"""Agglomerative clustering of a distance matrix in float32, in place.

scipy's linkage takes a float64 condensed matrix and copies it: 3.2 GB at 20,000 points where the float32 distances are
1.6 GB. Above a few thousand points the nearest-neighbour chain below, whose inner steps are numpy's vectorised minimum
and sum over one row, is as fast as scipy's compiled loop and needs no second matrix; below, scipy is faster.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Measured: scipy is faster below about this many points (numpy's cost per call), and the chain above.
SCIPY_BELOW = 3000
# A matrix is copied without its dead rows once half of them are dead, unless it is too small for that to pay.
_COMPACT_ABOVE = 512


class Merges(NamedTuple):
    """The dendrogram of N points as its N − 1 merges, lowest first.

    Each merge joins the cluster that holds point ``left`` and the one that holds point ``right``, at ``height``.
    """

    left: np.ndarray  # (N − 1,) int64
    right: np.ndarray  # (N − 1,) int64
    height: np.ndarray  # (N − 1,) float64


def link(matrix: np.ndarray, method: str) -> Merges:
    """Merge points bottom-up by average, complete or single linkage.

    Args:
        matrix: (N, N) float32 distances, symmetric; overwritten.
        method: ``"average"``, ``"complete"`` or ``"single"``.
    """
    if len(matrix) < 2:
        none = np.empty(0, np.int64)
        return Merges(none, none, np.empty(0))
    return _link_scipy(matrix, method) if len(matrix) < SCIPY_BELOW else _link_chain(matrix, method)


def _link_scipy(matrix: np.ndarray, method: str) -> Merges:
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    size = len(matrix)
    np.fill_diagonal(matrix, 0)
    merged = linkage(squareform(matrix, checks=False).astype(np.float64), method)
    # scipy names a merged cluster N + k; any of its points stands for it here
    pairs = merged[:, :2].astype(np.int64).tolist()
    point = list(range(size))
    for left, _ in pairs:
        point.append(point[left])
    ends = np.array(point, dtype=np.int64)[merged[:, :2].astype(np.int64)]
    return Merges(ends[:, 0], ends[:, 1], merged[:, 2])


def _link_chain(matrix: np.ndarray, method: str) -> Merges:
    """The nearest-neighbour chain algorithm (Benzécri 1982), O(N²) time, on one matrix.

    Follow nearest neighbours until two clusters are each other's, and merge them. Average, complete and single linkage
    are reducible: merging never brings a third cluster nearer than its parts were, so the chain stays valid.
    """
    active = _Active(matrix)
    count = len(matrix) - 1
    left, right, height = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
    chain: list[int] = []
    for step in range(count):
        chain = active.compacted(chain)
        if not chain:
            chain.append(active.any_row())
        while True:
            row = active.matrix[chain[-1]]
            other = int(row.argmin())
            # Of equally near clusters the one we came from ends the chain; another could make it run in circles.
            if len(chain) > 1 and row[chain[-2]] <= row[other]:
                break
            chain.append(other)
        one, two = chain.pop(), chain.pop()
        left[step], right[step], height[step] = active.point[one], active.point[two], active.matrix[one, two]
        active.merge(one, two, method)
    order = np.argsort(height, kind="stable")
    return Merges(left[order], right[order], height[order])


class _Active:
    """The clusters that are left: their distances, their sizes, and one point of each."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix
        np.fill_diagonal(matrix, np.inf)  # a cluster is not its own neighbour
        self.point = np.arange(len(matrix))
        self._size = np.ones(len(matrix), np.float32)
        self._alive = np.ones(len(matrix), bool)
        self._count = len(matrix)
        self._first = 0

    def any_row(self) -> int:
        while not self._alive[self._first]:
            self._first += 1
        return self._first

    def compacted(self, chain: list[int]) -> list[int]:
        """Drop dead rows once they are half of the matrix; returns the chain in the new numbering."""
        if self._count > len(self.matrix) // 2 or len(self.matrix) <= _COMPACT_ABOVE:
            return chain
        keep = np.flatnonzero(self._alive)
        self.matrix = self.matrix[np.ix_(keep, keep)]
        self.point, self._size = self.point[keep], self._size[keep]
        self._alive = np.ones(len(keep), bool)
        self._first = 0
        return np.searchsorted(keep, chain).tolist()

    def merge(self, dead: int, kept: int, method: str) -> None:
        """Put the merged cluster into row `kept`; row `dead` becomes infinitely far from everything."""
        matrix = self.matrix
        if method == "average":
            total = self._size[dead] + self._size[kept]
            merged = matrix[dead] * (self._size[dead] / total)
            merged += matrix[kept] * (self._size[kept] / total)
        elif method == "complete":
            merged = np.maximum(matrix[dead], matrix[kept])
        else:
            merged = np.minimum(matrix[dead], matrix[kept])
        merged[dead] = merged[kept] = np.inf
        matrix[kept] = merged
        matrix[:, kept] = merged
        matrix[:, dead] = np.inf
        self._size[kept] += self._size[dead]
        self._alive[dead] = False
        self._count -= 1
