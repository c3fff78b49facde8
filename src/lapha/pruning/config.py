"""PruneConfig: how redundant states are found and thinned out."""

from __future__ import annotations

from dataclasses import dataclass

from lapha._checks import check, check_choice

LINKAGES = ("average", "complete", "single", "hdbscan")
CUTS = ("largest_jump", "distance", "number")
SURVIVORS = ("random", "value", "visits", "medoid")
SCOPES = ("visited_nonterminal", "all")


@dataclass(frozen=True, slots=True)
class PruneConfig:
    """How to cluster latents and which members of a cluster to disable.

    Attributes:
        fraction: share of each cluster that is disabled, in [0, 1), rounded down: the paper's third leaves clusters of
            one or two alone.
        linkage: ``"average"`` (the paper's), ``"complete"``, ``"single"``, or ``"hdbscan"``.
        cut: where the linkage's dendrogram is cut: at the ``"largest_jump"``, relative, between successive merge
            heights (the paper's), at a ``"distance"``, or into a ``"number"`` of clusters. HDBSCAN finds its own.
        distance: for ``cut="distance"``: members of a cluster were merged at this geodesic distance or below, > 0.
        number: for ``cut="number"``: how many clusters, ≥ 1.
        survivors: who stays: ``"random"`` members (the paper's), those with the highest ``"value"`` or most
            ``"visits"``, or those nearest the cluster's ``"medoid"``.
        scope: which nodes of a search tree take part: ``"visited_nonterminal"`` (the paper's text) or ``"all"`` but
            the root (the reference code).
        min_cluster_size: of HDBSCAN, ≥ 2.
        seed: of the random survivors, and of ties, ≥ 0.

    Raises:
        ValueError: a value outside its range, or a cut's parameter that is missing or without use.
    """

    fraction: float = 1 / 3
    linkage: str = "average"
    cut: str = "largest_jump"
    distance: float | None = None
    number: int | None = None
    survivors: str = "random"
    scope: str = "visited_nonterminal"
    min_cluster_size: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check(0 <= self.fraction < 1, "fraction", "a number in [0, 1)", self.fraction)
        check_choice(self.linkage, "linkage", LINKAGES)
        check_choice(self.cut, "cut", CUTS)
        check_choice(self.survivors, "survivors", SURVIVORS)
        check_choice(self.scope, "scope", SCOPES)
        check(self.min_cluster_size >= 2, "min_cluster_size", "an integer >= 2", self.min_cluster_size)
        check(self.seed >= 0, "seed", "an integer >= 0", self.seed)
        self._check_cut_parameter("distance", self.distance, self.distance is None or self.distance > 0, "a number > 0")
        self._check_cut_parameter("number", self.number, self.number is None or self.number >= 1, "an integer >= 1")
        if self.linkage == "hdbscan":
            check(self.cut == "largest_jump", "cut", "none with linkage 'hdbscan', which finds its own", self.cut)

    def _check_cut_parameter(self, name: str, value: float | None, in_range: bool, expected: str) -> None:
        if self.cut == name:
            check(value is not None and in_range, name, f"{expected} with cut {name!r}", value)
        else:
            check(value is None, name, f"nothing, unless cut is {name!r}", value)
