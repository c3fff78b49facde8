"""What ``lapha eval`` does: load, search, grade, write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha._digests import digest
from lapha._identity import identity_of
from lapha._options import build, options_of
from lapha.cli._grading import Grader, LiveProgress, sameness
from lapha.evaluation.config import TINY, EvalConfig
from lapha.evaluation.data import fingerprint, load_questions
from lapha.evaluation.run_folder import is_set

TINY_PROBLEMS = 100


class EvaluationCommand:
    """One ``lapha eval``.

    Args:
        config: what to evaluate. Its settings are kept in the run's ``config.yaml``; a run may go on with other
            addresses of servers and other options that leave the results as they are.
        folder: of the run.
        force: start anew.
        predictions: the reference's, to be graded in place of a model's answers; or None.

    Raises:
        ValueError: data that cannot be read.
    """

    def __init__(
        self, config: EvalConfig, folder: Path, *, force: bool = False, predictions: Path | None = None
    ) -> None:
        self.config, self.folder, self.force, self.predictions = config, folder, force, predictions
        self.questions = load_selected(config)

    def run(self) -> int:
        """Ask what is missing, grade, write the tables; the exit code."""
        from lapha.cli._models import load_model
        from lapha.evaluation.modes import ModeRunner
        from lapha.evaluation.runner import EvaluationRun

        config = self.config
        folder = self._open(config.settings())
        grader = self._grader()
        try:
            loaded = load_model(config.model, config.search.depth_limit)
            try:
                folder.identify(run_identity(loaded, config))
            except ValueError:
                loaded.close()
                raise
        except (ValueError, OSError):
            folder.close()
            grader.close()
            raise
        done = False
        with LiveProgress(folder, len(self.questions) * len(config.modes), grader) as live:
            work = EvaluationRun(
                folder,
                self.questions,
                config.modes,
                lambda on_outcome, on_search: ModeRunner(
                    loaded.engine,
                    config.search,
                    environment=loaded.environment,
                    plain_environment=loaded.plain_environment,
                    concurrency=config.concurrency,
                    canonical=sameness(config.data),
                    best_by="value" if loaded.has_value_head else "logprob",
                    on_outcome=on_outcome,
                    on_search=on_search,
                ),
                samples=config.samples,
                keep_trees=config.trees,
                on_outcome=live.show,
            )
            try:
                work.run()
                done = True
            finally:
                loaded.close()
                if not done:
                    folder.close()
        return self._finish(grader, folder)

    def score(self) -> int:
        """Grade the reference's predictions as a run of mode ``single``; the exit code."""
        from lapha.evaluation.reference import read_predictions

        assert self.predictions is not None
        check(self.predictions.is_file(), "predictions", "a *.pred.jsonl file", str(self.predictions))
        outcomes = read_predictions(self.predictions, self.questions)
        folder = self._open({**self.config.settings(), "model": None, "predictions": str(self.predictions)})
        folder.identify({"predictions": digest(self.predictions.read_bytes())})
        known = folder.done("single")
        for outcome in outcomes:
            if outcome.index not in known:
                folder.add(outcome)
        return self._finish(self._grader(), folder)

    def _open(self, settings: Mapping[str, Any]) -> Any:
        from lapha.evaluation.run_folder import RunFolder

        about = {"questions": fingerprint(self.questions), "problems": len(self.questions)}
        settings = {**settings, **about}
        folder = RunFolder(self.folder, settings, force=self.force, may_add=["judge", "judge_is_policy"])
        if folder.added:
            from lapha.cli._progress import console

            judge = self.config.judge_model
            console().print(
                f"this run was graded without a judge; now {judge} judges what nothing else can", markup=False
            )
        return folder

    def _grader(self) -> Grader:
        config, judge = self.config, (self.config.judge_url, self.config.judge_model)
        return Grader(
            config.data,
            config.selection(),
            self.questions,
            config.graders,
            self.folder,
            *judge,
            config.verifier,
            config.strict,
        )

    def _finish(self, grader: Grader, folder: Any) -> int:
        from lapha.evaluation.results import grade_run
        from lapha.evaluation.run_folder import write_problems

        try:
            graded = grade_run(self.folder, grader.verdicts)
            write_problems(self.folder, grader.problems())
        finally:
            grader.close()
            folder.close()  # held until here: nobody else grades or judges meanwhile
        return print_outcome(graded)


def run_identity(loaded: Any, config: EvalConfig) -> dict[str, Any]:
    """What determines a run's outcomes besides its settings: the model with its weights and head, and both environments.

    Addresses of servers are left out: a run may go on with others that serve the same model.
    """
    engine = identity_of(loaded.engine)
    if config.model.server:
        engine = {name: value for name, value in engine.items() if name not in ("pool", "evaluator")}
        engine["value_head"] = identity_of(getattr(loaded.engine.evaluator, "value_head", None))
    return {
        "engine": engine,
        "environment": identity_of(loaded.environment),
        "plain_environment": identity_of(loaded.plain_environment),
        "best_by": "value" if loaded.has_value_head else "logprob",
    }


def recorded(settings: Mapping[str, Any]) -> EvalConfig:
    """The configuration that a run's ``config.yaml`` records; entries that are no options are left out."""
    known = {option.name for option in options_of(EvalConfig)}
    return build(EvalConfig, {name: value for name, value in settings.items() if name in known and is_set(value)})


def load_selected(config: EvalConfig) -> list[str]:
    """The questions of a run, in order.

    Raises:
        ValueError: data that cannot be read, or none selected.
    """
    selection = config.selection()
    if config.data != TINY:
        return load_questions(config.data, selection)
    from lapha.tiny import problems

    count = config.limit or TINY_PROBLEMS
    found = problems.generate(count, seed=config.search.seed, split="heldout")
    chosen = [found[index].question for index in selection.indices(count)]
    check(len(chosen) > 0, "data", "at least one problem", "none in this shard")
    return chosen


def print_outcome(graded: Any) -> int:
    """Table, report and failures of a graded run; the exit code."""
    from lapha.cli._progress import console
    from lapha.evaluation.page import write_run_report
    from lapha.evaluation.run_folder import REPORT
    from lapha.evaluation.runner import failures

    print_results(graded)
    write_run_report([graded.folder], graded.folder / REPORT)
    console().print(f"results: {graded.folder}", markup=False, highlight=False)
    failed = failures([outcome for outcomes in graded.outcomes.values() for outcome in outcomes])
    for line in failed:
        console().print(f"failed: {line}", style="red", markup=False, highlight=False)
    return 1 if failed else 0


def print_results(graded: Any) -> None:
    """The table on standard output."""
    from rich.table import Table

    from lapha.cli._progress import console
    from lapha.evaluation.results import RESULT_COLUMNS, result_rows

    table = Table(box=None)
    for column in RESULT_COLUMNS:
        table.add_column(column, justify="left" if column == "mode" else "right", no_wrap=True)
    for row in result_rows(graded):
        table.add_row(*row)
    console(stderr=False, width=120).print(table)
    for note in graded.notes():
        console(stderr=False).print(note)
