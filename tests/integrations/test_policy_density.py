"""The importance ratio under every way of sampling, with the embedded policy as its own server."""

import asyncio
import itertools
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")
sys.path.insert(0, str(Path(__file__).parent))
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lapha.integrations.shaped import TreeRow
from lapha.integrations.trl.density import processed_logprobs, token_logprobs
from lapha.integrations.trl.policy_density import RawLogprobs, comparable_logprobs
from lapha.types import Sample, SampleRequest, SamplingParams, State

VOCABULARY, LENGTH, CONTEXT = 40, 200, [3, 5, 8, 3]
WAYS = [
    SamplingParams(LENGTH, temperature, top_p, top_k, penalty)
    for temperature, top_p, top_k, penalty in itertools.product((1.0, 0.7), (1.0, 0.8), (0, 5), (1.0, 1.05))
]


def logits_of(context, completion, noise=0.0):
    """A policy of order one, with another engine's rounding."""
    table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    ids = torch.tensor([*context, *completion])[len(context) - 1 : -1]
    found = table[ids]
    return found + noise * torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def transformers_scores(params, logits, before):
    """transformers' processors, in its order."""
    processors = LogitsProcessorList()
    if params.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature != 1:
        processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    return processors(torch.tensor([before]), logits[None])[0]


def sampled(params):
    """(completion, processed log-probability of each token), sampled one by one with transformers' processors."""
    generator, ids, logged = torch.Generator().manual_seed(2), [], []
    for _ in range(LENGTH):
        logits = logits_of([*CONTEXT, *ids], [0])[-1]
        scores = transformers_scores(params, logits, [*CONTEXT, *ids]).log_softmax(-1)
        token = int(torch.multinomial(scores.exp(), 1, generator=generator))
        ids.append(token)
        logged.append(float(scores[token]))
    return ids, logged


@pytest.mark.parametrize("params", WAYS, ids=str)
def test_processed_log_probabilities_are_those_that_transformers_samples_from(params):
    ids, logged = sampled(params)
    found = processed_logprobs(logits_of(CONTEXT, ids), torch.tensor(CONTEXT), torch.tensor(ids), params)
    torch.testing.assert_close(found, torch.tensor(logged), rtol=1e-4, atol=1e-4)


def test_a_sampled_token_is_never_cut_off():
    logits = torch.tensor([[5.0, 1.0, 0.0, -9.0]])
    params = SamplingParams(1, 1.0, 0.5, 2, 1.0)
    found = processed_logprobs(logits, torch.tensor([0]), torch.tensor([3]), params)
    assert found.isfinite().all()


@pytest.mark.parametrize("mode", ["raw", "processed"])
@pytest.mark.parametrize("params", WAYS, ids=str)
def test_the_ratio_of_equal_weights_is_one_for_steps_of_200_tokens(params, mode):
    ids, processed = sampled(params)
    raw = token_logprobs(logits_of(CONTEXT, ids), torch.tensor(ids))
    if mode == "processed":  # as a server in that mode answers
        sample = Sample(ids, processed, "", "length", State((*CONTEXT, *ids)))

        class Server:
            async def sample(self, request):
                return [sample]

        request = SampleRequest(State(tuple(CONTEXT)), (), 1, params, 0)
        (sample,) = asyncio.run(RawLogprobs(Server(), logits_of).sample(request))
        logged = sample.logprobs
        # and the search's prior reads log-probabilities at temperature 1
        torch.testing.assert_close(torch.tensor(logged), raw, rtol=1e-3, atol=1e-3)
    else:
        logged = raw.tolist()
    row = TreeRow(CONTEXT, ids, logged, 0.0, 0.0, [], [], "q")
    (told,) = comparable_logprobs([row], logits_of, params.temperature)
    own = token_logprobs(logits_of(CONTEXT, ids), torch.tensor(ids), params.temperature)  # what TRL computes
    ratio = torch.exp((own - torch.tensor(told)).double().sum())
    assert float(ratio) == pytest.approx(1, abs=1e-3)


def test_the_ratio_is_that_of_the_engines_where_they_differ():
    """What is left is own(T = 1) - server(T = 1), whatever the sampling."""
    params = WAYS[-1]
    ids, _ = sampled(params)
    server = token_logprobs(logits_of(CONTEXT, ids, noise=0.01), torch.tensor(ids))
    row = TreeRow(CONTEXT, ids, server.tolist(), 0.0, 0.0, [], [], "q")
    (told,) = comparable_logprobs([row], logits_of, params.temperature)
    own = token_logprobs(logits_of(CONTEXT, ids), torch.tensor(ids), params.temperature)
    expected = token_logprobs(logits_of(CONTEXT, ids), torch.tensor(ids)) - server
    torch.testing.assert_close(own - torch.tensor(told), expected, rtol=1e-3, atol=1e-5)
    assert expected.abs().max() > 1e-3
