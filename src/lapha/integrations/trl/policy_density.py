"""What the trainer's own weights say about sampled tokens, beside what a vLLM server logged (TRL 1.16, vLLM 0.10 to 0.2x).

Two readers want two densities of the same tokens. The search's prior and its reports want log-probabilities at temperature
1 (`lapha.types.Sample.logprobs`). TRL's importance ratio is exp(Σ own − Σ logged), own being its model's log-probabilities at
the sampling temperature, without penalty or truncation. vLLM logs one of two: raw (temperature 1) or processed (penalty,
temperature, top-k and top-p applied). So the two are never subtracted from each other here: the server's number is
compared with the own model's *of the same kind*, and what is left is the difference of the two engines, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lapha._checks import check_choice
from lapha.integrations.shaped import TreeRow
from lapha.integrations.trl.density import processed_logprobs, token_logprobs
from lapha.types import Sample, SampleRequest

LogprobsMode = Literal["raw_logprobs", "processed_logprobs"]
CompletionLogits = Callable[[Sequence[int], Sequence[int]], Tensor]


def logprobs_mode(trainer: Any) -> LogprobsMode:
    """What the vLLM that samples for `trainer` logs; the same on every process.

    Raises:
        ValueError: logits instead of log-probabilities.
    """
    from accelerate.utils import broadcast_object_list

    generation = trainer.vllm_generation
    if trainer.vllm_mode == "server":
        found = [None]
        if trainer.accelerator.is_main_process:
            found = [generation.vllm_client.get_server_info()["model_config"]["logprobs_mode"]]
        mode = broadcast_object_list(found)[0]
    else:
        mode = generation.llm.llm_engine.model_config.logprobs_mode
    mode = str(getattr(mode, "value", mode))
    check_choice(mode, "logprobs_mode", ("raw_logprobs", "processed_logprobs"))
    return mode  # type: ignore[return-value]


def completion_logits(model: Any, autocast: Callable[[], Any]) -> CompletionLogits:
    """``(context, completion) -> (C, V)`` float32 logits of the positions before each token of the completion."""

    @torch.no_grad()
    def logits(context: Sequence[int], completion: Sequence[int]) -> Tensor:
        ids = torch.tensor([[*context, *completion]], device=model.device)
        with autocast():
            found = model(input_ids=ids, use_cache=False, logits_to_keep=len(completion) + 1).logits
        return found[0, :-1].float()

    return logits


class RawLogprobs:
    """A policy on a server that logs processed log-probabilities, with samples that carry those at temperature 1.

    They are the own model's, plus what the server's processed ones differ from the own model's processed ones. This takes
    a pass through the own model for every sample; a server that logs raw ones needs none.

    Args:
        policy: the engine that asks the server.
        logits: see `completion_logits`.
    """

    def __init__(self, policy: Any, logits: CompletionLogits) -> None:
        self._policy, self._logits = policy, logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    async def sample(self, request: SampleRequest) -> list[Sample]:
        """As of the policy."""
        samples: list[Sample] = await self._policy.sample(request)
        context = [*request.state.token_ids, *request.bridge_ids]
        for sample in samples:
            logits = self._logits(context, sample.token_ids)
            tokens = torch.tensor(sample.token_ids, device=logits.device)
            own = processed_logprobs(logits, torch.tensor(context, device=logits.device), tokens, request.params)
            difference = torch.tensor(sample.logprobs, device=logits.device) - own
            sample.logprobs = (token_logprobs(logits, tokens) + difference).tolist()
        return samples

    async def evaluate(self, states: Any) -> Any:
        """As of the policy."""
        return await self._policy.evaluate(states)


def comparable_logprobs(rows: Sequence[TreeRow], logits: CompletionLogits, temperature: float) -> list[list[float]]:
    """What TRL must be told was logged, so that its ratio is that of the two engines for the same distribution.

    A row's `TreeRow.logprobs` are the server's at temperature 1. TRL subtracts what it is told from its own model's at
    `temperature`; the result here is that, less the own model's difference from the server at temperature 1. With equal
    weights and exact arithmetic TRL's ratio is then 1 whatever truncation and penalty the server sampled with.
    """
    told = []
    for row in rows:
        found = logits(row.prompt_ids, row.completion_ids)
        tokens = torch.tensor(row.completion_ids, device=found.device)
        logged = torch.tensor(row.logprobs, device=found.device)
        own = token_logprobs(found, tokens)
        told.append((token_logprobs(found, tokens, temperature) - (own - logged)).tolist())
    return told
