"""`LaPhaTrainer`: TRL's GRPO trainer with tree rollouts and the joint value loss."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from accelerate.utils import is_peft_model
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from lapha._checks import check
from lapha.integrations.trl.checkpoint import load_value_head, save_value_head, split_state_dict
from lapha.integrations.trl.config import LaPhaConfig
from lapha.integrations.trl.loading import load_policy, loaded_already
from lapha.integrations.trl.reward import ProcessReward
from lapha.integrations.trl.rollout import TreeRollout
from lapha.integrations.trl.sampler import EpochSampler
from lapha.integrations.trl.signal_gate import SignalGate
from lapha.integrations.trl.value_loss import captured_hidden_states, prefix_squared_errors, tree_columns, value_columns
from lapha.integrations.trl.vllm_sync import skip_value_head
from lapha.latent import ValueHead
from lapha.shaping import Verifier


class LaPhaTrainer(GRPOTrainer):
    """Trains a policy and its value head on searched trees (LaPha, arXiv 2602.09375).

    Each question grows a tree with the current policy; the verifier's verdicts on its leaves give potentials and
    process rewards; groups of siblings are TRL's groups; the value head learns from every state along their paths,
    in the same forward pass as the policy loss.

    Args:
        model: a causal LM, or its name: loaded as TRL does, in float32 unless ``args.model_init_kwargs`` name another
            dtype. A `ValueHead` is attached to it as ``model.value_head``.
        args: a `LaPhaConfig`.
        verifier: ``(question, answer) -> reward in [0, 1]``, or None where it cannot grade. Not needed with
            `rollout`.
        value_head: the head to start from; default: the one beside the model's weights, else a fresh one.
        rollout: a `TreeRollout` to use instead of the one that `args` describes.
        kwargs: passed on to `trl.GRPOTrainer` (``train_dataset`` with a ``prompt`` column, ``processing_class``,
            ``callbacks`` …).

    Raises:
        ValueError: no verifier, or arguments that cannot work together.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "grpo", "lapha"]  # type: ignore[misc]
    args: LaPhaConfig  # type: ignore[misc]
    model: Any  # type: ignore[misc]
    processing_class: Any

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: LaPhaConfig,
        *,
        verifier: Verifier | None = None,
        value_head: ValueHead | None = None,
        rollout: TreeRollout | None = None,
        **kwargs: Any,
    ) -> None:
        check(isinstance(args, LaPhaConfig), "args", "a LaPhaConfig", type(args).__name__)
        for name in ("reward_funcs", "rollout_func"):
            check(name not in kwargs, name, f"no {name}: LaPhaTrainer makes its own (pass verifier or rollout)", "one")
        if rollout is None:
            check(verifier is not None, "verifier", "a callable (question, answer) -> reward, or a rollout", None)
            assert verifier is not None
            rollout = TreeRollout(
                verifier,
                search=args.search_config(),
                shaping=args.shaping_config(),
                num_positive=args.num_positive,
                concurrency=args.tree_concurrency,
            )
        named = isinstance(model, str)
        if isinstance(model, str):
            source = model
            model = load_policy(model, args, kwargs.get("quantization_config"))
        else:
            source = getattr(model.config, "_name_or_path", "")
        hidden_size = model.config.get_text_config().hidden_size
        head = value_head or load_value_head(source, hidden_size) or ValueHead(hidden_size)
        check(
            head.linear.in_features == hidden_size, "value_head", f"hidden size {hidden_size}", head.linear.in_features
        )
        model.value_head = head.to(device=model.device, dtype=model.dtype)
        self.rollout = rollout
        with loaded_already() if named else nullcontext():
            super().__init__(model=model, reward_funcs=ProcessReward(), args=args, rollout_func=rollout, **kwargs)
        check_vocabulary(self.accelerator.unwrap_model(self.model), self.processing_class)
        refuse_two_reentrant_passes(args)
        self._gate = SignalGate(self.accelerator)
        if self.use_vllm:
            skip_value_head(self.vllm_generation)

    @property
    def value_head(self) -> ValueHead:
        """The head that is being trained (with adapters, the copy that peft trains)."""
        head = self.accelerator.unwrap_model(self.model).value_head
        copies = getattr(head, "modules_to_save", None)
        return head if copies is None else copies["default"]

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        return EpochSampler(sampler) if isinstance(sampler, RepeatSampler) else sampler

    # TRL drops the rollout's extra columns once rewards are computed, so they are added to its batch here; its
    # shuffling and splitting then treat them like any other tensor.
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        rows = self.rollout.rows
        device = output["completion_ids"].device
        check(len(rows) == len(output["completion_ids"]), "rows", "one per completion", len(rows))
        # GRPO's advantage with the population deviation of the sibling group (method, section 7)
        output["advantages"] = torch.tensor([row.advantage for row in rows], device=device).nan_to_num(0.0)
        if self.args.value_states == "tree":
            seed = torch.Generator().manual_seed(self.args.seed + self.state.global_step)
            pad = self.processing_class.pad_token_id
            columns = tree_columns(self.rollout.trees, len(rows), pad, seed, device)
            targets = columns["tree_targets"]
        else:
            columns = value_columns(rows, device)
            targets = columns["value_targets"]
        output.update(columns)
        moves = bool(output["advantages"].any()) or not bool(targets.isnan().all())
        signal = torch.tensor([float(moves)], device=device)
        self._gate.open = bool(self.accelerator.gather(signal).sum() > 0)
        self._log_rollout()
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        args = self.args
        unwrapped = self.accelerator.unwrap_model(model)
        with captured_hidden_states(unwrapped.get_decoder()) as captured:
            loss = super()._compute_loss(model, inputs)
        if args.value_weight == 0:
            return loss
        if "tree_ids" in inputs:
            total, count = self._tree_errors(unwrapped, inputs)
        else:
            check(len(captured) == 1, "forward passes", "one per micro-batch, as in TRL 1.16", len(captured))
            mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
            total, count = self._errors(unwrapped, captured[0], mask, inputs["value_ends"], inputs["value_targets"])
        # The mean is over the targets of all processes; dividing by their number undoes the gradient's averaging.
        counts = self.accelerator.reduce(torch.stack([total.detach(), count.to(total.dtype)]), reduction="sum")
        processes = self.accelerator.num_processes
        value_loss = total * processes / counts[1].clamp(min=1)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["lapha/value_loss"].append((counts[0] / counts[1]).item())
        accumulation = self.current_gradient_accumulation_steps if mode == "train" else 1
        return loss + args.value_weight * value_loss / accumulation

    def _tree_errors(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        with self.accelerator.autocast():
            hidden = model.get_decoder()(
                input_ids=inputs["tree_ids"], attention_mask=inputs["tree_mask"], use_cache=False
            ).last_hidden_state
        return self._errors(model, hidden, inputs["tree_mask"], inputs["tree_ends"], inputs["tree_targets"])

    def _errors(
        self, model: Any, hidden: torch.Tensor, mask: torch.Tensor, ends: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        to_backbone = self.args.value_grad_to_backbone
        return prefix_squared_errors(model.value_head, hidden, mask, ends, targets, grad_to_backbone=to_backbone)

    def _log_rollout(self) -> None:
        mode = "train" if self.model.training else "eval"
        statistics = {**self.rollout.statistics, "no_signal_batches": 0.0 if self._gate.open else 1.0}
        names = sorted(statistics)
        local = torch.tensor([[statistics[name] for name in names]], device=self.accelerator.device)
        means = self.accelerator.gather(local).nanmean(dim=0)
        for name, value in zip(names, means.tolist(), strict=True):
            self._metrics[mode][f"lapha/{name}"].append(value)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the policy as transformers and vLLM load it, and the value head in a file of its own beside it."""
        if state_dict is None:
            state_dict = self.accelerator.unwrap_model(self.model).state_dict()
        policy, head = split_state_dict(state_dict)
        folder = str(output_dir if output_dir is not None else self.args.output_dir)
        # adapters are saved and come back with the modules that train beside them, the head among them
        super()._save(folder, state_dict=state_dict if is_peft_model(self.model) else policy)
        save_value_head(folder, head, value_target=self.args.value_target)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        head = load_value_head(resume_from_checkpoint, self.value_head.linear.in_features)
        if head is None:
            raise ValueError(f"resume_from_checkpoint: expected a value head in {resume_from_checkpoint}, found none")
        self.value_head.load_state_dict(head.state_dict())


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer that knows tokens for which the model has no embedding.

    Raises:
        ValueError: there are more token ids than rows in the model's embedding.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer is not None and rows > 0:  # sharded under ZeRO-3, the weight shows no rows
        check(len(tokenizer) <= rows, "processing_class", f"at most the model's {rows} tokens", len(tokenizer))


def refuse_two_reentrant_passes(args: LaPhaConfig) -> None:
    """DeepSpeed's ZeRO-3 ends at the first step, with a bare assertion, if reentrant checkpoints cover two passes.

    Raises:
        ValueError: these settings come together. (With adapters TRL takes the reentrant form by itself.)
    """
    plugin: Any = args.deepspeed_plugin
    options: Any = args.gradient_checkpointing_kwargs or {}
    reentrant = args.gradient_checkpointing and options.get("use_reentrant", False)
    if plugin is not None and plugin.zero_stage == 3 and reentrant and args.value_weight > 0:
        other = "'path' under ZeRO-3 with reentrant gradient checkpointing (or set gradient_checkpointing to false)"
        check(args.value_states != "tree", "value_states", other, "'tree'")
