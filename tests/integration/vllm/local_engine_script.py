"""Run by vLLM's own interpreter: the in-process engine against whole forward passes of transformers."""

import asyncio
import sys

import torch
from transformers import AutoModelForCausalLM
from vllm import LLM

from lapha.engines.errors import RequestRefusedError
from lapha.engines.vllm_local import VLLMLocalEngine
from lapha.latent import ValueHead
from lapha.types import SampleRequest, SamplingParams, State


async def check(engine: VLLMLocalEngine, model) -> None:
    prompt = tuple(range(40, 60))
    params = SamplingParams(max_tokens=12, temperature=0.8, top_p=0.9, top_k=20, repetition_penalty=1.1)

    def ask(seed, n=3):
        return engine.sample(SampleRequest(State(prompt), (61, 62), n, params, seed, f"request {seed}"))

    first, again, other = await asyncio.gather(ask(1), ask(1), ask(2, 5))
    assert [s.token_ids for s in first] == [s.token_ids for s in again]
    assert len(other) == 5
    states = [sample.state for sample in first + other]
    for sample, evaluation in zip(first + other, await engine.evaluate(states)):
        ids = sample.state.token_ids
        assert ids == prompt + (61, 62) + tuple(sample.token_ids)
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        start = len(ids) - len(sample.token_ids)
        logprobs = torch.log_softmax(output.logits[0], -1)[start - 1 : -1].gather(
            1, torch.tensor(sample.token_ids)[:, None]
        )
        torch.testing.assert_close(torch.tensor(sample.logprobs), logprobs[:, 0], atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(evaluation.pooled, output.hidden_states[-1][0].mean(0), atol=1e-5, rtol=1e-5)
        assert evaluation.value == 0.5
    too_long = engine.sample(SampleRequest(State((5,) * 600), (), 1, params, 0, "too long"))
    (refusal,) = await asyncio.gather(too_long, return_exceptions=True)
    assert isinstance(refusal, RequestRefusedError)
    assert "'too long' from vllm.LLM" in str(refusal)


def main(folder: str) -> None:
    options = dict(model=folder, enforce_eager=True, dtype="float32", max_num_seqs=32)
    llm = LLM(**options)
    pooler = {"pooling_type": "MEAN", "use_activation": False}
    pooling = LLM(**options, runner="pooling", convert="embed", pooler_config=pooler)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    engine = VLLMLocalEngine(llm, pooling_llm=pooling, value_head=ValueHead(model.config.hidden_size))
    asyncio.run(check(engine, model))
    engine.close()
    print("local engine: ok")


if __name__ == "__main__":
    main(sys.argv[1])
