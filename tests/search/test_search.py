"""Many trees at once: determinism, order, hooks, pruning."""

import asyncio
import dataclasses

import pytest
import torch
from search_helpers import QUESTIONS, SMALL, fingerprint, search_all

from lapha.engines.scripted import ScriptedEngine
from lapha.search import Search, SearchConfig
from lapha.types import Status


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
