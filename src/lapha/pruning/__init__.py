"""Pruning: cluster states that say the same, and disable a share of each cluster."""

from lapha.pruning.clustering import Clustering, cluster, find_clusters
from lapha.pruning.config import CutRule, PruneConfig
from lapha.pruning.incremental import IncrementalPruner
from lapha.pruning.pipeline import prune_many
from lapha.pruning.pruner import PruneResult, PruneStats, prune
from lapha.pruning.tree_pruner import candidate_nodes, live_nodes, prune_tree

__all__ = [
    "Clustering",
    "CutRule",
    "IncrementalPruner",
    "PruneConfig",
    "PruneResult",
    "PruneStats",
    "candidate_nodes",
    "cluster",
    "find_clusters",
    "live_nodes",
    "prune",
    "prune_many",
    "prune_tree",
]
