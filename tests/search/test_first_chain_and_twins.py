"""An answer from the tokens of one chain on; siblings of the same tokens are one node; rewards, beams, priors."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lapha.engines.scripted import ScriptedEngine, ScriptedEnvironment
from lapha.search import Search, SearchConfig, majority
from lapha.tree import SearchTree, rewind
from lapha.types import Evaluation, Sample, SampleRequest, State, Status, Step, Turn


class Letters:
    """Steps are one letter drawn from a few by the seed; a state ends at depth 3 with its letters as the answer."""

    depth_limit = 3

    def __init__(self, letters="aab", rewards=None, value=lambda ids: 0.5):
        self.letters, self.rewards, self.value = letters, rewards, value
        self.environment = self
        self.stepped, self.closed, self.opened = 0, 0, 0

    async def sample(self, request: SampleRequest):
        greedy = request.params.temperature == 0
        samples = []
        for index in range(request.n):
            token = ord(self.letters[0 if greedy else (request.seed + index * 7) % len(self.letters)])
            state = State((*request.state.token_ids, *request.bridge_ids, token))
            samples.append(Sample([token], [-float(token - 96)], chr(token), "stop", state))
        return samples

    async def evaluate(self, states):
        return [Evaluation(None, self.value(state.token_ids)) for state in states]

    def start(self, question):
        self.opened += 1
        return State((0,)), Turn()

    async def step(self, turn, sample, depth):
        self.stepped += 1
        text = "".join(map(chr, sample.state.token_ids[1:]))
        reward = None if self.rewards is None else self.rewards[sample.token_ids[0]]
        self.opened += 1
        if depth >= self.depth_limit:
            return Step(Status.ANSWERED, text, text, True, Turn(), reward=reward)
        return Step(Status.OPEN, text, None, True, Turn(), reward=reward)

    def close(self, turn):
        self.closed += 1


def search(world, **settings):
    settings = {"simulations": 8, "breadth": 6, "seed": 3, **settings}
    [result] = Search(world, config=SearchConfig(**settings)).run(["q"])
    return result


def test_one_simulation_is_one_greedy_chain():
    result = search(ScriptedEngine(), simulations=1)
    tree = result.tree
    assert [len(children) for children in tree.children[:-1]] == [1] * (len(tree) - 1)
    assert (tree.simulation[1:] == 1).all()
    [chain] = Search(
        ScriptedEngine(),
        config=SearchConfig(simulations=50, breadth=1, max_expands=1, first_chain=False, seed=3),
    ).run(["q"])
    assert tree.status[-1] != Status.OPEN
    assert len(chain.tree) > 1


def test_the_chain_counts_towards_no_limit():
    result = search(Letters("abc"), simulations=2, max_expands=1, breadth=3)
    assert len(result.tree.children[0]) > 1, "the root may still be expanded once"


def test_a_budget_of_tokens_ends_the_chain():
    result = search(Letters(), max_tokens=2)
    assert result.stop_reason == "max_tokens"
    assert result.tree.sampled_tokens == 2


def test_twins_are_one_node_whose_tokens_are_charged():
    world = Letters("aab")
    merged = search(world, simulations=10)
    for children in merged.tree.children:
        tokens = [merged.tree.tokens[child] for child in children]
        assert len(set(tokens)) == len(tokens)
    apart = search(Letters("aab"), simulations=10, merge_twins=False)
    assert len(merged.tree) < len(apart.tree)
    assert merged.tree.sampled_tokens == merged.stats["sampled_tokens"]
    assert merged.tree.multiplicity().sum() - 1 == merged.stats["sampled_tokens"]  # one token a step
    assert world.stepped == len(merged.tree) - 1, "the environment steps a twin once"
    assert world.opened == world.closed + sum(merged.tree.status[1:] == -1), "every turn is closed"


def test_priors_have_the_mass_of_all_samples():
    tree = search(Letters("aab"), simulations=1, first_chain=False, breadth=12).tree
    children, counts = tree.children[0], tree.multiplicity()
    weight = counts[children] * np.exp(tree.logprob[children].astype(np.float64))
    assert counts[children].sum() == 12
    np.testing.assert_allclose(tree.prior[children], weight / weight.sum(), rtol=1e-5)


def test_votes_count_a_leaf_as_often_as_it_was_sampled():
    tree = SearchTree("q", (0,))
    for token, answer in ((1, "x"), (2, "y"), (3, "x")):
        tree.add(0, tokens=(token,), answer=answer, status=Status.ANSWERED, value=0.5)
    assert majority(tree).answer == "x"
    tree.repeats = [(2, 2), (2, 2)]
    assert majority(tree).answer == "y"


@pytest.mark.parametrize("selection", ["frontier", "puct", "beam", "dvts"])
def test_a_tree_rewinds_with_its_twins(selection):
    settings = {"selection": selection, "beam_width": 2, "breadth": 4}
    whole = search(Letters("aab"), simulations=9, **settings)
    for simulations in range(1, 10):
        short = search(Letters("aab"), simulations=simulations, **settings)
        past = rewind(whole.tree, simulations)
        assert past.tokens == short.tree.tokens
        for name in ("visits", "value_sum", "prior", "expansions", "backed_up"):
            np.testing.assert_allclose(getattr(past, name), getattr(short.tree, name), rtol=1e-6, err_msg=name)
        assert past.repeats == short.tree.repeats
        assert past.sampled_tokens == short.tree.sampled_tokens


def test_trees_with_twins_and_rewards_survive_saving(tmp_path):
    tree = search(Letters("aab", rewards={97: 0.5, 98: 0.25}), simulations=6, prior="mean", prior_temperature=2.0).tree
    tree.save(tmp_path / "tree.json")
    again = SearchTree.load(tmp_path / "tree.json")
    assert again.repeats == tree.repeats != []
    assert (again.prior_rule, again.prior_temperature) == ("mean", 2.0)
    np.testing.assert_array_equal(again.reward, tree.reward)


def test_rewards_are_backed_up_along_the_path():
    """W of a node: of every terminal below it, its value and the rewards from the node's own step down to it."""
    tree = search(
        Letters("abc", rewards={97: 0.5, 98: 0.25, 99: 0.0}), simulations=12, breadth=3, first_chain=False
    ).tree
    expected = np.zeros(len(tree))
    for leaf in np.flatnonzero(tree.status != Status.OPEN):
        total = float(tree.value[leaf])
        for node in reversed(tree.path(int(leaf))):
            total += {0: 0.0, 97: 0.5, 98: 0.25, 99: 0.0}[tree.tokens[node][-1]]
            expected[node] += total
    np.testing.assert_allclose(tree.value_sum, expected)


def test_a_terminal_value_may_see_the_step():
    seen = []

    def value(tree, node, evaluation, step):
        seen.append((tree.text[node], step.text, step.answer))
        return 0.25

    result = search(Letters("ab"), simulations=4)
    [with_step] = Search(Letters("ab"), config=SearchConfig(simulations=4), terminal_value=value).run(["q"])
    assert seen
    assert all(text == own == answer for text, own, answer in seen)
    assert set(with_step.tree.backed_up[~np.isnan(with_step.tree.backed_up)]) == {0.25}
    assert result.answer is not None


@pytest.mark.parametrize("reward", [math.nan, math.inf, "much"])
def test_rewards_that_cannot_be_are_named(reward):
    with pytest.raises(ValueError, match=r"environment: Step.reward: expected a finite number, got .* for node"):
        search(Letters("ab", rewards={97: reward, 98: reward}))


def by_last(ids):
    """v̂: 'a' is best, 'd' worst."""
    return 1.0 - (ids[-1] - 97) / 10 if len(ids) > 1 else 0.5


def test_a_beam_expands_the_best_of_each_depth():
    world = Letters("abcd", value=by_last)
    tree = search(world, simulations=5, breadth=12, selection="beam", beam_width=2, first_chain=False).tree
    expanded = [tree.text[node] for node in range(1, len(tree)) if tree.children[node]]
    assert [sorted(expanded[:2]), sorted(expanded[2:])] == [["a", "b"], ["aa", "ba"]]


def test_a_beam_of_one_is_step_level_best_of_k():
    tree = search(
        Letters("abcd", value=by_last), simulations=3, breadth=12, selection="beam", beam_width=1, first_chain=False
    ).tree
    assert [tree.text[node] for node in range(1, len(tree)) if tree.children[node]] == ["a", "aa"]


def test_diverse_subtrees_grow_in_turn():
    tree = search(
        Letters("abcd", value=by_last), simulations=5, breadth=12, selection="dvts", beam_width=2, first_chain=False
    ).tree
    assert sorted(tree.text[node] for node in range(1, len(tree)) if tree.children[node]) == ["a", "aa", "b", "ba"]


@pytest.mark.parametrize("selection", ["beam", "dvts"])
@pytest.mark.parametrize("parallel", [1, 3])
def test_nothing_is_left_over_while_anything_may_be_expanded(selection, parallel):
    result = search(
        Letters("abc"), simulations=300, selection=selection, breadth=3, max_expands=2, parallel_expansions=parallel
    )
    assert result.stop_reason == "exhausted"
    tree = result.tree
    assert (tree.expansions[tree.status == Status.OPEN] >= 2).all()


def test_the_prior_may_be_a_mean_or_uniform():
    base = SearchConfig(simulations=1, breadth=4, first_chain=False, seed=2)
    for rule in ("sum", "mean", "uniform"):
        for heat in (1.0, 3.0):
            config = dataclasses.replace(base, prior=rule, prior_temperature=heat)
            [result] = Search(ScriptedEngine(), config=config).run(["q"])
            tree = result.tree
            logits = np.array(
                [
                    {"sum": sum, "mean": np.mean, "uniform": lambda _: 0.0}[rule](tree.logprobs[n])
                    for n in tree.children[0]
                ]
            )
            weight = np.exp(logits / heat)
            np.testing.assert_allclose(tree.prior[tree.children[0]], weight / weight.sum(), rtol=1e-4)


def test_the_environment_owns_the_limit_of_depth(caplog):
    engine = ScriptedEngine(answer_rate=0.0, depth_limit=8)
    [result] = Search(engine, config=SearchConfig(simulations=1)).run(["q"])
    assert result.tree.depth.max() == 8
    assert not caplog.records
    [result] = Search(engine, config=SearchConfig(simulations=1, depth_limit=4)).run(["q"])
    assert result.tree.depth.max() == 4
    assert "depth_limit: the settings say 4 and the environment 8; 4 holds" in caplog.text
    engine.environment = ScriptedEnvironment(3)
    [result] = Search(engine, config=SearchConfig(simulations=1, depth_limit=5)).run(["q"])
    assert result.tree.depth.max() == 3


def test_the_embedded_model_carries_its_own_limit():
    from lapha.engines import TransformersEngine
    from lapha.tiny import DEPTH_LIMIT, tiny_path

    engine = TransformersEngine.from_pretrained(tiny_path())
    assert engine.environment.depth_limit == DEPTH_LIMIT
    engine.close()
