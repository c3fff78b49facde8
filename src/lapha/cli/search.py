"""``lapha search``: value-guided search for one question."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lapha._options import part
from lapha.cli._flags import with_options
from lapha.cli._models import SHOWN_DEFAULTS
from lapha.evaluation.config import ModelConfig
from lapha.search import SearchConfig

_REFRESH_S = 0.1
NO_ANSWER = 3
"""Exit status of a search in which no leaf answers."""


@dataclass(frozen=True)
class SearchCommandConfig:
    """What ``lapha search`` can be told about the model and the search."""

    model: ModelConfig = part(ModelConfig, "The model and its tools.")
    search: SearchConfig = part(lambda: SearchConfig(simulations=32), "The search.")


@with_options(SearchCommandConfig, shown=SHOWN_DEFAULTS)
def search(
    question: Annotated[str, typer.Argument(help="What to answer. '-' reads it from standard input.")],
    given: dict[str, Any],
    save: Annotated[
        Path | None, typer.Option(help="Write the tree here as JSON (latents beside it), after Ctrl-C too.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a page in which the tree is read here.")] = None,
    show: Annotated[
        Literal["path", "tree", "none"], typer.Option(help="What to print beside the answer: its steps, or the tree.")
    ] = "path",
) -> int:
    """Search for an answer, step by step, guided by the value head."""
    from lapha._checks import check
    from lapha._store import check_writable
    from lapha.cli._models import load_model, resolve
    from lapha.cli._progress import console

    for path in filter(None, (save, plot)):
        check_writable(path)
    if question == "-":
        question = typer.get_text_stream("stdin").read().strip()
    check(bool(question.strip()), "question", "text that is not blank", repr(question))
    run = resolve(SearchCommandConfig, given)
    config, model = run.search, run.model.model
    loaded = load_model(run.model, config.depth_limit)
    if not loaded.has_value_head:
        console().print(
            f"{model} has no value head: every state is worth 0.5, so the policy's own probabilities guide the "
            "search, and the answer is chosen by vote. Train a head with LaPhaTrainer, or pass --value-head.",
            style="yellow",
            markup=False,
        )
    result = _run(loaded, question, config, save)
    _show(result, show)
    if save is not None:
        result.save(save)
    if plot is not None:
        from lapha.cli._pictures import picture_of
        from lapha.viz import write_tree_page

        write_tree_page(picture_of(result), plot)
    if result.error is not None:
        console().print(result.error, style="red", markup=False)
        return 1
    return 0 if result.answer is not None else NO_ANSWER


def _run(loaded: Any, question: str, config: Any, save: Path | None) -> Any:
    """Search with a live display. Ctrl-C ends the tree after the step at hand, and saves it if that is wanted."""
    from lapha.cli._grading import sameness
    from lapha.cli._progress import console, progress_bar
    from lapha.search import Search

    with progress_bar(transient=True) as bar, _first_interrupt(save is not None) as interrupted:
        task = bar.add_task("searching", total=config.simulations, status="")

        shown = -_REFRESH_S

        def watch(tree: Any) -> bool:
            nonlocal shown
            # going over the tree after every step would slow a large one down
            if time.monotonic() >= shown + _REFRESH_S:
                shown = time.monotonic()
                answered = tree.answered()
                best = float(tree.value[answered].max()) if len(answered) else float("nan")
                done = min(config.simulations, int(tree.simulation.max(initial=0)))
                status = f"{len(tree)} nodes, {len(answered)} answers, best v̂ {best:.2f}, {tree.sampled_tokens} tokens"
                bar.update(task, completed=done, status=status)
            return interrupted.is_set()

        search = Search(
            loaded.engine,
            environment=loaded.environment,
            config=config,
            stop=watch,
            canonical=sameness(loaded.name),
        )
        try:
            (result,) = search.run([question], concurrency=1)
        finally:
            loaded.close()
    if interrupted.is_set() and save is not None:
        result.save(save)
        console().print(f"interrupted: the tree of {len(result.tree)} nodes is in {save}", markup=False)
        raise KeyboardInterrupt
    return result


@contextlib.contextmanager
def _first_interrupt(wanted: bool) -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, which then interrupts nothing; the second does. Where it is not wanted, the first does."""
    from lapha.cli._progress import console

    came = threading.Event()
    default = signal.getsignal(signal.SIGINT)
    if not wanted or threading.current_thread() is not threading.main_thread() or not callable(default):
        yield came
        return

    def note(*_: Any) -> None:
        signal.signal(signal.SIGINT, default)
        came.set()
        console().print("finishing this step, to save the tree; Ctrl-C again ends at once")

    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, default)


def _show(result: Any, what: str) -> None:
    from rich.panel import Panel
    from rich.text import Text

    from lapha.cli._progress import console

    tree = result.tree
    if what == "tree":
        console().print(result)
    elif what == "path" and result.node is not None:
        steps = Text("\n\n").join(Text(tree.text[node].strip()) for node in tree.path(result.node)[1:])
        console().print(Panel(steps, title="chosen line of reasoning", title_align="left"))
    summary = f"{len(tree)} nodes, {len(tree.answered())} leaves that answer, {tree.sampled_tokens} tokens, {result.seconds:.1f} s"
    console().print(f"v̂ {result.value:.3f}; {summary}" if result.answer is not None else summary)
    print(result.answer if result.answer is not None else "(no leaf answers)")
