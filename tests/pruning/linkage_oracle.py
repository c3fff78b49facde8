"""Brute-force agglomerative clustering, straight from the definition, in float64."""

from __future__ import annotations

import numpy as np

_BETWEEN = {"average": np.mean, "complete": np.max, "single": np.min}


def merge_sequence(matrix: np.ndarray, method: str) -> list[tuple[float, frozenset[frozenset[int]]]]:
    """(height, partition after it) of each merge: always the two clusters that are nearest to each other."""
    distances = matrix.astype(np.float64)
    clusters = [frozenset([point]) for point in range(len(matrix))]
    merges = []
    while len(clusters) > 1:
        pairs = [
            (float(_BETWEEN[method](distances[np.ix_(sorted(a), sorted(b))])), i, j)
            for i, a in enumerate(clusters)
            for j, b in enumerate(clusters[:i])
        ]
        height, i, j = min(pairs)
        merged = clusters[i] | clusters[j]
        clusters = [cluster for index, cluster in enumerate(clusters) if index not in (i, j)] + [merged]
        merges.append((height, frozenset(clusters)))
    return merges


def partition(labels) -> frozenset[frozenset[int]]:
    """Labels as a set of clusters."""
    groups: dict[int, set[int]] = {}
    for point, label in enumerate(list(labels)):
        groups.setdefault(int(label), set()).add(point)
    return frozenset(frozenset(group) for group in groups.values())
