"""TRL's GRPO trainer with tree rollouts and the joint value loss, row by row."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.utils import RepeatSampler

from lapha._checks import check
from lapha.integrations.trl.checkpoint import load_value_head
from lapha.integrations.trl.config import LaPhaConfig
from lapha.integrations.trl.loading import load_policy, without_lines
from lapha.integrations.trl.prompts import usable_prompts
from lapha.integrations.trl.reference import SyncPolicyCallback
from lapha.integrations.trl.reward import ProcessReward
from lapha.integrations.trl.rollout import TreeRollout
from lapha.integrations.trl.sampler import EpochSampler
from lapha.integrations.trl.saving import SavingMixin
from lapha.integrations.trl.signal_gate import SignalGate
from lapha.integrations.trl.value_loss import squared_errors, tree_columns, value_columns
from lapha.integrations.trl.value_tap import ValueTap, attach_value_head, causal_lm
from lapha.integrations.trl.vllm_sync import skip_value_head
from lapha.latent import ValueHead
from lapha.shaping import Verifier

_CITATION = """\
@article{lapha2026,
    title  = {{Latent Poincar\\'e Shaping for Agentic Reinforcement Learning}},
    year   = 2026,
    eprint = {arXiv:2602.09375},
}"""


class RowTrainer(SavingMixin, GRPOTrainer):  # type: ignore[misc]
    """`LaPhaTrainer`, which documents it, without its forms of packing: every row goes through the policy on its own."""

    _tag_names: ClassVar[list[str]] = ["trl", "grpo", "lapha"]  # type: ignore[misc]
    _name = "LaPha"
    _paper: ClassVar[dict[str, str]] = {  # type: ignore[misc]
        "title": "Latent Poincaré Shaping for Agentic Reinforcement Learning",
        "id": "2602.09375",
        "citation": _CITATION,
    }
    lends_slots = True  # the data set's columns are read before slots are lent, and by no reward function after it
    packing = "none"
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
        for name in ("tools", "environment_factory"):
            check(not kwargs.get(name), name, "none (TreeRollout(environment=…) takes tools and sandboxes)", "some")
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
        self.rollout = rollout
        noise = ["'rollout_func'", "biases the importance sampling"]  # the rollout compares like with like
        with without_lines(*noise, *(["model is already instantiated"] if named else [])):
            super().__init__(
                model=model, reward_funcs=ProcessReward(), args=args, rollout_func=rollout,
                **{**kwargs, "peft_config": without_value_head(kwargs.get("peft_config"))},
            )  # fmt: skip
        policy = self.accelerator.unwrap_model(self.model)
        check_vocabulary(policy, self.processing_class)
        self.value_head = attach_value_head(policy, head, trained=args.value_weight > 0)
        self._add_head_to(kwargs.get("optimizers", (None, None))[0])
        self._patch_forwards()
        if self.packing != "tree":
            refuse_two_reentrant_passes(args)
        self._gate = SignalGate(self.accelerator)
        self._check_prompts(policy)
        if self.ref_model is not None and args.sync_ref_model:
            self.remove_callback(SyncRefModelCallback)
            self.add_callback(SyncPolicyCallback(self.ref_model, self.accelerator))
        if self.use_vllm:
            skip_value_head(self.vllm_generation)

    def _patch_forwards(self) -> None:
        policy = causal_lm(self.accelerator.unwrap_model(self.model))
        self._tap = ValueTap(policy, self.value_head, to_backbone=self.args.value_grad_to_backbone)

    def _check_prompts(self, policy: Any) -> None:
        """Everything that would end a run when a prompt is drawn is said, or left out, before its first step."""
        start = self.rollout.context_tokens(self.processing_class)
        window = getattr(policy.config.get_text_config(), "max_position_embeddings", None) or 2**31
        broken = self.args.broken_prompts
        self.train_dataset = usable_prompts(self.train_dataset, "train_dataset", start, window, broken)
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {
                name: usable_prompts(dataset, f"eval_dataset[{name!r}]", start, window, broken)
                for name, dataset in self.eval_dataset.items()
            }
        elif self.eval_dataset is not None:
            self.eval_dataset = usable_prompts(self.eval_dataset, "eval_dataset", start, window, broken)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's optimizer, with `value_learning_rate` for the head."""
        optimizer = super().create_optimizer(*args, **kwargs)
        rate = self.args.value_learning_rate
        if rate is not None and self.value_head.linear.weight.requires_grad:
            head = {id(parameter) for parameter in self.value_head.parameters()}
            for group in list(optimizer.param_groups):
                own = [parameter for parameter in group["params"] if id(parameter) in head]
                if own:
                    group["params"] = [parameter for parameter in group["params"] if id(parameter) not in head]
                    optimizer.add_param_group({**group, "params": own, "lr": rate})
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    def _add_head_to(self, optimizer: Any) -> None:
        """An optimizer of the caller's own cannot know the head: it was made before."""
        if optimizer is not None and self.value_head.linear.weight.requires_grad:
            known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            new = [parameter for parameter in self.value_head.parameters() if id(parameter) not in known]
            if new:
                optimizer.add_param_group({"params": new})

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        return EpochSampler(sampler) if isinstance(sampler, RepeatSampler) else sampler

    # TRL drops the rollout's extra columns once rewards are computed, so they are added to its batch here; its
    # shuffling and splitting then treat them like any other tensor.
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        with without_lines("All reward functions returned None"):  # as slots without signal do
            output = super()._generate_and_score_completions(inputs)
        rows, trees = self.rollout.rows, self.rollout.trees
        device = output["completion_ids"].device
        check(len(rows) == len(output["completion_ids"]), "rows", "one per completion", len(rows))
        output["advantages"] = self._advantages(rows).to(device)
        if self.args.value_states == "tree":
            seed = torch.Generator().manual_seed(self.args.seed + self.state.global_step)
            columns = tree_columns(trees, len(rows), self.processing_class.pad_token_id, seed, device)
            targets = columns["tree_targets"]
        else:
            columns = value_columns(rows, device)
            length = output["prompt_mask"].sum(1, keepdim=True) + output["completion_mask"].sum(1, keepdim=True)
            # TRL masks completions that it takes for truncated: their states are not there to be valued
            targets = columns["value_targets"].masked_fill_(columns["value_ends"] > length, torch.nan)
        output.update(columns)
        moves = bool((output["advantages"] * output["completion_mask"].any(1)).any())
        moves |= self.args.value_weight > 0 and not bool(targets.isnan().all())
        signal = torch.tensor([float(moves)], device=device)
        # one number for the batch, as TRL's num_items_in_batch: what an evaluation finds in between is its own
        output["signal"] = self.accelerator.gather(signal).sum()
        self._log_rollout(no_signal=not bool(output["signal"] > 0))
        self._log_rows(rows)
        return output

    def _advantages(self, rows: list[Any]) -> torch.Tensor:
        """GRPO's advantage with the population deviation of the sibling group (method, section 7); (B,)."""
        if self.args.scale_rewards == "group":
            return torch.tensor([row.advantage for row in rows]).nan_to_num(0.0)
        size: Any = self.num_generations if self.model.training else self.num_generations_eval
        rewards = torch.tensor([row.reward for row in rows]).view(-1, size)
        return (rewards - rewards.mean(1, keepdim=True)).flatten().nan_to_num(0.0)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        args = self.args
        training = self.model.training
        if training:
            self._gate.open = bool(inputs["signal"] > 0)
        valued = args.value_weight > 0
        in_second_pass = "tree_ids" in inputs
        with self._tap.open() if valued and not in_second_pass else nullcontext():
            loss = super()._compute_loss(model, inputs)
        if "row_share" in inputs:
            loss = loss * inputs["row_share"]
        if not valued:
            return loss
        total, count = self._tree_errors(model, inputs) if in_second_pass else self._errors(inputs)
        # The mean is over the targets of all processes; dividing by their number undoes the gradient's averaging.
        counts = self.accelerator.reduce(torch.stack([total.detach(), count.to(total.dtype)]), reduction="sum")
        share = inputs.get("value_share", self.accelerator.num_processes / counts[1].clamp(min=1))
        value_loss = total * share
        mode = "train" if training else "eval"
        self._metrics[mode]["lapha/value_loss"].append((counts[0] / counts[1]).item())
        accumulation = self.current_gradient_accumulation_steps if training else 1
        return loss + args.value_weight * value_loss / accumulation

    def _errors(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """(sum, number) of squared errors at the states of the rows that have just gone through the policy."""
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        return squared_errors(self._tap.take(), mask, inputs["value_ends"], inputs["value_targets"])

    def _tree_errors(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The same at the states of `tree_columns`, in a pass of their own."""
        decoder = self.accelerator.unwrap_model(model).get_decoder()
        with self.accelerator.autocast():
            hidden = decoder(
                input_ids=inputs["tree_ids"], attention_mask=inputs["tree_mask"], use_cache=False
            ).last_hidden_state
        scores = self.value_head.logits(hidden if self.args.value_grad_to_backbone else hidden.detach())
        return squared_errors(scores, inputs["tree_mask"], inputs["tree_ends"], inputs["tree_targets"])

    def _log_rollout(self, no_signal: bool) -> None:
        mode = "train" if self.model.training else "eval"
        statistics = {**self.rollout.statistics, "no_signal_batches": float(no_signal)}
        names = sorted(statistics)
        local = torch.tensor([[statistics[name] for name in names]], device=self.accelerator.device)
        means = self.accelerator.gather(local).nanmean(dim=0)
        for name, value in zip(names, means.tolist(), strict=True):
            self._metrics[mode][f"lapha/{name}"].append(value)

    def _log_rows(self, rows: list[Any]) -> None:
        """Put the rows that are trained on into TRL's table of completions, in place of the questions they came from."""
        if not self.log_completions:
            return
        decode = self.processing_class.batch_decode
        own = {
            "prompt": decode([row.prompt_ids for row in rows]),
            "completion": decode([row.completion_ids for row in rows]),
            "advantages": self._advantages(rows).tolist(),
        }
        for name, values in own.items():
            everyone = gather_object(values)
            table: Any = self._logs[name]
            for _ in range(min(len(everyone), len(table))):
                table.pop()
            table.extend(everyone)


def without_value_head(adapters: Any) -> Any:
    """The adapters' configuration without the value head, which is attached after them and trains in full."""
    modules = list(getattr(adapters, "modules_to_save", None) or [])
    if "value_head" not in modules:
        return adapters
    copy = type(adapters)(**{**vars(adapters), "modules_to_save": [name for name in modules if name != "value_head"]})
    copy.modules_to_save = copy.modules_to_save or None
    return copy


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
