"""PruneConfig: how redundant states are found and thinned out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lapha._checks import check
from lapha._options import check_options, documented, option

Linkage: TypeAlias = Literal["average", "complete", "single", "hdbscan"]
Cut: TypeAlias = Literal["largest_jump", "distance", "number"]
CutRule: TypeAlias = Callable[[np.ndarray], float]
"""(M,) ascending merge heights of a dendrogram -> the height to cut it at: merges at or below it are kept."""
Survivors: TypeAlias = Literal["random", "value", "visits", "medoid"]
Scope: TypeAlias = Literal["visited_nonterminal", "all"]


@documented
@dataclass(frozen=True, slots=True)
class PruneConfig:
    """How to cluster latents and which members of a cluster to disable. The defaults are the paper's.

    Raises:
        ValueError: a value of another type or outside its range, or a cut's parameter that is missing or without use.
    """

    fraction: float = option(1 / 3, "Share of each cluster that is disabled, rounded down.", ge=0, lt=1)
    linkage: Linkage = option("average", "How clusters are found: a linkage of agglomerative clustering, or HDBSCAN.")
    cut: Cut | CutRule = option(
        "largest_jump",
        "Where the dendrogram is cut: at the largest ratio of successive merge heights, at a distance, into a number "
        "of clusters, or where a function of the merge heights says. HDBSCAN finds its own clusters.",
    )
    distance: float | None = option(None, "With cut 'distance': the geodesic distance to cut at.", gt=0)
    number: int | None = option(None, "With cut 'number': how many clusters.", ge=1)
    survivors: Survivors = option(
        "random", "Who stays: random members, the highest value, the most visits, or the nearest to the medoid."
    )
    scope: Scope = option(
        "visited_nonterminal", "Nodes that take part: the paper's text, or 'all' but the root (the reference code)."
    )
    min_cluster_size: int = option(2, "HDBSCAN's smallest cluster.", ge=2)
    seed: int = option(0, "Seed of the random survivors and of ties.", ge=0)

    def __post_init__(self) -> None:
        check_options(self)
        for name, value, expected in (
            ("distance", self.distance, "a number > 0"),
            ("number", self.number, "an integer >= 1"),
        ):
            if self.cut == name:
                check(value is not None, name, f"{expected} with cut {name!r}", value)
            else:
                check(value is None, name, f"nothing, unless cut is {name!r}", value)
        if self.linkage == "hdbscan":
            check(self.cut == "largest_jump", "cut", "none with linkage 'hdbscan', which finds its own", self.cut)
