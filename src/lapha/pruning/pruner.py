"""Prune one set of latents: cluster it, and disable a share of each cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lapha._checks import check
from lapha._typed import typed
from lapha.geometry import PolarPoints
from lapha.pruning._survivors import choose_disabled, closeness, members_of
from lapha.pruning.clustering import Clustering, find_clusters, make_config
from lapha.pruning.config import PruneConfig


@dataclass(frozen=True, slots=True)
class PruneStats:
    """What a pass did.

    Attributes:
        nodes: points that took part.
        clusters: clusters found.
        largest: members of the largest.
        disabled: points disabled.
        protected: points that could not be.
        cut_below, cut_above: geodesic distances of the merges on either side of the cut (see `Clustering`).
    """

    nodes: int
    clusters: int
    largest: int
    disabled: int
    protected: int
    cut_below: float
    cut_above: float


@dataclass(frozen=True, slots=True)
class PruneResult:
    """Outcome of a pass.

    Attributes:
        disabled: (N,) bool on the CPU.
        labels: (N,) int64 on the CPU, numbered by first appearance; −1 for a point that took no part.
        stats: counts and the distances at the cut.
    """

    disabled: torch.Tensor
    labels: torch.Tensor
    stats: PruneStats


@typed
def prune(
    points: PolarPoints,
    *,
    protected: torch.Tensor | None = None,
    value: torch.Tensor | None = None,
    visits: torch.Tensor | None = None,
    config: PruneConfig | None = None,
    **options: Any,
) -> PruneResult:
    """Cluster latents and disable about `fraction` of each cluster.

    Every cluster keeps at least one member, and the result depends on the inputs and the seed alone.

    Args:
        points: (N,) latents of the live nodes of one tree.
        protected: (N,) bool, nodes that must not be disabled. They count as members of their cluster.
        value: (N,) numbers, needed for ``survivors="value"``: the highest stay.
        visits: (N,) numbers, needed for ``survivors="visits"``: the highest stay.
        config: how to prune.
        **options: fields of `PruneConfig`, in place of `config`: ``prune(points, linkage="complete", fraction=0.5)``.

    Raises:
        ValueError: NaN latents, shapes that differ, options outside their range, or missing values or visits.

    Source: Latent Poincaré shaping, arXiv 2602.09375, latent-space pruning.
    """
    settings = make_config(config, options)
    ranking = read_ranking(len(points), settings, value, visits)
    fixed = read_mask(protected, len(points), "protected")
    return finish_pass(points, find_clusters(points, settings), settings, fixed, ranking)


def finish_pass(
    points: PolarPoints,
    clustering: Clustering,
    config: PruneConfig,
    protected: np.ndarray,
    ranking: np.ndarray | None,
) -> PruneResult:
    """Choose who is disabled in clusters that are known."""
    labels = clustering.labels.numpy()
    clusters = members_of(labels)
    preference = order_of_preference(points, clusters, config, ranking)
    disabled = choose_disabled(clusters, preference, protected, config.fraction)
    stats = PruneStats(
        nodes=len(labels),
        clusters=clustering.clusters,
        largest=max(map(len, clusters), default=0),
        disabled=int(disabled.sum()),
        protected=int(protected.sum()),
        cut_below=clustering.cut_below,
        cut_above=clustering.cut_above,
    )
    return PruneResult(torch.from_numpy(disabled), clustering.labels, stats)


def order_of_preference(
    points: PolarPoints, clusters: list[np.ndarray], config: PruneConfig, ranking: np.ndarray | None
) -> np.ndarray:
    """(N,) distinct ranks, the highest of which should stay; ties of the criterion are broken by the seed."""
    random = np.random.default_rng(config.seed).permutation(len(points))
    if config.survivors == "random":
        return random
    criterion = closeness(points, clusters) if ranking is None else ranking
    rank = np.empty(len(points), np.int64)
    rank[np.lexsort((random, criterion))] = np.arange(len(points))
    return rank


def read_ranking(
    size: int, config: PruneConfig, value: torch.Tensor | None, visits: torch.Tensor | None
) -> np.ndarray | None:
    """The numbers that survivors are chosen by, (N,) float64, or None if they are not needed.

    Raises:
        ValueError: they are needed and missing, have another shape, or hold NaN.
    """
    given = {"value": value, "visits": visits}
    for name, tensor in given.items():
        if tensor is not None:
            check(isinstance(tensor, torch.Tensor), name, "a torch.Tensor", type(tensor).__name__)
            check(tensor.shape == (size,), name, f"shape ({size},)", f"shape {tuple(tensor.shape)}")
    if config.survivors not in given:
        return None
    chosen = given[config.survivors]
    if chosen is None:
        raise ValueError(
            f"{config.survivors}: expected ({size},) numbers with survivors={config.survivors!r}, got None"
        )
    numbers = chosen.detach().cpu().double().numpy()
    check(not np.isnan(numbers).any(), config.survivors, "numbers", "NaN")
    return numbers


def read_mask(mask: torch.Tensor | None, size: int, name: str) -> np.ndarray:
    """(N,) bool; None is all False."""
    if mask is None:
        return np.zeros(size, bool)
    check(isinstance(mask, torch.Tensor), name, "a torch.Tensor", type(mask).__name__)
    check(mask.dtype == torch.bool, name, "dtype torch.bool", mask.dtype)
    check(mask.shape == (size,), name, f"shape ({size},)", f"shape {tuple(mask.shape)}")
    return mask.cpu().numpy()
