"""Many trees at once: determinism, budgets, deadlines, cancellation, errors."""

import asyncio
import dataclasses
import gc
import math
import signal
import time

import pytest
import torch
from search_helpers import SCRIPT, ScriptedTree, fingerprint

from lapha.engines.scripted import ScriptedEngine
from lapha.search import Search, SearchConfig
from lapha.types import SamplingParams, Status

QUESTIONS = [f"question {i}" for i in range(12)]
SMALL = SearchConfig(simulations=10, breadth=4, prune_every=4, seed=5)


def search_all(questions, engine=None, config=SMALL, **options):
    return list(Search(engine or ScriptedEngine(), config=config).run(questions, **options))


class CountingEnvironment:
    """The scripted environment with turns that must be closed: counts what is open."""

    def __init__(self, inner, step_delay: float = 0.0):
        self.inner, self.step_delay = inner, step_delay
        self.open: set[int] = set()
        self.opened = 0
        self.started: list[str] = []

    def _open(self, turn):
        self.opened += 1
        self.open.add(self.opened)
        return dataclasses.replace(turn, context=self.opened)

    def start(self, question):
        self.started.append(question)
        state, turn = self.inner.start(question)
        return state, self._open(turn)

    async def step(self, turn, sample, depth):
        assert turn.context in self.open, "a step from a turn that was closed"
        if self.step_delay:
            await asyncio.sleep(self.step_delay)
        step = await self.inner.step(turn, sample, depth)
        step.turn = self._open(step.turn)
        return step

    def close(self, turn):
        self.open.remove(turn.context)  # closing twice is an error


@pytest.mark.parametrize("selection", ["frontier", "puct"])
@pytest.mark.parametrize("parallel", [1, 3])
def test_results_depend_on_neither_concurrency_nor_arrival_order(selection, parallel):
    config = dataclasses.replace(SMALL, selection=selection, parallel_expansions=parallel)
    reference = [fingerprint(r) for r in search_all(QUESTIONS, config=config, concurrency=1)]
    assert len(set(reference)) == len(QUESTIONS)
    jittery = ScriptedEngine(latency=0.0005, jitter=4.0, capacity=40)
    assert [fingerprint(r) for r in search_all(QUESTIONS, jittery, config, concurrency=12)] == reference
    backwards = search_all(QUESTIONS[::-1], config=config, concurrency=5)
    assert [fingerprint(r) for r in backwards[::-1]] == reference
    assert fingerprint(search_all([QUESTIONS[7]], config=config)[0]) == reference[7]


def test_another_seed_gives_other_trees_and_the_same_seed_the_same():
    first, again = search_all(QUESTIONS[:2]), search_all(QUESTIONS[:2])
    other = search_all(QUESTIONS[:2], config=dataclasses.replace(SMALL, seed=6))
    assert [fingerprint(r) for r in first] == [fingerprint(r) for r in again]
    assert all(fingerprint(a) != fingerprint(b) for a, b in zip(first, other))


def test_a_question_asked_twice_is_sampled_twice():
    one, two, alone = *search_all(["same?", "same?"]), search_all(["same?"])[0]
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one) == fingerprint(alone)


def test_every_expansion_has_its_own_seed():
    seeds = []
    engine = ScriptedEngine(fail=lambda request: seeds.append(request.seed))
    search_all(QUESTIONS[:4], engine, dataclasses.replace(SMALL, parallel_expansions=3))
    assert len(seeds) == len(set(seeds)) == 40
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_results_come_in_question_order_and_name_their_question():
    engine = ScriptedEngine(latency=0.001, jitter=8.0)
    results = search_all(QUESTIONS, engine, concurrency=12)
    assert [(r.index, r.question) for r in results] == list(enumerate(QUESTIONS))


def test_arun_yields_as_trees_finish():
    async def main():
        engine = ScriptedEngine(latency=0.002, jitter=20.0)
        return [r.index async for r in Search(engine, config=SMALL).arun(QUESTIONS, concurrency=12)]

    order = asyncio.run(main())
    assert sorted(order) == list(range(12))
    assert order != sorted(order)


def test_concurrency_is_kept_and_used():
    engine = ScriptedEngine(latency=0.002, capacity=1000)
    search_all(QUESTIONS, engine, concurrency=5)
    assert engine.stats.largest_in_flight == 5 * SMALL.breadth


def test_questions_are_read_as_places_become_free():
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield f"question {len(read)}"

    results = Search(ScriptedEngine(), config=SMALL).run(endless(), concurrency=3)
    for _ in range(5):
        next(results)
    results.close()
    assert len(read) <= 5 + 2 * 3


def test_latents_are_root_centred_in_node_order():
    engine = ScriptedEngine()
    [result] = search_all(["a?"], engine)
    tree, H = result.tree, engine.hidden_size
    assert result.latents.shape == (len(tree),)
    assert result.latents.radius[0] == 0

    async def pooled(node):
        from lapha.types import State

        return (await engine.evaluate([State(tree.context_ids(node))]))[0]

    root = asyncio.run(pooled(0)).pooled
    for node in (0, 1, len(tree) // 2, len(tree) - 1):
        evaluation = asyncio.run(pooled(node))
        torch.testing.assert_close(result.latents[[node]].to_tangent()[0], (evaluation.pooled - root) / H**0.5)
        assert tree.value[node] == pytest.approx(evaluation.value, abs=1e-6)


def test_hooks_see_leaves_and_can_end_a_tree():
    def terminal_value(tree, node, evaluation):
        assert tree.status[node] != Status.OPEN
        return 1.0 if tree.answer[node] == "7" else 0.0

    def stop(tree):
        return any(answer == "7" for answer in tree.answer)

    search = Search(
        ScriptedEngine(), config=SearchConfig(simulations=200), terminal_value=terminal_value, stop=stop
    )  # fmt: skip
    for result in search.run(QUESTIONS):
        last = result.tree.simulation == result.tree.simulation.max()
        sevens = [node for node, answer in enumerate(result.tree.answer) if answer == "7"]
        assert result.stop_reason == "stopped"
        assert sevens
        assert last[sevens].all(), "the tree went on after the condition held"
        assert result.tree.value_sum[0] == len(sevens)


def test_pruning_keeps_the_way_to_leaves_of_the_highest_value():
    def terminal_value(tree, node, evaluation):
        return float(tree.answer[node] in ("3", "4"))

    config = SearchConfig(simulations=60, prune_every=5, max_expands=1)
    pruned = 0
    for result in Search(ScriptedEngine(), config=config, terminal_value=terminal_value).run(QUESTIONS):
        tree = result.tree
        pruned += result.stats["pruned"]
        for leaf in (n for n, answer in enumerate(tree.answer) if answer in ("3", "4")):
            assert not tree.pruned[tree.path(leaf)].any()
    assert pruned > 0


def test_nothing_grows_below_a_pruned_node():
    config = SearchConfig(simulations=60, prune_every=5, selection="puct")
    for result in search_all(QUESTIONS[:4], config=config):
        tree = result.tree
        for node in range(1, len(tree)):
            for ancestor in tree.path(node)[:-1]:
                if tree.pruned[ancestor]:
                    assert tree.simulation[node] <= tree.pruned_at[ancestor]


# --- budgets -------------------------------------------------------------------------------------------------


def test_token_budget_of_a_tree():
    config = dataclasses.replace(SMALL, simulations=1000, max_tokens=100)
    for result in search_all(QUESTIONS[:3], config=config):
        tree = result.tree
        last = sum(len(tree.sampled_ids(n)) for n in range(len(tree)) if tree.simulation[n] == tree.simulation.max())
        assert result.stop_reason == "max_tokens"
        assert result.stats["sampled_tokens"] == tree.sampled_tokens >= 100 > tree.sampled_tokens - last


def test_token_budget_of_a_run():
    search = Search(ScriptedEngine(latency=0.001), config=SMALL)
    results = list(search.run(QUESTIONS, concurrency=2, max_tokens=500))
    assert 2 <= len(results) < 12
    assert [r.index for r in results] == list(range(len(results)))
    assert results[-1].stop_reason == "run_max_tokens"
    assert 500 <= search.meter.tokens < 500 + 2 * 4 * 30
    assert len(results[-1].tree) > 1


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
    config = SearchConfig(simulations=50, max_expands=1, deadline_s=0.2)
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


# --- what goes wrong -----------------------------------------------------------------------------------------


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

    list(Search(engine, config=SearchConfig(simulations=40, prune_every=0), stop=stop).run(["q?"]))
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


def test_an_interrupt_leaves_what_was_finished():
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


@pytest.mark.parametrize(
    ("break_policy", "message"),
    [
        (lambda samples: samples[:-1], "policy: expected 4 samples for question .*, node 0, expansion 1, got 3"),
        (lambda samples: [*samples[:-1], drop_state(samples[-1])], "policy: expected child states that append"),
        (lambda samples: [*samples[:-1], drop_logprob(samples[-1])], "policy: expected one log-probability a token"),
    ],
)
def test_a_policy_that_breaks_its_promise_is_named(break_policy, message):
    engine = ScriptedEngine()
    honest = engine.sample

    async def sample(request):
        return break_policy(await honest(request))

    engine.sample = sample
    with pytest.raises(ValueError, match=message):
        search_all(["q?"], engine)


def drop_state(sample):
    sample.state = dataclasses.replace(sample.state, token_ids=sample.state.token_ids[:-1])
    return sample


def drop_logprob(sample):
    sample.logprobs = sample.logprobs[:-1]
    return sample


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e[:-1], "evaluator: expected 4 evaluations for question .*, got 3"),
        (
            lambda e: [*e[:-1], dataclasses.replace(e[-1], value=1.5)],
            r"evaluator: expected values in \[0, 1\].*got 1.5",
        ),
    ],
)
def test_an_evaluator_that_breaks_its_promise_is_named(change, message):
    engine = ScriptedEngine()
    honest = engine.evaluate

    async def evaluate(states):
        evaluations = await honest(states)
        return change(evaluations) if len(states) > 1 else evaluations

    engine.evaluate = evaluate
    with pytest.raises(ValueError, match=message):
        search_all(["q?"], engine)


def test_unknown_values_count_as_the_prior():
    """Without a value head v̂ is NaN: the search goes by v_prior and log-probabilities, and leaves are worth 0."""
    engine = ScriptedEngine()
    honest = engine.evaluate

    async def evaluate(states):
        return [dataclasses.replace(e, value=math.nan) for e in await honest(states)]

    engine.evaluate = evaluate
    [result] = search_all(["q?"], engine, dataclasses.replace(SMALL, simulations=20, answer="majority"))
    assert result.answer is not None
    assert math.isnan(result.value)
    assert result.tree.value_sum.max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: Search(object()), "policy: expected a Policy"),
        (lambda: Search(ScriptedEngine(), evaluator=object()), "evaluator: expected an Evaluator"),
        (lambda: Search(ScriptedEngine(), environment=object()), "environment: expected an Environment"),
        (lambda: Search(ScriptedEngine(), config={"simulations": 1}), "config: expected a SearchConfig, got dict"),
        (lambda: Search(ScriptedEngine()).run(["q"], concurrency=0), "concurrency: expected an integer >= 1, got 0"),
        (lambda: Search(ScriptedEngine()).run("one question"), "questions: expected several questions"),
        (lambda: list(Search(ScriptedEngine()).run([3])), r"questions\[0\]: expected a string, got int"),
        (
            lambda: list(Search(ScriptedEngine()).run(["q"], on_error="ignore")),
            "on_error: expected 'raise' or 'record'",
        ),
        (lambda: list(Search(ScriptedEngine()).run(["q"], max_tokens=0)), "max_tokens: expected a number > 0, got 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        arguments()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("simulations", 0, "simulations: expected an integer >= 1, got 0"),
        ("breadth", 2.5, "breadth: expected an integer >= 1, got 2.5"),
        ("selection", "best", "selection: expected one of 'frontier', 'puct', got 'best'"),
        ("answer", "best", "answer: expected one of"),
        ("backup", "all", "backup: expected one of"),
        ("max_expands", "often", "max_expands: expected an integer >= 1 or 'decay', got 'often'"),
        ("max_expands", 0, "max_expands: expected an integer >= 1 or 'decay', got 0"),
        ("value_trust", 1.5, r"value_trust: expected a number in \[0, 1\], got 1.5"),
        ("c_puct", -1, "c_puct: expected a number >= 0, got -1"),
        ("c_puct", math.nan, "c_puct: expected a number >= 0, got nan"),
        ("widening", (0, 0.5), "widening: expected"),
        ("deadline_s", 0, "deadline_s: expected a number > 0, got 0"),
        ("seed", -1, "seed: expected an integer >= 0, got -1"),
    ],
)
def test_bad_settings_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        SearchConfig(**{field: value})


def test_decay_limits_expansions_by_depth():
    config = SearchConfig(depth_limit=6, max_expands="decay")
    assert [config.expansion_limit(depth) for depth in range(6)] == [7, 6, 3, 1, 1, 1]


def test_progress_bar_shows_figures(capsys):
    pytest.importorskip("rich")
    search_all(QUESTIONS[:3], progress=True)
    assert "3/3" in capsys.readouterr().out


def test_the_meter_counts():
    search = Search(ScriptedEngine(latency=0.001), config=SMALL)
    results = list(search.run(QUESTIONS[:4]))
    meter = search.meter
    assert meter.trees == 4
    assert meter.nodes == sum(len(r.tree) for r in results)
    assert meter.tokens == sum(r.tree.sampled_tokens for r in results)
    assert 0 < meter.policy_idle_s < meter.seconds


def test_the_script_is_followed_by_the_stub():
    """The stub of the golden tests would otherwise hide a search that asks for other nodes than it says."""
    world = ScriptedTree(SCRIPT)
    list(Search(world, config=SearchConfig(simulations=2, breadth=2, max_expands=1)).run(["q"]))
    assert [name for _, name in world.asked] == ["0", "1"]
