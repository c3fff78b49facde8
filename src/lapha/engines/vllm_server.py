"""`VLLMServerEngine`: vLLM's OpenAI-compatible servers as policy, and its pooling servers as evaluator."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from lapha._checks import check
from lapha._imports import require
from lapha.agent import ChatEnvironment
from lapha.agent import stop_token_ids as ends_of_step
from lapha.engines.completions import Completion, read_completions, rows_of
from lapha.engines.errors import RequestRefusedError
from lapha.engines.server_pool import RetryPolicy, ServerPool
from lapha.latent import ValueHead
from lapha.types import Environment, Evaluation, Evaluator, Sample, SampleRequest, State

logger = logging.getLogger(__name__)

_STATES_PER_REQUEST = 64


class PoolingServer:
    """h(s) from vLLM pooling servers, and v̂(s) from a value head applied here.

    Start one with ``--runner pooling --convert embed --pooler-config '{"pooling_type":"MEAN","use_activation":false}'``:
    it then returns the mean of the last hidden states after the final norm, which is h(s), and not one number more:
    H numbers a state cross the wire, never the (L, H) hidden states.

    Args:
        urls: base URLs of the pooling servers.
        value_head: reads v̂(s) from h(s).
        model: name that the servers give the model; None for whatever they serve.
        policy: timeouts, retries and circuit breakers.
        api_key: sent as a bearer token, if given.
    """

    def __init__(
        self,
        urls: Sequence[str],
        value_head: ValueHead,
        *,
        model: str | None = None,
        policy: RetryPolicy | None = None,
        api_key: str | None = None,
    ) -> None:
        check(isinstance(value_head, ValueHead), "value_head", "a ValueHead", type(value_head).__name__)
        self.value_head = value_head.to("cpu", torch.float32).eval()
        self.pool = ServerPool(urls, policy, api_key)
        self.model = model

    async def evaluate(self, states: Sequence[State]) -> list[Evaluation]:
        """h(s) and v̂(s) of `states`.

        Raises:
            EngineError: the servers failed, or answered with something else than h(s).
        """
        parts = [states[first : first + _STATES_PER_REQUEST] for first in range(0, len(states), _STATES_PER_REQUEST)]
        rows = [row for part in await asyncio.gather(*map(self._pooled, parts)) for row in part]
        if not rows:
            return []
        pooled = torch.from_numpy(np.stack(rows))
        with torch.no_grad():
            values = self.value_head(pooled).tolist()
        return [Evaluation(row, value) for row, value in zip(pooled.unbind(0), values)]

    async def _pooled(self, states: Sequence[State]) -> list[np.ndarray]:
        payload: dict[str, Any] = {
            "input": [list(state.token_ids) for state in states],
            "encoding_format": "base64",
            "embed_dtype": "float32",
            "endianness": "little",
        }
        if self.model is not None:
            payload["model"] = self.model
        name = f"h(s) of {len(states)} states"
        size = self.value_head.hidden_size

        def read(answer: Any) -> list[np.ndarray]:
            return rows_of(answer, len(states), size, _vector, "data")

        return await self.pool.ask("/pooling", payload, name=name, weight=len(states), read=read)


def _vector(data: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data, validate=True), dtype="<f4").copy()


class VLLMServerEngine:
    """Samples from vLLM servers. Token ids go in and come out; nothing is tokenised twice.

    Several servers share the work by load; a server that dies is left out and its requests are sent again to the
    others. vLLM's own prefix cache plays the part of KV reuse along the tree.

    Args:
        urls: base URLs of generation servers, such as ``["http://127.0.0.1:8000"]``.
        tokenizer: the model's tokenizer, or its name or path.
        model: name that the servers give the model; None for whatever they serve.
        pooling_urls: base URLs of pooling servers for h(s) and v̂(s); empty if `evaluator` or none is given.
        value_head: reads v̂(s) from h(s); needed with `pooling_urls`.
        evaluator: evaluates states instead of pooling servers, such as a `TransformersEngine`.
        environment: what `.environment` returns; None for a `ChatEnvironment` over the tokenizer.
        stop_token_ids: tokens that end a step beside the model's end-of-sequence tokens; None for the one with which the
            chat template ends a turn.
        context_limit: most tokens of a context with its continuation; None to ask the servers.
        policy: timeouts, retries and circuit breakers.
        api_key: sent as a bearer token, if given.

    Raises:
        ValueError: URLs or evaluator that do not fit together.
    """

    identity_excludes: ClassVar[frozenset[str]] = frozenset(("context_limit", "_environment"))

    def __init__(
        self,
        urls: Sequence[str],
        *,
        tokenizer: Any,
        model: str | None = None,
        pooling_urls: Sequence[str] = (),
        value_head: ValueHead | None = None,
        evaluator: Evaluator | None = None,
        environment: Environment | None = None,
        stop_token_ids: Iterable[int] | None = None,
        context_limit: int | None = None,
        policy: RetryPolicy | None = None,
        api_key: str | None = None,
    ) -> None:
        if isinstance(tokenizer, str):
            tokenizer = require("transformers", extra="llm").AutoTokenizer.from_pretrained(tokenizer)
        self.tokenizer = tokenizer
        self.pool = ServerPool(urls, policy, api_key)
        self.model = model
        self.evaluator = evaluator
        self._stop_token_ids = sorted(ends_of_step(self.tokenizer) if stop_token_ids is None else stop_token_ids)
        self.context_limit = self.given_context_limit = context_limit
        self._environment = environment
        if pooling_urls:
            check(evaluator is None, "evaluator", "None where pooling_urls are given", type(evaluator).__name__)
            if value_head is None:
                raise ValueError("value_head: expected a ValueHead to read the pooling servers' h(s), got None")
            self.evaluator = PoolingServer(pooling_urls, value_head, policy=policy, api_key=api_key)
        else:
            check(value_head is None, "value_head", "None where there are no pooling_urls", "a head")

    @property
    def environment(self) -> Environment:
        """The environment given, or a `ChatEnvironment` over the tokenizer, made when first asked for."""
        if self._environment is None:
            self._environment = ChatEnvironment(self.tokenizer)
        return self._environment

    @property
    def hidden_size(self) -> int | None:
        """H of the value head, if there is one here."""
        head = getattr(self.evaluator, "value_head", None)
        return head.hidden_size if isinstance(head, ValueHead) else None

    async def sample(self, request: SampleRequest) -> list[Sample]:
        """`request.n` continuations of a state.

        Raises:
            RequestRefusedError: the server refuses the request (a context that is too long).
            EngineError: all servers failed again and again; names the request and the servers.
        """
        check(request.n >= 1, "request.n", "an integer >= 1", request.n)
        prefix = request.state.token_ids + tuple(request.bridge_ids)
        payload = self._payload(request, prefix)
        room = await self._limit(request.name) - len(prefix)
        if room < 1:
            message = f"a context of {len(prefix)} tokens leaves no room in the model's window of {room + len(prefix)}"
            raise RequestRefusedError(message, request=request.name)
        payload["max_tokens"] = min(payload["max_tokens"], room)  # vLLM refuses more than fits
        count, most = payload["n"], payload["max_tokens"]
        completions = await self.pool.ask(
            "/v1/completions", payload, name=request.name, weight=request.n,
            read=lambda answer: read_completions(answer, count, most),
        )  # fmt: skip
        samples = [self._sample(completion, prefix) for completion in completions]
        # the most likely continuation is one; vLLM does not repeat it
        return samples if len(samples) == request.n else [self._copy(samples[0]) for _ in range(request.n)]

    async def evaluate(self, states: Sequence[State]) -> list[Evaluation]:
        """h(s) and v̂(s) of `states`, by the evaluator; without one no latent, and a value that is not known (NaN).

        Raises:
            EngineError: the pooling servers failed.
        """
        if self.evaluator is None:
            return [Evaluation(None, math.nan) for _ in states]
        return await self.evaluator.evaluate(states)

    async def aclose(self) -> None:
        """Close this event loop's connections."""
        await self.pool.aclose()
        if isinstance(self.evaluator, PoolingServer):
            await self.evaluator.pool.aclose()

    async def _limit(self, name: str) -> int:
        """The model's window as the servers give it, asked for with the first request, `name`."""
        if self.context_limit is None:
            try:
                answer = await self.pool.ask("/v1/models", name=name)
            except RequestRefusedError as error:
                logger.warning("no limit to the length of contexts is known: %s", error)
                answer = {}
            cards = answer.get("data") if isinstance(answer, dict) else None
            limits = [
                card["max_model_len"]
                for card in cards or ()
                if isinstance(card, dict)
                and isinstance(card.get("max_model_len"), int)
                and card["max_model_len"] >= 1
                and self.model in (None, card.get("id"))
            ]
            self.context_limit = min(limits, default=2**31)
        return self.context_limit

    def _payload(self, request: SampleRequest, prefix: tuple[int, ...]) -> dict[str, Any]:
        params = request.params
        greedy = params.temperature == 0
        return {
            **({} if self.model is None else {"model": self.model}),
            "prompt": list(prefix),
            "n": 1 if greedy else request.n,
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "repetition_penalty": params.repetition_penalty,
            "seed": request.seed & (2**62 - 1),  # vLLM adds the index of the continuation to it
            "logprobs": 0,  # of the sampled token alone
            "return_token_ids": True,
            "skip_special_tokens": False,
            "stop_token_ids": sorted({*self._stop_token_ids, *request.stop_token_ids}),
        }

    def _sample(self, completion: Completion, prefix: tuple[int, ...]) -> Sample:
        tokens = completion.token_ids or []
        text = self.tokenizer.decode(
            tokens[:-1] if completion.stopped else tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        reason = "stop" if completion.stopped else "length"
        return Sample(tokens, completion.logprobs or [], text, reason, State(prefix + tuple(tokens)))

    @staticmethod
    def _copy(sample: Sample) -> Sample:
        return Sample(
            list(sample.token_ids),
            list(sample.logprobs),
            sample.text,
            sample.finish_reason,
            sample.state,
            sample.pooled,
        )
