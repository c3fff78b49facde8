"""Numbers and containers from outside: converted or refused where they come in, by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from search_helpers import SMALL

from lapha.engines.scripted import ScriptedEngine
from lapha.pruning import PruneConfig
from lapha.search import Search, SearchConfig
from lapha.types import Evaluation, Sample, SamplingParams

NAN, INF = float("nan"), float("inf")


class Changed(ScriptedEngine):
    """The scripted engine with its answers changed on the way out."""

    def __init__(self, change=lambda sample: sample, judge=lambda evaluation: evaluation):
        super().__init__()
        self.change, self.judge = change, judge

    async def sample(self, request):
        return [self.change(sample) if i == 1 else sample for i, sample in enumerate(await super().sample(request))]

    async def evaluate(self, states):
        return [self.judge(evaluation) for evaluation in await super().evaluate(states)]


def trees(engine, config=SMALL):
    return [
        (r.tree.tokens, r.tree.logprobs, r.tree.visits.tolist(), r.answer)
        for r in Search(engine, config=config).run(["q?", "r?"])
    ]


def with_(**changes):
    def change(sample):
        values = {name: value(sample) if callable(value) else value for name, value in changes.items()}
        return Sample(**{**{n: getattr(sample, n) for n in Sample.__slots__}, **values})

    return change


@pytest.mark.parametrize("number", [NAN, INF, 0.5, None, "-1"])
def test_log_probabilities_that_cannot_be_are_named(number):
    spoiled = with_(logprobs=lambda sample: [*sample.logprobs[:-1], number])
    with pytest.raises(
        ValueError, match=r"policy: expected log-probabilities .*sample 1 for question .*, node 0, expansion 1"
    ):
        trees(Changed(spoiled))


def test_impossible_tokens_get_prior_0():
    spoiled = with_(logprobs=lambda sample: [-INF] * len(sample.token_ids))
    for selection in ("frontier", "puct"):
        [result] = Search(
            Changed(spoiled), config=SearchConfig(first_chain=False, simulations=12, breadth=3, selection=selection)
        ).run(["q?"])
        tree = result.tree
        impossible = np.isneginf(tree.logprob)
        assert impossible.any()
        assert (tree.prior[impossible] == 0).all()
        assert np.isfinite(tree.prior).all()


def test_siblings_that_are_all_impossible():
    class Impossible(ScriptedEngine):
        async def sample(self, request):
            return [with_(logprobs=[-INF] * len(s.token_ids))(s) for s in await super().sample(request)]

    [result] = Search(Impossible(), config=SearchConfig(first_chain=False, simulations=12, breadth=3)).run(["q?"])
    assert result.stop_reason in ("simulations", "exhausted")
    assert (result.tree.prior[1:] == 0).all()


@pytest.mark.parametrize("ids", [lambda s: [*map(float, s.token_ids)], lambda s: ["a"], 7])
def test_token_ids_that_are_no_integers_are_named(ids):
    with pytest.raises(ValueError, match=r"policy: expected token ids as integers, .*sample 1 for question"):
        trees(Changed(with_(token_ids=ids)))


@pytest.mark.parametrize(
    "changes",
    [
        {"token_ids": lambda s: np.array(s.token_ids)},
        {"token_ids": lambda s: torch.tensor(s.token_ids)},
        {"token_ids": lambda s: [np.int64(t) for t in s.token_ids]},
        {"token_ids": lambda s: tuple(s.token_ids)},
        {"logprobs": lambda s: np.array(s.logprobs)},
        {"logprobs": lambda s: [np.float64(v) for v in s.logprobs]},
    ],
)
def test_other_containers_are_converted(tmp_path, changes):
    assert trees(Changed(with_(**changes))) == trees(ScriptedEngine())
    search = Search(Changed(with_(**changes)), config=SMALL, identity="x")
    list(search.run(["q?"], journal=tmp_path / "journal"))  # and can be written down


@pytest.mark.parametrize("value", [INF, -0.1, 1.5, None, "high"])
def test_values_that_cannot_be_are_named(value):
    with pytest.raises(ValueError, match=r"evaluator: expected values in \[0, 1\] for question .*, got"):
        trees(Changed(judge=lambda e: Evaluation(e.pooled, value)))


def test_latents_in_other_containers():
    expected = trees(ScriptedEngine())
    assert trees(Changed(judge=lambda e: Evaluation(e.pooled.numpy(), np.float64(e.value)))) == expected
    [result] = Search(Changed(judge=lambda e: Evaluation(None, e.value)), config=SMALL).run(["q?"])
    assert result.latents.direction.shape == (len(result.tree), 1)


@pytest.mark.parametrize("value", [NAN, INF, -INF, None, "much"])
def test_terminal_values_are_named(value):
    search = Search(ScriptedEngine(), config=SMALL, terminal_value=lambda tree, node, evaluation: value)
    with pytest.raises(ValueError, match=r"terminal_value: expected a finite number, got .* for node \d+"):
        list(search.run(["q?"]))


@pytest.mark.parametrize(
    ("name", "value"),
    [("c_puct", INF), ("c_puct", NAN), ("c_puct", False), ("deadline_s", "5"), ("v_prior", None), ("seed", True), ("widening", 3), ("sampling", {"heat": 1}), ("sampling", 3), ("prune", {"n": 1}), ("max_tokens", INF)],
)  # fmt: skip
def test_settings_of_other_types_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        SearchConfig(**{name: value})


def test_settings_as_to_dict_writes_them():
    config = SearchConfig(
        simulations=np.int64(3), sampling=SamplingParams(temperature=0.9), prune=PruneConfig(linkage="single")
    )
    again = SearchConfig(**config.to_dict())
    assert again == config
    assert type(again.simulations) is int
    assert isinstance(again.sampling, SamplingParams)


def test_a_model_whose_logits_are_nan_is_named():
    from lapha.engines import EngineError, TransformersEngine
    from lapha.tiny import SEARCH, load_tiny, problems

    model, tokenizer, head = load_tiny()
    engine = TransformersEngine(model, tokenizer, head)
    with torch.no_grad():
        model.lm_head.weight[3] = math.nan
    engine.invalidate()
    question = problems.generate(1, seed=0)[0].question
    with pytest.raises(EngineError, match=r"request 'question .*, node 0.*': expected finite logits, got NaN"):
        list(Search(engine, config=SearchConfig(simulations=2, breadth=2, sampling=SEARCH)).run([question]))
    engine.close()
