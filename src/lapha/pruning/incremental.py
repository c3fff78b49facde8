"""Prune a growing set of latents: new nodes against the medoids of known clusters, and now and then everything anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lapha._checks import check
from lapha.geometry import PolarPoints
from lapha.pruning._cuts import by_appearance
from lapha.pruning._survivors import medoids, members_of, take
from lapha.pruning.clustering import check_latents, find_clusters, make_config
from lapha.pruning.config import PruneConfig
from lapha.pruning.pruner import PruneResult, PruneStats, finish_pass, order_of_preference, read_mask, read_ranking


class IncrementalPruner:
    """Prunes the nodes of one tree as they come.

    A pass over N nodes costs O(N²). This looks at new nodes only: each joins the cluster of the nearest medoid if that
    is no farther than the last full pass's cut, and those that are far from all medoids are clustered among
    themselves at the same distance. Each cluster then disables as many of its new members as bring its disabled share
    up to `fraction`; nodes that survived earlier passes are left alone until the next full pass, which clusters all
    live nodes anew.

    Args:
        config: how to prune; `scope` plays no part. HDBSCAN has no cut distance, and is refused.
        full_every: a full pass when the nodes since the last one exceed this share of those it saw, > 0. 1.0 makes
            full passes at doubling sizes, so that all of them together cost at most a third more than the last.
        **options: fields of `PruneConfig`, in place of `config`.

    Raises:
        ValueError: options outside their range.
    """

    def __init__(self, config: PruneConfig | None = None, *, full_every: float = 1.0, **options: Any) -> None:
        self.config = make_config(config, options)
        check(self.config.linkage != "hdbscan", "linkage", "one with a cut distance", repr(self.config.linkage))
        check(full_every > 0, "full_every", "a number > 0", full_every)
        self.full_every = full_every
        self._labels = np.empty(0, np.int64)  # of every node seen, −1 for nodes disabled before the last full pass
        self._disabled = np.empty(0, bool)
        self._medoids: list[
            PolarPoints
        ] = []  # of clusters 0, 1, …, in blocks: gathering all anew costs as much as a pass
        self._full_size = 0  # nodes at the last full pass
        self._cut = float("nan")
        self._bounds = (float("nan"), float("nan"))

    @property
    def seen(self) -> int:
        """Nodes seen so far."""
        return len(self._labels)

    @property
    def cut_distance(self) -> float:
        """Geodesic distance to a medoid at which a node still joins its cluster; NaN before the first pass."""
        return self._cut

    @torch.no_grad()
    def update(
        self,
        points: PolarPoints,
        *,
        protected: torch.Tensor | None = None,
        value: torch.Tensor | None = None,
        visits: torch.Tensor | None = None,
        full: bool | None = None,
    ) -> PruneResult:
        """Take in nodes that are new since the last call.

        Args:
            points: (N,) latents of all nodes so far, in an order that only ever grows (a bank's segment).
            protected, value, visits: (N,), as in `prune`.
            full: make a full pass, or none; by default `full_every` decides. The first pass is always full.

        Returns:
            disabled (N,): all nodes disabled so far; labels (N,): −1 for nodes that took no part in the last full pass
            because they were disabled already. `stats` are those of this pass.

        Raises:
            ValueError: as `prune`, or fewer points than before. Nothing is then changed.
        """
        check_latents(points[self.seen :] if isinstance(points, PolarPoints) and points.shape else points)
        size = len(points)
        check(size >= self.seen, "points", f"the {self.seen} nodes seen so far and new ones", size)
        fixed = read_mask(protected, size, "protected")
        ranking = read_ranking(size, self.config, value, visits)
        due = size - self._full_size > self.full_every * self._full_size
        if self._full_size == 0 or (due if full is None else full):
            return self._full_pass(points, fixed, ranking)
        return self._incremental_pass(points, fixed, ranking)

    def _full_pass(self, points: PolarPoints, protected: np.ndarray, ranking: np.ndarray | None) -> PruneResult:
        size = len(points)
        disabled = np.zeros(size, bool)
        disabled[: self.seen] = self._disabled
        live = np.flatnonzero(~disabled)
        part = points[torch.from_numpy(live).to(points.device)]
        clustering = find_clusters(part, self.config)
        result = finish_pass(part, clustering, self.config, protected[live], None if ranking is None else ranking[live])
        labels = np.full(size, -1, np.int64)
        labels[live] = clustering.labels.numpy()
        disabled[live] = result.disabled.numpy()
        self._medoids = [take(part, medoids(part, members_of(clustering.labels.numpy())))]
        self._labels, self._disabled, self._full_size = labels, disabled, size
        self._cut, self._bounds = clustering.cut_distance, (clustering.cut_below, clustering.cut_above)
        return PruneResult(torch.from_numpy(disabled.copy()), torch.from_numpy(labels.copy()), result.stats)

    def _incremental_pass(self, points: PolarPoints, protected: np.ndarray, ranking: np.ndarray | None) -> PruneResult:
        first, size = self.seen, len(points)
        new = points[first:]
        joined, new_medoids = self._assign(new)
        labels = np.concatenate([self._labels, joined])
        disabled = np.concatenate([self._disabled, np.zeros(size - first, bool)])
        touched = [np.flatnonzero(labels == label) for label in np.unique(joined)]
        local = [members[members >= first] - first for members in touched]
        preference = order_of_preference(new, local, self.config, None if ranking is None else ranking[first:])
        for members, fresh in zip(touched, local, strict=True):
            wanted = int(self.config.fraction * len(members) + 1e-9) - int(disabled[members].sum())
            free = fresh[~protected[fresh + first]]
            leaving = free[np.argsort(preference[free], kind="stable")[: max(0, wanted)]]
            disabled[leaving + first] = True
        stats = PruneStats(
            nodes=size - first,
            clusters=len(touched),
            largest=max(map(len, touched), default=0),
            disabled=int(disabled[first:].sum()),
            protected=int(protected[first:].sum()),
            cut_below=self._bounds[0],
            cut_above=self._bounds[1],
        )
        self._labels, self._disabled = labels, disabled
        if len(new_medoids):
            self._medoids = [*self._medoids, take(new, new_medoids)]
        return PruneResult(torch.from_numpy(disabled.copy()), torch.from_numpy(labels.copy()), stats)

    def _assign(self, new: PolarPoints) -> tuple[np.ndarray, np.ndarray]:
        """Cluster of each new node, and the medoids, among the new nodes, of clusters that did not exist before."""
        if len(new) == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        distance, labels = self._nearest_cluster(new)
        far = np.flatnonzero(~(distance <= self._cut))
        if len(far) == 0:
            return labels, far
        rest = take(new, far)
        found = self._cluster_rest(rest)
        labels[far] = sum(map(len, self._medoids)) + found
        return labels, far[medoids(rest, members_of(found))]

    def _nearest_cluster(self, new: PolarPoints) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the nearest medoid (n,), and which cluster's it is (n,); the earlier cluster of equals."""
        from lapha.kernels import nearest

        best, label, first = np.full(len(new), np.inf), np.zeros(len(new), np.int64), 0
        for block in self._medoids:
            distance, index = (tensor.cpu().numpy() for tensor in nearest(new, block))
            closer = distance < best
            best, label = np.where(closer, distance, best), np.where(closer, first + index, label)
            first += len(block)
        return best, label

    def _cluster_rest(self, rest: PolarPoints) -> np.ndarray:
        """Clusters of nodes that no known cluster takes."""
        if not self._cut > 0:
            return np.arange(len(rest))
        config = PruneConfig(linkage=self.config.linkage, cut="distance", distance=self._cut)
        return by_appearance(find_clusters(rest, config).labels.numpy())
