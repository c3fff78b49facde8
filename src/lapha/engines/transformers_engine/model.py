"""A Hugging Face causal LM as the engine needs it: decoder, head, and forward passes through slots."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from lapha._checks import check
from lapha.engines.transformers_engine.slots import KVShape, SlotBuffer, SlotCache

logger = logging.getLogger(__name__)

_FORWARD_ERRORS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError, NotImplementedError)
_PROBE_TOKENS = 8
_CACHE_NAMES = ("past_key_values", "cache_params")  # what transformers models call their cache, in and out


class CausalDecoder:
    """The decoder stack and the language-model head of `model`, called separately.

    Only the last position's logits are ever needed, and the hidden states of every position are, so the decoder
    module is run alone and the head on one position a row.

    Args:
        model: a causal LM of transformers (or one wrapped by PEFT).
        autocast: dtype to compute in while the weights stay in their own, as in mixed-precision training; or None.

    Raises:
        ValueError: not such a model, or its logits are not its head applied to its last hidden state.

    Attributes:
        context_limit: most tokens of a context: the window, or fewer where `rope_boundary` says so.
        kv_shape: shape of the cache, or None if this model cannot run in slots (`why_not` says why).
        own_cache: whether contexts can be continued with the model's own cache, where there are no slots.
    """

    def __init__(self, model: Any, autocast: torch.dtype | None = None) -> None:
        for method in ("get_decoder", "get_output_embeddings"):
            check(hasattr(model, method), "model", f"a transformers causal LM with {method}()", type(model).__name__)
        self.model = model
        self.autocast = autocast
        self.decoder = model.get_decoder()
        self.head = model.get_output_embeddings()
        check(self.head is not None, "model", "a causal LM with a language-model head", type(model).__name__)
        self.config = model.config.get_text_config()
        self.hidden_size = int(self.config.hidden_size)
        self.vocab_size = int(self.head.weight.shape[0])
        self.context_limit = int(getattr(self.config, "max_position_embeddings", None) or 2**31)
        boundary = rope_boundary(self.config)
        if boundary is not None and boundary < self.context_limit:
            logger.warning(
                "%s: contexts end at %d tokens: past them its rotary frequencies depend on the longest context of a batch",
                type(model).__name__, boundary,
            )  # fmt: skip
            self.context_limit = boundary
        self.kv_shape: KVShape | None = None
        self.why_not = ""
        self.own_cache = True
        with self.sampling_mode():
            self._probe()

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    @contextmanager
    def sampling_mode(self) -> Iterator[None]:
        """Evaluation mode, no gradients, and an attention implementation that takes per-row masks; then as before."""
        training = [module for module in self.model.modules() if module.training]
        for module in training:
            module.training = False
        attention = self.config._attn_implementation
        if attention not in ("sdpa", "eager"):  # flash and flex kernels do not take an additive mask
            self.config._attn_implementation = "sdpa"
        try:
            precision = torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)
            with torch.no_grad(), precision:
                yield
        finally:
            self.config._attn_implementation = attention
            for module in training:
                module.training = True

    def forward(self, **inputs: Any) -> torch.Tensor:
        """Last hidden states (B, T, H), after the final norm."""
        return self.decoder(**inputs).last_hidden_state

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits (B, V) float32 of hidden states (B, H)."""
        logits = self.head(hidden)
        scale = getattr(self.config, "logit_scale", None)  # Cohere
        if scale is not None:
            logits = logits * scale
        divisor = getattr(self.config, "logits_scaling", None)  # Granite
        if divisor is not None:
            logits = logits / divisor
        cap = getattr(self.config, "final_logit_softcapping", None)  # Gemma
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits.float()

    def plain_forward(self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Last hidden states of whole contexts (B, T), right-padded where `attention_mask` says so; no cache."""
        return self.forward(input_ids=token_ids, attention_mask=attention_mask, use_cache=False)

    def own_forward(self, token_ids: torch.Tensor, cache: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Continue contexts (B, ·) by `token_ids` (B, T) with the model's own cache.

        Args:
            token_ids: (B, T); all rows have the same length, so there is no padding.
            cache: {} at the start, then what the last call returned.

        Returns:
            (last hidden states (B, T, H), cache).
        """
        output = self.decoder(input_ids=token_ids, use_cache=True, **cache)
        found = {name: output[name] for name in _CACHE_NAMES if output.get(name) is not None}
        return output.last_hidden_state, found

    def slot_forward(
        self, cache: SlotCache, rows: tuple[int, int], token_ids: torch.Tensor, start: torch.Tensor, bias: torch.Tensor,
        where: torch.Tensor, visible: int,
    ) -> torch.Tensor:  # fmt: skip
        """Append tokens to rows of the slot buffer.

        Args:
            cache: onto the buffer.
            rows: (first, last): the B rows [first, last).
            token_ids: (B, T) new tokens.
            start: (B,) how many tokens each row held before: the position of its first new one.
            bias: (B, 1, T, visible) additive mask.
            where: (B, T) place of each new token in the buffer, row · length + position.
            visible: slots that attention looks at.

        Returns:
            (B, T, H) last hidden states.
        """
        steps = token_ids.shape[1]
        positions = start.unsqueeze(1)
        if steps > 1:
            positions = positions + torch.arange(steps, device=start.device)
            positions = positions.clamp(max=self.context_limit - 1)  # padding must not reach past the window
        cache.aim(*rows, where, visible, max(visible - steps, 0))
        return self.forward(
            input_ids=token_ids, attention_mask=bias, position_ids=positions, past_key_values=cache, use_cache=True
        )

    def _probe(self) -> None:
        """Find out by trying whether this model's logits and cache are what the engine assumes."""
        device = self.device
        token_ids = (torch.arange(_PROBE_TOKENS, device=device) * 7 % self.vocab_size).unsqueeze(0)
        hidden = self.plain_forward(token_ids)
        expected = self.model(input_ids=token_ids, use_cache=False).logits[:, -1].float()
        check(
            torch.allclose(self.logits(hidden[:, -1]), expected, rtol=1e-2, atol=1e-2),
            "model", "logits that are its head applied to its last hidden state", type(self.model).__name__,
        )  # fmt: skip
        try:
            self.kv_shape = self._measure_kv(token_ids)
            difference = self._slot_difference(token_ids, hidden)
        except _FORWARD_ERRORS as error:
            self.kv_shape, self.why_not = None, f"{type(error).__name__}: {error}"
        else:
            if self.kv_shape is not None and not _close(difference, hidden):
                self.kv_shape, self.why_not = None, f"hidden states through slots differ by {difference:.2e}"
        if self.kv_shape is None:
            self.own_cache = _close(self._own_difference(token_ids, hidden), hidden)
            logger.warning(
                "%s: no KV reuse along the tree, every request is prefilled whole%s (%s)",
                type(self.model).__name__, "" if self.own_cache else " at every token", self.why_not,
            )  # fmt: skip

    def _own_difference(self, token_ids: torch.Tensor, expected: torch.Tensor) -> float:
        """Largest difference of hidden states with the model's own cache, five tokens and then one by one."""
        cache: dict[str, Any] = {}
        parts = []
        for first, last in ((0, 5), *((index, index + 1) for index in range(5, _PROBE_TOKENS))):
            hidden, cache = self.own_forward(token_ids[:, first:last], cache)
            parts.append(hidden)
        return float((torch.cat(parts, dim=1) - expected).float().abs().max())

    def _measure_kv(self, token_ids: torch.Tensor) -> KVShape | None:
        """The common shape of all layers' caches, or None if they are not plain ones."""
        cache = DynamicCache(config=self.config)
        self.forward(input_ids=token_ids, past_key_values=cache, use_cache=True)
        layers = cache.layers
        shapes = {(type(layer), getattr(layer, "keys", token_ids).shape) for layer in layers}
        shapes |= {(type(layer), getattr(layer, "values", token_ids).shape) for layer in layers}
        if len(shapes) != 1 or type(layers[0]) is not DynamicLayer:
            self.why_not = "its cache is not one of plain attention layers of one shape"
            return None
        keys: torch.Tensor = layers[0].keys  # type: ignore[assignment]
        values: torch.Tensor = layers[0].values  # type: ignore[assignment]
        dtype = torch.promote_types(keys.dtype, values.dtype)  # autocast makes them differ
        return KVShape(len(layers), keys.shape[1], keys.shape[3], dtype, keys.device)

    def _slot_difference(self, token_ids: torch.Tensor, expected: torch.Tensor) -> float:
        """Largest difference of hidden states through slots, five tokens and then three, from a plain pass."""
        if self.kv_shape is None:
            return 0.0
        buffer = SlotBuffer(self.kv_shape, self.hidden_size)
        buffer.ensure(1, _PROBE_TOKENS + 8)
        cache = SlotCache(buffer)
        parts = []
        for first, last in ((0, 5), (5, 6), (6, _PROBE_TOKENS)):
            visible, steps = last + 3, last - first
            query, key = torch.arange(first, last, device=self.device), torch.arange(visible, device=self.device)
            bias = torch.zeros((1, 1, steps, visible), dtype=self.kv_shape.dtype, device=self.device)
            bias.masked_fill_(key > query[:, None], buffer.hidden)
            start = torch.tensor([first], device=self.device)
            parts.append(
                self.slot_forward(cache, (0, 1), token_ids[:, first:last], start, bias, query.unsqueeze(0), visible)
            )
        return float((torch.cat(parts, dim=1) - expected).float().abs().max())


def rope_boundary(config: Any) -> int | None:
    """Tokens up to which the rotary frequencies are the same for every context, or None where they always are.

    ``longrope`` takes other frequencies for the whole batch once one context is longer than the model was first trained
    on, and ``dynamic`` once one is longer than its window. A continuation would then depend on what is beside it, and
    keys that were kept along the tree would be of other frequencies.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    found = []
    for entry in (parameters, *(value for value in parameters.values() if isinstance(value, dict))):
        kind = entry.get("rope_type") or entry.get("type") or ""
        if kind == "longrope":
            found.append(entry.get("original_max_position_embeddings") or config.original_max_position_embeddings)
        elif "dynamic" in kind:
            found.append(config.max_position_embeddings)
    return min(map(int, found), default=None)


def _close(difference: float, hidden: torch.Tensor) -> bool:
    """Whether hidden states that differ by so much are the same up to rounding."""
    scale = float(hidden.float().abs().max())
    return difference <= scale * 8 * torch.finfo(hidden.dtype).eps ** 0.75
