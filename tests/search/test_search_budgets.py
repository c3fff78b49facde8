"""Budgets, deadlines, and questions that come as a stream."""

import asyncio
import dataclasses
import time

import pytest
from search_helpers import QUESTIONS, SMALL, CountingEnvironment, search_all

from lapha.engines.scripted import ScriptedEngine
from lapha.search import Search, SearchConfig
from lapha.types import SamplingParams, Status


def test_token_budget_of_a_tree():
    config = dataclasses.replace(SMALL, simulations=1000, max_tokens=100)
    for result in search_all(QUESTIONS[:3], config=config):
        tree = result.tree
        last = sum(len(tree.sampled_ids(n)) for n in range(len(tree)) if tree.simulation[n] == tree.simulation.max())
        assert result.stop_reason == "max_tokens"
        assert result.stats["sampled_tokens"] == tree.sampled_tokens >= 100 > tree.sampled_tokens - last


def test_token_budget_of_a_run():
    """The budget is spent while the first two trees are in flight: both are cut short, no other one starts."""
    search = Search(ScriptedEngine(latency=0.001), config=dataclasses.replace(SMALL, simulations=1000))
    results = list(search.run(QUESTIONS, concurrency=2, max_tokens=150))
    assert [r.index for r in results] == [0, 1]
    assert {r.stop_reason for r in results} == {"run_max_tokens"}
    assert 150 <= search.meter.tokens < 150 + 2 * 4 * 30
    assert all(len(r.tree) > 1 for r in results)


def test_deadline_of_a_tree_cuts_a_slow_engine_short():
    """The second request hangs for a minute: the tree ends in time, with its first expansion."""
    engine = ScriptedEngine()
    slow = engine.sample

    async def sample(request):
        if "node 0," not in request.name:
            await asyncio.sleep(60)
        return await slow(request)

    engine.sample = sample
    began = time.monotonic()
    config = SearchConfig(first_chain=False, simulations=50, max_expands=1, deadline_s=0.2)
    results = search_all(QUESTIONS[:3], engine, config)
    assert time.monotonic() - began < 5
    for result in results:
        assert result.stop_reason == "deadline"
        assert len(result.tree) == 7
        assert len(result.latents) == 7


def test_deadline_of_a_run():
    began = time.monotonic()
    search = Search(ScriptedEngine(latency=0.02), config=dataclasses.replace(SMALL, simulations=10_000, prune_every=0))
    results = list(search.run(QUESTIONS, concurrency=4, deadline_s=0.3))
    assert time.monotonic() - began < 5
    assert [r.index for r in results] == [0, 1, 2, 3]
    assert {r.stop_reason for r in results} <= {"run_deadline", "exhausted"}
    assert results[0].stop_reason == "run_deadline"


def test_a_request_asks_for_no_more_tokens_than_the_context_has_room_for():
    asked = []
    engine = ScriptedEngine(fail=lambda request: asked.append(request))
    engine.environment = CountingEnvironment(engine.environment)
    engine.environment.context_limit = 60
    search_all(["q?"], engine, dataclasses.replace(SMALL, sampling=SamplingParams(max_tokens=45)))
    for request in asked:
        room = 60 - len(request.state.token_ids) - len(request.bridge_ids)
        assert request.params.max_tokens == min(45, max(room, 1))
    assert any(request.params.max_tokens < 45 for request in asked)


@pytest.mark.parametrize("environment_limit", [None, 60, 1000])
def test_a_context_ends_at_the_engines_window(environment_limit):
    """Whatever the environment allows: an engine would refuse the next request, and with it the whole tree."""
    asked = []
    engine = ScriptedEngine(answer_rate=0.0, depth_limit=1000, fail=lambda request: asked.append(request))
    engine.environment = CountingEnvironment(engine.environment)
    if environment_limit is not None:
        engine.environment.context_limit = environment_limit
    engine.context_limit = 45
    config = dataclasses.replace(SMALL, depth_limit=1000, simulations=60, max_expands=1)
    [result] = search_all(["q?"], engine, config)
    assert result.error is None
    ended = [node for node, status in enumerate(result.tree.status) if status == Status.CONTEXT_LIMIT]
    assert ended
    for request in asked:
        length = len(request.state.token_ids) + len(request.bridge_ids)
        assert length < 45
        assert length + request.params.max_tokens <= 45
    assert not any(result.tree.children[node] for node in ended)
    assert not engine.environment.open


def test_a_stream_of_questions_is_answered_as_it_comes():
    """The next question comes only after the first is answered: the search must not wait for it."""

    async def main():
        answered = asyncio.Event()

        async def stream():
            yield "first?"
            await asyncio.wait_for(answered.wait(), 20)
            yield "second?"

        seen = []
        async for result in Search(ScriptedEngine(), config=SMALL).arun(stream(), concurrency=8):
            seen.append(result.question)
            answered.set()
        return seen

    assert asyncio.run(main()) == ["first?", "second?"]


def test_the_deadline_of_a_run_ends_the_wait_for_questions():
    async def main():
        async def stream():
            yield "first?"
            await asyncio.sleep(60)

        return [r.question async for r in Search(ScriptedEngine(), config=SMALL).arun(stream(), deadline_s=1.0)]

    began = time.monotonic()
    assert asyncio.run(main()) == ["first?"]
    assert time.monotonic() - began < 20
