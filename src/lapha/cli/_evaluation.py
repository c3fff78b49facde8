"""What ``lapha eval`` does: load, search, grade, write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha.cli._grading import Grader, LiveProgress, sameness
from lapha.evaluation.data import Selection, fingerprint, load_questions, parse_shard
from lapha.evaluation.modes import check_modes

TINY_PROBLEMS = 100


class EvaluationCommand:
    """One ``lapha eval``.

    Args:
        settings: the command's options that decide results; kept in the run's config.
        folder: of the run.
        concurrency: trees and chains in flight at once.
        keep_trees: save searched trees.
        force: start anew.
        servers, pooling_servers: addresses of vLLM servers, with commas. A run may go on with other addresses.
        graders: grader processes.
        judge_url, judge_model: the judge of what nothing else can grade, or None; the model is kept in the config.

    Raises:
        ValueError: options that cannot work, before any model is loaded.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        folder: Path,
        *,
        concurrency: int,
        keep_trees: bool,
        force: bool,
        servers: str | None = None,
        pooling_servers: str | None = None,
        graders: int = 2,
        judge_url: str | None = None,
        judge_model: str = "judge",
    ) -> None:
        check(len(settings["modes"]) > 0, "modes", "at least one mode", "none")
        check_modes(settings["modes"], settings["samples"])
        _check_search(settings)  # before the folder has them
        tiny = settings["data"] == "tiny"
        check(
            judge_url is None or not tiny,
            "judge_url",
            "none with --data tiny, where every answer is verified",
            judge_url,
        )
        self.settings, self.folder = {**settings, "judge": None if judge_url is None else judge_model}, folder
        if judge_url is not None and (judge_model == settings["model"] or judge_url in _urls(servers)):
            self.settings["judge_is_policy"] = True
        self.graders, self.judge_url, self.judge_model = graders, judge_url, judge_model
        self.concurrency, self.keep_trees, self.force = concurrency, keep_trees, force
        self.servers, self.pooling_servers = _urls(servers), _urls(pooling_servers)
        self.selection = selection_of(settings)
        self.questions = load_selected(settings)

    def run(self) -> int:
        """Ask what is missing, grade, write the tables; the exit code."""
        from lapha.cli._models import load_model
        from lapha.evaluation.modes import ModeRunner
        from lapha.evaluation.runner import EvaluationRun

        folder = self._open()
        grader = self._grader()
        settings = self.settings
        loaded = load_model(
            settings["model"],
            value_head=settings["value_head"],
            gguf_file=settings["gguf_file"],
            tools=settings["tools"],
            sandbox=settings["sandbox"],
            depth_limit=settings["depth"],
            context_limit=settings["context_limit"],
            servers=self.servers,
            pooling_servers=self.pooling_servers,
        )
        config = search_config(loaded, settings)
        with LiveProgress(folder, len(self.questions) * len(settings["modes"]), grader) as live:
            work = EvaluationRun(
                folder,
                self.questions,
                settings["modes"],
                lambda on_outcome, on_search: ModeRunner(
                    loaded.engine,
                    config,
                    environment=loaded.environment,
                    plain_environment=loaded.plain_environment,
                    concurrency=self.concurrency,
                    canonical=sameness(settings["data"]),
                    best_by="value" if loaded.has_value_head else "logprob",
                    on_outcome=on_outcome,
                    on_search=on_search,
                ),
                samples=settings["samples"],
                keep_trees=self.keep_trees,
                on_outcome=live.show,
            )
            try:
                work.run()
            finally:
                folder.close()
                loaded.close()
        return self._finish(grader)

    def score(self, predictions: Path) -> int:
        """Grade a reference's predictions as a run of mode ``single``; the exit code."""
        from lapha.evaluation.reference import read_predictions

        check(predictions.is_file(), "predictions", "a *.pred.jsonl file", str(predictions))
        outcomes = read_predictions(predictions, self.questions)
        folder = self._open()
        known = folder.done("single")
        for outcome in outcomes:
            if outcome.index not in known:
                folder.add(outcome)
        folder.close()
        return self._finish(self._grader())

    def _open(self) -> Any:
        from lapha.evaluation.run_folder import RunFolder

        settings = {**self.settings, "questions": fingerprint(self.questions), "problems": len(self.questions)}
        folder = RunFolder(self.folder, settings, force=self.force, may_add=["judge", "judge_is_policy"])
        if folder.added:
            from lapha.cli._progress import console

            console().print(f"this run was graded without a judge; now {self.judge_model} judges what nothing else can")
        return folder

    def _grader(self) -> Grader:
        data, judge = self.settings["data"], (self.judge_url, self.judge_model)
        return Grader(data, self.selection, self.questions, self.graders, self.folder, *judge)

    def _finish(self, grader: Grader) -> int:
        from lapha.evaluation.results import grade_run
        from lapha.evaluation.run_folder import write_problems

        graded = grade_run(self.folder, grader.verdicts)
        write_problems(self.folder, grader.problems())
        grader.close()
        return print_outcome(graded)


def selection_of(settings: dict[str, Any]) -> Selection:
    """Which problems a run's settings choose."""
    return Selection(settings["limit"], parse_shard(settings["shard"]), settings["shuffle_seed"])


def load_selected(settings: dict[str, Any]) -> list[str]:
    """The questions of a run, in order.

    Raises:
        ValueError: data that cannot be read, or none selected.
    """
    selection = selection_of(settings)
    if settings["data"] != "tiny":
        return load_questions(settings["data"], selection)
    from lapha.tiny import problems

    count = settings["limit"] or TINY_PROBLEMS
    found = problems.generate(count, seed=settings["seed"], split="heldout")
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
    console().print(f"results: {graded.folder}", highlight=False)
    failed = failures([outcome for outcomes in graded.outcomes.values() for outcome in outcomes])
    for line in failed:
        console().print(f"failed: {line}", style="red", markup=False, highlight=False)
    return 1 if failed else 0


def _urls(text: str | None) -> list[str]:
    return [url.strip() for url in text.split(",") if url.strip()] if text else []


def search_config(loaded: Any, settings: dict[str, Any]) -> Any:
    """The search of value mode: the model's defaults with the command's options."""
    from lapha.search import SearchConfig

    sampling = loaded.sampling
    for name in ("temperature", "max_tokens"):
        if settings[name] is not None:
            sampling = dataclasses.replace(sampling, **{name: settings[name]})
    return SearchConfig(
        simulations=settings["simulations"],
        breadth=loaded.breadth if settings["breadth"] is None else settings["breadth"],
        depth_limit=loaded.depth_limit,
        c_puct=loaded.c_puct if settings["c_puct"] is None else settings["c_puct"],
        max_expands=loaded.max_expands if settings["max_expands"] is None else settings["max_expands"],
        prune_every=settings["prune_every"],
        sampling=sampling,
        seed=settings["seed"],
        answer=settings["answer"] or ("value" if loaded.has_value_head else "vote"),
    )


def _check_search(settings: dict[str, Any]) -> None:
    """Raise `ValueError` where no model could be searched with these settings."""
    from types import SimpleNamespace

    from lapha.types import SamplingParams

    depth = 1 if settings["depth"] is None else settings["depth"]
    any_model = SimpleNamespace(
        sampling=SamplingParams(), breadth=1, depth_limit=depth, c_puct=1.0, max_expands=1, has_value_head=True
    )
    search_config(any_model, settings)


def print_results(graded: Any) -> None:
    """The table on standard output."""
    from rich.console import Console
    from rich.table import Table

    from lapha.evaluation.results import RESULT_COLUMNS, result_rows

    table = Table(box=None)
    for column in RESULT_COLUMNS:
        table.add_column(column, justify="left" if column == "mode" else "right", no_wrap=True)
    for row in result_rows(graded):
        table.add_row(*row)
    Console(width=max(Console().width, 120)).print(table)
    for note in graded.notes():
        Console().print(note, highlight=False)
