"""Running an evaluation: modes over questions, outcomes on disk as they come, resumed where it was cut off."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from lapha.evaluation.comparison import powers_of_two
from lapha.evaluation.completions import CompletionWriter
from lapha.evaluation.modes import (
    CHAIN_MODES,
    MODES,
    ModeRunner,
    Outcome,
    answers_by_simulation,
    check_modes,
    tokens_by_simulation,
)
from lapha.evaluation.run_folder import RunFolder
from lapha.search import SearchResult


class EvaluationRun:
    """Answers a run's questions in its modes and records every outcome.

    What has been answered is not asked again. What failed is: once more by every run.

    The questions are all it knows: gold answers are read by the grader, from their own file handle.

    Args:
        folder: where outcomes go; those in it that did not fail are not asked again.
        questions: in the order of their indices.
        modes: names from `lapha.evaluation.modes.MODES`.
        runner: makes a `ModeRunner` from (on_outcome, on_search).
        samples: chains per question of majority and best-of-n; None to match the tokens of ``value``.
        keep_trees: save every search of ``value``.
        on_outcome: called after an outcome is on disk.

    Raises:
        ValueError: unknown modes, or chains that cannot know how much to sample.
    """

    def __init__(
        self,
        folder: RunFolder,
        questions: Sequence[str],
        modes: Sequence[str],
        runner: Callable[[Callable[[Outcome], None], Callable[[SearchResult], None]], ModeRunner],
        *,
        samples: int | None = None,
        keep_trees: bool = True,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> None:
        check_modes(modes, samples)
        self.folder = folder
        self.questions = list(questions)
        self.modes = [mode for mode in MODES if mode in modes]
        self.samples = samples
        self.keep_trees = keep_trees
        self.on_outcome = on_outcome or (lambda outcome: None)
        self._asked: list[list[int]] = []  # per question asked now, the indices that it stands at
        self._curves: dict[int, dict[str, Any]] = {}
        self._done = {mode: folder.done(mode) for mode in self.modes}  # and, later, what was asked now
        self.runner = runner(self._record, self._keep)
        self.runner.on_texts = self._write
        self._completions = CompletionWriter(folder.path)

    def run(self) -> None:
        """Ask what has not been answered yet. Equal questions are asked once, and their outcome stands for all."""
        try:
            self._ask()
        finally:
            self._completions.close()

    def _ask(self) -> None:
        ask = {"single": self.runner.single, "react": self.runner.react, "value": self.runner.value}
        for mode in self.modes:
            if mode in ask and (questions := self._pending([mode])):
                ask[mode](questions)
        chains = [mode for mode in self.modes if mode in CHAIN_MODES]
        self._ask_again_what_is_too_short(chains)
        if chains and (questions := self._pending(chains)):
            self.runner.chains(questions, budgets=self._budgets(), samples=self.samples or 1)

    def _pending(self, modes: Sequence[str]) -> list[str]:
        """The distinct questions that one of `modes` has still to answer."""
        places = defaultdict(list)
        for index, question in enumerate(self.questions):
            places[question].append(index)
        waiting = {q: where for q, where in places.items() if any(not self._done[m].issuperset(where) for m in modes)}
        self._asked = list(waiting.values())
        return list(waiting)

    def _budgets(self) -> list[int] | None:
        if self.samples is not None:
            return None
        spent = self._spent()
        return [spent[where[0]] for where in self._asked]

    def _spent(self) -> dict[int, int]:
        """Tokens of ``value``, by question."""
        return {outcome.index: outcome.tokens for outcome in self.folder.outcomes if outcome.mode == "value"}

    def _ask_again_what_is_too_short(self, chains: Sequence[str]) -> None:
        """Chains that match a search which failed early are asked again once the search went through."""
        if self.samples is not None:
            return
        spent = self._spent()
        for outcome in self.folder.outcomes:
            # each chain counts as one token at least (see `ModeRunner.chains`)
            if outcome.mode in chains and outcome.tokens + len(outcome.answers) < spent.get(outcome.index, 0):
                self._done[outcome.mode].discard(outcome.index)

    def _record(self, outcome: Outcome) -> None:
        if outcome.mode not in self.modes:
            return
        where = self._asked[outcome.index]
        more = self._curves.pop(outcome.index, {}) if outcome.mode == "value" else {}
        if outcome.mode == "best-of-n":
            more = {"best_by": self.runner.best_by}
        for index in where:
            if index not in self._done[outcome.mode]:
                placed = dataclasses.replace(outcome, index=index)
                self.folder.add(placed, **more)
                self._done[outcome.mode].add(index)
                self.on_outcome(placed)

    def _write(self, place: int, mode: str, texts: list[str]) -> None:
        if mode in self.modes:
            for index in self._asked[place]:
                self._completions.add(index, mode, texts)

    def _keep(self, result: SearchResult) -> None:
        if result.error is not None:
            return
        counts = powers_of_two(self.runner.config.simulations)
        self._curves[result.index] = {
            "simulations": counts,
            "answers_by_simulation": answers_by_simulation(
                result, counts, self.runner.config.answer, self.runner.canonical
            ),
            "tokens_by_simulation": tokens_by_simulation(result, counts),
            "nodes": len(result.tree),
            "pruned": int(result.tree.pruned.sum()),
        }
        if self.keep_trees:
            for index in self._asked[result.index]:
                self.folder.save_tree(result, index)


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """One line per outcome that ended with an error."""
    return [f"{outcome.mode}, problem {outcome.index}: {outcome.error}" for outcome in outcomes if outcome.error]
