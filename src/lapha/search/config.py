"""How a search runs: one frozen record, validated when it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from lapha._checks import check
from lapha._options import check_options, documented, option, part, to_plain
from lapha.pruning import PruneConfig
from lapha.tree.search_tree import PriorRule
from lapha.types import SamplingParams

if TYPE_CHECKING:
    from lapha.geometry import PolarPoints
    from lapha.search.answers import AnswerChoice
    from lapha.search.frontier import Frontier
    from lapha.tree import SearchTree

DEPTH_LIMIT = 6

Selection: TypeAlias = Literal["frontier", "puct", "beam", "dvts"]
Answer: TypeAlias = Literal["value", "vote", "value_vote", "majority", "logprob"]
Backup: TypeAlias = Literal["auto", "terminal", "value"]


class SelectionRule(Protocol):
    """Says which node the next simulation works on.

    It returns a node that may be expanded, or a terminal leaf whose value is to be backed up again, or None: all done.
    """

    def __call__(self, frontier: Frontier, /) -> int | None: ...


class AnswerRule(Protocol):
    """Chooses the answer from a finished tree; None where no live leaf answers.

    `canonical` maps an answer's text to what makes two answers the same.
    """

    def __call__(
        self, tree: SearchTree, latents: PolarPoints | None, canonical: Callable[[str], str], /
    ) -> AnswerChoice | None: ...


@documented
@dataclass(frozen=True)
class SearchConfig:
    """Settings of a search. The defaults are those of the paper's evaluation.

    Raises:
        ValueError: a value of another type or outside its range.
    """

    simulations: int = option(128, "Most simulations of one tree: each expands a node, or revisits a leaf.", ge=1)
    breadth: int = option(6, "Steps sampled by one expansion.", ge=1)
    depth_limit: int | None = option(
        None,
        "Depth at which a state ends; where the environment has one too, the smaller holds.",
        ge=1,
        flags=("--depth",),
        shown="the environment's",
    )
    first_chain: bool = option(
        True,
        "Whether the first simulation is one chain of most likely steps down to its end; it counts towards no max_expands.",
    )
    merge_twins: bool = option(
        True, "Whether siblings of the same token ids are one node: prior mass, votes and tokens count every sample."
    )
    selection: Selection | SelectionRule = option(
        "frontier",
        "'frontier' expands the best open node of the whole tree, 'puct' descends from the root, 'beam' expands the "
        "beam_width best states of each depth, 'dvts' the best state of each of beam_width subtrees.",
    )
    beam_width: int = option(4, "Of 'beam' and 'dvts'; a beam of 1 is step-level best-of-breadth.", ge=1)
    prior: PriorRule = option(
        "sum", "The prior is the softmax of a step's log-probability: its 'sum', its 'mean' a token, or 'uniform'."
    )
    prior_temperature: float = option(1.0, "Temperature of that softmax.", gt=0)
    c_puct: float = option(1.0, "Weight of the policy's prior (exploration) in the selection score.", ge=0)
    v_prior: float = option(0.0, "Value that stands in for v̂ where the head is not trusted, or gives none.", ge=0, le=1)
    value_trust: float = option(1.0, "Value of an open node = value_trust·v̂ + (1 - value_trust)·v_prior.", ge=0, le=1)
    max_expands: int | Literal["decay"] = option(
        2, "Most expansions of one node; 'decay': max(1, depth_limit - depth² + 1).", ge=1
    )
    widening: tuple[float, float] | None = option(
        None,
        "(c, e) of progressive widening: a node that has children is expanded again only while it has fewer than "
        "c·max(N, 1)^e of them.",
    )
    backup: Backup = option(
        "auto",
        "'terminal' backs up the values of terminal children alone (the paper), 'value' those of all children; "
        "'auto': the latter for 'puct' and rules of one's own.",
    )
    revisit_leaves: bool = option(
        False, "Whether a 'puct' simulation may end in a terminal leaf and back its value up once more, at no tokens."
    )
    parallel_expansions: int = option(
        1, "Nodes of one tree expanded at once; more fill an engine with few trees.", ge=1
    )
    virtual_loss: int = option(1, "Visits of value 0 that a node in expansion counts as.", ge=0)
    prune_every: int = option(0, "Prune after every so many simulations; 0 never.", ge=0)
    prune: PruneConfig = part(PruneConfig, "How to prune.", prefix="prune_")
    sampling: SamplingParams = part(lambda: SamplingParams(temperature=0.3), "How steps are sampled.")
    seed: int = option(0, "Seed of all sampling and pruning.", ge=0)
    max_tokens: int | None = option(
        None, "No expansion of a tree starts once it has sampled this many tokens.", gt=0, name="tree_max_tokens"
    )
    deadline_s: float | None = option(
        None, "Seconds after its start at which a tree ends with what it has.", gt=0, name="tree_deadline_s"
    )
    answer: Answer | AnswerRule = option("value", "How the answer is chosen from the finished tree.")

    def __post_init__(self) -> None:
        for name, kind in (("sampling", SamplingParams), ("prune", PruneConfig)):
            value = getattr(self, name)
            if isinstance(value, Mapping):  # as `to_dict` writes it
                known = [one.name for one in dataclasses.fields(kind)]
                unknown = sorted(set(value) - set(known))
                check(not unknown, name, f"settings among {', '.join(known)}", unknown)
                object.__setattr__(self, name, kind(**value))
        check_options(self)
        check(math.isfinite(self.c_puct), "c_puct", "a finite number >= 0", self.c_puct)
        if self.widening is not None:
            good = self.widening[0] > 0 and 0 <= self.widening[1] <= 1
            check(good, "widening", "(constant > 0, exponent in [0, 1])", self.widening)

    @property
    def max_depth(self) -> int:
        """The depth at which a state ends; 6 where neither the environment nor the settings say."""
        return DEPTH_LIMIT if self.depth_limit is None else self.depth_limit

    @property
    def backs_up_values(self) -> bool:
        """Whether the values of open children are backed up too."""
        return self.backup == "value" or (self.backup == "auto" and self.selection not in ("frontier", "beam", "dvts"))

    def expansion_limit(self, depth: int) -> int:
        """How often a node at `depth` (root: 0) may be expanded."""
        if isinstance(self.max_expands, str):
            return max(1, self.max_depth - depth**2 + 1)
        return self.max_expands

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values; a function as ``"module:name"``."""
        return dict(to_plain(self))
