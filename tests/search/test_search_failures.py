"""What goes wrong: engines that fail, interrupts, turns that must be closed."""

import asyncio
import dataclasses
import gc
import signal

import pytest
from search_helpers import QUESTIONS, SMALL, CountingEnvironment, search_all

from lapha.engines.scripted import ScriptedEngine
from lapha.search import Search, SearchConfig
from lapha.types import Status


class Broken(RuntimeError):
    pass


def fail_on(text):
    return lambda request: Broken(f"no luck with {request.name}") if text in request.name else None


def test_an_engine_error_ends_the_run_by_default():
    engine = ScriptedEngine(fail=fail_on("node 3, "))
    engine.environment = CountingEnvironment(engine.environment)
    with pytest.raises(Broken, match=r"no luck with question .*, node 3, expansion 1"):
        search_all(QUESTIONS, engine)
    assert not engine.environment.open


def test_an_engines_own_time_out_is_no_deadline():
    engine = ScriptedEngine(
        fail=lambda request: TimeoutError("too slow") if "node 0, expansion 2" in request.name else None
    )
    with pytest.raises(TimeoutError, match="too slow"):
        search_all(["q?"], engine, dataclasses.replace(SMALL, deadline_s=100.0))


def test_an_engine_error_can_be_recorded(caplog):
    search = Search(ScriptedEngine(), config=SMALL)
    key = next(search.run([QUESTIONS[4]])).key
    engine = ScriptedEngine(fail=fail_on(f"{key}, node 0, expansion 2"))
    search = Search(engine, config=dataclasses.replace(SMALL, prune_every=0))
    results = list(search.run(QUESTIONS, on_error="record"))
    assert [r.stop_reason for r in results].count("error") == search.meter.failed == 1
    bad = results[4]
    assert "Broken: no luck with" in bad.error
    assert len(bad.tree) == len(bad.latents) > 1, "what was grown before the error is kept"
    assert "no luck" in caplog.text


def test_a_question_that_cannot_be_asked_is_named():
    with pytest.raises(ValueError, match="question: expected text that is not blank"):
        search_all(["good?", " "])
    results = search_all(["good?", " "], on_error="record")
    assert [r.error is None for r in results] == [True, False]
    assert results[1].answer is None
    assert len(results[1].latents) == len(results[1].tree) == 1


@pytest.mark.parametrize("parallel", [1, 4])
def test_every_turn_is_closed_exactly_once(parallel):
    engine = ScriptedEngine(latency=0.0005)
    engine.environment = CountingEnvironment(engine.environment, step_delay=0.0002)
    search_all(QUESTIONS, engine, dataclasses.replace(SMALL, parallel_expansions=parallel), concurrency=4)
    assert engine.environment.opened > 100
    assert not engine.environment.open


def test_turns_are_closed_while_the_tree_grows():
    """An open sandbox costs memory: a node that can grow no more has none."""
    engine = ScriptedEngine(answer_rate=0.9)
    environment = engine.environment = CountingEnvironment(engine.environment)
    seen = []

    def stop(tree):
        live = [n for n in range(len(tree)) if tree.status[n] == Status.OPEN and tree.expansions[n] < 2]
        seen.append((len(environment.open), len(live)))
        return False

    list(Search(engine, config=SearchConfig(first_chain=False, simulations=40, prune_every=0), stop=stop).run(["q?"]))
    assert seen
    assert all(opened == live for opened, live in seen)


def test_closing_the_iterator_cancels_trees_and_closes_turns():
    async def main():
        engine = ScriptedEngine(latency=0.001, jitter=5.0)
        environment = engine.environment = CountingEnvironment(engine.environment, step_delay=0.001)
        results = Search(engine, config=SMALL).arun(QUESTIONS, concurrency=12)
        await anext(results)
        assert environment.open
        await results.aclose()
        return environment.open, [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]

    assert asyncio.run(main()) == (set(), [])


@pytest.fixture
def python_s_sigint():
    """Ctrl-C as Python has it, also where the tests run in a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_leaves_what_was_finished(python_s_sigint):
    """Ctrl-C in the middle of a run: KeyboardInterrupt, nothing left running, finished results at hand."""
    engine = ScriptedEngine(latency=0.001)
    environment = engine.environment = CountingEnvironment(engine.environment)
    finished = []

    def stop(tree):
        if tree.question == QUESTIONS[8]:
            signal.raise_signal(signal.SIGINT)
        # question 3 is slow, so that later ones wait for it to be handed out
        return tree.question != QUESTIONS[3] and len(tree) > 10

    search = Search(engine, config=dataclasses.replace(SMALL, simulations=500), stop=stop)
    with pytest.raises(KeyboardInterrupt):
        finished.extend(search.run(QUESTIONS, concurrency=3))
    assert [r.index for r in finished] == [0, 1, 2]
    assert {r.index for r in search.unclaimed} <= {4, 5, 6, 7, 8}
    assert {4, 5} <= {r.index for r in search.unclaimed}
    assert not environment.open
    gc.collect()


def test_run_inside_a_loop_says_what_to_do():
    async def main():
        Search(ScriptedEngine()).run(["q?"])

    with pytest.raises(RuntimeError, match=r"search\.arun"):
        asyncio.run(main())
