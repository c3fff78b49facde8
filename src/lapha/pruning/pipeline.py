"""Prune many trees: the device computes one tree's distances while the CPU links another's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from lapha.geometry import PolarPoints
from lapha.pruning._distances import distance_matrix
from lapha.pruning.clustering import check_latents, cluster_matrix, make_config
from lapha.pruning.config import PruneConfig
from lapha.pruning.pruner import PruneResult, finish_pass


def prune_many(
    trees: Iterable[tuple[PolarPoints, torch.Tensor | None]], config: PruneConfig | None = None
) -> Iterator[PruneResult]:
    """Prune several trees, in order; each result is the one that `prune` gives.

    Distances of the next tree are computed while this tree's linkage runs. On a GPU the two use different machines; on
    a CPU they share it, and the gain is small.

    Args:
        trees: (points (N,), protected (N,) bool or None) of each tree; read one ahead.
        config: how to prune; survivors by value or visits need `prune`.

    Raises:
        ValueError: as `prune`.
    """
    from lapha.pruning.pruner import read_mask, read_ranking

    settings = make_config(config, {})
    read_ranking(0, settings, None, None)  # refuses survivors that need numbers

    def prepare(points: PolarPoints, protected: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        check_latents(points)
        with torch.no_grad():
            return distance_matrix(points), read_mask(protected, len(points), "protected")

    with ThreadPoolExecutor(1, thread_name_prefix="lapha-distances") as worker:
        waiting = None
        for points, protected in trees:
            future = worker.submit(prepare, points, protected)
            if waiting is not None:
                yield _finish(*waiting, settings)
            waiting = (points, future)
        if waiting is not None:
            yield _finish(*waiting, settings)


def _finish(points: PolarPoints, future, config: PruneConfig) -> PruneResult:  # type: ignore[no-untyped-def]
    matrix, protected = future.result()
    return finish_pass(points, cluster_matrix(matrix, config), config, protected, None)
