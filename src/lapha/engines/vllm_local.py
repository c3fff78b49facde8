"""`VLLMLocalEngine`: the in-process `vllm.LLM` as policy, and a pooling one as evaluator."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from lapha._checks import check
from lapha._imports import require
from lapha.agent import ChatEnvironment
from lapha.agent import stop_token_ids as ends_of_step
from lapha.engines.errors import EngineError, RequestRefusedError
from lapha.latent import ValueHead
from lapha.types import Environment, Evaluation, Evaluator, Sample, SampleRequest, State


@dataclass(eq=False, slots=True)
class _Job:
    """One vLLM request and who waits for it."""

    token_ids: list[int]
    params: Any
    name: str
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class _Stepper:
    """Drives one `vllm.LLM` from a thread of its own: requests join between steps, and leave when they are done.

    `LLM.generate` would run each batch to its end before the next one starts; stepping the engine underneath keeps
    vLLM's continuous batching for trees that ask at different times.
    """

    def __init__(self, llm: Any, vllm: Any) -> None:
        self._engine = llm.llm_engine
        # what validation raises: ValueError once, a class of its own since
        self._refusals = (ValueError, getattr(vllm.exceptions, "VLLMClientError", ValueError))
        self._waiting: deque[_Job] = deque()
        self._live: dict[str, _Job] = {}
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._running = False
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lapha-vllm")

    def identity(self) -> dict[str, Any]:
        """The model as vLLM was told of it; its weights are in another process."""
        config = self._engine.model_config
        return {name: str(getattr(config, name, None)) for name in ("model", "revision", "dtype", "quantization")}

    async def ask(self, token_ids: Sequence[int], params: Any, name: str) -> Any:
        """The finished request output of one prompt."""
        loop = asyncio.get_running_loop()
        job = _Job(list(token_ids), params, name, loop, loop.create_future())
        with self._lock:
            self._waiting.append(job)
            start, self._running = not self._running, True
        if start:
            self._start()
        return await job.future

    def close(self) -> None:
        """Wait for the work in hand and end the thread."""
        self._executor.shutdown(wait=True)

    def _start(self) -> None:
        self._executor.submit(self._run).add_done_callback(self._finished)

    def _run(self) -> None:
        while True:
            self._admit()
            if not self._live:
                return
            for output in self._engine.step():
                if output.finished and output.request_id in self._live:
                    self._answer(self._live.pop(output.request_id), output)
            self._abort_abandoned()

    def _admit(self) -> None:
        while self._waiting:
            with self._lock:
                job = self._waiting.popleft()
            if job.future.done():
                continue
            key = f"lapha-{next(self._ids)}"
            self._live[key] = job  # before anything can go wrong: whatever is live gets an answer
            try:
                self._engine.add_request(key, {"prompt_token_ids": job.token_ids}, job.params)
            except self._refusals as error:
                del self._live[key]
                self._answer(job, RequestRefusedError(str(error), request=job.name, server="vllm.LLM"))

    def _abort_abandoned(self) -> None:
        gone = [key for key, job in self._live.items() if job.future.done()]
        if gone:
            self._engine.abort_request(gone)
            for key in gone:
                del self._live[key]

    def _finished(self, run: Future[None]) -> None:
        error = run.exception()
        with self._lock:
            failed: list[_Job] = []
            if error is not None:
                failed = [*self._live.values(), *self._waiting]
                self._live.clear()
                self._waiting.clear()
            self._running = again = bool(self._waiting)
        for job in failed:
            self._answer(job, EngineError(f"{type(error).__name__}: {error}", request=job.name, server="vllm.LLM"))
        if again:
            self._start()

    @staticmethod
    def _answer(job: _Job, result: Any) -> None:
        def resolve() -> None:
            if job.future.done():
                return
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

        try:
            job.loop.call_soon_threadsafe(resolve)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


class VLLMLocalEngine:
    """Samples from an in-process `vllm.LLM`.

    Args:
        llm: a `vllm.LLM` for generation, made by the caller; it must not be used otherwise meanwhile.
        pooling_llm: a `vllm.LLM` over the same weights with ``runner="pooling", convert="embed"`` and
            ``pooler_config`` MEAN without activation, for h(s); or None.
        value_head: reads v̂(s) from h(s); needed with `pooling_llm`.
        evaluator: evaluates states instead of `pooling_llm`.
        environment: what `.environment` returns; None for a `ChatEnvironment` over the tokenizer.
        stop_token_ids: tokens that end a step beside the model's end-of-sequence tokens; None for the one with which the
            chat template ends a turn.

    Raises:
        ValueError: evaluators that do not fit together.
        MissingExtraError: vLLM is not installed.
    """

    identity_excludes: ClassVar[frozenset[str]] = frozenset(("_vllm", "_environment"))

    def __init__(
        self,
        llm: Any,
        *,
        pooling_llm: Any = None,
        value_head: ValueHead | None = None,
        evaluator: Evaluator | None = None,
        environment: Environment | None = None,
        stop_token_ids: Iterable[int] | None = None,
    ) -> None:
        self._vllm = require("vllm", extra="vllm")
        require("vllm.exceptions", extra="vllm")
        both = pooling_llm is not None and evaluator is not None
        check(not both, "evaluator", "None where there is a pooling_llm", type(evaluator).__name__)
        paired = (pooling_llm is None) == (value_head is None)
        check(paired, "value_head", "a ValueHead with a pooling_llm, and neither alone", type(value_head).__name__)
        self.tokenizer = llm.get_tokenizer()
        self.value_head = value_head.to("cpu", torch.float32).eval() if value_head is not None else None
        self.evaluator = evaluator
        self._environment = environment
        self.context_limit = int(llm.llm_engine.model_config.max_model_len)
        self._stop_token_ids = sorted(ends_of_step(self.tokenizer) if stop_token_ids is None else stop_token_ids)
        self._policy = _Stepper(llm, self._vllm)
        self._pooling = _Stepper(pooling_llm, self._vllm) if pooling_llm is not None else None

    @property
    def environment(self) -> Environment:
        """The environment given, or a `ChatEnvironment` over the tokenizer, made when first asked for."""
        if self._environment is None:
            self._environment = ChatEnvironment(self.tokenizer)
        return self._environment

    async def sample(self, request: SampleRequest) -> list[Sample]:
        """`request.n` continuations of a state.

        Raises:
            RequestRefusedError: vLLM refuses the request (a context that is too long).
            EngineError: vLLM failed.
        """
        check(request.n >= 1, "request.n", "an integer >= 1", request.n)
        prefix = request.state.token_ids + tuple(request.bridge_ids)
        room = max(self.context_limit - len(prefix), 1)  # vLLM names a context that leaves none, when it is asked
        output = await self._policy.ask(prefix, self._parameters(request, room), request.name)
        completions = sorted(output.outputs, key=lambda completion: completion.index)
        if request.params.temperature == 0:
            completions = completions * request.n  # the most likely continuation is one
        return [self._sample(completion, prefix) for completion in completions]

    async def evaluate(self, states: Sequence[State]) -> list[Evaluation]:
        """h(s) and v̂(s) of `states`.

        Raises:
            ValueError: there is neither a pooling LLM nor an evaluator.
            EngineError: vLLM failed.
        """
        if self.evaluator is not None:
            return await self.evaluator.evaluate(states)
        if self._pooling is None or self.value_head is None:
            raise ValueError("evaluator: expected a pooling_llm with a value_head, or an evaluator, got neither")
        params = self._vllm.PoolingParams(task="embed", use_activation=False)
        outputs = await asyncio.gather(*(self._pooling.ask(state.token_ids, params, "h(s)") for state in states))
        if not outputs:
            return []
        pooled = torch.stack([output.outputs.data.float().cpu() for output in outputs])
        with torch.no_grad():
            values = self.value_head(pooled).tolist()
        return [Evaluation(row, value) for row, value in zip(pooled.unbind(0), values)]

    def close(self) -> None:
        """End the threads, after the work in hand."""
        self._policy.close()
        if self._pooling is not None:
            self._pooling.close()

    def _parameters(self, request: SampleRequest, room: int) -> Any:
        params = request.params
        return self._vllm.SamplingParams(
            n=1 if params.temperature == 0 else request.n,
            max_tokens=min(params.max_tokens, room),
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            repetition_penalty=params.repetition_penalty,
            seed=request.seed & (2**62 - 1),  # vLLM adds the index of the continuation to it
            logprobs=0,
            stop_token_ids=sorted({*self._stop_token_ids, *request.stop_token_ids}) or None,
            detokenize=False,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )

    def _sample(self, completion: Any, prefix: tuple[int, ...]) -> Sample:
        tokens = list(completion.token_ids)
        logprobs = [entry[token].logprob for token, entry in zip(tokens, completion.logprobs)]
        stopped = completion.finish_reason == "stop"
        text = self.tokenizer.decode(
            tokens[:-1] if stopped else tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return Sample(tokens, logprobs, text, "stop" if stopped else "length", State(prefix + tuple(tokens)))
