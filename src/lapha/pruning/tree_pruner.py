"""Prune the nodes of a search tree."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from lapha._checks import check
from lapha.geometry import PolarPoints
from lapha.pruning.clustering import check_latents
from lapha.pruning.config import PruneConfig
from lapha.pruning.pruner import PruneResult, prune, read_mask
from lapha.tree import NO_PARENT, SearchTree
from lapha.types import Status


def live_nodes(tree: SearchTree) -> np.ndarray:
    """(N,) bool: nodes that are not pruned, nor below a pruned one."""
    live = ~tree.pruned
    parent = tree.parent
    for node in range(1, len(tree)):
        live[node] &= live[parent[node]]
    return live


def candidate_nodes(tree: SearchTree, scope: str) -> np.ndarray:
    """(N,) bool: live nodes that a pass looks at; never the root."""
    candidates = live_nodes(tree)
    candidates[tree.parent == NO_PARENT] = False
    if scope == "visited_nonterminal":
        candidates &= (tree.visits > 0) & (tree.status == Status.OPEN)
    return candidates


def prune_tree(
    tree: SearchTree,
    points: PolarPoints,
    config: PruneConfig | None = None,
    *,
    protected: torch.Tensor | None = None,
) -> PruneResult:
    """Find redundant nodes of a search tree.

    A disabled node is not expanded any more, and what is below it is out of the search. So these are never disabled:
    the root; protected nodes and the whole path to each of them; the last live child of a node that stays.

    Args:
        tree: the search tree of N nodes.
        points: (N,) root-centred latents, point i being node i's.
        config: how to prune, and which nodes take part (`scope`). With ``survivors="value"`` nodes are ranked by
            v̂(s), with ``"visits"`` by their visits.
        protected: (N,) bool: in training, the correct leaves.

    Returns:
        disabled (N,) bool: nodes disabled by this pass (the caller marks them: the tree is left alone); labels (N,)
        with −1 for nodes that took no part.

    Raises:
        ValueError: sizes that differ, NaN latents, or a candidate without a value under ``survivors="value"``.
    """
    settings = PruneConfig() if config is None else config
    check_latents(points)
    check(len(points) == len(tree), "points", f"one latent for each of {len(tree)} nodes", len(points))
    fixed = _with_paths(tree, protected)
    nodes = np.flatnonzero(candidate_nodes(tree, settings.scope))
    index = torch.from_numpy(nodes)
    result = prune(
        points[index.to(points.device)],
        protected=torch.from_numpy(fixed[nodes]),
        value=torch.from_numpy(tree.value[nodes]) if settings.survivors == "value" else None,
        visits=torch.from_numpy(tree.visits[nodes]) if settings.survivors == "visits" else None,
        config=settings,
    )
    disabled = np.zeros(len(tree), bool)
    disabled[nodes] = result.disabled.numpy()
    _keep_last_children(tree, disabled)
    labels = torch.full((len(tree),), -1, dtype=torch.int64)
    labels[index] = result.labels
    stats = dataclasses.replace(result.stats, disabled=int(disabled.sum()))
    return PruneResult(torch.from_numpy(disabled), labels, stats)


def _with_paths(tree: SearchTree, protected: torch.Tensor | None) -> np.ndarray:
    """Protected nodes and all their ancestors, (N,) bool."""
    fixed = read_mask(protected, len(tree), "protected").copy()
    parent = tree.parent
    for node in range(len(tree) - 1, 0, -1):
        if fixed[node]:
            fixed[parent[node]] = True
    return fixed


def _keep_last_children(tree: SearchTree, disabled: np.ndarray) -> None:
    """Where a node stays and would lose all its live children, give one back: the most visited, then the best.

    Parents come before children, so that a child that is given back is itself looked at later.
    """
    live = live_nodes(tree)
    value = np.nan_to_num(tree.value, nan=-1.0)
    visits = tree.visits
    for node, children in tree.siblings():
        stays = live[node] and not disabled[node]
        left = [child for child in children if live[child]]
        if stays and left and disabled[left].all():
            disabled[left[int(np.lexsort((value[left], visits[left]))[-1])]] = False
        if not stays:
            live[children] = False
