"""The one pipeline of shaping: verdicts → potential V → process reward r → advantage A.

Searched trees (`trees`), flat records (`lapha.integrations.records`) and plain chains (`chains`) are adapters: they bring
their data into the arrays that `shape` takes, and take its numbers back. So every door gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lapha._checks import check, check_parent
from lapha._typed import typed
from lapha.geometry import PolarPoints
from lapha.shaping._potential import check_leaves, check_mask, check_points
from lapha.shaping.audit import audit_potential, resolve
from lapha.shaping.config import ShapingConfig, potential_of
from lapha.shaping.groups import ADVANTAGE_EPS, grouped_advantages
from lapha.shaping.potentials import TreeStates
from lapha.shaping.rewards import adaptive_core, process_core


@dataclass(frozen=True, eq=False)
class Shaped:
    """Numbers for N states, in their order, (N,) in the dtype of the latents' radii (float32, or float64 for float64).

    Attributes:
        potential: V in [0, 1]; 0 throughout trees without signal (for the default potential: without a correct leaf).
        reward: process reward of the step that leads to each state; 0 at roots. NaN throughout trees without signal
            ("cannot be scored": give them no gradient).
        advantage: reward normalised among siblings; NaN where a group cannot be normalised.
    """

    potential: Tensor
    reward: Tensor
    advantage: Tensor


@typed
def shape(
    points: PolarPoints,
    parent: Tensor,
    terminal: Tensor,
    correct: Tensor,
    unknown: Tensor | None = None,
    *,
    well_formed: Tensor | None = None,
    config: ShapingConfig | None = None,
) -> Shaped:
    """Potentials, process rewards and sibling advantages of the states of any number of trees.

    Args:
        points: (N,) latents, each centred on its own tree's root.
        parent: (N,) integers, −1 at each root, otherwise earlier than the state's own index. Trees may be interleaved.
        terminal: (N,) bool, states that end their rollout.
        correct: (N,) bool, terminal states whose answer was verified correct: the goals of their tree.
        unknown: (N,) bool, terminal states that could not be graded: neither goals nor failures. Default: none.
        well_formed: (N,) bool, formatting bonus of each step, for ``reward="adaptive"``. Default: all.
        config: default `ShapingConfig()`. ``reward="auto"`` is decided on the trees of this call.

    Raises:
        ValueError: wrong types or shapes, latents that are not finite, a terminal state with children, a correct or
            unknown state that is not terminal, a state that is both.

    Source: arXiv 2602.09375, potential and process reward.
    """
    config = ShapingConfig() if config is None else config
    check_points(points, "points")
    check_parent(parent, len(points))
    terminal = _mask(terminal, "terminal", points)
    correct = _mask(correct, "correct", points)
    unknown = _mask(unknown, "unknown", points, default=False)
    well_formed = _mask(well_formed, "well_formed", points, default=True)
    parent = parent.to(device=points.device, dtype=torch.int64)
    check(not bool(terminal[parent[parent >= 0]].any()), "terminal", "states without children", "one that has some")
    check_leaves(correct, terminal, "correct")
    check_leaves(unknown, terminal, "unknown")
    check(not bool((correct & unknown).any()), "unknown", "states that are not correct", "one that is")
    trees = [
        (nodes, TreeStates(points[nodes], local, terminal[nodes], correct[nodes], unknown[nodes]))
        for nodes, local in split_trees(parent)
    ]
    if config.reward == "auto":
        config = resolve(config, audit_potential([tree for _, tree in trees], config) if trees else None)
    V, r = torch.zeros_like(points.radius), torch.zeros_like(points.radius)
    for nodes, tree in trees:
        V[nodes] = potential_of(tree, config)
        r[nodes] = reward_of(V[nodes], tree, well_formed[nodes], config)
    return Shaped(V, r, grouped_advantages(r, parent, ADVANTAGE_EPS))


def _mask(mask: Tensor | None, name: str, points: PolarPoints, default: bool = False) -> Tensor:
    """(N,) bool on the latents' device; `default` throughout for None."""
    if mask is None:
        return torch.full_like(points.radius, default, dtype=torch.bool)
    check_mask(mask, name, len(points))
    return mask.to(points.device)


def reward_of(V: Tensor, tree: TreeStates, well_formed: Tensor, config: ShapingConfig) -> Tensor:
    """(N,) process reward of one tree; NaN throughout where V is 0 throughout: there is no signal. Unchecked."""
    if not bool((V != 0).any()):
        return torch.full_like(V, math.nan)
    if config.reward == "adaptive":
        return adaptive_core(V, tree.parent, well_formed, tree.terminal, tree.correct, gamma=config.gamma)
    return process_core(V, tree.parent, config.gamma)


def split_trees(parent: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(indices of one tree's states, their parents within the tree) for each root; `parent` has been checked."""
    roots = (parent < 0).nonzero()[:, 0]
    if len(roots) == 1:
        yield torch.arange(len(parent), device=parent.device), parent
        return
    owner = torch.arange(len(parent), device=parent.device)
    above = torch.where(parent < 0, owner, parent)
    while bool((above != above[above]).any()):  # pointer jumping: each state ends at its root
        above = above[above]
    order = above.argsort(stable=True)
    sizes = torch.unique_consecutive(above[order], return_counts=True)[1].tolist()
    place = torch.empty_like(parent)
    for nodes in torch.split(order, sizes):
        place[nodes] = torch.arange(len(nodes), device=parent.device)
        upper = parent[nodes]
        yield nodes, torch.where(upper < 0, -1, place[upper.clamp_min(0)])
