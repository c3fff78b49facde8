"""Configuration of `LaPhaTrainer`."""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin

from trl import GRPOConfig

from lapha._checks import check, check_choice
from lapha._options import build, options_of, to_plain
from lapha.integrations.train_config import TrainerOptions
from lapha.search import SearchConfig
from lapha.shaping.config import ShapingConfig

T = TypeVar("T")


OPTIONS = options_of(TrainerOptions)
_OWN_DEFAULT = ("seed",)  # stays as transformers has it


def _flat(hint: Any) -> Any:
    """The type of a field as transformers' argument parser takes it: functions by name, choices as text."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    simple = dict.fromkeys(_simple(member) for member in members)
    return functools.reduce(operator.or_, simple)


def _simple(hint: Any) -> Any:
    if hint in (bool, int, float, str, type(None)):
        return hint
    return list[float] if get_origin(hint) is tuple else str


def _derived(config: type[T]) -> type[T]:
    """Add a field for each of `TrainerOptions`; those that TRL has get lapha's default."""
    inherited = {one.name: one for one in fields(GRPOConfig)}
    for one in OPTIONS:
        if one.name in _OWN_DEFAULT:
            continue
        known = inherited.get(one.name)
        config.__annotations__[one.name] = _flat(one.hint) if known is None else known.type
        setattr(config, one.name, field(default=one.default, metadata={"help": f"{one.help} Takes {one.kind}."}))
    return config


@dataclass
@_derived
class LaPhaConfig(GRPOConfig):
    """`trl.GRPOConfig` with LaPha's constants (arXiv 2602.09375) and its own arguments.

    ``num_generations`` is the tree's breadth: the children of one state are one TRL group. What TRL calls
    temperature, top_p, top_k, repetition_penalty and max_completion_length (tokens of one step) is what the search
    samples with. The arguments that lapha adds are derived from `TrainerOptions`; ``docs/options.md`` lists them.

    Raises:
        ValueError: a value out of range, or a combination that cannot work, by name.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Warm-up: steps, or a share of all steps below 1."})
    epsilon: float = field(default=0.2, metadata={"help": "Lower clipping bound."})
    epsilon_high: float | None = field(default=0.28, metadata={"help": "Upper clipping bound."})
    beta: float = field(default=0.0, metadata={"help": "KL coefficient (paper: 1e-8); 0 loads no reference model."})

    if TYPE_CHECKING:  # the derived fields; TRL's arguments are flat, and no type checker follows the derivation

        def __init__(self, **arguments: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in OPTIONS:
            setattr(self, one.name, to_plain(getattr(self, one.name)))  # a function by its name: TRL writes JSON
        self.trainer_options()
        assert self.num_generations is not None and self.steps_per_generation is not None
        rows = self.per_device_train_batch_size * self.steps_per_generation
        check(
            rows % self.num_generations == 0,
            "per_device_train_batch_size",
            f"per_device_train_batch_size * steps_per_generation divisible by num_generations "
            f"({self.num_generations}), so that every process holds whole sibling groups",
            f"{self.per_device_train_batch_size} * {self.steps_per_generation} = {rows}",
        )
        self._check_saves()
        self._check_evaluation()
        self._refuse_what_trees_do_not_use()
        if self.use_vllm and self.vllm_mode == "colocate":
            # Every process searches its own questions, and drives its own vLLM for that.
            tensors = self.vllm_tensor_parallel_size
            check(tensors == 1, "vllm_tensor_parallel_size", "1 in colocate mode (a server may have more)", tensors)
            check(not self.vllm_enable_sleep_mode, "vllm_enable_sleep_mode", "False with tree rollouts", True)
        if self.use_liger_kernel and (self.liger_kernel_config or {}).get("fused_linear_cross_entropy"):
            raise ValueError(
                "liger_kernel_config: expected no fused_linear_cross_entropy, which hides the hidden states that the "
                "value loss reads; got fused_linear_cross_entropy=True"
            )

    def _check_evaluation(self) -> None:
        size, rows = self.num_generations_eval or self.num_generations, self.per_device_eval_batch_size
        assert size is not None
        check(
            self.eval_strategy == "no" or rows % size == 0, "per_device_eval_batch_size",
            f"a multiple of num_generations_eval ({size}), so that every process holds whole groups", rows,
        )  # fmt: skip

    def _refuse_what_trees_do_not_use(self) -> None:
        """Arguments of TRL that a tree's rollout would pass over, and combinations that fail later."""
        unused: dict[str, tuple[Any, ...]] = {
            "min_p": (None, 0.0),
            "generation_kwargs": (None, {}),
            "chat_template_kwargs": (None, {}),
            "use_transformers_continuous_batching": (False,),
            "max_tool_calling_iterations": (None,),
            "vllm_structured_outputs_regex": (None,),
            "reward_weights": (None,),
            "multi_objective_aggregation": ("sum_then_normalize",),
        }
        for name, neutral in unused.items():
            value = getattr(self, name)
            check(value in neutral, name, f"{neutral[0]!r}: tree rollouts do not use it", repr(value))
        check_choice(self.scale_rewards, "scale_rewards", ("group", "none"))  # rewards compare siblings, no batches
        check(not self.fp16, "fp16", "bf16 or float32: fp16's scaler cannot pass over a batch without signal", True)
        if self.value_weight > 0 and self.value_states == "tree":
            self._run_second_pass_outside_ddp()

    def _run_second_pass_outside_ddp(self) -> None:
        unused = self.ddp_find_unused_parameters
        check(
            not unused,
            "ddp_find_unused_parameters",
            "False with value_states='tree', whose pass DDP does not see",
            unused,
        )
        self.ddp_find_unused_parameters = False

    def _check_saves(self) -> None:
        """A checkpoint between two optimiser steps of one generation would lose the rows of the second."""
        assert self.steps_per_generation is not None
        passes = self.steps_per_generation * self.num_iterations
        period = math.lcm(passes, self.gradient_accumulation_steps) // self.gradient_accumulation_steps
        if self.save_strategy == "steps" and self.save_steps >= 1:
            check(
                self.save_steps % period == 0,
                "save_steps",
                f"a multiple of the {period} optimiser steps that share one generation, so that a resumed run goes on "
                "as it would have",
                self.save_steps,
            )

    def trainer_options(self) -> TrainerOptions:
        """The options that lapha adds, as the configuration that they are derived from."""
        return build(TrainerOptions, {one.name: getattr(self, one.name) for one in OPTIONS})

    def search_config(self) -> SearchConfig:
        """The search that grows one training tree."""
        return self.trainer_options().search

    def shaping_config(self) -> ShapingConfig:
        """How verdicts become rewards and value targets."""
        return self.trainer_options().shaping
