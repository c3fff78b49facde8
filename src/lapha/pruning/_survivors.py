"""Who stays in a cluster that is thinned out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from lapha.geometry import PolarPoints, dist, pairwise_dist

# Clusters up to this size are measured many at a time, those of one size together; a tree has thousands of them.
BATCHED_SIZE = 64
BATCHED_ELEMENTS = 1 << 24
# A larger one is measured in blocks of rows: 4096 × 20,000 distances are 320 MB.
BLOCK_ROWS = 4096


def members_of(labels: np.ndarray) -> list[np.ndarray]:
    """Points of each cluster, ascending; clusters in label order."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1)).tolist()
    return [order[start:stop] for start, stop in pairwise([*starts, len(labels)])]


def choose_disabled(
    clusters: list[np.ndarray], preference: np.ndarray, protected: np.ndarray, fraction: float
) -> np.ndarray:
    """Disable the least preferred members of each cluster.

    Args:
        clusters: members of each cluster.
        preference: (N,) how much each point should stay; distinct numbers decide without ties.
        protected: (N,) bool, points that stay whatever their preference. They count as members.
        fraction: share of each cluster to disable, rounded down, in [0, 1): at least one member is left.

    Returns:
        (N,) bool.
    """
    disabled = np.zeros(len(preference), bool)
    for members in clusters:
        count = int(fraction * len(members) + 1e-9)  # 1/3 of 3 is 1, however it is rounded
        if count == 0:
            continue
        free = members[~protected[members]]
        disabled[free[np.argsort(preference[free], kind="stable")[:count]]] = True
    return disabled


def total_distances(points: PolarPoints, clusters: list[np.ndarray]) -> np.ndarray:
    """(N,) float64: the sum of each point's distances to the members of its cluster; 0 in clusters of one or two."""
    from lapha.kernels import pairwise_dist as pairwise_large

    total = np.zeros(len(points))
    small: dict[int, list[np.ndarray]] = {}
    for members in clusters:
        if 2 < len(members) <= BATCHED_SIZE:
            small.setdefault(len(members), []).append(members)
        elif len(members) > BATCHED_SIZE:
            part = take(points, members)
            for start in range(0, len(members), BLOCK_ROWS):
                block = pairwise_large(part[start : start + BLOCK_ROWS], part)
                total[members[start : start + BLOCK_ROWS]] = block.double().sum(dim=1).cpu().numpy()
    for size, group in small.items():
        step = max(1, BATCHED_ELEMENTS // (size * (points.dim + size)))
        for start in range(0, len(group), step):
            members = np.stack(group[start : start + step])
            total[members] = pairwise_dist(take(points, members)).double().sum(dim=-1).cpu().numpy()
    return total


def medoids(points: PolarPoints, clusters: list[np.ndarray]) -> np.ndarray:
    """The member of each cluster with the least sum of distances to the others, (K,) int64; the earliest of equals."""
    total = total_distances(points, clusters)
    return np.array([members[np.argmin(total[members])] for members in clusters], dtype=np.int64)


def closeness(points: PolarPoints, clusters: list[np.ndarray]) -> np.ndarray:
    """(N,) float64: minus each point's distance to its cluster's medoid, 0 at the medoid itself."""
    medoid_of = np.arange(len(points))
    for members, medoid in zip(clusters, medoids(points, clusters), strict=True):
        medoid_of[members] = medoid
    return -dist(points, take(points, medoid_of)).double().cpu().numpy()


def take(points: PolarPoints, index: np.ndarray) -> PolarPoints:
    """Points by index, on their own device."""
    return points[torch.from_numpy(index).to(points.device)]
