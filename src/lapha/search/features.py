"""What a soft vote knows about the leaves that answer: seven features, from the saved tree and its latents."""

from __future__ import annotations

import numpy as np
import torch

from lapha import kernels
from lapha._checks import check
from lapha._typed import shown, typed
from lapha.geometry import PolarPoints
from lapha.tree import SearchTree

FEATURES = ("q", "log_visits", "logprob", "value", "monotonicity", "density", "length")
MIN_DECREASE = 1e-4  # of v̂ from one state to the next, below which it is not counted
MIN_POINTS = 3  # with fewer there is no density to speak of


@typed
def leaf_features(tree: SearchTree, latents: PolarPoints | None, leaves: np.ndarray, neighbours: int = 5) -> np.ndarray:
    """(K, 7) float64 features of `leaves`; of each, more is better.

    In the order of `FEATURES`: Q = W/N (v̂ where never backed up); log(1 + N); log-probability of the whole path;
    v̂; minus the total decrease of v̂ along the path from the root's child, counting drops above 1e-4; minus the mean
    geodesic distance to the `neighbours` nearest other leaves; minus log(1 + sampled tokens of the leaf).

    Args:
        tree: N nodes.
        latents: (N, H) root-centred latents; None, or fewer than three leaves: density is 0.
        leaves: (K,) node indices.
        neighbours: k ≥ 1 of the density.

    Raises:
        ValueError: the number of latents differs from that of nodes.
    """
    check(latents is None or len(latents) == len(tree), "latents", f"one a node ({len(tree)})", len(latents or ()))
    check(neighbours >= 1, "neighbours", "an integer >= 1", neighbours)
    whole = leaves.dtype.kind in "iu" and leaves.ndim == 1 and bool(((leaves >= 0) & (leaves < len(tree))).all())
    check(whole or not leaves.size, "leaves", f"(K,) integers in [0, {len(tree)})", shown(leaves))
    leaves = leaves.astype(np.int64).reshape(-1)
    visits = tree.visits[leaves]
    value = _known(tree.value[leaves].astype(np.float64))
    backed_up = tree.value_sum[leaves] / np.maximum(visits, 1)
    logprob, decrease = path_statistics(tree, leaves)
    sampled = np.array([len(tree.sampled_ids(int(leaf))) for leaf in leaves], dtype=np.float64)
    return np.stack(
        [
            np.where(visits > 0, backed_up, value),
            np.log1p(visits),
            logprob,
            value,
            -decrease,
            _density(latents, leaves, neighbours),
            -np.log1p(sampled),
        ],
        axis=1,
    ).reshape(len(leaves), len(FEATURES))


def path_statistics(tree: SearchTree, leaves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of the path to each leaf, and how much v̂ falls along it (from the root's child); (K,) each."""
    logprob, decrease = np.zeros(len(leaves)), np.zeros(len(leaves))
    for row, leaf in enumerate(leaves):
        path = tree.path(int(leaf))[1:]
        logprob[row] = tree.logprob[path].astype(np.float64).sum()
        values = tree.value[path].astype(np.float64)
        values = values[~np.isnan(values)]
        decrease[row] = np.maximum(values[:-1] - values[1:] - MIN_DECREASE, 0).sum()
    return logprob, decrease


def mean_logprob(tree: SearchTree, leaves: np.ndarray) -> np.ndarray:
    """(K,) mean log-probability of the sampled tokens of the path to each leaf; −inf where none was sampled."""
    total, _ = path_statistics(tree, leaves)
    count = np.array([sum(len(tree.sampled_ids(node)) for node in tree.path(int(leaf))) for leaf in leaves])
    return np.where(count > 0, total / np.maximum(count, 1), -np.inf)


def standardize(features: np.ndarray) -> np.ndarray:
    """Each column minus its mean, over its population standard deviation + 1e-6."""
    return (features - features.mean(0)) / (features.std(0) + 1e-6)


def _known(values: np.ndarray) -> np.ndarray:
    """Values with the mean of the known ones for the unknown: these then weigh nothing once standardized."""
    known = ~np.isnan(values)
    return np.where(known, values, values[known].mean() if known.any() else 0.0)


def _density(latents: PolarPoints | None, leaves: np.ndarray, neighbours: int) -> np.ndarray:
    if latents is None or len(leaves) < MIN_POINTS:
        return np.zeros(len(leaves))
    points = latents[torch.from_numpy(np.asarray(leaves, dtype=np.int64)).to(latents.device)]
    distance = kernels.pairwise_dist(points).double().cpu().numpy()
    np.fill_diagonal(distance, np.inf)
    nearest = np.sort(distance, axis=1)[:, : min(neighbours, len(leaves) - 1)]
    return -nearest.mean(1)
