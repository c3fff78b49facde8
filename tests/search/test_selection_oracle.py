"""Every choice of a search, checked against scores recomputed from nothing but the finished tree, in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import check_statistics

from lapha.engines.scripted import ScriptedEngine
from lapha.search import Search, SearchConfig
from lapha.tree import rewind
from lapha.types import Status


def limit(config: SearchConfig, depth: int) -> int:
    return max(1, config.depth_limit - depth**2 + 1) if config.max_expands == "decay" else config.max_expands


def dead(tree, node: int) -> bool:
    return any(tree.pruned[n] for n in tree.path(node))


def may_expand(tree, config, node: int) -> bool:
    if tree.status[node] != Status.OPEN or dead(tree, node):
        return False
    if tree.expansions[node] >= limit(config, int(tree.depth[node])):
        return False
    if config.widening is None or tree.expansions[node] == 0:
        return True
    constant, exponent = config.widening
    return len(tree.children[node]) < constant * max(int(tree.visits[node]), 1) ** exponent


def effective_value(tree, config, node: int) -> float:
    if tree.visits[node]:
        return tree.value_sum[node] / tree.visits[node]
    return config.value_trust * float(tree.value[node]) + (1 - config.value_trust) * config.v_prior


def frontier_score(tree, config, node: int, expansions: int) -> float:
    explore = config.c_puct * float(tree.prior[node]) * math.sqrt(expansions + 1) / (1 + tree.visits[node])
    return effective_value(tree, config, node) + explore


def open_below(tree, config, node: int) -> bool:
    return may_expand(tree, config, node) or any(open_below(tree, config, child) for child in tree.children[node])


def puct_choice(tree, config) -> int:
    node = 0
    while True:
        below = [c for c in tree.children[node] if open_below(tree, config, c)]
        if may_expand(tree, config, node) and (config.widening is not None or not below):
            return node
        total = max(sum(int(tree.visits[c]) for c in tree.children[node]), 1)
        enter = [
            c
            for c in tree.children[node]
            if c in below or (config.revisit_leaves and tree.status[c] != Status.OPEN and not tree.pruned[c])
        ]
        node = max(
            enter,
            key=lambda c: (
                effective_value(tree, config, c)
                + config.c_puct * float(tree.prior[c]) * math.sqrt(total) / (1 + tree.visits[c])
            ),
        )
        if tree.status[node] != Status.OPEN:
            return node


def check_every_choice(tree, config: SearchConfig) -> None:
    revisits = dict(tree.revisits)
    for simulation in range(1, int(tree.stats_simulations) + 1):
        before = rewind(tree, simulation - 1)
        made = np.flatnonzero(tree.simulation == simulation)
        chosen = int(tree.parent[made[0]]) if len(made) else revisits[simulation]
        if config.selection == "frontier":
            opens = [n for n in range(len(before)) if may_expand(before, config, n)]
            scores = {n: frontier_score(before, config, n, simulation - 1) for n in opens}
            assert chosen in scores, f"simulation {simulation} expanded node {chosen}, which was closed"
            assert scores[chosen] == pytest.approx(max(scores.values()), abs=1e-6)
        else:
            expected = puct_choice(before, config)
            assert chosen == expected, f"simulation {simulation}"


CONFIGS = st.fixed_dictionaries(
    {
        "simulations": st.integers(1, 25),
        "breadth": st.integers(1, 5),
        "depth_limit": st.integers(1, 5),
        "selection": st.sampled_from(["frontier", "puct"]),
        "c_puct": st.sampled_from([0.0, 0.5, 1.0, 4.0]),
        "v_prior": st.sampled_from([0.0, 0.5]),
        "value_trust": st.sampled_from([0.0, 0.5, 1.0]),
        "max_expands": st.sampled_from([1, 2, 3, "decay"]),
        "widening": st.sampled_from([None, (1.0, 0.5), (2.0, 1.0)]),
        "backup": st.sampled_from(["auto", "terminal", "value"]),
        "revisit_leaves": st.booleans(),
        "prune_every": st.sampled_from([0, 0, 3, 7]),
        "seed": st.integers(0, 1000),
    }
)


@settings(max_examples=60, deadline=None)
@given(arguments=CONFIGS, answer_rate=st.sampled_from([0.0, 0.3, 0.9]))
def test_every_choice_has_the_best_exact_score(arguments, answer_rate):
    config = SearchConfig(first_chain=False, merge_twins=False, **arguments)
    engine = ScriptedEngine(answer_rate=answer_rate, depth_limit=6)
    [result] = Search(engine, config=config).run(["what?"])
    tree = result.tree
    tree.stats_simulations = result.stats["simulations"]
    check_statistics(tree)
    assert int(tree.depth.max()) <= config.depth_limit
    assert all(tree.expansions[n] <= limit(config, int(tree.depth[n])) for n in range(len(tree)))
    assert len(tree) == 1 + config.breadth * result.stats["expansions"]
    if result.stop_reason == "exhausted":
        assert not any(may_expand(tree, config, n) for n in range(len(tree)))
    else:
        assert result.stop_reason == "simulations"
        assert result.stats["simulations"] == config.simulations
    check_every_choice(tree, config)


@settings(max_examples=25, deadline=None)
@given(arguments=CONFIGS, parallel=st.integers(2, 6), virtual_loss=st.integers(0, 3))
def test_parallel_expansions_leave_exact_statistics(arguments, parallel, virtual_loss):
    config = SearchConfig(
        first_chain=False, merge_twins=False, **arguments, parallel_expansions=parallel, virtual_loss=virtual_loss
    )
    [result] = Search(ScriptedEngine(), config=config).run(["what?"])
    tree = result.tree
    check_statistics(tree)
    assert all(tree.expansions[n] <= limit(config, int(tree.depth[n])) for n in range(len(tree)))
    assert result.stats["simulations"] <= config.simulations
    if result.stop_reason == "exhausted":
        assert not any(may_expand(tree, config, n) for n in range(len(tree)))


def test_rewinding_gives_the_tree_of_a_shorter_search():
    """What a search of 60 simulations looked like after 7 is what a search of 7 simulations gives."""
    for selection in ("frontier", "puct"):
        long = SearchConfig(simulations=60, selection=selection, prune_every=5, revisit_leaves=True, breadth=4)
        [whole] = Search(ScriptedEngine(), config=long).run(["what?"])
        for simulations in (0, 1, 7, 32, 60):
            past = rewind(whole.tree, simulations)
            if simulations == 0:
                assert len(past) == 1
                continue
            short = SearchConfig(
                simulations=simulations, selection=selection, prune_every=5, revisit_leaves=True, breadth=4
            )
            [direct] = Search(ScriptedEngine(), config=short).run(["what?"])
            for name in ("parent", "status", "pruned", "visits", "expansions", "pruned_at", "simulation"):
                np.testing.assert_array_equal(getattr(past, name), getattr(direct.tree, name), err_msg=name)
            np.testing.assert_allclose(past.value_sum, direct.tree.value_sum, atol=1e-12)
            np.testing.assert_allclose(past.prior, direct.tree.prior, rtol=1e-6)
            assert past.revisits == direct.tree.revisits
