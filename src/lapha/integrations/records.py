"""Shaping for any trainer: flat records of agent states in, rewards and advantages out, in the same order."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from lapha._checks import check, check_choice
from lapha.latent import latent_points
from lapha.shaping import adaptive_process_reward, potential, process_reward, sibling_advantages


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """One state of a rollout: a node of a tree, or a step of a plain chain (a tree without branches).

    Attributes:
        key: names the record among all records.
        parent: the key of the record that it continues, or None for a root (a prompt without any step).
        hidden: (H,) h(s), the mean of the last hidden states over the state's tokens.
        correct: for a state that ends: whether its answer was verified correct, None if it could not be graded; for
            a state that does not end: leave it None.
        terminal: whether the state ends its rollout.
        well_formed: whether the step follows the protocol (for the adaptive reward's formatting bonus).
    """

    key: Hashable
    parent: Hashable | None
    hidden: torch.Tensor
    correct: bool | None = None
    terminal: bool = False
    well_formed: bool = True


@dataclass(frozen=True, slots=True)
class ShapedRollouts:
    """Numbers for records, in their order, float32 (N,).

    Attributes:
        potential: V in [0, 1]; 0 throughout trees without a correct leaf.
        reward: process reward of the step that leads to each record; 0 at roots. NaN throughout trees without a
            correct leaf, which carry no signal ("cannot be scored": give them no gradient).
        advantage: reward normalised among siblings; NaN where a group cannot be normalised.
    """

    potential: torch.Tensor
    reward: torch.Tensor
    advantage: torch.Tensor


def shape_rollouts(
    records: Sequence[RolloutRecord], *, reward: str = "strict", gamma: float = 1.0, curvature: float = 1.0
) -> ShapedRollouts:
    """Potentials, process rewards and sibling advantages of records from any number of interleaved trees.

    Args:
        records: in any order, except that a parent stands before its children.
        reward: ``"strict"`` or ``"adaptive"``.
        gamma: discount γ in (0, 1].
        curvature: c of the ball.

    Raises:
        ValueError: a key occurs twice, a parent is unknown or comes later, or hidden states differ in shape.

    Source: arXiv 2602.09375, potential and process reward.
    """
    check_choice(reward, "reward", ("strict", "adaptive"))
    trees = _split_into_trees(records)
    V, r, A = (torch.full((len(records),), math.nan) for _ in range(3))
    for members, parent in trees:
        rows = torch.tensor(members)
        tree = [records[index] for index in members]
        hidden = torch.stack([record.hidden.detach().float() for record in tree])
        correct = torch.tensor([record.terminal and record.correct is True for record in tree])
        points = latent_points(hidden, hidden[0], curvature=curvature)
        value = potential(points, goal=correct).cpu()
        V[rows] = value
        if not bool(correct.any()):
            continue
        if reward == "adaptive":
            well_formed = torch.tensor([record.well_formed for record in tree])
            terminal = torch.tensor([record.terminal for record in tree])
            step = adaptive_process_reward(value, parent, well_formed, terminal, correct, gamma=gamma)
        else:
            step = process_reward(value, parent, gamma=gamma)
        r[rows] = step
        A[rows] = sibling_advantages(step, parent)
    return ShapedRollouts(V, r, A)


def _split_into_trees(records: Sequence[RolloutRecord]) -> list[tuple[list[int], torch.Tensor]]:
    """[(indices of one tree's records, (n,) parents within the tree)], root first."""
    place: dict[Hashable, tuple[int, int]] = {}  # key -> (tree, index within it)
    trees: list[tuple[list[int], list[int]]] = []
    for index, record in enumerate(records):
        check(record.key not in place, "records", "keys that occur once", f"{record.key!r} again at {index}")
        if record.parent is None:
            tree, parent = len(trees), -1
            trees.append(([], []))
        else:
            known = record.parent in place
            check(known, "records", "a parent that stands earlier", f"{record.parent!r} for {record.key!r}")
            tree, parent = place[record.parent]
        members, parents = trees[tree]
        place[record.key] = (tree, len(members))
        members.append(index)
        parents.append(parent)
        shape = tuple(records[members[0]].hidden.shape)
        good = record.hidden.dim() == 1 and tuple(record.hidden.shape) == shape
        check(good, "records", f"hidden states of shape {shape}", f"{tuple(record.hidden.shape)} for {record.key!r}")
    return [(members, torch.tensor(parents)) for members, parents in trees]
