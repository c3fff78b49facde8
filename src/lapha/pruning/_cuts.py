"""Where a dendrogram is cut, and the clusters that are left below the cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lapha._checks import check
from lapha.pruning._linkage import Merges
from lapha.pruning.config import PruneConfig

# Points merged below this share of the largest merge height count as copies of one state (a language model that samples
# at a low temperature writes the same step twice). Jumps are compared above it alone: the largest relative jump of all is
# the one from a copy, at height 0, to anything else, and nothing but copies would ever be merged.
RESOLUTION = 1e-3


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut through a dendrogram.

    Attributes:
        merges: how many merges are below it.
        below: height of the highest merge below the cut; 0 if there is none.
        above: height of the lowest merge above the cut; infinite if there is none.
    """

    merges: int
    below: float
    above: float

    @property
    def distance(self) -> float:
        """One distance that separates the two: the middle of the jump, on the scale on which it is largest."""
        if math.isinf(self.above):
            return self.below
        return math.sqrt(self.below * self.above) if self.below > 0 else self.above / 2


def find_cut(height: np.ndarray, config: PruneConfig) -> Cut:
    """The cut that `config` asks for.

    Args:
        height: (N − 1,) merge heights, ascending.

    Raises:
        ValueError: more clusters wanted than there are points.
    """
    if config.cut == "distance":
        merges = int(np.searchsorted(height, config.distance or 0.0, side="right"))
    elif config.cut == "number":
        number = config.number or 0
        check(number <= len(height) + 1, "number", f"at most one cluster a point, {len(height) + 1}", number)
        merges = len(height) + 1 - number
    elif callable(config.cut):
        merges = int(np.searchsorted(height, config.cut(height), side="right"))
    else:
        merges = largest_jump(height)
    below = float(height[merges - 1]) if merges else 0.0
    above = float(height[merges]) if merges < len(height) else math.inf
    return Cut(merges, below, above)


def largest_jump(height: np.ndarray) -> int:
    """How many merges lie below the largest relative jump (h[i+1] − h[i]) / h[i] between successive merge heights.

    Copies of one state (`RESOLUTION`) are merged first, and the jump is sought among the merges of distinct states. With
    a single merge there is no jump, and all points form one cluster (as in the reference); one state with copies and
    another are told apart.
    """
    copies = int(np.searchsorted(height, RESOLUTION * height[-1], side="right")) if len(height) else 0
    distinct = height[copies:]
    if len(distinct) == 1 and copies:
        return copies
    if len(distinct) < 2:
        return len(height)
    return copies + int(np.argmax(np.diff(distinct) / distinct[:-1])) + 1


def labels_below(merges: Merges, count: int) -> np.ndarray:
    """Cluster of each of the N points after the lowest `count` merges: (N,) int64, numbered by first appearance."""
    root = list(range(len(merges.height) + 1))

    def find(point: int) -> int:
        while root[point] != point:
            root[point] = root[root[point]]  # halves the path, so that later searches are short
            point = root[point]
        return point

    for left, right in zip(merges.left[:count].tolist(), merges.right[:count].tolist(), strict=True):
        root[find(left)] = find(right)
    return by_appearance(np.array([find(point) for point in range(len(root))]))


def by_appearance(labels: np.ndarray) -> np.ndarray:
    """The same clusters, numbered 0, 1, … in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
