"""What a model's latents are worth for shaping: measured on searched trees whose leaves have been graded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from scipy.stats import spearmanr

from lapha import kernels
from lapha._checks import check
from lapha.evaluation.intervals import auc
from lapha.geometry import dist0
from lapha.geometry.potential import potential_ratio
from lapha.search import SearchResult
from lapha.shaping import (
    ShapingConfig,
    TreeStates,
    choose_sibling_groups,
    potential,
    process_reward,
    success_rate,
)
from lapha.shaping.audit import pair_scores, summarize
from lapha.shaping.potentials import euclidean
from lapha.types import Status

# tanh(a)² leaves less than float32's resolution below 1 from here on: points of the ball can no longer be told apart
_SATURATED = math.atanh(math.sqrt(1 - 2.0**-24))
_SAME = 1e-3
FLAT = 0.01
DEPTH = 0.8
_OPTIONS = {"potential": 'reward="strict"', "verdicts": 'potential="success_rate" (or reward="auto")'}
_EPS = 1e-8


@dataclass(frozen=True)
class Diagnosis:
    """Numbers over all trees; NaN where nothing was there to measure.

    Attributes:
        trees, solved, nodes: trees, those with a correct leaf, and nodes of all.
        radius_low, radius, radius_high: 5 %, 50 % and 95 % quantiles of the latents' radius a = √c‖v‖, roots left out.
        curvature_effect: median over sibling pairs of the geodesic distance over the flat one, 2‖vᵢ − vⱼ‖; ≥ 1. At 1
            the space is flat at these radii.
        saturated: share of nodes at radii where the ball's coordinates have no digit left in float32, in [0, 1].
        sibling_distance: median over sibling pairs of d(i, j) / (d(0, i) + d(0, j)), in [0, 1].
        duplicates: share of sibling pairs for which it is below 0.001.
        potential_spread: standard deviation of V over open nodes of solved trees, the root left out.
        depth_correlation: Spearman's correlation of V and depth over the same nodes, in [−1, 1].
        pairs: sibling pairs of solved trees with different success rates below them.
        potential_order: share of these pairs that V orders as their success rates do.
        order_elsewhere: the same for V from goals outside the family alone: whether latents near a correct leaf are
            near others too.
        with_groups: share of solved trees with a sibling group whose strict process rewards differ.
        value_auc: chance that v̂ is higher at a correct leaf than at a wrong one.
        value_order: as `potential_order`, for v̂.
        bent_pairs: share of sibling pairs of solved trees that hyperbolic and Euclidean V order differently.
        audit_pairs: pairs of open siblings with different success rates among verdicts left out.
        audit_potential: share of these that V of the other verdicts orders as they do.
        audit_verdicts: the same for the success rate of the other verdicts: what verdicts alone can do.
        audit_margin, audit_error: their difference and its standard error over trees (see `lapha.shaping.audit`).
        reward: what these trees should train with: ``"potential"`` where V orders siblings better than verdicts alone
            beyond chance, else ``"verdicts"``.
    """

    trees: int
    solved: int
    nodes: int
    radius_low: float
    radius: float
    radius_high: float
    curvature_effect: float
    saturated: float
    sibling_distance: float
    duplicates: float
    potential_spread: float
    depth_correlation: float
    pairs: int
    potential_order: float
    order_elsewhere: float
    with_groups: float
    value_auc: float
    value_order: float
    bent_pairs: float
    audit_pairs: int
    audit_potential: float
    audit_verdicts: float
    audit_margin: float
    audit_error: float
    reward: str

    @property
    def flat(self) -> bool:
        """Whether the ball is flat at these radii: curvature changes the order of fewer than 1 in 100 sibling pairs."""
        return self.bent_pairs < FLAT

    @property
    def is_depth(self) -> bool:
        """Whether V is mostly depth: their rank correlation is at least 0.8."""
        return abs(self.depth_correlation) >= DEPTH

    def findings(self) -> list[str]:
        """What the numbers mean, a sentence each, in the order of their weight."""
        found = []
        if self.audit_pairs:
            better = "better than" if self.reward == "potential" else "no better than"
            found.append(
                f"V orders open siblings {better} verdicts alone: {self.audit_potential:.1%} against "
                f"{self.audit_verdicts:.1%} of {self.audit_pairs} pairs (difference {self.audit_margin:+.3f} "
                f"± {1.96 * self.audit_error:.3f}). Train with {_OPTIONS[self.reward]}."
            )
        else:
            found.append(f"No pair of open siblings to judge V by. Train with {_OPTIONS['verdicts']}.")
        if not math.isnan(self.bent_pairs):
            ball = "flat" if self.flat else "bent"
            found.append(
                f"The ball is {ball} at radius {self.radius:.2f}: curvature changes the order of {self.bent_pairs:.1%} "
                "of sibling pairs."
            )
        if self.is_depth:
            found.append(f"V is mostly depth (rank correlation {self.depth_correlation:+.2f}).")
        return found

    def to_dict(self) -> dict[str, float | int | str | bool]:
        """Plain values by name."""
        return {**dataclasses.asdict(self), "flat": self.flat, "is_depth": self.is_depth}


def diagnose(trees: Iterable[tuple[SearchResult, np.ndarray]]) -> Diagnosis:
    """Measure searched trees.

    Args:
        trees: searches with their goals, (N,) bool: the correct leaves.

    Raises:
        ValueError: goals of another length, or that are not leaves; or no tree.
    """
    parts = [_measure(result, goal) for result, goal in trees]
    check(len(parts) > 0, "trees", "at least one", "none")
    solved = [part for part in parts if part.solved]
    radius = _joined(parts, "radius")
    inner, depth = _joined(solved, "inner"), _joined(solved, "depth")
    right = _joined(parts, "leaf_right").astype(bool)
    leaf_value = _joined(parts, "leaf_value")
    known = np.isfinite(leaf_value)
    low, middle, high = np.quantile(radius, (0.05, 0.5, 0.95)) if len(radius) else (math.nan,) * 3
    closeness = _joined(parts, "closeness")
    audit = summarize([part.audit for part in parts])
    return Diagnosis(
        trees=len(parts),
        solved=len(solved),
        nodes=sum(part.nodes for part in parts),
        radius_low=float(low),
        radius=float(middle),
        radius_high=float(high),
        curvature_effect=_median(_joined(parts, "stretch")),
        saturated=_mean(radius > _SATURATED),
        sibling_distance=_median(closeness),
        duplicates=_mean(closeness < _SAME),
        potential_spread=float(inner.std()) if len(inner) else math.nan,
        depth_correlation=_rank_correlation(inner, depth),
        pairs=len(_joined(solved, "by_potential")),
        potential_order=_mean(_joined(solved, "by_potential")),
        order_elsewhere=_mean(_joined(solved, "by_elsewhere")),
        with_groups=_mean(np.array([part.has_group for part in solved])),
        value_auc=auc(leaf_value[known], right[known]),
        value_order=_mean(_joined(parts, "by_value")),
        bent_pairs=_mean(_joined(solved, "bent")),
        audit_pairs=audit.pairs,
        audit_potential=audit.potential_order,
        audit_verdicts=audit.verdict_order,
        audit_margin=audit.margin,
        audit_error=audit.error,
        reward=audit.reward,
    )


@dataclass
class _Measured:
    """One tree's contribution. `by_…` hold, for each sibling pair, 1 if it is ordered rightly, 0 if not, ½ for a tie."""

    nodes: int
    solved: bool
    has_group: bool
    radius: np.ndarray
    stretch: np.ndarray
    closeness: np.ndarray
    inner: np.ndarray
    depth: np.ndarray
    leaf_value: np.ndarray
    leaf_right: np.ndarray
    by_potential: np.ndarray
    by_elsewhere: np.ndarray
    by_value: np.ndarray
    bent: np.ndarray
    audit: tuple[torch.Tensor, torch.Tensor]


def _measure(result: SearchResult, goal: np.ndarray) -> _Measured:
    tree, points = result.tree, result.latents
    terminal = tree.status != int(Status.OPEN)
    check(goal.shape == (len(tree),), "goal", f"shape ({len(tree)},)", f"shape {goal.shape}")
    check(not (goal & ~terminal).any(), "goal", "leaves alone", "a node that has not ended")
    parent = torch.from_numpy(tree.parent.astype(np.int64))
    goals, solved = torch.from_numpy(goal), bool(goal.any())
    value = potential(points, goals)
    rate = success_rate(parent, torch.from_numpy(terminal), goals).numpy()
    families = [np.asarray(children) for children in tree.children if len(children) > 1]
    distance = kernels.pairwise_dist(points).numpy()
    inner = ~terminal
    inner[0] = False
    reward = process_reward(value, parent)
    groups = choose_sibling_groups(reward, value, parent, breadth=2) if solved else []
    ended = torch.from_numpy(terminal)
    states = TreeStates(points, parent, ended, goals, torch.zeros_like(ended))
    return _Measured(
        nodes=len(tree),
        solved=solved,
        has_group=bool(groups),
        radius=math.sqrt(points.curvature) * points.radius[1:].numpy(),
        stretch=_stretch(result, families, distance),
        closeness=_closeness(dist0(points).numpy(), families, distance),
        inner=value.numpy()[inner],
        depth=tree.depth[inner].astype(np.float64),
        leaf_value=tree.value[terminal].astype(np.float64),
        leaf_right=goal[terminal],
        by_potential=_ordered(families, [value.numpy()] * len(families), rate),
        by_elsewhere=_ordered(families, list(_values_elsewhere(result, goal, families, distance)), rate),
        by_value=_ordered(families, [tree.value] * len(families), rate),
        bent=_bent(value.numpy(), euclidean(states).numpy(), families) if solved else np.empty(0),
        audit=pair_scores(states, ShapingConfig(), seed=result.index),
    )


def _pairs(families: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of siblings, as two arrays of nodes."""
    found = np.array([pair for family in families for pair in combinations(family.tolist(), 2)], np.int64).reshape(
        -1, 2
    )
    return found[:, 0], found[:, 1]


def _bent(hyperbolic: np.ndarray, flat: np.ndarray, families: list[np.ndarray]) -> np.ndarray:
    """1 for every pair of siblings that the two potentials order differently, else 0."""
    first, second = _pairs(families)
    turned: np.ndarray = np.sign(hyperbolic[first] - hyperbolic[second]) != np.sign(flat[first] - flat[second])
    return turned.astype(np.float64)


def _stretch(result: SearchResult, families: list[np.ndarray], distance: np.ndarray) -> np.ndarray:
    first, second = _pairs(families)
    tangent = result.latents.to_tangent().double().numpy()
    flat = 2 * np.linalg.norm(tangent[first] - tangent[second], axis=1)
    apart = flat > 0
    ratio: np.ndarray = distance[first, second][apart] / flat[apart]
    return ratio


def _closeness(from_root: np.ndarray, families: list[np.ndarray], distance: np.ndarray) -> np.ndarray:
    first, second = _pairs(families)
    around = from_root[first] + from_root[second]
    ratio: np.ndarray = distance[first, second] / np.where(around > 0, around, 1.0)
    return ratio


def _values_elsewhere(
    result: SearchResult, goal: np.ndarray, families: list[np.ndarray], distance: np.ndarray
) -> Iterator[np.ndarray]:
    """For each family (N,) V from the goals that are not below its parent; NaN where there are none."""
    parent, from_root = result.tree.parent, dist0(result.latents)
    goals = np.flatnonzero(goal)
    paths = [_path(parent, int(node)) for node in goals]
    for family in families:
        owner = int(parent[family[0]])
        outside = goals[[owner not in path for path in paths]] if len(goals) else goals
        if not len(outside):
            yield np.full(len(parent), np.nan)
            continue
        nearest = torch.from_numpy(distance[:, outside].min(axis=1)).to(from_root.dtype)
        yield potential_ratio(from_root, nearest, _EPS).numpy()


def _path(parent: np.ndarray, node: int) -> set[int]:
    """The nodes on the way from `node` to the root."""
    path = set()
    while node >= 0:
        path.add(node)
        node = int(parent[node])
    return path


def _ordered(families: list[np.ndarray], values: list[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """1, ½ or 0 for every pair of siblings with different truths and known values."""
    found = []
    for family, value in zip(families, values):
        first, second = _pairs([family])
        wanted = truth[first] - truth[second]
        got = value[first] - value[second]
        counted = np.isfinite(wanted) & np.isfinite(got) & (wanted != 0)
        found.append(0.5 + 0.5 * np.sign(wanted[counted] * got[counted]))
    return np.concatenate(found) if found else np.empty(0)


def _joined(parts: list[_Measured], name: str) -> np.ndarray:
    return np.concatenate([getattr(part, name) for part in parts]) if parts else np.empty(0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(spearmanr(first, second).statistic)
