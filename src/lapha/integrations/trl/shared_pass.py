"""The policy's pass over sibling rows with their shared prompt computed once, for TRL's trainer (TRL 1.16)."""

from __future__ import annotations

import functools
from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import maybe_gather_lm_head_ctx, split_tensor_dict

from lapha._checks import check
from lapha.integrations.shared_prefix import NOTHING, PackedGroups, pack_groups
from lapha.integrations.tree_packing import PackedTrees
from lapha.integrations.trl.dense_head import DenseLogProb, suits
from lapha.integrations.trl.value_loss import squared_errors

ATTENTION = ("sdpa", "eager")  # implementations that take a 4-D mask
_LOGIT_SCALES = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
)  # fmt: skip
# Columns of the vocabulary in flight. On a CPU a tile of them should stay in the caches.
_CHUNK, _CHUNK_CPU = 32768, 2048


class SharedPrefixMixin:
    """Put before `LaPhaTrainer`: micro-batches hold whole sibling groups, and each group's prompt is computed once.

    TRL shuffles the rows of a generation batch one by one; here they are sorted back into groups, and the groups keep
    the order that the shuffle gave their first rows. Where packing cannot work (images, router losses, attention
    without a 4-D mask, a sliding window) rows go through TRL's own pass.
    """

    packing: str
    _packed: PackedGroups | None = None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        output["row_number"] = torch.arange(len(output["completion_ids"]), device=output["completion_ids"].device)
        return output

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        before = self._buffered_inputs  # type: ignore[has-type]
        inputs = super()._prepare_inputs(generation_batch)  # type: ignore[misc]
        if self.packing != "prompt" or not self.model.training or self._buffered_inputs is before:  # type: ignore[attr-defined,has-type]
            return inputs
        batches = regroup(self._buffered_inputs, self.num_generations)  # type: ignore[attr-defined,has-type]
        self._buffered_inputs = batches
        return batches[self._step % len(batches)]  # type: ignore[attr-defined]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **other: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        self._packed = None
        plain = not compute_aux_loss and all(value is None for value in other.values())
        unwrapped = self.accelerator.unwrap_model(model)  # type: ignore[attr-defined]
        plain = plain and self.packing == "prompt"
        if not plain or not takes_packed_rows(unwrapped.config):
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss, **other
            )
        size = batch_size or len(input_ids)
        logps, entropies = [], []
        for start in range(0, len(input_ids), size):
            ids, mask = input_ids[start : start + size], attention_mask[start : start + size]
            packed = pack_groups(
                ids[:, :-logits_to_keep], mask[:, :-logits_to_keep], ids[:, -logits_to_keep:], mask[:, -logits_to_keep:]
            )
            dtype = torch.bool if unwrapped.config._attn_implementation == "sdpa" else unwrapped.dtype
            with self.accelerator.autocast():  # type: ignore[attr-defined]
                logprob, entropy, *_ = model(
                    input_ids=packed.input_ids,
                    position_ids=packed.position_ids,
                    attention_mask=packed.attention_mask(dtype),
                    next_ids=packed.next_ids,
                )
            keep = mask[:, -logits_to_keep:]
            logps.append(packed.completion_scores(logprob) * keep)
            if compute_entropy:
                entropies.append(packed.completion_scores(entropy) * keep)
        self._packed = packed if size >= len(input_ids) else None
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _tree_errors(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        self._packed = None  # these contexts go through the decoder as they are
        return super()._tree_errors(model, inputs)  # type: ignore[misc,no-any-return]

    def _errors(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        if self._packed is None:
            return super()._errors(inputs)  # type: ignore[misc,no-any-return]
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        scores = self._packed.unpack(self._tap.take())  # type: ignore[attr-defined]
        return squared_errors(scores, mask, inputs["value_ends"], inputs["value_targets"])


def takes_packed_rows(config: Any) -> bool:
    """Whether a model of this configuration sees all that a 4-D mask lets it see, and has a plain linear head."""
    text = config.get_text_config()
    full = all(kind == "full_attention" for kind in getattr(text, "layer_types", None) or ())
    linear = all(getattr(text, name, None) in (None, 1) for name in _LOGIT_SCALES)
    return text is config and config._attn_implementation in ATTENTION and full and linear


def regroup(batches: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """Micro-batches of whole groups out of TRL's shuffled ones; groups in the order of their first row."""
    rows = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0] if per_row(batches, name)}
    number = rows["row_number"]
    group = number // size
    first = torch.full((int(group.max()) + 1,), len(group), device=number.device)
    first = first.scatter_reduce(0, group, torch.arange(len(group), device=number.device), "amin")
    order = torch.argsort(first[group] * len(number) + number)
    whole = {**batches[0], **{name: values[order] for name, values in rows.items()}}
    return split_tensor_dict(whole, len(batches))


def per_row(batches: list[dict[str, Any]], name: str) -> bool:
    """Whether a batch's entry has one line a row (others are numbers for the whole batch)."""
    return all(
        isinstance(batch[name], torch.Tensor)
        and batch[name].dim() > 0
        and len(batch[name]) == len(batch["completion_ids"])
        for batch in batches
    )


def check_adapters(model: Any) -> None:
    """Refuse adapters whose effect depends on where in a row a token stands: packing moves it.

    Raises:
        ValueError: prompt learning, or adapters that wait for an invocation sequence.
    """
    for adapter in model.peft_config.values() if is_peft_model(model) else ():
        placed = adapter.is_prompt_learning or getattr(adapter, "alora_invocation_tokens", None)
        check(not placed, "peft_config", "adapters that act on every token, as LoRA", adapter.peft_type.value)


def add_compact_head(model: Any, temperature: float, *, dense: bool = True) -> None:
    """Let the model return log-probabilities and entropies of the positions that predict, and of no others.

    ``model(…, next_ids=…)``, (G, L) ids or −100, gives (G, L), 0 elsewhere; ``model(…, tree=…)``, a `PackedTrees`, gives
    (P,) in the order of its targets. ``temperature=`` there stands in for the one given here.

    The vocabulary is spread over those positions alone, whatever the device: in chunks by TRL's kernel, which gathers a
    head that ZeRO-3 has partitioned, or densely on a CPU (`DenseLogProb`, whose entropies have no gradient) if `dense`.

    Args:
        model: a causal LM, not its wrapper: adapters and DeepSpeed's engine call its ``forward``.
        temperature: what the logits are divided by.
        dense: whether the dense form may be taken.
    """
    previous = model.forward

    def scored(hidden: torch.Tensor, targets: torch.Tensor, divisor: float) -> tuple[torch.Tensor, torch.Tensor]:
        head = model.get_output_embeddings()
        if dense and torch.is_grad_enabled() and suits(hidden, head.weight):
            logprob, entropy = DenseLogProb.apply(hidden, head.weight, head.bias, targets, divisor)
            return logprob, entropy
        chunk = _CHUNK_CPU if hidden.device.type == "cpu" else _CHUNK
        with maybe_gather_lm_head_ctx(head.weight, head.bias):
            logprob, entropy, *_ = ChunkedLogProbFunction.apply(
                hidden, head.weight, head.bias, targets, divisor, chunk, None, 1.0, ("entropy",)
            )
        return logprob, entropy

    @functools.wraps(previous)  # `generate` looks at the signature
    def forward(
        *args: Any,
        next_ids: torch.Tensor | None = None,
        tree: PackedTrees | None = None,
        temperature: float = temperature,
        **kwargs: Any,
    ) -> Any:
        if next_ids is None and tree is None:
            return previous(*args, **kwargs)
        kwargs.pop("labels", None)  # peft hands it on; the decoder knows none
        if tree is not None:
            hidden = model.base_model(*args, use_cache=False, tree=tree, **kwargs).last_hidden_state[0]
            return scored(hidden[tree.positions], tree.targets, temperature)
        assert next_ids is not None
        where = next_ids != NOTHING
        hidden = model.base_model(*args, use_cache=False, **kwargs).last_hidden_state[where]
        numbers = scored(hidden, next_ids[where], temperature)
        return tuple(number.new_zeros(next_ids.shape).masked_scatter(where, number) for number in numbers)

    model.forward = forward
