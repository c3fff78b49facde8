"""An evaluation run without a language model, as large as wanted: what ``lapha eval`` leaves, made by the scripted engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lapha.engines import ScriptedEngine
from lapha.evaluation.grading import Verdict
from lapha.evaluation.modes import MODES, ModeRunner
from lapha.evaluation.results import GradedRun, grade_run
from lapha.evaluation.run_folder import RunFolder
from lapha.evaluation.runner import EvaluationRun
from lapha.search import SearchConfig
from lapha.types import Evaluation, Sample, SampleRequest, State

_PROSE = "so the sum is √2·x² + ½, and we check 3 < 4 & 5 > 4 before we go on; "


class Talkative:
    """The scripted engine with steps of about `characters` characters, as a language model's are."""

    def __init__(self, engine: ScriptedEngine, characters: int) -> None:
        self.engine, self.environment = engine, engine.environment
        self._prose = (_PROSE * (1 + characters // len(_PROSE)))[:characters]

    async def sample(self, request: SampleRequest) -> list[Sample]:
        """The engine's samples, with prose behind their text."""
        samples = await self.engine.sample(request)
        return [dataclasses.replace(sample, text=f"{sample.text} {self._prose}") for sample in samples]

    async def evaluate(self, states: Sequence[State]) -> list[Evaluation]:
        """The engine's evaluations."""
        return await self.engine.evaluate(states)


def generate_run(
    folder: str | Path,
    problems: int,
    simulations: int,
    *,
    modes: Sequence[str] = MODES,
    breadth: int = 6,
    hidden_size: int = 64,
    characters: int = 300,
    max_expands: int = 2,
) -> GradedRun:
    """Evaluate and grade a run; an answer is right if it is its problem's number modulo 4.

    Args:
        folder: where it goes; new or empty.
        problems, simulations, modes, breadth: as of ``lapha eval``.
        hidden_size: H of the trees' latents.
        characters: of a step's text.
        max_expands: times that a node may be expanded.
    """
    config = SearchConfig(simulations=simulations, breadth=breadth, depth_limit=6, max_expands=max_expands, seed=1)
    run_folder = RunFolder(folder, {"problems": problems, "simulations": simulations, "prune_every": 0})
    run = EvaluationRun(
        run_folder,
        [f"Problem {index}: which of 0, 1, 2 and 3 is it?" for index in range(problems)],
        modes,
        lambda on_outcome, on_search: ModeRunner(
            Talkative(ScriptedEngine(answer_rate=0.3, hidden_size=hidden_size), characters),
            config,
            on_outcome=on_outcome,
            on_search=on_search,
        ),
    )
    try:
        run.run()
    finally:
        run_folder.close()
    return grade_run(folder, lambda pairs: [Verdict(int(answer) % 4 == index % 4, "exact") for index, answer in pairs])
