"""`TransformersEngine`: a policy and evaluator over a Hugging Face causal LM in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch

from lapha._checks import check
from lapha.agent import ChatEnvironment
from lapha.agent import stop_token_ids as ends_of_step
from lapha.engines.transformers_engine.batcher import SlotBatcher
from lapha.engines.transformers_engine.jobs import Job
from lapha.engines.transformers_engine.loading import load_model, load_value_head
from lapha.engines.transformers_engine.model import CausalDecoder
from lapha.engines.transformers_engine.plain import PlainBatcher
from lapha.engines.transformers_engine.segments import Segment, SegmentStore
from lapha.engines.transformers_engine.worker import BatchLimits, EngineStats, Worker
from lapha.latent import ValueHead
from lapha.types import Environment, Evaluation, Sample, SampleRequest, State

_ENVIRONMENT_TOKENS = 4096  # prompt and steps together, as in the reference; less where the model holds less
_CPU_BYTES = 2 << 30


class TransformersEngine:
    """Samples continuations and evaluates states with a causal LM of transformers.

    Requests of all live trees are decoded in one batch, which they join and leave between steps. A state's handle
    keeps its own tokens' keys and values, linked to its parent's, so that a node's context is never computed twice,
    and the running sum of last hidden states: h(s) of a sampled state costs no second forward pass.

    A continuation is a function of its context, the request's seed and its index, whatever else is in the batch (up
    to the rounding of the matrix products, which may turn a draw on the very edge between two tokens).

    Args:
        model: a causal LM, which may be one in training: it is put into evaluation mode while it samples and given
            back as it was. Call `invalidate` after changing its weights.
        tokenizer: its tokenizer.
        value_head: reads v̂(s) from h(s); None for one that says 0.5 everywhere.
        environment: what `.environment` returns; None for a `ChatEnvironment` over `tokenizer`.
        stop_token_ids: tokens that end a step; None for the model's and the tokenizer's end-of-sequence tokens and the
            token with which the chat template ends a turn.
        max_batch: continuations decoded at once, ≥ 1.
        max_prefill_tokens: context tokens that enter the batch between two steps, about, ≥ 1.
        autocast: dtype to compute in while the weights stay in theirs, as in mixed-precision training; None for no autocast.
        kv_budget_bytes: memory for the keys and values of states that are not being decoded; what does not fit is
            computed again when needed, least recently used first. 0 keeps none; None takes a quarter of a GPU's free
            memory, or 2 GiB on the CPU. The running batch takes up to as much again.
        lockstep: wait between two decoding steps for the tree code that has just been answered, so that which requests
            are decoded together never depends on timing: the same requests on the same machine then give the same
            results to the bit (tools that run elsewhere, in a sandbox, still come when they come). None: on the CPU,
            where fuller batches pay for the wait, but not on a GPU, which decodes while the tree code runs.

    Raises:
        ValueError: an argument outside its range, or a model that is not a causal LM.

    Attributes:
        stats: counters since the start, or since they were last replaced.
    """

    # they change how fast answers come, not which; the environment is a part of its own
    identity_excludes: ClassVar[frozenset[str]] = frozenset(("_decoder", "_store", "_batcher", "_environment"))

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        value_head: ValueHead | None = None,
        *,
        environment: Environment | None = None,
        stop_token_ids: Iterable[int] | None = None,
        max_batch: int = 256,
        max_prefill_tokens: int = 8192,
        autocast: torch.dtype | None = None,
        kv_budget_bytes: int | None = None,
        lockstep: bool | None = None,
    ) -> None:
        check(max_batch >= 1, "max_batch", "an integer >= 1", max_batch)
        check(max_prefill_tokens >= 1, "max_prefill_tokens", "an integer >= 1", max_prefill_tokens)
        check(kv_budget_bytes is None or kv_budget_bytes >= 0, "kv_budget_bytes", "bytes >= 0", kv_budget_bytes)
        self.model, self.tokenizer = model, tokenizer
        self.autocast = autocast
        self._decoder = CausalDecoder(model, autocast)
        self.hidden_size = self._decoder.hidden_size
        if value_head is None:
            value_head = ValueHead(self.hidden_size).to(self._decoder.device)
        size = value_head.hidden_size
        check(size == self.hidden_size, "value_head", f"hidden_size {self.hidden_size} as the model's", size)
        self.value_head = value_head
        self.stop_token_ids = frozenset(
            ends_of_step(tokenizer, getattr(model, "generation_config", None))
            if stop_token_ids is None
            else stop_token_ids
        )
        check(bool(self.stop_token_ids), "stop_token_ids", "at least one, as model and tokenizer name none", "none")
        self._environment = environment
        share = _memory_share(self._decoder.device)
        self._store = SegmentStore(share if kv_budget_bytes is None else kv_budget_bytes)
        limits = BatchLimits(
            rows=max_batch,
            prefill_tokens=max_prefill_tokens,
            slot_bytes=share,
            lockstep=self._decoder.device.type == "cpu" if lockstep is None else lockstep,
        )
        batcher: type[Worker] = PlainBatcher if self._decoder.kv_shape is None else SlotBatcher
        self._batcher = batcher(self._decoder, self._store, self.stop_token_ids, self._decode, limits)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        value_head: ValueHead | str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        gguf_file: str | None = None,
        require_chat_template: bool = True,
        **options: Any,
    ) -> TransformersEngine:
        """Load a model, its tokenizer and a value head.

        Args:
            name_or_path: a folder, or a model's name on the Hugging Face hub.
            value_head: a head, the folder of a saved one, or None.
            device: None for CUDA where there is one, else the CPU.
            dtype: None for bfloat16 on CUDA, float32 on the CPU; ``"auto"`` for the checkpoint's own.
            gguf_file: name of a GGUF file in that folder or repository.
            require_chat_template: refuse a tokenizer without one, since prompts could not be made with it.
            **options: of the constructor.

        Raises:
            ValueError: no such model, no chat template, a value head of another size; names the argument.
            MissingExtraError: transformers, or gguf, is not installed.
        """
        model, tokenizer = load_model(name_or_path, device, dtype, gguf_file, require_chat_template)
        head = load_value_head(value_head)
        if head is not None:
            head = head.to(model.get_output_embeddings().weight.device)
        return cls(model, tokenizer, head, **options)

    @property
    def environment(self) -> Environment:
        """The environment given, or a `ChatEnvironment` over the tokenizer, made when first asked for."""
        if self._environment is None:
            limit = min(_ENVIRONMENT_TOKENS, self._decoder.context_limit)
            self._environment = ChatEnvironment(self.tokenizer, context_limit=limit)
        return self._environment

    @property
    def context_limit(self) -> int:
        """Most tokens of a context with its continuation: the model's window."""
        return self._decoder.context_limit

    @property
    def reuses_kv(self) -> bool:
        """Whether keys and values are shared along the tree (plain attention caches only)."""
        return self._decoder.kv_shape is not None

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values kept for states now."""
        return self._store.bytes

    @property
    def stats(self) -> EngineStats:
        return self._batcher.stats

    @stats.setter
    def stats(self, value: EngineStats) -> None:
        self._batcher.stats = value

    async def sample(self, request: SampleRequest) -> list[Sample]:
        """`request.n` continuations of a state.

        Raises:
            ValueError: the context is empty, or leaves no room in the model's context window.
        """
        check(request.n >= 1, "request.n", "an integer >= 1", request.n)
        job = Job.of(request, asyncio.get_running_loop())
        self._check_length(job, room=1)
        job.max_tokens = min(job.max_tokens, self._decoder.context_limit - job.context_length)
        self._batcher.submit([job])
        return await job.future

    async def evaluate(self, states: Sequence[State]) -> list[Evaluation]:
        """h(s) and v̂(s) of `states`, at once where they have handles; others go through the model.

        Raises:
            ValueError: a state is empty, or longer than the model's context window.
        """
        if not states:
            return []
        segments: list[Segment | None] = [self._known(state) for state in states]
        unknown = [index for index, segment in enumerate(segments) if segment is None]
        if unknown:
            loop = asyncio.get_running_loop()
            jobs = [Job(states[index], (), 0, loop.create_future(), loop) for index in unknown]
            for job in jobs:
                self._check_length(job, room=0)
            self._batcher.submit(jobs)
            for index, segment in zip(unknown, await asyncio.gather(*(job.future for job in jobs))):
                segments[index] = segment
        return self._read_out([segment for segment in segments if segment is not None])

    def invalidate(self) -> None:
        """Forget all keys, values and hidden states: the model's weights have changed.

        Handles made before stay usable; they are computed again from their token ids.

        Raises:
            RuntimeError: called while requests are in work.
        """
        if self._batcher.busy:
            raise RuntimeError("invalidate: expected an idle engine, got one with requests in work")
        self._store.clear()
        self._batcher.epoch = object()

    def close(self) -> None:
        """End the worker thread, after the work in hand."""
        self._batcher.close()

    def _known(self, state: State) -> Segment | None:
        handle = state.handle
        if isinstance(handle, Segment) and handle.epoch is self._batcher.epoch:
            return handle
        return None

    def _read_out(self, segments: list[Segment]) -> list[Evaluation]:
        sums = torch.stack([segment.hidden_sum for segment in segments])
        pooled = sums / torch.tensor([segment.count for segment in segments], device=sums.device).unsqueeze(1)
        with torch.no_grad():
            values = self.value_head(pooled.to(self.value_head.linear.weight.device))
        return [Evaluation(row, value) for row, value in zip(pooled.cpu().unbind(0), values.float().tolist())]

    def _check_length(self, job: Job, room: int) -> None:
        limit, length = self._decoder.context_limit, job.context_length
        check(
            0 < length <= limit - room, "state.token_ids", f"1 to {limit - room} tokens with the bridge",
            f"{length}" + (f" in request {job.name!r}" if job.name else ""),
        )  # fmt: skip

    def _decode(self, token_ids: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _memory_share(device: torch.device) -> int:
    """Bytes for keys and values, twice: of the running batch, and of states at rest."""
    if device.type != "cuda":
        return _CPU_BYTES
    return torch.cuda.mem_get_info(device)[0] // 4
