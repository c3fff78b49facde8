"""Cluster-and-prune in its plain form, as a yardstick: pair by pair, cluster by cluster, in Python loops.

It follows the method's description word for word, in float32 on ball coordinates: all pairwise geodesic distances; then,
as long as two clusters are left, the mean distance between every two clusters is computed anew from the pairs of their
members and the nearest two are merged; the cut is at the largest relative jump between successive merge heights; a third
of each cluster is disabled at random. The number of means is cubic in the number of nodes.
"""

from __future__ import annotations

import itertools
import random

import numpy as np


def ball_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Geodesic distance of two points of the unit ball."""
    difference = x - y
    room = max(1e-6, (1.0 - float(x @ x)) * (1.0 - float(y @ y)))
    return float(np.arccosh(max(1.0 + 1e-7, 1.0 + 2.0 * float(difference @ difference) / room)))


def cluster_and_prune(ball: np.ndarray, fraction: float = 1 / 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and disabled (N,) of points (N, D) float32 in the unit ball."""
    size = len(ball)
    distances = np.zeros((size, size), np.float32)
    for i in range(size):
        for j in range(i):
            distances[i, j] = distances[j, i] = ball_distance(ball[i], ball[j])
    history, heights = _merge_all(distances)
    clusters = history[_jump(heights)]
    labels, disabled = np.zeros(size, np.int64), np.zeros(size, bool)
    dice = random.Random(seed)
    for label, members in enumerate(sorted(clusters, key=min)):
        labels[members] = label
        disabled[dice.sample(members, int(fraction * len(members) + 1e-9))] = True
    return labels, disabled


def _merge_all(distances: np.ndarray) -> tuple[list[list[list[int]]], list[float]]:
    """Partitions after 0, 1, … merges, and the height of each merge."""
    clusters = [[point] for point in range(len(distances))]
    history, heights = [list(clusters)], []
    while len(clusters) > 1:
        best, pair = np.inf, (0, 0)
        for i in range(len(clusters)):
            for j in range(i):
                mean = float(distances[np.ix_(clusters[i], clusters[j])].mean())
                if mean < best:
                    best, pair = mean, (i, j)
        i, j = pair
        clusters = [members for index, members in enumerate(clusters) if index not in pair] + [
            clusters[i] + clusters[j]
        ]
        history.append(list(clusters))
        heights.append(best)
    return history, heights


def _jump(heights: list[float]) -> int:
    """How many merges lie below the largest relative jump."""
    if len(heights) < 2:
        return len(heights)
    ratios = [(after - before) / (abs(before) + 1e-8) for before, after in itertools.pairwise(heights)]
    return int(np.argmax(ratios)) + 1
