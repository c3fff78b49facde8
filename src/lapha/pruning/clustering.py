"""Clusters of latents under the exact geodesic distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lapha._checks import check
from lapha._typed import typed
from lapha.geometry import PolarPoints
from lapha.pruning._cuts import by_appearance, find_cut, labels_below
from lapha.pruning._distances import distance_matrix
from lapha.pruning._linkage import link
from lapha.pruning.config import PruneConfig


@dataclass(frozen=True, slots=True)
class Clustering:
    """Which cluster each point is in, and how the clusters were told apart.

    Attributes:
        labels: (N,) int64 on the CPU, numbered 0, 1, … in the order of first appearance. A point that HDBSCAN calls
            noise is a cluster of its own.
        clusters: how many there are.
        cut_below: geodesic distance of the highest merge below the cut; NaN for HDBSCAN.
        cut_above: that of the lowest merge above it, infinite if all points are in one cluster; NaN for HDBSCAN.
        cut_distance: one distance between the two, to compare a new point with; NaN for HDBSCAN.
    """

    labels: torch.Tensor
    clusters: int
    cut_below: float
    cut_above: float
    cut_distance: float


def check_latents(points: Any, name: str = "points") -> None:
    """`points` must be (N,) PolarPoints without NaN or Inf."""
    check(isinstance(points, PolarPoints), name, "PolarPoints", type(points).__name__)
    check(len(points.shape) == 1, name, "batch shape (N,)", f"shape {tuple(points.shape)}")
    # a direction's length is finite if and only if all its numbers are: they are at most about 1
    finite = torch.isfinite(points.radius) & torch.isfinite(torch.linalg.vector_norm(points.direction, dim=-1))
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0, 0])
        raise ValueError(f"{name}: expected finite latents, got NaN or Inf, the first at row {first}")


@typed
def cluster(points: PolarPoints, config: PruneConfig | None = None, **options: Any) -> torch.Tensor:
    """Cluster latents that lie close together: paraphrases of the same step.

    Args:
        points: (N,) latents of one tree.
        config: which linkage and cut; the paper's by default. Its survivors and fraction play no part here.
        **options: fields of `PruneConfig`, in place of `config`.

    Returns:
        (N,) int64 labels on the CPU, numbered by first appearance.

    Raises:
        ValueError: NaN latents, wrong shapes, or options outside their range.

    Source: Latent Poincaré shaping, arXiv 2602.09375, latent-space pruning.
    """
    return find_clusters(points, make_config(config, options)).labels


def make_config(config: PruneConfig | None, options: dict[str, Any]) -> PruneConfig:
    """`config`, or one made of keyword options; not both."""
    if config is None:
        unknown = set(options) - set(PruneConfig.__slots__)
        check(not unknown, "options", f"fields of PruneConfig: {', '.join(PruneConfig.__slots__)}", sorted(unknown))
        return PruneConfig(**options)
    check(isinstance(config, PruneConfig), "config", "a PruneConfig", type(config).__name__)
    check(not options, "options", "none beside a config", sorted(options))
    return config


@torch.no_grad()
def find_clusters(points: PolarPoints, config: PruneConfig) -> Clustering:
    """As `cluster`, with the cut's distances."""
    check_latents(points)
    return cluster_matrix(distance_matrix(points), config)


def cluster_matrix(matrix: np.ndarray, config: PruneConfig) -> Clustering:
    """Cluster by a distance matrix (N, N) float32, which is overwritten."""
    if config.linkage == "hdbscan":
        labels = _hdbscan(matrix, config.min_cluster_size)
        return Clustering(torch.from_numpy(labels), int(labels.max(initial=-1)) + 1, math.nan, math.nan, math.nan)
    merges = link(matrix, config.linkage)
    cut = find_cut(merges.height, config)
    labels = labels_below(merges, cut.merges) if len(matrix) else np.empty(0, np.int64)
    return Clustering(torch.from_numpy(labels), int(labels.max(initial=-1)) + 1, cut.below, cut.above, cut.distance)


def _hdbscan(matrix: np.ndarray, min_cluster_size: int) -> np.ndarray:
    """scikit-learn's HDBSCAN, which makes a float64 copy of the matrix."""
    size = len(matrix)
    if size < min_cluster_size:
        return np.arange(size)
    from sklearn.cluster import HDBSCAN

    model = HDBSCAN(min_cluster_size=min_cluster_size, metric="precomputed", copy=True)
    found = model.fit(matrix).labels_.astype(np.int64)
    noise = found < 0
    found[noise] = found.max(initial=-1) + 1 + np.arange(int(noise.sum()))
    return by_appearance(found)
