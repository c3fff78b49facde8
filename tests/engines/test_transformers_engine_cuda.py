"""The transformers engine on a CUDA device."""

import asyncio

import engine_oracle as oracle
import pytest
import torch
from engine_models import make_model, make_tokenizer, run

from lapha.engines import TransformersEngine
from lapha.types import SampleRequest, SamplingParams, State

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PARAMS = SamplingParams(max_tokens=12, temperature=0.9, top_p=0.95, top_k=20, repetition_penalty=1.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trees_on_the_device_are_those_of_the_cpu(dtype):
    reference = make_model().to(dtype)
    engine = TransformersEngine(make_model().to(dtype).cuda(), make_tokenizer())
    assert engine.reuses_kv

    async def grow(k):
        root = State((0, 14, 15 + k, 9, 26))
        child = (await engine.sample(SampleRequest(root, (), 4, PARAMS, k)))[k % 4]
        return await engine.sample(SampleRequest(child.state, (20, 21), 4, PARAMS, 100 + k))

    async def grow_all():
        return await asyncio.gather(*(grow(k) for k in range(16)))

    tolerance = 1e-4 if dtype is torch.float32 else 0.05
    for samples in run(grow_all()):
        for sample in samples:
            hidden, logits = oracle.forward(reference, sample.state.token_ids)
            torch.testing.assert_close(sample.pooled.double(), hidden.mean(dim=0), atol=tolerance, rtol=tolerance)
            if dtype is torch.float32:
                start = len(sample.state.token_ids) - len(sample.token_ids)
                tokens = torch.tensor(sample.token_ids)[:, None]
                expected = torch.log_softmax(logits, -1)[start - 1 : -1].gather(1, tokens)[:, 0]
                torch.testing.assert_close(torch.tensor(sample.logprobs).double(), expected, atol=1e-3, rtol=1e-3)
