"""`Search`: many trees at once over one engine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lapha._checks import check
from lapha._identity import identity_of
from lapha.geometry import PolarPoints
from lapha.search.answers import AnswerChoice, Canonical, answer_rule
from lapha.search.canonical import normalize_answer
from lapha.search.config import SearchConfig
from lapha.search.grow import TreeSearch
from lapha.search.hooks import RunMeter, Services, Stop, TerminalValue, never, seeing_steps
from lapha.search.journal import Journal
from lapha.search.progress import progress_bar
from lapha.search.result import SearchResult
from lapha.search.seeds import QuestionKeys
from lapha.tree import SearchTree
from lapha.types import Environment, Evaluation, Evaluator, Policy

_PARTS = ("policy", "evaluator", "environment", "terminal_value", "stop", "canonical")

# these ended before their time: a resumed run searches them again
NOT_KEPT = ("error", "run_deadline", "run_max_tokens")

OnError: TypeAlias = Literal["raise", "record"]

logger = logging.getLogger(__name__)


class Search:
    """Value-guided tree search for questions, many trees at once.

    With a deterministic engine the results depend on settings, seed and questions alone: not on concurrency, on the
    order in which requests come back, or on what else is asked beside a question.

    Args:
        policy: samples steps.
        evaluator: gives h(s) and v̂(s); default: the policy, if it is an `Evaluator` too.
        environment: the agent protocol; default: the policy's own (its attribute `environment`).
        config: settings.
        terminal_value: ``(tree, node, evaluation) -> value`` of a node that ended, or with the environment's `Step` as a
            fourth argument; default: v̂, and 0 where unknown.
        stop: ``(tree) -> bool``, asked after every simulation: end this tree now; default: never.
        canonical: what makes two answers the same, for the rules that vote.
        identity: what `identity` cannot tell by itself, for journals: text that is added to it, or for some of the parts
            named here a text that stands for each.

    Raises:
        ValueError: a part is missing or does not implement its protocol.
    """

    def __init__(
        self,
        policy: Policy,
        evaluator: Evaluator | None = None,
        environment: Environment | None = None,
        config: SearchConfig | None = None,
        *,
        terminal_value: TerminalValue | None = None,
        stop: Stop | None = None,
        canonical: Canonical = normalize_answer,
        identity: str | Mapping[str, str] | None = None,
    ) -> None:
        check(isinstance(policy, Policy), "policy", "a Policy (async sample)", type(policy).__name__)
        judge = policy if evaluator is None else evaluator
        check(isinstance(judge, Evaluator), "evaluator", "an Evaluator (async evaluate)", type(judge).__name__)
        world = getattr(policy, "environment", None) if environment is None else environment
        check(isinstance(world, Environment), "environment", "an Environment", type(world).__name__)
        check(config is None or isinstance(config, SearchConfig), "config", "a SearchConfig", type(config).__name__)
        self.policy = policy
        self.evaluator: Evaluator = judge  # type: ignore[assignment]
        self.environment: Environment = world  # type: ignore[assignment]
        self.config = config or SearchConfig()
        self._resolved = _with_depth(self.config, getattr(world, "depth_limit", None))
        self.terminal_value = terminal_value or own_estimate
        self.stop = stop or never
        self.canonical = canonical
        _check_identity(identity)
        self._identity = identity
        self.meter = RunMeter()
        """Counts and times of the latest run."""
        self.unclaimed: list[SearchResult] = []
        """Results that were finished, but not yet handed out, when `run` was interrupted."""

    def run(
        self,
        questions: Iterable[str],
        concurrency: int = 32,
        progress: bool = False,
        *,
        journal: str | Path | None = None,
        max_tokens: int | None = None,
        deadline_s: float | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[SearchResult]:
        """Search all questions; yields their results in the order of the questions.

        Trees grow while the iterator is being asked for its next result. An interrupt (Ctrl-C) ends the run: results
        already yielded, and those in `unclaimed` or in the journal, stay good.

        Args:
            questions: read as places become free, so that a generator may be endless.
            concurrency: trees in flight at once, ≥ 1.
            progress: show a progress bar (needs the extra ``llm``).
            journal, max_tokens, deadline_s, on_error: as for `arun`.

        Raises:
            ValueError: a bad argument, or a question that cannot be asked, with ``on_error="raise"``.
            RuntimeError: an event loop is running in this thread: use `arun` there.
        """
        _check_no_running_loop()
        check(not isinstance(questions, str), "questions", "several questions", "a single string")
        _check_run(concurrency, max_tokens, deadline_s, on_error)
        results = self.arun(
            questions,
            concurrency,
            journal=journal,
            max_tokens=max_tokens,
            deadline_s=deadline_s,
            on_error=on_error,
        )
        return self._run(questions, results, progress)

    def _run(
        self, questions: Iterable[str], results: AsyncGenerator[SearchResult, None], progress: bool
    ) -> Iterator[SearchResult]:
        waiting: dict[int, SearchResult] = {}
        self.unclaimed = []
        expected = 0
        with progress_bar(progress, questions, self) as show, asyncio.Runner() as runner:
            try:
                while (result := runner.run(_advance(results))) is not None:
                    show(result)
                    waiting[result.index] = result
                    while expected in waiting:
                        yield waiting.pop(expected)
                        expected += 1
                yield from (waiting.pop(index) for index in sorted(waiting))
            finally:
                self.unclaimed = [waiting[index] for index in sorted(waiting)]
                runner.run(_close(results))

    async def arun(
        self,
        questions: Iterable[str] | AsyncIterable[str],
        concurrency: int = 32,
        *,
        journal: str | Path | None = None,
        max_tokens: int | None = None,
        deadline_s: float | None = None,
        on_error: OnError = "raise",
    ) -> AsyncGenerator[SearchResult, None]:
        """Search all questions; yields results as trees finish. Closing the iterator cancels the trees in flight.

        Args:
            questions: an iterable or async iterable, read as places become free.
            concurrency: trees in flight at once, ≥ 1.
            journal: folder of a journal (made if absent): finished trees are written there, and those already in it
                are yielded without being searched again. See `lapha.search.Journal`.
            max_tokens: tokens that the whole run may sample; then trees end with what they have, and questions that
                have not begun are left out.
            deadline_s: seconds for the whole run, with the same consequence.
            on_error: ``"raise"`` ends the run with the first tree that fails; ``"record"`` logs it and yields a result
                whose `stop_reason` is ``"error"``. Trees that failed, or that a budget of the run cut short, are not
                kept in the journal.

        Raises:
            ValueError: a bad argument, or a journal of other settings.
        """
        _check_run(concurrency, max_tokens, deadline_s, on_error)
        self.meter = RunMeter(max_tokens=max_tokens, deadline=deadline_s and time.monotonic() + deadline_s)
        book = Journal.open(journal, self.config, self.identity()) if journal is not None else None
        flight, source = _Flight(self), _keyed(questions)
        asking: asyncio.Future[tuple[int, str, str] | None] | None = None
        more = True
        try:
            while True:
                more = more and self.meter.spent() is None
                if more and asking is None and len(flight) < concurrency:
                    asking = asyncio.ensure_future(anext(source, None))
                    asking.add_done_callback(flight.ring)
                if not len(flight) and not (more and asking is not None):
                    break
                await flight.news()  # a question or a finished tree, whichever comes first
                if asking is not None and asking.done():
                    item, asking = asking.result(), None
                    if item is None:
                        more = False
                    elif book is not None and item[2] in book:
                        self.meter.resumed += 1
                        yield book.read(item[2], item[0])
                    else:
                        flight.take_off(*item)
                for result in flight.landed(book, on_error):
                    yield result
        finally:
            await flight.cancel(asking)
            self.meter.finish()
            if book is not None:
                book.close()

    def identity(self) -> dict[str, Any]:
        """All that determines a tree besides question and settings: a journal keeps it, and refuses another.

        Reads all weights of the policy and the evaluator that are in this process.
        """
        given = self._identity
        told = dict(given) if isinstance(given, Mapping) else {}
        parts: dict[str, Any] = {name: getattr(self, name) for name in _PARTS if name not in told}
        if "policy" not in told and self.evaluator is self.policy:
            parts["evaluator"] = "the policy"
        described = {**identity_of(parts), **told}
        return described if given is None or told else {**described, "identity": given}

    def choose(self, tree: SearchTree, latents: PolarPoints | None) -> AnswerChoice | None:
        """The answer that `config.answer` chooses from a finished tree."""
        return answer_rule(self.config.answer)(tree, latents, self.canonical)


class _Flight:
    """Trees in flight, and those that have landed since it was last asked."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._services = Services(
            policy=search.policy,
            evaluator=search.evaluator,
            environment=search.environment,
            terminal_value=seeing_steps(search.terminal_value),
            stop=search.stop,
            meter=search.meter,
        )
        self._trees: dict[asyncio.Task[None], tuple[int, float, TreeSearch]] = {}
        self._ended: list[asyncio.Task[None]] = []
        self._bell = asyncio.Event()

    def __len__(self) -> int:
        return len(self._trees)

    def take_off(self, index: int, question: str, key: str) -> None:
        growing = TreeSearch(question, key, self._services, self._search._resolved)
        task = asyncio.create_task(growing.run(), name=f"search {key}")
        self._trees[task] = (index, time.monotonic(), growing)
        task.add_done_callback(self._ended.append)
        task.add_done_callback(self.ring)

    def ring(self, _: Any) -> None:
        """Something has happened that the scheduler waits for."""
        self._bell.set()

    async def news(self) -> None:
        """Wait until something has happened, or the run's deadline has come."""
        deadline = self._services.meter.deadline
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._bell.wait(), deadline and max(deadline - time.monotonic(), 0.0))
        self._bell.clear()

    def landed(self, book: Journal | None, on_error: str) -> list[SearchResult]:
        """The trees that have ended since the last call; they are in the journal before anyone sees them."""
        results = []
        while self._ended:
            task = self._ended.pop(0)
            error = task.exception()
            if error is not None and on_error == "raise":
                raise error
            result = self._finish(task, error)
            if book is not None and result.stop_reason not in NOT_KEPT:
                book.append(result)
            results.append(result)
        return results

    def _finish(self, task: asyncio.Task[None], error: BaseException | None) -> SearchResult:
        index, started, growing = self._trees.pop(task)
        latents = growing.latents.points() if len(growing.latents) else PolarPoints.origin((1,), 1)
        choice = self._search.choose(growing.tree, latents)
        meter = self._services.meter
        meter.trees += 1
        meter.nodes += len(growing.tree)
        meter.simulations += growing.counts["simulations"]
        if error is not None:
            meter.failed += 1
            logger.error("question %d (%s) failed: %r", index, growing.key, error, exc_info=error)
        return SearchResult(
            question=growing.question,
            index=index,
            key=growing.key,
            answer=choice.answer if choice else None,
            value=float(growing.tree.value[choice.node]) if choice else math.nan,
            node=choice.node if choice else None,
            tree=growing.tree,
            latents=latents,
            stop_reason=growing.stop_reason,
            error=None if error is None else f"{type(error).__name__}: {error}",
            seconds=time.monotonic() - started,
            stats=dict(growing.counts),
        )

    async def cancel(self, asking: asyncio.Future[Any] | None) -> None:
        """End all trees in flight and wait until they have let go of what they held."""
        tasks: list[asyncio.Future[Any]] = [*self._trees, *([] if asking is None else [asking])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._trees.clear()


def _check_identity(identity: Any) -> None:
    if isinstance(identity, Mapping):
        good = set(identity) <= set(_PARTS) and all(isinstance(text, str) for text in identity.values())
    else:
        good = identity is None or isinstance(identity, str)
    check(good, "identity", f"text, or a mapping to text of some of {', '.join(_PARTS)}", repr(identity))


def own_estimate(tree: SearchTree, node: int, evaluation: Evaluation) -> float:
    """The default terminal value: the evaluator's v̂, and 0 where it knows none."""
    return 0.0 if math.isnan(evaluation.value) else evaluation.value


def _with_depth(config: SearchConfig, own: int | None) -> SearchConfig:
    """The settings with the depth limit that holds: the environment's `own`, or a smaller one of the settings."""
    given = config.depth_limit
    if given is not None and own is not None and given != own:
        smaller = min(given, own)
        logger.warning("depth_limit: the settings say %d and the environment %d; %d holds", given, own, smaller)
        return dataclasses.replace(config, depth_limit=smaller)
    return config if own is None or given == own else dataclasses.replace(config, depth_limit=own)


async def _keyed(questions: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[tuple[int, str, str]]:
    """(index, question, key) of every question."""
    keys, index = QuestionKeys(), 0
    async for question in _asynchronous(questions):
        check(isinstance(question, str), f"questions[{index}]", "a string", type(question).__name__)
        yield index, question, keys.key(question)
        index += 1


async def _asynchronous(questions: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    check(not isinstance(questions, str), "questions", "several questions", "a single string")
    if isinstance(questions, AsyncIterable):
        async for question in questions:
            yield question
    else:
        for question in questions:
            yield question


async def _advance(results: AsyncIterator[SearchResult]) -> SearchResult | None:
    return await anext(results, None)


async def _close(results: AsyncGenerator[SearchResult, None]) -> None:
    await results.aclose()


def _check_no_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("run: an event loop is already running in this thread; use `async for … in search.arun(…)`")


def _check_run(concurrency: int, max_tokens: int | None, deadline_s: float | None, on_error: str) -> None:
    check(concurrency >= 1, "concurrency", "an integer >= 1", concurrency)
    check(on_error in ("raise", "record"), "on_error", "'raise' or 'record'", repr(on_error))
    for name, limit in (("max_tokens", max_tokens), ("deadline_s", deadline_s)):
        check(limit is None or limit > 0, name, "a number > 0", limit)
