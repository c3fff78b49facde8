"""What ``lapha eval`` does: load, search, grade, write."""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha.evaluation.data import Selection, fingerprint, load_problems, load_questions, parse_shard
from lapha.evaluation.grading import Verdict
from lapha.evaluation.modes import Outcome, check_modes

TINY_PROBLEMS = 100


class EvaluationCommand:
    """One ``lapha eval``.

    Args:
        settings: the command's options that decide results; kept in the run's config.
        folder: of the run.
        concurrency: trees and chains in flight at once.
        keep_trees: save searched trees.
        force: start anew.

    Raises:
        ValueError: options that cannot work, before any model is loaded.
    """

    def __init__(
        self, settings: dict[str, Any], folder: Path, *, concurrency: int, keep_trees: bool, force: bool
    ) -> None:
        check(len(settings["modes"]) > 0, "modes", "at least one mode", "none")
        check_modes(settings["modes"], settings["samples"])
        self.settings, self.folder = settings, folder
        self.concurrency, self.keep_trees, self.force = concurrency, keep_trees, force
        self.selection = Selection(settings["limit"], parse_shard(settings["shard"]), settings["shuffle_seed"])
        self.questions = self._questions()

    def _questions(self) -> list[str]:
        if self.settings["data"] != "tiny":
            return load_questions(self.settings["data"], self.selection)
        from lapha.tiny import problems

        count = self.settings["limit"] or TINY_PROBLEMS
        found = problems.generate(count, seed=self.settings["seed"], split="heldout")
        return [found[index].question for index in self.selection.indices(count)]

    def run(self, *, graders: int, judge_url: str | None, judge_model: str) -> int:
        from lapha.cli._models import load_model
        from lapha.cli._progress import console
        from lapha.evaluation.modes import ModeRunner
        from lapha.evaluation.results import grade_run
        from lapha.evaluation.run_folder import REPORT, RunFolder
        from lapha.evaluation.runner import EvaluationRun, failures

        settings = {**self.settings, "questions": fingerprint(self.questions), "problems": len(self.questions)}
        folder = RunFolder(self.folder, settings, force=self.force)
        grader = Grader(
            self.settings["data"], self.selection, self.questions, graders, self.folder, judge_url, judge_model
        )
        loaded = load_model(
            self.settings["model"],
            value_head=self.settings["value_head"],
            gguf_file=self.settings["gguf_file"],
            tools=self.settings["tools"],
            sandbox=self.settings["sandbox"],
            depth_limit=self.settings["depth"],
            context_limit=self.settings["context_limit"],
        )
        config = search_config(loaded, self.settings)
        with LiveProgress(folder, len(self.questions) * len(self.settings["modes"]), grader) as live:
            work = EvaluationRun(
                folder,
                self.questions,
                self.settings["modes"],
                lambda on_outcome, on_search: ModeRunner(
                    loaded.engine,
                    config,
                    environment=loaded.environment,
                    plain_environment=loaded.plain_environment,
                    concurrency=self.concurrency,
                    on_outcome=on_outcome,
                    on_search=on_search,
                ),
                samples=self.settings["samples"],
                keep_trees=self.keep_trees,
                on_outcome=live.show,
            )
            try:
                work.run()
            finally:
                folder.close()
                loaded.engine.close()
        graded = grade_run(self.folder, grader.verdicts)
        grader.close()
        print_results(graded)
        if _can_draw():
            from lapha.evaluation.report import write_run_report

            write_run_report([self.folder], self.folder / REPORT)
        failed = failures(folder.outcomes)
        console().print(f"results: {self.folder}")
        for line in failed:
            console().print(f"[red]failed: {line}", highlight=False)
        return 1 if failed else 0


def search_config(loaded: Any, settings: dict[str, Any]) -> Any:
    """The search of value mode: the model's defaults with the command's options."""
    from lapha.search import SearchConfig

    sampling = loaded.sampling
    for name in ("temperature", "max_tokens"):
        if settings[name] is not None:
            sampling = dataclasses.replace(sampling, **{name: settings[name]})
    return SearchConfig(
        simulations=settings["simulations"],
        breadth=settings["breadth"] or loaded.breadth,
        depth_limit=loaded.depth_limit,
        prune_every=settings["prune_every"],
        sampling=sampling,
        seed=settings["seed"],
        answer=settings["answer"] or ("value" if loaded.has_value_head else "vote"),
    )


class Grader:
    """Verdicts on (index, answer) pairs. It alone reads gold answers, and no search ever sees it.

    Args:
        data, selection, questions: the run's problems.
        workers: grader processes.
        folder: the run's, for the judge's cache.
        judge_url, judge_model: the judge, or None.
    """

    def __init__(
        self,
        data: str,
        selection: Selection,
        questions: Sequence[str],
        workers: int,
        folder: Path,
        judge_url: str | None = None,
        judge_model: str = "",
    ) -> None:
        from lapha.evaluation.grader_pool import GraderPool

        self.questions = list(questions)
        self._tiny = data == "tiny"
        self._gold = [] if self._tiny else [problem.answer for problem in load_problems(data, selection)]
        self._pool = None if self._tiny else GraderPool(workers)
        self._known: dict[tuple[int, str], Verdict] = {}
        self._lock = threading.Lock()
        self._judge: Any = None
        if judge_url is not None:
            from lapha.evaluation.judge import Judge

            self._judge = Judge(judge_url, judge_model, folder / "judge.jsonl", key=os.environ.get("LAPHA_JUDGE_KEY"))

    def verdicts(self, pairs: Sequence[tuple[int, str]]) -> list[Verdict]:
        """Final verdicts, with the judge's where nothing else can decide."""
        self.quick(pairs)
        found = [self._known[pair] for pair in pairs]
        if self._judge is None:
            return found
        from lapha.evaluation.judge import grade_with_judge

        return grade_with_judge(found, [(answer, self._gold[index]) for index, answer in pairs], self._judge)

    def quick(self, pairs: Sequence[tuple[int, str]]) -> list[Verdict]:
        """Verdicts without the judge. May be called on any thread."""
        with self._lock:
            new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
            if self._pool is None:
                from lapha.tiny import verify

                fresh = [Verdict(verify(self.questions[index], answer), "exact") for index, answer in new]
            else:
                fresh = self._pool.grade([(answer, self._gold[index]) for index, answer in new])
            self._known.update(zip(new, fresh))
            return [self._known[pair] for pair in pairs]

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
        if self._judge is not None:
            self._judge.close()


class LiveProgress:
    """A progress bar with accuracy so far, tokens a second and the time left. Grading happens on a thread of its own.

    Args:
        folder: the run's; what it holds counts as done.
        total: outcomes in all.
        grader: gives verdicts.
    """

    def __init__(self, folder: Any, total: int, grader: Grader) -> None:
        from lapha.cli._progress import progress_bar

        self._bar = progress_bar()
        self._task = self._bar.add_task("evaluate", total=total, completed=len(folder.outcomes), status="")
        self._grader = grader
        self._waiting: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._grade, name="lapha-grading", daemon=True)
        self._started = time.monotonic()
        self._tokens = 0
        self._right: dict[str, list[bool]] = {}

    def __enter__(self) -> LiveProgress:
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._waiting.put(None)
        self._thread.join(timeout=30)
        self._bar.stop()

    def show(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self._tokens += outcome.tokens
        self._bar.update(self._task, advance=1)
        self._waiting.put(outcome)

    def _grade(self) -> None:
        while (outcome := self._waiting.get()) is not None:
            correct: bool | None = False
            if outcome.answer is not None:
                correct = self._grader.quick([(outcome.index, outcome.answer)])[0].correct
            if correct is not None:
                self._right.setdefault(outcome.mode, []).append(correct)
            shares = ", ".join(f"{mode} {100 * sum(r) / len(r):.0f} %" for mode, r in self._right.items())
            rate = self._tokens / max(1e-9, time.monotonic() - self._started)
            self._bar.update(self._task, status=f"{shares}; {rate:.0f} tokens/s")


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


def _can_draw() -> bool:
    import importlib.util

    found = all(importlib.util.find_spec(module) for module in ("matplotlib", "jinja2"))
    if not found:
        from lapha.cli._progress import console

        console().print("no report.html: it needs pip install 'lapha[viz]'")
    return found
