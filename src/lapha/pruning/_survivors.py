"""Who stays in a cluster that is thinned out."""

from __future__ import annotations

import numpy as np
import torch

from lapha.geometry import PolarPoints

# A cluster larger than this is measured in blocks of rows: 4096 × 20,000 distances are 320 MB.
BLOCK_ROWS = 4096


def members_of(labels: np.ndarray) -> list[np.ndarray]:
    """Points of each cluster, ascending; clusters in label order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(labels) else []


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


def closeness(points: PolarPoints, clusters: list[np.ndarray]) -> np.ndarray:
    """(N,) float32: minus each point's distance to its cluster's medoid, 0 at the medoid itself."""
    nearness = np.zeros(len(points), np.float32)
    for members in clusters:
        if len(members) > 2:
            sums, rows = distance_sums(points, members)
            nearness[members] = -rows(int(np.argmin(sums)))
        elif len(members) == 2:
            nearness[members[1]] = -1.0  # both are medoids; the earlier one stands for them
    return nearness


def medoids(points: PolarPoints, clusters: list[np.ndarray]) -> np.ndarray:
    """The member of each cluster with the least sum of distances to the others, (K,) int64; the earliest of equals."""
    found = np.empty(len(clusters), np.int64)
    for index, members in enumerate(clusters):
        position = int(np.argmin(distance_sums(points, members)[0])) if len(members) > 2 else 0
        found[index] = members[position]
    return found


def distance_sums(points: PolarPoints, members: np.ndarray):  # type: ignore[no-untyped-def]
    """Sums of distances from each member to all members, and a function that gives one member's distances."""
    from lapha.kernels import pairwise_dist

    index = torch.from_numpy(members).to(points.device)
    part = points[index]
    sums = [
        pairwise_dist(part[start : start + BLOCK_ROWS], part).double().sum(dim=1)
        for start in range(0, len(members), BLOCK_ROWS)
    ]

    def row(position: int) -> np.ndarray:
        return pairwise_dist(part[position : position + 1], part)[0].float().cpu().numpy()

    return torch.cat(sums).cpu().numpy(), row
