"""The studies: which families, policies and arms, how arms are tuned, and how many seeds. See `PLAN.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.learning.arms import ARMS
from benchmarks.learning.tasks import FAMILIES
from benchmarks.learning.training import Cell


@dataclass(frozen=True)
class Study:
    """A grid with a rule for tuning.

    Attributes:
        name: of the study and its result file.
        places: (family, start policy) pairs.
        arms: names in `ARMS`. Every arm has the same tuning budget.
        learning_rates: the tuning grid of every arm.
        tune_seeds, final_seeds: disjoint; questions of different seeds differ.
        cell: options of every cell beyond these.
    """

    name: str
    places: Sequence[tuple[str, str]]
    arms: Sequence[str]
    learning_rates: Sequence[float]
    tune_seeds: Sequence[int]
    final_seeds: Sequence[int]
    cell: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for arm in self.arms:
            assert arm in ARMS, arm
        for family, _ in self.places:
            assert family in FAMILIES, family
        assert not set(self.tune_seeds) & set(self.final_seeds), "tuning and final seeds must differ"

    def tuning(self) -> Iterator[Cell]:
        """Every arm with every learning rate, on the tuning seeds."""
        for family, policy in self.places:
            for arm in self.arms:
                for rate in self.learning_rates:
                    for seed in self.tune_seeds:
                        yield self._cell("tune", family, policy, arm, rate, seed)

    def final(self, chosen: dict[tuple[str, str, str], float]) -> Iterator[Cell]:
        """Every arm with its own learning rate, on the final seeds. `chosen`: (family, policy, arm) → rate."""
        for (family, policy, arm), rate in chosen.items():
            for seed in self.final_seeds:
                yield self._cell("final", family, policy, arm, rate, seed)

    def _cell(self, phase: str, family: str, policy: str, arm: str, rate: float, seed: int) -> Cell:
        return replace(Cell(self.name, phase, family, policy, arm, rate, seed), **self.cell)


LADDER = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)


def extended(study: Study, chosen: dict[tuple[str, str, str], float]) -> Study:
    """The study with one more rate for all arms at each end of its grid that some arm chose; itself if none did."""
    rates = sorted(study.learning_rates)
    best = set(chosen.values())
    lower = [rate for rate in LADDER if rate < rates[0]][-1:] if rates[0] in best else []
    higher = [rate for rate in LADDER if rate > rates[-1]][:1] if rates[-1] in best else []
    return replace(study, learning_rates=(*lower, *rates, *higher)) if lower or higher else study


CORE = (
    "grpo", "tree-verdict", "tree-success", "tree-grpo", "dv-hyperbolic", "dv-euclidean", "dv-paper", "dv-mixture",
    "dv-auto", "dv-random",
)  # fmt: skip
DETAILS = (
    "grpo", "rloo", "grpo-sequence", "chain-dv", "tree-rl", "tree-rpo", "tree-success", "tree-success-no-head",
    "dv-hyperbolic", "dv-geometry", "dv-adaptive", "dv-cosine", "dv-soft-min", "dv-rescaled", "dv-contrastive",
    "dv-depth-centered", "dv-oracle", "dv-no-head", "dv-pruned", "dv-value-loss", "dv-sequence",
)  # fmt: skip
CELL = {"tokens": 100_000, "steps": 60}

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Study(
            "smoke", [("walk-easy", "tiny")], ["grpo", "dv-hyperbolic"], [1e-4, 1e-3], [0], [1],
            {"steps": 2, "questions": 2, "chains": 3, "simulations": 3, "evaluate_every": 1, "evaluated": 4},
        ),
        # rare success first: that is where dense rewards should matter
        Study("rare", [("walk-hard", "tiny@0.1"), ("walk-hard", "tiny@0.02")], CORE, RATES, [100, 101], range(5), CELL),
        Study(
            "walks", [("walk-easy", "tiny"), ("walk-medium", "tiny"), ("walk-hard", "tiny")], CORE, RATES, [100, 101],
            range(5), CELL,
        ),
        Study(
            "families", [(f, p) for f in ("jugs", "countdown") for p in ("tiny@0.1", "tiny@0.35")], CORE, RATES,
            [100, 101], range(5), CELL,
        ),
        Study("details", [("walk-hard", "tiny@0.1")], DETAILS, RATES, [100, 101], range(5), CELL),
    )
}  # fmt: skip
