"""Seams that break their promises, bad arguments and settings, and what a run reports."""

import dataclasses
import math

import pytest
from search_helpers import QUESTIONS, SCRIPT, SMALL, ScriptedTree, search_all

from lapha.engines.scripted import ScriptedEngine
from lapha.search import Search, SearchConfig


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
        (
            "selection",
            "best",
            r"selection: expected one of 'beam', 'dvts', 'frontier', 'puct' or a function \(package.module:name\), got 'best'",
        ),
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
    list(Search(world, config=SearchConfig(first_chain=False, simulations=2, breadth=2, max_expands=1)).run(["q"]))
    assert [name for _, name in world.asked] == ["0", "1"]
