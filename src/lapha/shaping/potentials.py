"""Potentials behind one interface: a function of one tree's latents and verdicts that gives V, (N,) in [0, 1].

Pick one by name in `ShapingConfig.potential`, or write your own: a rule sees a `TreeStates` and returns V. A rule returns
zeros throughout where the tree carries no signal for it; such a tree is then not scored.

* distances to the nearest goal: `hyperbolic` (the paper's V), `euclidean`, `cosine`, `soft_min`, `rescaled`;
* wrong leaves count too: `contrastive`;
* depth taken out: `depth_centered`;
* verdicts alone, no geometry: `success_rate`, `verdict`; verdicts where there are many, geometry where few: `mixture`;
* more goals than the tree's own: `with_goals`; a linear map of the latents first: `projected`;
* controls: `random_potential`, `from_distance` (an oracle's).

Each formula stands in its function; `docs/shaping.md` says where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from zlib import crc32

import torch
from torch import Tensor

from lapha import kernels
from lapha._checks import check, check_float_tensor
from lapha.geometry import PolarPoints, dist0
from lapha.geometry.potential import potential_ratio
from lapha.shaping._potential import check_mask, mean_below, potential_core
from lapha.shaping.segments import node_depth, subtree_sum

EPS = 1e-8
RESCALED_RADIUS = 2.0  # √c·radius of the median latent after `rescaled`: there the ball is no longer flat
PRIOR_LEAVES = 2.0  # how many verdicts the geometry is worth in `mixture`


@dataclass(frozen=True, eq=False)
class TreeStates:
    """One tree of N states as arrays: what a potential may look at.

    Attributes:
        points: (N,) root-centred latents; the root is the origin.
        parent: (N,) int64, −1 at the root, otherwise earlier than the node's own index.
        terminal, correct, unknown: (N,) bool: states that ended, those verified correct, and those that ended and
            could not be graded.
        more_goals: (G,) latents of correct states outside the tree, or None.

    Raises:
        ValueError: wrong types or shapes. What needs a look at the numbers is checked by `shape` and `audit_potential`.
    """

    points: PolarPoints
    parent: Tensor
    terminal: Tensor
    correct: Tensor
    unknown: Tensor
    more_goals: PolarPoints | None = None

    def __post_init__(self) -> None:
        check(isinstance(self.points, PolarPoints), "points", "PolarPoints", type(self.points).__name__)
        size = len(self.points)
        good = isinstance(self.parent, Tensor) and self.parent.dtype == torch.int64
        check(good, "parent", "an int64 tensor", getattr(self.parent, "dtype", type(self.parent).__name__))
        check(tuple(self.parent.shape) == (size,), "parent", f"shape ({size},)", tuple(self.parent.shape))
        for name in ("terminal", "correct", "unknown"):
            check_mask(getattr(self, name), name, size)

    @property
    def failed(self) -> Tensor:
        """(N,) bool: states that ended without a correct answer; those that could not be graded are not among them."""
        return self.terminal & ~self.correct & ~self.unknown

    @property
    def goals(self) -> PolarPoints:
        """(G,) latents of the correct leaves, and those from outside."""
        own = self.points[self.correct]
        return own if self.more_goals is None else PolarPoints.cat([own, self.more_goals])

    def mapped(self, change: Callable[[PolarPoints], PolarPoints]) -> TreeStates:
        """The same tree with all of its latents, goals from outside among them, put through `change`."""
        more = None if self.more_goals is None else change(self.more_goals)
        return replace(self, points=change(self.points), more_goals=more)

    @property
    def zeros(self) -> Tensor:
        """(N,) zeros in the dtype of the radii: no signal."""
        return torch.zeros_like(self.points.radius)

    def pinned(self, V: Tensor) -> Tensor:
        """V with its ends fixed: 0 at the root, 1 at correct leaves."""
        V = torch.where(self.parent < 0, 0.0, V)
        return torch.where(self.correct, 1.0, V)


PotentialRule = Callable[[TreeStates], Tensor]


def hyperbolic(tree: TreeStates) -> Tensor:
    """The paper's V: d_root / (d_root + d_goal + 1e-8), geodesic distances of the ball. Source: arXiv 2602.09375."""
    return potential_core(tree.points, tree.goals, EPS)


def euclidean(tree: TreeStates) -> Tensor:
    """The same ratio with straight distances of the tangent latents: ‖v‖ / (‖v‖ + min_g ‖v − v_g‖ + 1e-8)."""
    if not len(tree.goals):
        return tree.zeros
    v, goals = _tangent(tree.points), _tangent(tree.goals)
    to_goal = torch.cdist(v, goals, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    return potential_ratio(v.norm(dim=1), to_goal, EPS).to(tree.points.radius.dtype)


def cosine(tree: TreeStates) -> Tensor:
    """max(0, the largest cosine between the latent and a goal's): direction alone, no radius."""
    if not len(tree.goals):
        return tree.zeros
    unit, goals = _unit(_tangent(tree.points)), _unit(_tangent(tree.goals))
    return tree.pinned((unit @ goals.T).amax(1).clamp(0, 1).to(tree.points.radius.dtype))


def soft_min(tree: TreeStates, temperature: float = 0.1) -> Tensor:
    """The ratio with a soft minimum over goals: Σ w_g·d_g, w_g ∝ exp(−d_g / (temperature · mean goal radius)).

    Goals near each other share the pull; temperature → 0 is `hyperbolic`.
    """
    if not len(tree.goals):
        return tree.zeros
    distance = kernels.pairwise_dist(tree.points, tree.goals)
    width = (temperature * dist0(tree.goals).mean()).clamp_min(torch.finfo(distance.dtype).tiny)
    weight = torch.softmax(-distance / width, 1)
    return tree.pinned(potential_ratio(dist0(tree.points), (weight * distance).sum(1), EPS))


def rescaled(tree: TreeStates, radius: float = RESCALED_RADIUS) -> Tensor:
    """`hyperbolic` after the latents were stretched so that the median √c·radius of the tree's is `radius`.

    At radii below about 0.5 the ball is flat and `hyperbolic` is `euclidean`; here curvature takes part.
    """
    away = tree.points.radius[tree.points.radius > 0]
    if not len(away):
        return tree.zeros
    factor = radius / (away.median() * tree.points.curvature**0.5)
    return hyperbolic(tree.mapped(lambda p: PolarPoints(p.direction, p.radius * factor, p.curvature)))


def contrastive(tree: TreeStates) -> Tensor:
    """d_fail / (d_fail + d_goal + 1e-8): nearer to a right leaf than to a wrong one. Knows failures, ignores the root.

    A tree without failures says nothing about either: `hyperbolic` is used there.
    """
    failures = tree.points[tree.failed]
    if not len(tree.goals):
        return tree.zeros
    if not len(failures):
        return hyperbolic(tree)
    to_goal, _ = kernels.nearest(tree.points, tree.goals)
    to_failure, _ = kernels.nearest(tree.points, failures)
    return torch.where(tree.correct, 1.0, to_failure / (to_failure + to_goal + EPS))


def depth_centered(tree: TreeStates) -> Tensor:
    """m_k / (m_k + ‖u − u_goal‖): latents u with their depth's mean taken out, against that depth's own average m_k.

    Latents move with depth whatever they say, and so does `hyperbolic`. Here a state is compared with the others of
    its depth k: ½ on average, more where it is nearer to a right leaf than they are.
    """
    if not len(tree.goals):
        return tree.zeros
    depth = node_depth(tree.parent)
    v = _tangent(tree.points)
    levels = int(depth.max()) + 1
    count = torch.zeros(levels, dtype=v.dtype, device=v.device).index_add(0, depth, torch.ones_like(v[:, 0]))
    mean = torch.zeros(levels, v.shape[1], dtype=v.dtype, device=v.device).index_add(0, depth, v) / count[:, None]
    u = v - mean[depth]
    goals = u[tree.correct]
    if tree.more_goals is not None:  # their depths are not known: they count as the deepest
        goals = torch.cat([goals, _tangent(tree.more_goals) - mean[-1]])
    to_goal = torch.cdist(u, goals, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    average = torch.zeros_like(count).index_add(0, depth, to_goal) / count
    V = average[depth] / (average[depth] + to_goal + EPS)
    return tree.pinned(V.to(tree.points.radius.dtype))


def success_rate(tree: TreeStates) -> Tensor:
    """Share of a state's graded leaves that are correct; its parent's where it has none: verdicts alone, no geometry.

    ΔV is then VinePPO's Monte-Carlo advantage (arXiv 2410.01679) with a tree's own leaves as rollouts.
    """
    rate = mean_below(tree.correct.to(torch.float64), tree.terminal & ~tree.unknown, tree.parent)
    return _from_above(rate, tree.parent).nan_to_num(0.0).to(tree.points.radius.dtype)


def verdict(tree: TreeStates) -> Tensor:
    """1 at correct leaves, 0 everywhere else: the outcome alone, at the step that ends."""
    return tree.correct.to(tree.points.radius.dtype)


def mixture(tree: TreeStates, prior_leaves: float = PRIOR_LEAVES, geometry: PotentialRule | None = None) -> Tensor:
    """(n·rate + n₀·b) / (n + n₀): success rate of the n graded leaves below, geometry as a prior worth n₀ leaves.

    The posterior mean of a Beta-Bernoulli model whose prior mean b is the tree's success rate, raised where the geometry
    is above its average over open states and lowered where it is below: b = rate_root + (g − ḡ)·min(rate_root,
    1 − rate_root). With many verdicts it is `success_rate`, with few it listens to the geometry.
    """
    if not bool(tree.correct.any()):
        return tree.zeros
    g = (hyperbolic if geometry is None else geometry)(tree).to(torch.float64)
    graded = tree.terminal & ~tree.unknown
    rate = mean_below(tree.correct.to(torch.float64), graded, tree.parent)
    count = subtree_sum(graded.to(torch.float64), tree.parent)
    inner = ~tree.terminal & (tree.parent >= 0)
    center = g[inner].mean() if bool(inner.any()) else g.mean()
    top = rate[0]
    prior = (top + (g - center) * torch.minimum(top, 1 - top)).clamp(0, 1)
    V = (count * rate.nan_to_num(0.0) + prior_leaves * prior) / (count + prior_leaves)
    V = torch.where(graded, tree.correct.to(V.dtype), V)  # a graded leaf is what its verdict says
    return torch.where(tree.parent < 0, top, V).to(tree.points.radius.dtype)


def with_goals(goals: PolarPoints, rule: PotentialRule = hyperbolic) -> PotentialRule:
    """`rule` with further goals, (G,) root-centred latents: of other trees of the question, or of a bank of solved ones.

    A tree without a correct leaf of its own can then be scored too.
    """

    def pooled(tree: TreeStates) -> Tensor:
        return rule(replace(tree, more_goals=goals.to(tree.points.device)))

    return pooled


def projected(weight: Tensor, rule: PotentialRule = hyperbolic) -> PotentialRule:
    """`rule` on latents that went through a linear map first: v → v·weight, weight (D, K)."""
    check_float_tensor(weight, "weight", dim=2)

    def change(points: PolarPoints) -> PolarPoints:
        check(weight.shape[0] == points.dim, "weight", f"{points.dim} rows", weight.shape[0])
        v = _tangent(points) @ weight.to(device=points.device, dtype=torch.float64)
        return PolarPoints.from_tangent(v.to(points.radius.dtype), points.curvature)

    return lambda tree: rule(tree.mapped(change))


def random_potential(seed: int = 0) -> PotentialRule:
    """Uniform numbers inside, 1 at correct leaves: a control that has the form of a potential and knows nothing."""

    def rule(tree: TreeStates) -> Tensor:
        if not bool(tree.correct.any()):
            return tree.zeros
        radii = tree.points.radius.detach().cpu().numpy().tobytes()  # other numbers in every tree
        generator = torch.Generator().manual_seed(crc32(radii, seed))
        V = torch.rand(len(tree.parent), generator=generator, dtype=torch.float64)
        return tree.pinned(V.to(device=tree.points.device, dtype=tree.points.radius.dtype))

    return rule


def from_distance(remaining: Tensor) -> PotentialRule:
    """An oracle's V: 1 − remaining / remaining at the root, in [0, 1]; (N,) true distances to the goal, Inf for never."""
    check_float_tensor(remaining, "remaining", dim=1)
    check(
        bool((remaining >= 0).all()), "remaining", "numbers >= 0", float(remaining.min()) if len(remaining) else "none"
    )

    def rule(tree: TreeStates) -> Tensor:
        check(len(remaining) == len(tree.parent), "remaining", f"shape ({len(tree.parent)},)", tuple(remaining.shape))
        start = float(remaining[0])
        if start == 0 or start == float("inf"):
            return tree.zeros
        V = (1 - remaining.to(torch.float64) / start).clamp(0, 1)
        return V.to(device=tree.points.device, dtype=tree.points.radius.dtype)

    return rule


PotentialName = Literal[
    "hyperbolic", "euclidean", "cosine", "soft_min", "rescaled", "contrastive", "depth_centered", "success_rate",
    "verdict", "mixture", "random",
]  # fmt: skip
POTENTIALS: Mapping[str, PotentialRule] = {
    "hyperbolic": hyperbolic,
    "euclidean": euclidean,
    "cosine": cosine,
    "soft_min": soft_min,
    "rescaled": rescaled,
    "contrastive": contrastive,
    "depth_centered": depth_centered,
    "success_rate": success_rate,
    "verdict": verdict,
    "mixture": mixture,
    "random": random_potential(0),
}


def _tangent(points: PolarPoints) -> Tensor:
    """(N, D) float64 tangent vectors."""
    return points.direction.to(torch.float64) * points.radius.to(torch.float64)[:, None]


def _unit(v: Tensor) -> Tensor:
    norm: Tensor = v.norm(dim=1, keepdim=True)
    return v / norm.clamp_min(torch.finfo(v.dtype).tiny)


def _from_above(values: Tensor, parent: Tensor) -> Tensor:
    """Fill each NaN with the nearest ancestor's number."""
    filled = values.clone()
    depth = node_depth(parent)
    for level in range(1, int(depth.max()) + 1 if len(depth) else 0):
        nodes = (depth == level).nonzero()[:, 0]
        filled[nodes] = torch.where(filled[nodes].isnan(), filled[parent[nodes]], filled[nodes])
    return filled
