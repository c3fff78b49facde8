"""The token sampler: transformers' distributions, and noise that is uniform and independent of the batch."""

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lapha.engines.transformers_engine.sampling import TokenSampler, logprobs_of, stream_keys, uniforms
from lapha.types import SamplingParams


def probabilities(logits, params):
    processors = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    return torch.softmax(processors(None, logits), dim=-1)


@pytest.mark.parametrize("vocabulary", [50, 6000])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("top_k", [0, 7])
def test_draws_follow_transformers_distribution(vocabulary, top_p, top_k):
    """For evenly spaced u the counts of drawn tokens are the probabilities, to one part in the number of draws."""
    params = SamplingParams(temperature=0.7, top_p=top_p, top_k=top_k, repetition_penalty=1.0)
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(1)) * 4
    draws = 4000
    u = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    tokens = TokenSampler(params).pick(logits.expand(draws, -1), None, u)
    counts = torch.bincount(tokens, minlength=vocabulary)
    expected = probabilities(logits, params)[0] * draws
    assert float((counts - expected).abs().max()) <= 1.01


def test_a_flat_distribution_over_a_large_vocabulary_is_not_cut_short():
    params = SamplingParams(temperature=1.0, top_p=0.9, top_k=0, repetition_penalty=1.0)
    logits = torch.randn(1, 6000, generator=torch.Generator().manual_seed(2)) * 0.1
    u = torch.linspace(0, 0.999999, 20000, dtype=torch.float64)
    tokens = TokenSampler(params).pick(logits.expand(len(u), -1), None, u)
    kept = set((probabilities(logits, params)[0] > 0).nonzero().flatten().tolist())
    assert len(kept) > 5000
    assert set(tokens.tolist()) <= kept
    assert len(set(tokens.tolist())) > 0.98 * len(kept)


def test_excluded_tokens_are_never_drawn_at_the_edges():
    logits = torch.tensor([[-1e30, 0.0, -1e30, 0.0, -1e30]])
    sampler = TokenSampler(SamplingParams(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0))
    edges = torch.tensor([0.0, 0.5 - 2**-40, 0.5, 1 - 2**-32], dtype=torch.float64)
    assert sampler.pick(logits.expand(4, -1), None, edges).tolist() == [1, 1, 3, 3]


def test_the_order_of_near_ties_does_not_matter():
    params = SamplingParams(temperature=1.0, top_p=1.0, top_k=3, repetition_penalty=1.0)
    u = torch.full((2,), 0.4, dtype=torch.float64)
    logits = torch.tensor([[0.0, 1.0, 1.0 + 1e-7, 1.0], [0.0, 1.0 + 1e-7, 1.0, 1.0 - 1e-7]])
    first, second = TokenSampler(params).pick(logits, None, u).tolist()
    assert first == second


def test_logits_are_left_alone():
    logits = torch.randn(3, 20)
    before = logits.clone()
    context = torch.randint(0, 20, (3, 5))
    TokenSampler(SamplingParams(repetition_penalty=1.5)).pick(logits, context, torch.rand(3, dtype=torch.float64))
    assert torch.equal(logits, before)


def test_logprobs():
    logits = torch.randn(4, 9)
    tokens = torch.tensor([0, 8, 3, 3])
    expected = torch.log_softmax(logits.double(), -1)[range(4), tokens]
    torch.testing.assert_close(logprobs_of(logits, tokens).double(), expected, atol=1e-6, rtol=1e-6)


def test_noise_is_uniform_and_without_correlation():
    keys = stream_keys(3, 200)
    assert len(set(keys)) == 200
    assert set(stream_keys(4, 200)).isdisjoint(keys)
    noise = np.stack([uniforms(keys, [position] * 200) for position in range(100)])
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3
    assert ((noise >= 0) & (noise < 1)).all()
    for rows in (noise, noise.T):  # neighbours in position, and in key
        correlation = np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]
        assert abs(correlation) < 0.03


def test_noise_depends_on_its_own_key_and_position_alone():
    keys = stream_keys(9, 6)
    together = uniforms(keys, [0, 1, 2, 3, 4, 5])
    alone = [uniforms([key], [position])[0] for position, key in enumerate(keys)]
    assert together.tolist() == alone
    assert stream_keys(9, 3) == keys[:3]
    assert stream_keys(-1, 1) != stream_keys(0, 1)  # any integer is a seed
