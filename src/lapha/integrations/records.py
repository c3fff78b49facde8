"""Shaping for any trainer: flat records of agent states in, rewards and advantages out, in the same order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from lapha._checks import check
from lapha.latent import latent_points
from lapha.shaping.config import FailedLeaves, RewardName, ShapingConfig
from lapha.shaping.pipeline import Shaped, shape


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """One state of a rollout: a node of a tree, or a step of a plain chain (a tree without branches).

    Attributes:
        key: names the record among all records.
        parent: the key of the record that it continues, or None for a root (a prompt without any step).
        hidden: (H,) h(s), the mean of the last hidden states over the state's tokens.
        correct: for a state that ends: whether its answer was verified correct (False if it ended without any), None if
            it could not be graded; for a state that does not end: leave it None.
        terminal: whether the state ends its rollout.
        well_formed: whether the step follows the protocol (for the adaptive reward's formatting bonus).
    """

    key: Hashable
    parent: Hashable | None
    hidden: torch.Tensor
    correct: bool | None = None
    terminal: bool = False
    well_formed: bool = True


def shape_rollouts(
    records: Sequence[RolloutRecord],
    *,
    reward: RewardName | None = None,
    gamma: float | None = None,
    failed_leaves: FailedLeaves | None = None,
    curvature: float = 1.0,
    config: ShapingConfig | None = None,
) -> Shaped:
    """Potentials, process rewards and sibling advantages of records from any number of interleaved trees.

    Args:
        records: in any order, except that a parent stands before its children.
        reward, gamma, failed_leaves: override what `config` says of them.
        curvature: c of the ball.
        config: default `ShapingConfig()`.

    Returns:
        Numbers for the records, in their order, (N,) in float32 (float64 where hidden states are).

    Raises:
        ValueError: a key occurs twice, a parent is unknown or comes later, hidden states differ in shape, or a record
            that continues a terminal one.

    Source: arXiv 2602.09375, potential and process reward.
    """
    given = {"reward": reward, "gamma": gamma, "failed_leaves": failed_leaves}
    changes = {name: value for name, value in given.items() if value is not None}
    config = (ShapingConfig() if config is None else config).replace(**changes)
    parent, root = _positions(records)
    if not records:
        nothing = torch.zeros(0)
        return Shaped(nothing, nothing, nothing)
    hidden = torch.stack([record.hidden.detach() for record in records])
    terminal = torch.tensor([record.terminal for record in records])
    return shape(
        latent_points(hidden, hidden[root], curvature=curvature),
        parent,
        terminal,
        torch.tensor([record.terminal and record.correct is True for record in records]),
        torch.tensor([record.terminal and record.correct is None for record in records]),
        well_formed=torch.tensor([record.well_formed for record in records]),
        config=config,
    )


ShapedRollouts = Shaped


def _positions(records: Sequence[RolloutRecord]) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) index of each record's parent, −1 for a root; (N,) index of its root."""
    place: dict[Hashable, int] = {}
    parents: list[int] = []
    roots: list[int] = []
    for index, record in enumerate(records):
        check(record.key not in place, "records", "keys that occur once", f"{record.key!r} again at {index}")
        known = record.parent is None or record.parent in place
        check(known, "records", "a parent that stands earlier", f"{record.parent!r} for {record.key!r}")
        place[record.key] = index
        parents.append(-1 if record.parent is None else place[record.parent])
        roots.append(index if record.parent is None else roots[parents[-1]])
        form = tuple(records[0].hidden.shape)
        good = record.hidden.dim() == 1 and tuple(record.hidden.shape) == form
        check(good, "records", f"hidden states of shape {form}", f"{tuple(record.hidden.shape)} for {record.key!r}")
    return torch.tensor(parents, dtype=torch.int64), torch.tensor(roots, dtype=torch.int64)
