"""Shaping that audits itself: does V order siblings better than verdicts alone would, on verdicts left out?

The leaves of each tree are split in two. V and the success rate are computed from the verdicts of one half; which of two
open siblings is better is read off the other half. Only open siblings count: once a step has ended, its verdict is known
and no estimate is needed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lapha._checks import check, check_parent
from lapha.shaping._potential import check_leaves, check_points, mean_below
from lapha.shaping.config import ShapingConfig, potential_of
from lapha.shaping.potentials import TreeStates, success_rate
from lapha.shaping.segments import families

MIN_PAIRS = 30
CONFIDENCE = 1.645  # one-sided 95 %


@dataclass(frozen=True)
class Audit:
    """What was found on pairs of open siblings whose left-out success rates differ.

    Attributes:
        pairs: how many.
        potential_order: share that V orders as the left-out verdicts do; ties count half. NaN without pairs.
        verdict_order: the same for the success rate of the verdicts that were kept.
        margin: mean difference of the two.
        error: standard error of the margin, over trees.
    """

    pairs: int
    potential_order: float
    verdict_order: float
    margin: float
    error: float

    @property
    def helps(self) -> bool:
        """Whether V is better than verdicts alone beyond chance (one-sided 95 %), on at least 30 pairs."""
        return self.pairs >= MIN_PAIRS and self.margin - CONFIDENCE * self.error > 0

    @property
    def reward(self) -> str:
        """What to train with: ``"potential"`` where it helps, else ``"verdicts"``."""
        return "potential" if self.helps else "verdicts"


def audit_potential(trees: Sequence[TreeStates], config: ShapingConfig | None = None, seed: int = 0) -> Audit:
    """Compare V with verdicts alone on searched, graded trees.

    Args:
        trees: at least one.
        config: which V; default `ShapingConfig()`.
        seed: decides which leaves are left out.

    Raises:
        ValueError: no tree, or one that contradicts itself.
    """
    check(len(trees) > 0, "trees", "at least one", "none")
    config = ShapingConfig() if config is None else config
    for tree in trees:
        check_points(tree.points, "points")
        check_parent(tree.parent, len(tree.points))
        check_leaves(tree.correct | tree.unknown, tree.terminal, "correct, unknown")
    return summarize(pair_scores(tree, config, seed + number) for number, tree in enumerate(trees))


def summarize(scores: Iterable[tuple[Tensor, Tensor]]) -> Audit:
    """An `Audit` from each tree's `pair_scores`. The standard error takes trees, not pairs, as independent."""
    kept = [(by_v, by_rate) for by_v, by_rate in scores if len(by_v)]
    pairs = sum(len(by_v) for by_v, _ in kept)
    if not pairs:
        return Audit(0, math.nan, math.nan, math.nan, math.nan)
    total = torch.tensor([[float(by_v.sum()), float(by_rate.sum()), len(by_v)] for by_v, by_rate in kept])
    total = total.to(torch.float64)
    order = total.sum(0) / pairs
    margin = float(order[0] - order[1])
    # of a ratio of sums over trees (delta method)
    residual = total[:, 0] - total[:, 1] - margin * total[:, 2]
    count = len(kept)
    error = float((residual.square().sum() * count / (count - 1)).sqrt()) / pairs if count > 1 else math.inf
    return Audit(pairs, float(order[0]), float(order[1]), margin, error)


def pair_scores(tree: TreeStates, config: ShapingConfig, seed: int) -> tuple[Tensor, Tensor]:
    """(P,) 1, ½ or 0 for each pair of open siblings, by V and by the success rate of the kept verdicts."""
    graded = (tree.terminal & ~tree.unknown).cpu()
    generator = torch.Generator().manual_seed(seed)
    kept = graded & (torch.rand(len(graded), generator=generator) < 0.5)
    half = replace(
        tree,
        correct=tree.correct & kept.to(tree.correct.device),
        unknown=tree.terminal & ~kept.to(tree.terminal.device),
    )
    parent = tree.parent.cpu()
    truth = mean_below(tree.correct.cpu().to(torch.float64), graded & ~kept, parent)
    V, rate = potential_of(half, config).cpu().double(), success_rate(half).cpu().double()
    first, second = _open_pairs(parent, tree.terminal.cpu())
    wanted = torch.sign(truth[first] - truth[second])
    counted = ~wanted.isnan() & (wanted != 0)
    scores = [0.5 + 0.5 * torch.sign(values[first] - values[second]) * wanted for values in (V, rate)]
    return scores[0][counted], scores[1][counted]


def _open_pairs(parent: Tensor, terminal: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of siblings that did not end, as two arrays of nodes."""
    pairs = [torch.combinations(family, 2) for family in families(torch.where(terminal, -1, parent))]
    both = torch.cat(pairs) if pairs else torch.empty(0, 2, dtype=torch.int64)
    return both[:, 0], both[:, 1]


class Auditor:
    """Decides, batch by batch of a training, between V and verdicts alone: what ``reward="auto"`` does.

    Args:
        config: the V to be audited; its `reward` may be ``"auto"``.
        window: how many of the latest trees are looked at. Trees are audited before they are trained on, and the
            decision uses them too: at the start there is nothing else.
    """

    def __init__(self, config: ShapingConfig, window: int = 512) -> None:
        check(window >= 1, "window", "an integer >= 1", window)
        self.config = config
        self._scores: deque[tuple[Tensor, Tensor]] = deque(maxlen=window)
        self._seen = 0

    def update(self, trees: Sequence[TreeStates]) -> Audit:
        """Look at further trees; the audit of the window."""
        for tree in trees:
            self._scores.append(pair_scores(tree, self.config.replace(reward="strict"), self._seen))
            self._seen += 1
        return self.audit

    @property
    def audit(self) -> Audit:
        """The audit of the window."""
        return summarize(self._scores)

    @property
    def resolved(self) -> ShapingConfig:
        """The options to shape with now: V where it helps, else the success rate of verdicts alone."""
        return resolve(self.config, self.audit)


def resolve(config: ShapingConfig, audit: Audit | None) -> ShapingConfig:
    """`config` with ``reward="auto"`` decided by an audit (None: not helpful); as it is for another reward."""
    if config.reward != "auto":
        return config
    helps = audit is not None and audit.helps
    return config.replace(reward="strict", potential=config.potential if helps else "success_rate")
