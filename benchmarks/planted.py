"""Latents with known paraphrase clusters, and how well a cut finds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from lapha.geometry import PolarPoints, expmap
from lapha.pruning import PruneConfig, prune

# How often random pruning is repeated for its mean.
_DRAWS = 50


def planted_latents(clusters: int, dim: int, radius: float, jitter: float, seed: int) -> tuple[PolarPoints, np.ndarray]:
    """Clusters of unequal size about centres that lean one way, as the steps of one problem do.

    Sizes are geometric, 1 to 20 (a step that nobody paraphrases is a cluster of one), and centres lie at 0.5 to 1.5 times
    `radius`. A member lies at a geodesic distance of about `jitter` times its centre's distance from the root, in a random
    direction.

    Returns:
        points (N,) in random order, and the cluster of each.
    """
    random = np.random.default_rng(seed)
    sizes = np.minimum(random.geometric(0.22, clusters), 20)
    truth = np.repeat(np.arange(clusters), sizes)
    centre = 0.63 * random.normal(size=dim) + 0.77 * random.normal(size=(clusters, dim))
    centre *= radius * (0.5 + random.random((clusters, 1))) / np.linalg.norm(centre, axis=1, keepdims=True)
    centre = centre[truth]
    offset = random.normal(size=centre.shape) / dim**0.5
    offset *= jitter * np.linalg.norm(centre, axis=1, keepdims=True)
    points = expmap(PolarPoints.from_tangent(torch.from_numpy(centre)), torch.from_numpy(offset)).to(torch.float32)
    order = random.permutation(len(truth))
    return points[torch.from_numpy(order)], truth[order]


def cut_configs(points: PolarPoints, truth: np.ndarray) -> Iterator[tuple[str, PruneConfig]]:
    """Linkages and cuts to compare. The number and the distance are the true ones: what a perfect guess would give."""
    for linkage in ("average", "complete", "single"):
        yield f"{linkage}, largest jump", PruneConfig(linkage=linkage)
    yield "average, true number", PruneConfig(cut="number", number=len(np.unique(truth)))
    yield "average, best distance", PruneConfig(cut="distance", distance=best_distance(points, truth))
    yield "hdbscan", PruneConfig(linkage="hdbscan")


def best_distance(points: PolarPoints, truth: np.ndarray) -> float:
    """The distance threshold with the highest adjusted Rand index, of 40 between the smallest and largest distance."""
    from sklearn.metrics import adjusted_rand_score

    from lapha.kernels import pairwise_dist
    from lapha.pruning import cluster

    distances = pairwise_dist(points)
    positive = distances[distances > 0]
    grid = np.geomspace(float(positive.min()), float(positive.max()), 40)
    score = [adjusted_rand_score(truth, cluster(points, cut="distance", distance=float(d)).numpy()) for d in grid]
    return float(grid[int(np.argmax(score))])


def quality(points: PolarPoints, truth: np.ndarray, config: PruneConfig, fraction: float) -> dict[str, Any]:
    """Adjusted Rand index of the clusters, and what pruning leaves of the true ones.

    Returns:
        ``adjusted_rand_index``; ``clusters`` found and ``true_clusters``; ``disabled`` share of nodes;
        ``kept`` share of true clusters that keep a member, and ``kept_at_random`` when as many nodes are disabled at
        random over the whole tree (mean of 50 draws).
    """
    from dataclasses import replace

    from sklearn.metrics import adjusted_rand_score

    result = prune(points, config=replace(config, fraction=fraction))
    disabled = result.disabled.numpy()
    random = np.random.default_rng(0)
    draws = []
    for _ in range(_DRAWS):
        gone = np.zeros(len(truth), bool)
        gone[random.choice(len(truth), int(disabled.sum()), replace=False)] = True
        draws.append(kept_share(truth, gone))
    return {
        "adjusted_rand_index": float(adjusted_rand_score(truth, result.labels.numpy())),
        "clusters": result.stats.clusters,
        "true_clusters": len(np.unique(truth)),
        "disabled": float(disabled.mean()),
        "kept": kept_share(truth, disabled),
        "kept_at_random": float(np.mean(draws)),
    }


def kept_share(truth: np.ndarray, disabled: np.ndarray) -> float:
    """Share of true clusters that keep a member."""
    return len(np.unique(truth[~disabled])) / len(np.unique(truth))
