"""How verdicts become rewards: the options that every door of shaping shares, with the same defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from lapha._checks import check, check_choice
from lapha.shaping.potentials import POTENTIALS, PotentialName, PotentialRule

RewardName = Literal["strict", "adaptive"]
FailedLeaves = Literal["zero", "geometry"]
ValueTarget = Literal["potential", "success_rate", "mixed"]


@dataclass(frozen=True)
class ShapingConfig:
    """How verdicts become potentials, rewards, value targets and groups (method: LaPha, arXiv 2602.09375).

    Attributes:
        reward: ``"strict"`` is r = γV(j) − V(i); ``"adaptive"`` adds the weighted formatting bonus (the paper's training).
        gamma: discount γ in (0, 1].
        breadth: members of a sibling group, ≥ 2.
        max_groups: groups taken from one tree, ≥ 1.
        value_target: ``"potential"`` (the paper's V), ``"success_rate"`` of the subtree's terminal leaves, or
            ``"mixed"``, their mean. Where a subtree has no terminal leaf the success rate falls back to nothing
            (NaN, left out of the loss), never to a number.
        easy_accuracy: trees whose leaf accuracy is at least this feed the value loss alone; 1 for none of them.
        correct_at: a verdict of at least this makes a leaf a goal, in (0, 1].
        failed_leaves: potential of leaves that ended without a correct answer. ``"geometry"`` is the paper's: whatever
            the distances say, which is high for a wrong answer, because it looks like a right one. ``"zero"`` sets it
            to 0, so that the step into such a leaf loses what its path had gained (a departure from the paper: see
            `docs/training.md` for what it changes). Leaves that could not be graded keep the geometry's value.
        potential: what V is, by name (see `lapha.shaping.potentials`) or as a function of a `TreeStates`.

    Raises:
        ValueError: a value outside its range.
    """

    reward: RewardName = "strict"
    gamma: float = 1.0
    breadth: int = 6
    max_groups: int = 2
    value_target: ValueTarget = "potential"
    easy_accuracy: float = 0.8
    correct_at: float = 0.5
    failed_leaves: FailedLeaves = "zero"
    potential: PotentialName | PotentialRule = "hyperbolic"

    def __post_init__(self) -> None:
        check_choice(self.reward, "reward", ("strict", "adaptive"))
        check_choice(self.failed_leaves, "failed_leaves", ("zero", "geometry"))
        check_choice(self.value_target, "value_target", ("potential", "success_rate", "mixed"))
        check(0 < self.gamma <= 1, "gamma", "a number in (0, 1]", self.gamma)
        check(self.breadth >= 2, "breadth", "an integer >= 2", self.breadth)
        check(self.max_groups >= 1, "max_groups", "an integer >= 1", self.max_groups)
        check(0 < self.easy_accuracy <= 1, "easy_accuracy", "a number in (0, 1]", self.easy_accuracy)
        check(0 < self.correct_at <= 1, "correct_at", "a number in (0, 1]", self.correct_at)
        if not callable(self.potential):
            check_choice(self.potential, "potential", POTENTIALS)

    @classmethod
    def preset(cls, name: Literal["default", "paper"], **changes: Any) -> ShapingConfig:
        """A named set of options: ``"paper"`` is the form that arXiv 2602.09375 and its reference train with.

        Raises:
            ValueError: an unknown name, or a value outside its range.
        """
        check_choice(name, "preset", ("default", "paper"))
        paper = {"reward": "adaptive", "failed_leaves": "geometry", "potential": "hyperbolic"}
        return cls(**((paper if name == "paper" else {}) | changes))

    def replace(self, **changes: Any) -> ShapingConfig:
        """A copy with some options changed."""
        return dataclasses.replace(self, **changes)

    @property
    def potential_rule(self) -> PotentialRule:
        """The function behind `potential`."""
        return POTENTIALS[self.potential] if isinstance(self.potential, str) else self.potential
