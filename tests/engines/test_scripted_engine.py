"""The scripted engine: pure functions of the request, and slots that are really limited."""

import asyncio
import time

import pytest
import torch

from lapha.engines import ScriptedEngine
from lapha.engines.scripted import ANSWER, END, _Slots
from lapha.types import Environment, Evaluator, Policy, SampleRequest, SamplingParams, State, Status

PARAMS = SamplingParams(max_tokens=32)


def request(context=(256, 104, 105, 258), bridge=(), n=3, seed=7, params=PARAMS):
    return SampleRequest(State(tuple(context)), tuple(bridge), n, params, seed)


def key(samples):
    return [(s.token_ids, s.logprobs, s.text, s.finish_reason, s.state.token_ids, s.pooled.tolist()) for s in samples]


def test_implements_the_protocols():
    engine = ScriptedEngine()
    assert isinstance(engine, Policy)
    assert isinstance(engine, Evaluator)
    assert isinstance(engine.environment, Environment)


def test_samples_do_not_depend_on_company_or_engine():
    async def run():
        alone = await ScriptedEngine().sample(request())
        busy = ScriptedEngine(latency=0.001, jitter=3.0, capacity=4)
        crowd = await asyncio.gather(*(busy.sample(request(seed=seed)) for seed in (1, 2, 7, 3)))
        return alone, crowd

    alone, crowd = asyncio.run(run())
    assert key(alone) == key(crowd[2])
    assert key(crowd[0]) != key(crowd[1])
    assert len({tuple(s.token_ids) for s in alone}) == 3


def test_index_not_n_decides_a_sample():
    two, five = (asyncio.run(ScriptedEngine().sample(request(n=n))) for n in (2, 5))
    assert key(two) == key(five)[:2]


def test_values_are_the_same_with_and_without_a_handle():
    async def run():
        engine = ScriptedEngine()
        child = (await engine.sample(request()))[0]
        grandchild = (await engine.sample(SampleRequest(child.state, (258,), 2, PARAMS, 9)))[1]
        return grandchild, await engine.evaluate([grandchild.state, State(grandchild.state.token_ids)])

    sample, (incremental, whole) = asyncio.run(run())
    assert torch.equal(incremental.pooled, whole.pooled)
    assert torch.equal(sample.pooled, whole.pooled)
    assert incremental.value == whole.value
    assert 0 <= whole.value <= 1


def test_max_tokens_and_greedy():
    short = asyncio.run(ScriptedEngine().sample(request(params=SamplingParams(max_tokens=2))))
    assert all(len(s.token_ids) == 2 and s.finish_reason == "length" and len(s.logprobs) == 2 for s in short)
    greedy = asyncio.run(ScriptedEngine().sample(request(params=SamplingParams(temperature=0))))
    assert len({tuple(s.token_ids) for s in greedy}) == 1


def test_capacity_is_kept_and_used():
    engine = ScriptedEngine(latency=0.02, capacity=6)

    async def run():
        await asyncio.gather(*(engine.sample(request(seed=seed)) for seed in range(8)))

    start = time.perf_counter()
    asyncio.run(run())
    assert engine.stats.largest_in_flight == 6  # two requests of three at a time
    assert time.perf_counter() - start >= 4 * 0.02
    assert engine.stats.samples == 24


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop whose clock moves only when it would have waited, or by hand."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        select = self._selector.select

        def advance(timeout):
            self.now += timeout or 0.0
            return select(0)

        self._selector.select = advance

    def time(self):
        return self.now


@pytest.mark.parametrize(("busy", "expected"), [(0.0, 4.0), (2.5, 4.0), (3.75, 4.0), (7.0, 7.0)])
def test_the_engine_works_on_while_its_client_is_busy(busy, expected):
    engine = ScriptedEngine(latency=1.0, capacity=3)

    async def run():
        loop = asyncio.get_running_loop()
        tasks = [
            asyncio.create_task(engine.sample(request(seed=seed))) for seed in range(4)
        ]  # one second each, in turn
        await asyncio.sleep(0)
        loop.now += busy
        await asyncio.gather(*tasks)
        return loop.now

    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        assert runner.run(run()) == pytest.approx(expected)


@pytest.mark.parametrize("late", [False, True])
def test_a_request_begins_when_the_last_of_its_slots_falls_free(late):
    """One slot is free from 1 s on, the other from 3 s; whoever wants both waits for both, and nobody begins in the past."""

    async def run():
        loop = asyncio.get_running_loop()
        slots = _Slots(2)
        ends = {}

        async def work(name, count, seconds):
            await slots.work(count, seconds)
            ends[name] = loop.now

        tasks = [asyncio.create_task(work("long", 1, 3.0)), asyncio.create_task(work("short", 1, 1.0))]
        await asyncio.sleep(0)
        if late:
            loop.now += 10.0  # both have ended, and nobody has looked
        tasks.append(asyncio.create_task(work("both", 2, 1.0)))
        await asyncio.gather(*tasks)
        return ends["both"]

    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        assert runner.run(run()) == pytest.approx(11.0 if late else 4.0)


def test_cancelled_waiters_give_their_slots_back():
    engine = ScriptedEngine(latency=0.01, capacity=3)

    async def run():
        tasks = [asyncio.create_task(engine.sample(request(seed=seed))) for seed in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[2].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        again = await engine.sample(request(seed=11))
        return results, again

    results, again = asyncio.run(run())
    assert [isinstance(r, asyncio.CancelledError) for r in results] == [True, False, True, False]
    assert len(again) == 3


def test_failures_are_raised():
    engine = ScriptedEngine(fail=lambda r: ConnectionError("down") if r.seed == 1 else None)
    with pytest.raises(ConnectionError, match="down"):
        asyncio.run(engine.sample(request(seed=1)))
    assert len(asyncio.run(engine.sample(request(seed=2)))) == 3


def test_environment_reads_the_script():
    engine = ScriptedEngine(answer_rate=1.0, garbled_rate=0.0)
    environment = engine.environment
    root, turn = environment.start("2 + 2")
    sample = asyncio.run(engine.sample(SampleRequest(root, turn.bridge_ids, 1, PARAMS, 1)))[0]
    step = asyncio.run(environment.step(turn, sample, depth=1))
    assert step.status is Status.ANSWERED
    assert step.answer.isdigit()
    assert step.well_formed
    sample.token_ids = [300, END]
    assert asyncio.run(environment.step(turn, sample, depth=5)).status is Status.OPEN
    assert asyncio.run(environment.step(turn, sample, depth=6)).status is Status.DEPTH_LIMIT
    assert ANSWER not in root.token_ids


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"latency": -1}, "latency"), ({"capacity": 0}, "capacity"), ({"answer_rate": 2}, "answer_rate"),
     ({"step_tokens": (5, 2)}, "step_tokens")],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        ScriptedEngine(**arguments)


def test_blank_question_is_refused():
    with pytest.raises(ValueError, match="question"):
        ScriptedEngine().environment.start("  ")
