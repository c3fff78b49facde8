"""How verdicts become rewards: the options that every door of shaping shares, with the same defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lapha._checks import check, check_choice
from lapha._options import check_options, documented, option
from lapha.shaping.potentials import POTENTIALS, PotentialName, PotentialRule, TreeStates

RewardName = Literal["strict", "adaptive", "auto"]
FailedLeaves = Literal["zero", "geometry"]
ValueTarget = Literal["potential", "success_rate", "mixed"]


@documented
@dataclass(frozen=True)
class ShapingConfig:
    """How verdicts become potentials, rewards, value targets and groups (method: LaPha, arXiv 2602.09375).

    Raises:
        ValueError: a value of another type or outside its range.
    """

    reward: RewardName = option(
        "strict",
        "'strict' is r = γV(j) - V(i); 'adaptive' adds the weighted formatting bonus (the paper's training); 'auto' is "
        "strict, with `potential` only where it is found to order siblings better than verdicts alone.",
        name="process_reward",
    )
    gamma: float = option(1.0, "Discount γ of the potential in the process reward.", gt=0, le=1)
    breadth: int = option(6, "Members of a sibling group.", ge=2)
    max_groups: int = option(2, "Sibling groups taken from one tree.", ge=1)
    value_target: ValueTarget = option(
        "potential",
        "What the value head learns: the paper's V, the success rate of the subtree's terminal leaves (nothing where it "
        "has none), or their mean.",
    )
    easy_accuracy: float = option(
        0.8, "Trees with at least this leaf accuracy feed the value loss alone; 1: none do.", gt=0, le=1
    )
    correct_at: float = option(0.5, "A verdict of at least this makes a leaf a goal.", gt=0, le=1)
    failed_leaves: FailedLeaves = option(
        "zero",
        "Potential of leaves that ended without a correct answer: 'geometry' is the paper's (what the distances say: "
        "high for a wrong answer, because it looks like a right one); 'zero' sets it to 0, so that the step into such a "
        "leaf loses what its path had gained. Leaves that could not be graded keep the geometry's value.",
    )
    potential: PotentialName | PotentialRule = option(
        "hyperbolic", "What V is: a name (see `lapha.shaping.potentials`), or a function of a `TreeStates`."
    )

    def __post_init__(self) -> None:
        check_options(self)

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


def potential_of(tree: TreeStates, config: ShapingConfig) -> Tensor:
    """(N,) V of one tree: the rule's numbers, with the policy for failed leaves. Unchecked but for the rule's answer."""
    V = config.potential_rule(tree)
    good = isinstance(V, Tensor) and tuple(V.shape) == tuple(tree.parent.shape)
    check(good, "potential", f"a rule that returns shape {tuple(tree.parent.shape)}", getattr(V, "shape", type(V)))
    check(bool(((V >= 0) & (V <= 1)).all()), "potential", "a rule that returns numbers in [0, 1]", "others")
    V = V.to(tree.points.radius.dtype)
    return V.masked_fill(tree.failed, 0.0) if config.failed_leaves == "zero" else V
