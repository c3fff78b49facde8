"""Models of other families: those that fit into slots, and those whose cache does not."""

import asyncio
import logging

import engine_oracle as oracle
import numpy as np
import pytest
import torch
from engine_models import END, VOCABULARY, make_tokenizer, run

from lapha.engines import TransformersEngine
from lapha.types import SampleRequest, SamplingParams, State

SMALL = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=END, pad_token_id=2,
)  # fmt: skip
PARAMS = SamplingParams(max_tokens=6, temperature=1.0, top_p=0.95, top_k=0, repetition_penalty=1.1)


def build(family, sharpness=5.0, **changes):
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**(SMALL | changes))
    kind = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(sharpness)
    return model


FITTING = {
    "qwen2": lambda: build("Qwen2"),
    "qwen3": lambda: build("Qwen3", head_dim=8),
    "gpt2": lambda: build("GPT2", n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "granite": lambda: build("Granite", logits_scaling=4.0),
    "cohere": lambda: build("Cohere", logit_scale=0.25),
}
OTHERS = {
    "mistral": lambda: build("Mistral", sliding_window=8),
    "gemma2": lambda: build("Gemma2", head_dim=8, sliding_window=8, final_logit_softcapping=5.0),
    "mamba": lambda: build("Mamba", sharpness=0.5, state_size=4),
}


def rope(kind, **more):
    """A small model whose rotary frequencies change past 32 (longrope) or 48 (dynamic) tokens."""
    parameters = {"rope_type": kind, "rope_theta": 10000.0, **more}
    if kind == "longrope":
        factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 32}
        return build("Phi3", original_max_position_embeddings=32, rope_parameters=parameters | factors)
    return build("Llama", max_position_embeddings=48, rope_parameters=parameters | {"factor": 4.0})


@pytest.mark.parametrize(("kind", "boundary"), [("longrope", 32), ("dynamic", 48)])
def test_rotary_frequencies_that_depend_on_the_batch_bound_the_context(kind, boundary, caplog):
    with caplog.at_level(logging.WARNING, logger="lapha"):
        engine = TransformersEngine(rope(kind), make_tokenizer())
    assert engine.context_limit == boundary
    assert ("contexts end at 32 tokens" in caplog.text) == (kind == "longrope")
    assert engine.reuses_kv
    short = State(tuple(range(10, 20)))
    long = State(tuple(4 + index % 90 for index in range(boundary - 3)))

    async def beside():
        asked = [engine.sample(SampleRequest(state, (), 2, PARAMS, seed)) for seed, state in enumerate((short, long))]
        return await asyncio.gather(*asked)

    async def alone():
        return await engine.sample(SampleRequest(short, (), 2, PARAMS, 0))

    first, second = run(alone()), run(beside())[0]
    assert [sample.token_ids for sample in first] == [sample.token_ids for sample in second]
    np.testing.assert_allclose([s.logprobs for s in first], [s.logprobs for s in second], rtol=0, atol=1e-5)
    # children of a long state, whose keys were kept: against a plain pass over the whole context
    (child,) = run(engine.sample(SampleRequest(long, (), 1, SamplingParams(max_tokens=1, temperature=1.0), 3)))
    (evaluated,) = run(engine.evaluate([child.state]))
    plain = oracle.pooled(engine.model, child.state.token_ids)
    np.testing.assert_allclose(evaluated.pooled.numpy(), plain, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=f"expected 1 to {boundary - 1} tokens"):
        run(engine.sample(SampleRequest(State(tuple(range(4, 4 + boundary))), (), 1, PARAMS, 0)))


@pytest.mark.parametrize("family", [*FITTING, *OTHERS])
def test_families(family, caplog):
    model = (FITTING | OTHERS)[family]()
    with caplog.at_level(logging.WARNING, logger="lapha"):
        engine = TransformersEngine(model, make_tokenizer())
    assert engine.reuses_kv == (family in FITTING)
    assert ("no KV reuse" in caplog.text) == (family in OTHERS)

    async def scenario():
        root = State((0, 14, 15, 9, 26, 53, 58, 97 - 3, 32, 38, 46))
        child = (await engine.sample(SampleRequest(root, (), 3, PARAMS, 1)))[1]
        grandchildren = await engine.sample(SampleRequest(child.state, (20, 21), 3, PARAMS, 2))
        return child, grandchildren, await engine.evaluate([child.state, State(child.state.token_ids)])

    child, grandchildren, evaluations = run(scenario())
    context = child.state.token_ids + (20, 21)
    for index, sample in enumerate(grandchildren):
        tokens, logprobs = oracle.continuation(model, context, PARAMS, 2, index)
        assert sample.token_ids == tokens
        assert sample.logprobs == pytest.approx(logprobs, abs=2e-5)
        expected = oracle.pooled(model, sample.state.token_ids)
        torch.testing.assert_close(sample.pooled.double(), expected, atol=2e-5, rtol=2e-5)
    for evaluation in evaluations:
        expected = oracle.pooled(model, child.state.token_ids)
        torch.testing.assert_close(evaluation.pooled.double(), expected, atol=2e-5, rtol=2e-5)


def test_a_model_whose_own_cache_does_not_work_is_run_without(monkeypatch, caplog):
    """Without slots and with a cache that is forgotten between calls, results stay exact."""
    model = FITTING["qwen2"]()
    forward = model.model.forward

    def forgetful(*args, past_key_values=None, **kwargs):
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", forgetful)
    with caplog.at_level(logging.WARNING, logger="lapha"):
        engine = TransformersEngine(model, make_tokenizer())
    assert "at every token" in caplog.text
    context = (0, 14, 15, 9)
    for index, sample in enumerate(run(engine.sample(SampleRequest(State(context), (), 3, PARAMS, 2)))):
        assert sample.token_ids == oracle.continuation(model, context, PARAMS, 2, index)[0]
        expected = oracle.pooled(model, sample.state.token_ids)
        torch.testing.assert_close(sample.pooled.double(), expected, atol=2e-5, rtol=2e-5)
