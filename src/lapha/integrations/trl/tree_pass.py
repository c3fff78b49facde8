"""The policy's pass over whole trees, every token once, for TRL's trainer (TRL 1.16)."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from lapha._checks import check
from lapha.integrations.tree_packing import PackedTrees, TreePart, pack_trees, split_trees
from lapha.integrations.trl.importance import importance_ratio, log_importance
from lapha.integrations.trl.shared_pass import takes_packed_rows
from lapha.integrations.trl.value_tap import causal_lm

logger = logging.getLogger(__name__)

_BY_ROWS = ("grpo", "sapo", "dr_grpo", "luspo")  # losses that are means over a micro-batch's rows


def why_no_trees(config: Any) -> str | None:
    """Why a model of this configuration cannot take packed trees; None if it can."""
    from transformers import AttentionInterface

    if not takes_packed_rows(config) and config._attn_implementation != "lapha_tree":
        return f"attention {config._attn_implementation!r}, a sliding window, several modes or scaled logits"
    if "sdpa" not in AttentionInterface() or config._attn_implementation not in ("sdpa", "lapha_tree"):
        return f"attention {config._attn_implementation!r}, which is not 'sdpa'"
    if getattr(config, "attention_dropout", 0.0):
        return "dropout in attention"
    return None


class TreePackingMixin:
    """Put before a trainer of rows: in training, micro-batches are whole trees, or parts of them, of about equal size.

    All sibling groups are trained, and the values of all states, each once. TRL computes the policy loss, from
    log-probabilities that come from the packed pass; a micro-batch's share in a step is what it has of the step's rows
    and states on all processes, so that how trees were divided does not matter.
    """

    packing: str
    _pack: PackedTrees | None = None
    _scoring_rows = False

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        args: Any = self.args  # type: ignore[attr-defined]
        if self.packing != "tree" or not self.model.training:  # type: ignore[attr-defined]
            return super()._prepare_inputs(generation_batch)  # type: ignore[misc,no-any-return]
        every = args.steps_per_generation * self.num_iterations  # type: ignore[attr-defined]
        step = self._step  # type: ignore[attr-defined]
        if step % every == 0 or self._buffered_inputs is None:  # type: ignore[has-type]
            self._buffered_inputs = self._tree_batches(generation_batch)
        batch: dict[str, Any] = self._buffered_inputs[step % args.steps_per_generation]
        return batch

    def _tree_batches(self, generation_batch: Any) -> list[dict[str, Any]]:
        """Grow trees for a generation batch, and divide them into the micro-batches of its steps."""
        args: Any = self.args  # type: ignore[attr-defined]
        self._scoring_rows = True
        try:
            self._generate_and_score_completions(generation_batch)  # type: ignore[attr-defined]
        finally:
            self._scoring_rows = False
        rollout: Any = self.rollout  # type: ignore[attr-defined]
        valued = args.value_weight > 0
        parts = split_trees(rollout.trees, args.steps_per_generation, values=valued)
        nothing = [TreePart(rollout.trees[0], frozenset({0}))]  # a pass that every process has to take part in
        packs = [pack_trees(own or nothing, values=valued and bool(own)) for own in parts]
        counts = self._even_rows(packs)
        batches = [self._batch(pack) for pack in packs]
        self._share(batches, counts)
        generate_every = args.steps_per_generation * self.num_iterations  # type: ignore[attr-defined]
        corrected = self.use_vllm and self.vllm_importance_sampling_correction  # type: ignore[attr-defined]
        with torch.no_grad(), disable_gradient_checkpointing(self.model, args.gradient_checkpointing_kwargs):  # type: ignore[attr-defined]
            for batch in batches:
                if corrected or args.gradient_accumulation_steps % generate_every != 0:
                    batch["old_per_token_logps"] = self._packed_logprobs(self.model, batch["pack"])[0]  # type: ignore[attr-defined]
                if corrected:
                    self._correct(batch)
                if self.beta != 0.0:  # type: ignore[attr-defined]
                    batch["ref_per_token_logps"] = self._reference_logprobs(batch["pack"])
        return batches

    def _even_rows(self, packs: list[PackedTrees]) -> list[int]:
        """Pad the packs' rows so that every process holds equally many, as TRL's logging wants; how many were real."""
        accelerator: Any = self.accelerator  # type: ignore[attr-defined]
        counts = [len(pack.index) for pack in packs]
        everyone = accelerator.gather(torch.tensor([counts], device=accelerator.device)).amax(0).clamp(min=1)
        for pack, count in zip(packs, everyone.tolist(), strict=True):
            pack.pad_rows(count)
        return counts

    def _batch(self, pack: PackedTrees) -> dict[str, Any]:
        """What TRL's loss reads of a micro-batch: its rows as columns, and the packed trees behind them."""
        args: Any = self.args  # type: ignore[attr-defined]
        device = self.accelerator.device  # type: ignore[attr-defined]
        pack = pack.to(device)
        mask = pack.completion_mask()
        targets = pack.value_targets
        if args.mask_truncated_completions:
            ends = torch.tensor([*self.eos_token_ids, self.processing_class.pad_token_id], device=device)  # type: ignore[attr-defined]
            mask = mask * torch.isin(pack.last_ids, ends)[:, None]
            whole = torch.isin(pack.state_last, ends) | (pack.state_last < 0)
            targets = targets.masked_fill(~whole, torch.nan)
        advantages = pack.advantages if args.scale_rewards == "group" else pack.centred
        return {
            "prompt_ids": mask.new_zeros(len(mask), 1),
            "prompt_mask": mask.new_ones(len(mask), 1),
            "completion_ids": torch.zeros_like(mask),
            "completion_mask": mask,
            "advantages": advantages,
            "value_targets": targets,
            "pack": pack,
        }

    def _share(self, batches: list[dict[str, Any]], counts: list[int]) -> None:
        """Say of every micro-batch what share of its optimiser step's rows and states it holds, on all processes."""
        args: Any = self.args  # type: ignore[attr-defined]
        accelerator: Any = self.accelerator  # type: ignore[attr-defined]
        loss_type = self.loss_type  # type: ignore[attr-defined]
        held = [
            [
                float(count),
                float(batch["completion_mask"].sum()),
                float((~batch["value_targets"].isnan()).sum()),
                float(bool((batch["advantages"] * batch["completion_mask"].any(1)).any())),
            ]
            for batch, count in zip(batches, counts, strict=True)
        ]
        everyone = accelerator.reduce(torch.tensor(held, device=accelerator.device), reduction="sum")
        signal = everyone[:, 3].sum() + (everyone[:, 2].sum() if args.value_weight > 0 else 0)
        together = args.gradient_accumulation_steps
        if len(batches) % together != 0:
            together = len(batches)
        for number, batch in enumerate(batches):
            window = everyone[number - number % together :][:together].sum(0).clamp(min=1)
            scale = together * accelerator.num_processes
            # TRL's mean is over the padded rows
            rows, tokens = len(batch["pack"].index) / window[0], held[number][1] / window[1]
            shares = {**dict.fromkeys(_BY_ROWS, rows * scale), "bnpo": tokens * scale}
            batch["row_share"] = shares.get(loss_type, torch.ones_like(rows))
            batch["value_share"] = scale / window[2]
            batch["num_items_in_batch"] = everyone[:, 1].sum()
            batch["signal"] = signal

    def _packed_logprobs(
        self, model: Any, pack: PackedTrees, temperature: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, C) log-probabilities and entropies of the rows' tokens."""
        accelerator: Any = self.accelerator  # type: ignore[attr-defined]
        with accelerator.autocast():
            logprob, entropy, *_ = model(
                input_ids=pack.input_ids,
                position_ids=pack.position_ids,
                attention_mask=pack.input_ids.new_zeros(
                    1, 1, 1, 1
                ),  # four dimensions: transformers makes none of its own
                tree=pack,
                temperature=temperature or self.temperature,  # type: ignore[attr-defined]
            )
        return pack.rows(logprob), pack.rows(entropy)

    def _reference_logprobs(self, pack: PackedTrees) -> Tensor:
        reference = self.ref_model  # type: ignore[attr-defined]
        if reference is not None:
            return self._packed_logprobs(reference, pack)[0]
        policy = self.accelerator.unwrap_model(self.model)  # type: ignore[attr-defined]
        with use_adapter(policy, adapter_name="ref" if "ref" in policy.peft_config else None):
            return self._packed_logprobs(self.model, pack)[0]  # type: ignore[attr-defined]

    def _correct(self, batch: dict[str, Any]) -> None:
        """The importance ratio of TRL, of the engine and the policy at temperature 1 (see `policy_density`)."""
        pack: PackedTrees = batch["pack"]
        own = self._packed_logprobs(self.model, pack, 1.0)[0]  # type: ignore[attr-defined]
        difference = (own - pack.logged) * batch["completion_mask"]
        batch["sampling_per_token_logps"] = batch["old_per_token_logps"] - difference
        ratio = importance_ratio(difference, self)
        batch["importance_sampling_ratio"] = ratio
        log_importance(self, difference, ratio, batch["completion_mask"])

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._pack = inputs.get("pack")
        try:
            return super()._compute_loss(model, inputs)  # type: ignore[misc,no-any-return]
        finally:
            self._pack = None

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if self._scoring_rows:  # what the trees need is computed on the trees
            return input_ids.new_zeros(len(input_ids), logits_to_keep, dtype=torch.float32), None, None
        if self._pack is None:
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc,no-any-return]
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        check(not kwargs.get("compute_aux_loss"), "router_aux_loss_coef", "0 with packed trees", "an auxiliary loss")
        return *self._packed_logprobs(model, self._pack), None

    def _errors(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        pack: PackedTrees | None = inputs.get("pack")
        if pack is None:
            return super()._errors(inputs)  # type: ignore[misc,no-any-return]
        scores = self._tap.take()[0]  # type: ignore[attr-defined]
        targets = inputs["value_targets"]
        known = ~targets.isnan()
        squared = (pack.state_logits(scores).sigmoid() - targets.nan_to_num()).square()
        return torch.where(known, squared, 0.0).sum() + scores.sum() * 0, known.sum()


def use_tree_attention(model: Any) -> None:
    """Let a model take packed trees; without one it computes as before."""
    from lapha.integrations.tree_attention import NAME, register

    register()
    causal_lm(model).config._attn_implementation = NAME
