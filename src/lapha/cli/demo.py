"""``lapha demo``: evaluate the embedded policy, train it on its own trees, evaluate again, and show what happened."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, the metrics and the checkpoint.")] = Path(
        "runs/demo"
    ),
    problems: Annotated[int, typer.Option(help="Held-out problems, the same before and after.")] = 200,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 30,
    trees: Annotated[int, typer.Option(help="Trees grown per training step.")] = 32,
    simulations: Annotated[int, typer.Option(help="Expansions of one tree in value mode.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of problems, sampling and training.")] = 0,
) -> int:
    """Evaluate, train with tree rollouts and shaped rewards, evaluate again; about five minutes on two cores."""
    from lapha._checks import check
    from lapha._imports import require_all
    from lapha.evaluation.folders import prepare_folder

    for name, value in (("problems", problems), ("steps", steps), ("trees", trees), ("simulations", simulations)):
        check(value >= 1, name, "an integer >= 1", value)
    require_all({"transformers": "trl", "trl": "trl", "accelerate": "trl", "jinja2": "trl"}, "the demo")
    folder = prepare_folder(out)
    run = _Demo(folder, DemoSettings(problems, steps, trees, simulations, seed))
    try:
        run.everything()
    except KeyboardInterrupt:
        run.interrupted()
        return 130
    finally:
        run.close()
    return 0


@dataclass(frozen=True)
class DemoSettings:
    """What the demo was asked to do; see `demo`."""

    problems: int
    steps: int
    trees: int
    simulations: int
    seed: int


@dataclass
class Evaluated:
    """One evaluation of the policy.

    Attributes:
        scores: mode -> `ModeScore`.
        questions: the held-out questions.
        outcomes: mode -> outcomes in question order.
        results: the searches of value mode.
        simulations, accuracy, tokens: accuracy (intervals) and mean tokens by number of simulations.
    """

    scores: dict[str, Any] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    outcomes: dict[str, Any] = field(default_factory=dict)
    results: list[Any] = field(default_factory=list)
    simulations: list[int] = field(default_factory=list)
    accuracy: list[Any] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)


class _Demo:
    """The demo's state: what has been measured so far, so that an interrupt can still write it down."""

    def __init__(self, folder: Path, settings: DemoSettings) -> None:
        from lapha.cli._progress import console, quiet_libraries
        from lapha.evaluation.folders import JsonLines
        from lapha.evaluation.provenance import environment_record
        from lapha.tiny import load_tiny, problems

        quiet_libraries()
        self.folder, self.settings = folder, settings
        self.metrics = JsonLines(folder / "metrics.jsonl")
        self.metrics.write({"phase": "start", **vars(settings), "environment": environment_record()})
        self.console = console()
        self.started = time.monotonic()
        self.model, self.tokenizer, self.value_head = load_tiny()
        self.heldout = problems.generate(settings.problems, seed=settings.seed, split="heldout")
        self.before: Evaluated | None = None
        self.after: Evaluated | None = None
        self.history: list[dict[str, float]] = []

    def everything(self) -> None:
        self.before = self.evaluate("before")
        self.train()
        self.after = self.evaluate("after")
        self.finish()

    def evaluate(self, phase: str) -> Evaluated:
        """All modes on the held-out problems, with the weights as they are now."""
        from lapha.cli._progress import progress_bar
        from lapha.engines import TransformersEngine
        from lapha.evaluation.comparison import accuracy_by_simulations, powers_of_two, score_modes
        from lapha.evaluation.modes import MODES, ModeRunner, Outcome

        questions = [problem.question for problem in self.heldout]
        evaluated = Evaluated(questions=questions)
        engine = TransformersEngine(self.model.eval(), self.tokenizer, self.value_head)
        try:
            with progress_bar() as bar:
                task = bar.add_task(f"evaluate {phase}", total=len(MODES) * len(questions), status="")

                done = Counter[str]()

                def show(outcome: Outcome) -> None:
                    done[outcome.mode] += 1
                    status = f"{outcome.mode} {done[outcome.mode]}/{len(questions)}"
                    bar.update(task, advance=1, status=status)

                runner = ModeRunner(
                    engine, self.search_config(), environment=self.environment(), concurrency=64,
                    on_outcome=show, on_search=evaluated.results.append,
                )  # fmt: skip
                outcomes = runner.run(questions, MODES)
        finally:
            engine.close()
        evaluated.outcomes = outcomes
        evaluated.scores = score_modes(outcomes, self.grade)
        evaluated.simulations = powers_of_two(self.settings.simulations)
        evaluated.accuracy, evaluated.tokens = accuracy_by_simulations(
            evaluated.results, evaluated.simulations, self.search_config().answer, self.grade
        )
        for mode, score in evaluated.scores.items():
            self.metrics.write({"phase": phase, "mode": mode, **score.summary()})
        return evaluated

    def train(self) -> None:
        """Train policy and value head in place; the checkpoint is written even if it is interrupted."""
        from lapha.cli._demo_training import train
        from lapha.cli._progress import progress_bar

        with progress_bar() as bar:
            task = bar.add_task("train", total=self.settings.steps, status="growing trees")

            def report(step: int, numbers: dict[str, float]) -> None:
                self.history.append({"step": step, **numbers})
                self.metrics.write({"phase": "train", "step": step, **numbers})
                shown = {
                    "leaves right": "lapha/leaf_accuracy",
                    "pass@1": "lapha/pass_at_1",
                    "value loss": "lapha/value_loss",
                }
                live = ", ".join(f"{name} {numbers[key]:.3f}" for name, key in shown.items() if key in numbers)
                bar.update(task, completed=step, status=live)

            self.value_head = train(
                self.model,
                self.tokenizer,
                self.value_head,
                folder=self.folder,
                steps=self.settings.steps,
                trees=self.settings.trees,
                seed=self.settings.seed,
                report=report,
            )

    def finish(self) -> None:
        from lapha.cli._demo_report import print_table, write_demo_report

        minutes = (time.monotonic() - self.started) / 60
        assert self.before is not None
        print_table(self.before, self.after)
        page = write_demo_report(
            self.folder / "report.html", self.settings, self.before, self.after, self.history, self.grade, minutes
        )
        self.metrics.write({"phase": "end", "minutes": minutes})
        self.console.print(
            f"{minutes:.1f} minutes. Report: {page}; metrics: {self.metrics.path}; checkpoint: {self.folder / 'checkpoint'}",
            markup=False,
        )

    def interrupted(self) -> None:
        """Write down what there is."""
        self.metrics.write({"phase": "interrupted"})
        if self.before is not None:
            self.finish()
        self.console.print(f"interrupted; what was measured is in {self.folder}", style="yellow", markup=False)

    def search_config(self) -> Any:
        from lapha.pruning import PruneConfig
        from lapha.search import SearchConfig
        from lapha.tiny import BREADTH, C_PUCT, DEPTH_LIMIT, MAX_EXPANDS, SEARCH

        return SearchConfig(
            simulations=self.settings.simulations,
            breadth=BREADTH,
            depth_limit=DEPTH_LIMIT,
            max_expands=MAX_EXPANDS,
            c_puct=C_PUCT,
            # A sharp policy samples the same step again and again: one of each is enough.
            prune_every=1,
            prune=PruneConfig(fraction=0.99, cut="distance", distance=1e-3, scope="all", survivors="value"),
            sampling=SEARCH,
            seed=self.settings.seed,
        )

    def environment(self) -> Any:
        from lapha.agent import ChatEnvironment

        return ChatEnvironment(self.tokenizer, depth_limit=8, context_limit=512)

    def grade(self, pairs: Any) -> list[bool | None]:
        """Verdicts by the exact verifier, after the searches are over."""
        from lapha.tiny.problems import verify

        return [verify(self.heldout[index].question, answer) for index, answer in pairs]

    def close(self) -> None:
        self.metrics.close()
