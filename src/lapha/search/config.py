"""How a search runs: one frozen record, validated when it is made."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lapha._checks import check, check_choice
from lapha.pruning import PruneConfig
from lapha.search.answers import ANSWER_RULES
from lapha.search.selection import SELECTION_RULES
from lapha.types import SamplingParams

DECAY = "decay"


@dataclass(frozen=True)
class SearchConfig:
    """Settings of a search. The defaults are those of the paper's evaluation.

    Attributes:
        simulations: most simulations of one tree, ≥ 1. A simulation expands one node, or revisits a leaf.
        breadth: continuations sampled by one expansion, ≥ 1.
        depth_limit: depth at which a state ends, whatever the environment allows, ≥ 1.
        selection: ``"frontier"`` takes the best open node of the whole tree, ``"puct"`` descends from the root.
        c_puct: weight of exploration, ≥ 0.
        v_prior: value in [0, 1] that stands in for v̂ where the head is not trusted, or gives none.
        value_trust: value of an open node = value_trust·v̂ + (1 − value_trust)·v_prior; in [0, 1].
        max_expands: most expansions of one node, ≥ 1; or ``"decay"``: max(1, depth_limit − depth² + 1).
        widening: (constant > 0, exponent in [0, 1]) of progressive widening: a node that has children is expanded
            again only while it has fewer than constant·max(N, 1)^exponent of them. None: no such limit.
        backup: ``"terminal"`` backs up the values of terminal children alone (the paper), ``"value"`` those of all
            children; ``"auto"`` is the former for `frontier` and the latter for `puct`.
        revisit_leaves: whether a `puct` simulation may end in a leaf that has ended, and back its value up once more. Such
            a simulation costs no tokens and brings nothing new; without them every simulation expands a node.
        parallel_expansions: nodes of one tree expanded at once, ≥ 1. More than one fills an engine with few trees
            and selects each further node under a virtual loss.
        virtual_loss: visits of value 0 that a node in expansion counts as, ≥ 0.
        prune_every: prune after every so many simulations; 0 never.
        prune: how, see `lapha.pruning.PruneConfig`.
        sampling: how steps are sampled.
        seed: of all sampling and pruning, ≥ 0.
        max_tokens: no expansion of a tree starts once it has sampled this many tokens; None for no limit.
        deadline_s: seconds after its start at which a tree ends with what it has; None for no limit.
        answer: how the answer is chosen from the finished tree, a name in `lapha.search.ANSWER_RULES`.

    Raises:
        ValueError: a value outside its range.
    """

    simulations: int = 128
    breadth: int = 6
    depth_limit: int = 6
    selection: str = "frontier"
    c_puct: float = 1.0
    v_prior: float = 0.0
    value_trust: float = 1.0
    max_expands: int | str = 2
    widening: tuple[float, float] | None = None
    backup: str = "auto"
    revisit_leaves: bool = False
    parallel_expansions: int = 1
    virtual_loss: int = 1
    prune_every: int = 0
    prune: PruneConfig = field(default_factory=PruneConfig)
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(temperature=0.3))
    seed: int = 0
    max_tokens: int | None = None
    deadline_s: float | None = None
    answer: str = "value"

    def __post_init__(self) -> None:
        for name, kind in (("sampling", SamplingParams), ("prune", PruneConfig)):
            self._convert(name, kind)
        for name in ("simulations", "breadth", "depth_limit", "parallel_expansions"):
            self._integer(name, 1)
        for name in ("virtual_loss", "prune_every", "seed"):
            self._integer(name, 0)
        for name in ("v_prior", "value_trust"):
            check(_number(getattr(self, name), 0, 1), name, "a number in [0, 1]", repr(getattr(self, name)))
        check(_number(self.c_puct, 0), "c_puct", "a number >= 0", self.c_puct)
        check_choice(self.selection, "selection", SELECTION_RULES)
        check_choice(self.answer, "answer", ANSWER_RULES)
        check_choice(self.backup, "backup", ("auto", "terminal", "value"))
        if self.max_expands != DECAY:
            self._integer("max_expands", 1, f"an integer >= 1 or {DECAY!r}")
        for name in ("max_tokens", "deadline_s"):
            limit = getattr(self, name)
            check(limit is None or (_number(limit, 0) and limit > 0), name, "a number > 0", repr(limit))
        if self.widening is not None:
            good = isinstance(self.widening, (tuple, list)) and len(self.widening) == 2
            good = good and _number(self.widening[0], 0) and self.widening[0] > 0 and _number(self.widening[1], 0, 1)
            check(good, "widening", "(constant > 0, exponent in [0, 1])", self.widening)
            object.__setattr__(self, "widening", tuple(self.widening))

    def _convert(self, name: str, kind: type) -> None:
        """A mapping of settings, as `to_dict` writes it, becomes the record that it describes."""
        value = getattr(self, name)
        if isinstance(value, Mapping):
            known = [field.name for field in dataclasses.fields(kind)]
            unknown = sorted(set(value) - set(known))
            check(not unknown, name, f"settings among {', '.join(known)}", unknown)
            object.__setattr__(self, name, kind(**value))
        else:
            check(isinstance(value, kind), name, f"a {kind.__name__} or its settings", type(value).__name__)

    def _integer(self, name: str, least: int, expected: str = "") -> None:
        """An integer of any kind, numpy's too, becomes Python's."""
        value = getattr(self, name)
        good = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)
        check(good, name, expected or f"an integer >= {least}", repr(value))
        object.__setattr__(self, name, int(value))

    @property
    def backs_up_values(self) -> bool:
        """Whether the values of open children are backed up too."""
        return self.backup == "value" or (self.backup == "auto" and self.selection == "puct")

    def expansion_limit(self, depth: int) -> int:
        """How often a node at `depth` (root: 0) may be expanded."""
        if isinstance(self.max_expands, str):
            return max(1, self.depth_limit - depth**2 + 1)
        return self.max_expands

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return dataclasses.asdict(self)


def _number(value: Any, least: float, most: float = math.inf) -> bool:
    """Whether `value` is a finite number in [least, most]."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return good and math.isfinite(value) and least <= value <= most
