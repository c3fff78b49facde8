"""Prune the nodes of a search tree."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from lapha._checks import check
from lapha.geometry import PolarPoints
from lapha.pruning.clustering import check_latents
from lapha.pruning.config import PruneConfig
from lapha.pruning.pruner import PruneResult, order_of_preference, prune
from lapha.tree import NO_PARENT, SearchTree
from lapha.types import Status


def live_nodes(tree: SearchTree) -> np.ndarray:
    """(N,) bool: nodes that are not pruned, nor below a pruned one."""
    live = ~tree.pruned
    for node in range(1, len(tree)):
        live[node] &= live[tree.parent[node]]
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
    mark: bool = False,
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
        mark: set `tree.pruned` too. Otherwise the tree is left alone.

    Returns:
        disabled (N,) bool: nodes disabled by this pass; labels (N,) with −1 for nodes that took no part.

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
    _keep_last_children(tree, disabled, settings)
    labels = torch.full((len(tree),), -1, dtype=torch.int64)
    labels[index] = result.labels
    if mark:
        tree.pruned[disabled] = True
    stats = dataclasses.replace(result.stats, disabled=int(disabled.sum()))
    return PruneResult(torch.from_numpy(disabled), labels, stats)


def _with_paths(tree: SearchTree, protected: torch.Tensor | None) -> np.ndarray:
    """Protected nodes and all their ancestors, (N,) bool."""
    from lapha.pruning.pruner import read_mask

    fixed = read_mask(protected, len(tree), "protected").copy()
    for node in range(len(tree) - 1, 0, -1):
        if fixed[node]:
            fixed[tree.parent[node]] = True
    return fixed


def _keep_last_children(tree: SearchTree, disabled: np.ndarray, config: PruneConfig) -> None:
    """Where a node stays and would lose all its live children, give one back: the most visited, then the best.

    Parents come before children, so that a child that is given back is itself looked at later.
    """
    live = live_nodes(tree)
    for node, children in tree.siblings():
        if not live[node] or disabled[: node + 1][node]:
            continue
        left = [child for child in children if live[child]]
        if left and all(disabled[child] for child in left):
            value = np.nan_to_num(tree.value[left], nan=-1.0)
            disabled[left[int(np.lexsort((value, tree.visits[left]))[-1])]] = False
        for child in children:
            live[child] &= not disabled[child]
