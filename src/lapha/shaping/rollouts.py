"""One's own rollouts as arrays: what the credit rules of `lapha.shaping.credit` read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lapha._checks import check, check_float_tensor, check_parent
from lapha.geometry import PolarPoints
from lapha.shaping._potential import check_mask, check_points
from lapha.shaping.verdicts import Verifier, mark_correct
from lapha.tree import SearchTree
from lapha.types import Status


@dataclass(frozen=True, eq=False)
class Rollouts:
    """N states of any number of trees. Plain chains are a tree that branches at its prompt alone.

    A state stands for the step that led to it: the tokens that were sampled between its parent and itself.

    Attributes:
        parent: (N,) integers, −1 at each prompt, otherwise earlier than the state's own index.
        terminal: (N,) bool, states that end their rollout. They have no children.
        score: (N,) verdicts in [0, 1] of terminal states, NaN where one could not be graded; not read elsewhere.
        points: (N,) latents centred on their own tree's prompt, for the rules that use them; or None.
        question: (N,) integers, which question a state belongs to: trees of one question share their baselines.
            None: every tree is a question of its own.
        state: (N,) integers, equal where the environment is in the same state (a board, a page), for `gigpo`. None:
            every state is its own.

    Raises:
        ValueError: wrong types, shapes or ranges, a terminal state with children, or a tree with two questions.
    """

    parent: Tensor
    terminal: Tensor
    score: Tensor
    points: PolarPoints | None = None
    question: Tensor | None = None
    state: Tensor | None = None

    def __post_init__(self) -> None:
        check(isinstance(self.parent, Tensor), "parent", "a torch.Tensor", type(self.parent).__name__)
        size = len(self.parent)
        check_parent(self.parent, size)
        check_mask(self.terminal, "terminal", size)
        check_float_tensor(self.score, "score", dim=1)
        check(len(self.score) == size, "score", f"shape ({size},)", f"shape {tuple(self.score.shape)}")
        inside = self.parent[self.parent >= 0].to(torch.int64)
        check(not bool(self.terminal[inside].any()), "terminal", "states without children", "one that has some")
        known = self.score[self.graded]
        check(bool(((known >= 0) & (known <= 1)).all()), "score", "verdicts in [0, 1]", "others")
        if self.points is not None:
            check_points(self.points, "points")
            check(len(self.points) == size, "points", f"{size} of them", len(self.points))
        for name in ("question", "state"):
            ids = getattr(self, name)
            if ids is not None:
                good = isinstance(ids, Tensor) and tuple(ids.shape) == (size,) and not ids.is_floating_point()
                check(good, name, f"integers of shape ({size},)", getattr(ids, "shape", type(ids).__name__))
        if self.question is not None:
            child = (self.parent >= 0).nonzero()[:, 0]
            same = self.question[child] == self.question[self.parent[child].to(torch.int64)]
            check(bool(same.all()), "question", "one question a tree", "several")

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def graded(self) -> Tensor:
        """(N,) bool, terminal states with a verdict: the ends of the trajectories that rules count."""
        return self.terminal & ~self.score.isnan()

    @property
    def tree(self) -> Tensor:
        """(N,) int64 index of each state's prompt."""
        above = torch.where(
            self.parent < 0, torch.arange(len(self), device=self.parent.device), self.parent.to(torch.int64)
        )
        while bool((above != above[above]).any()):
            above = above[above]
        return above

    @property
    def group(self) -> Tensor:
        """(N,) int64 number of each state's question, from 0."""
        ids = self.tree if self.question is None else self.question
        number: Tensor = torch.unique(ids, return_inverse=True)[1]
        return number

    @classmethod
    def from_tree(cls, tree: SearchTree, verifier: Verifier, latents: PolarPoints | None = None) -> Rollouts:
        """A searched tree's states; leaves that ended without an answer have score 0. Pruned ones are kept."""
        score = mark_correct(tree, verifier).score
        parent = torch.from_numpy(tree.parent.astype("int64"))
        return cls(parent, torch.from_numpy(tree.status != Status.OPEN), score, latents)

    @classmethod
    def from_chains(cls, steps: Sequence[int], score: Tensor, question: Sequence[int] | None = None) -> Rollouts:
        """Plain chains: `steps[b]` steps of chain b, (B,) scores (NaN: could not be graded), and their questions.

        States come in order: the questions' prompts (sorted by number), then each chain's steps.

        Raises:
            ValueError: a chain without steps, or lengths that differ.
        """
        check_float_tensor(score, "score", dim=1)
        owners = [0] * len(steps) if question is None else list(question)
        check(len(steps) == len(score) == len(owners), "steps", f"one a chain ({len(score)})", len(steps))
        check(all(count >= 1 for count in steps), "steps", "integers >= 1", list(steps))
        names = sorted(set(owners))
        parent, end, verdict, asked = [-1] * len(names), [False] * len(names), [0.0] * len(names), list(names)
        for count, value, owner in zip(steps, score.tolist(), owners, strict=True):
            for step in range(count):
                parent.append(names.index(owner) if step == 0 else len(parent) - 1)
                end.append(step == count - 1)
                verdict.append(value)
                asked.append(owner)
        return cls(
            torch.tensor(parent),
            torch.tensor(end),
            torch.tensor(verdict),
            question=torch.tensor(asked, dtype=torch.int64),
        )

    @staticmethod
    def cat(parts: Sequence[Rollouts]) -> Rollouts:
        """Several rollouts in one: questions and states keep their numbers; trees without a question get new ones.

        Raises:
            ValueError: none, or some with latents, questions or states and some without.
        """
        check(len(parts) > 0, "parts", "at least one", "none")
        starts = [0]
        for part in parts:
            starts.append(starts[-1] + len(part))
        parent = [torch.where(p.parent < 0, -1, p.parent + start) for p, start in zip(parts, starts)]
        columns: dict[str, Tensor] = {}
        for name in ("terminal", "score", "question", "state"):
            values = [getattr(part, name) for part in parts]
            missing = sum(value is None for value in values)
            check(missing in (0, len(parts)), name, "in all parts or in none", f"missing in {missing} of {len(parts)}")
            if not missing:
                columns[name] = torch.cat(values)
        latents = [part.points for part in parts if part.points is not None]
        check(
            len(latents) in (0, len(parts)), "points", "in all parts or in none", f"in {len(latents)} of {len(parts)}"
        )
        return Rollouts(torch.cat(parent), points=PolarPoints.cat(latents) if latents else None, **columns)

    def select(self, keep: Tensor) -> Rollouts:
        """The trees whose prompts `keep` (N,) bool marks, in order."""
        chosen = keep[self.tree].nonzero()[:, 0]
        place = torch.full((len(self),), -1, dtype=torch.int64)
        place[chosen] = torch.arange(len(chosen))
        upper = self.parent[chosen].to(torch.int64)
        return Rollouts(
            torch.where(upper < 0, -1, place[upper.clamp_min(0)]),
            self.terminal[chosen],
            self.score[chosen],
            None if self.points is None else self.points[chosen],
            None if self.question is None else self.question[chosen],
            None if self.state is None else self.state[chosen],
        )
