"""Configuration of `LaPhaTrainer`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trl import GRPOConfig

from lapha._checks import check, check_choice
from lapha.search import SearchConfig
from lapha.shaping.config import FailedLeaves, RewardName, ShapingConfig, ValueTarget
from lapha.types import SamplingParams


@dataclass
class LaPhaConfig(GRPOConfig):
    """`trl.GRPOConfig` with LaPha's constants (arXiv 2602.09375) and its own arguments.

    ``num_generations`` is the tree's breadth: the children of one state are one TRL group. What TRL calls
    temperature, top_p, top_k, repetition_penalty and max_completion_length (tokens of one step) is what the search
    samples with. The arguments that lapha adds are documented by their ``help``.

    Raises:
        ValueError: a value out of range, or a combination that cannot work, by name.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Warm-up: steps, or a share of all steps below 1."})
    num_generations: int | None = field(default=6, metadata={"help": "Breadth of the tree = size of a TRL group."})
    max_completion_length: int | None = field(default=1024, metadata={"help": "Most tokens of one step."})
    temperature: float = field(default=0.7, metadata={"help": "Sampling temperature."})
    top_p: float = field(default=0.8, metadata={"help": "Nucleus mass."})
    top_k: int = field(default=20, metadata={"help": "Most likely tokens kept; 0 keeps all."})
    repetition_penalty: float = field(default=1.05, metadata={"help": "Repetition penalty."})
    epsilon: float = field(default=0.2, metadata={"help": "Lower clipping bound."})
    epsilon_high: float | None = field(default=0.28, metadata={"help": "Upper clipping bound."})
    beta: float = field(default=1e-8, metadata={"help": "KL coefficient; 0 loads no reference model."})

    simulations: int = field(default=24, metadata={"help": "Expansions of one tree."})
    depth_limit: int = field(default=6, metadata={"help": "Most steps of one path."})
    selection: str = field(default="frontier", metadata={"help": "Where to expand: 'frontier' or 'puct'."})
    c_puct: float = field(default=1.0, metadata={"help": "Weight of the prior in the selection score."})
    max_expands: int = field(default=2, metadata={"help": "Most expansions of one node."})
    value_trust: float = field(default=1.0, metadata={"help": "Weight of the value head in a node's value."})
    prune_every: int = field(default=8, metadata={"help": "Prune after so many simulations; 0 never."})
    num_positive: int = field(default=1, metadata={"help": "Stop a tree after so many correct leaves; 0 never."})
    tree_concurrency: int = field(default=64, metadata={"help": "Trees in flight at once on one process."})

    process_reward: RewardName = field(
        default="strict", metadata={"help": "'strict' or 'adaptive' (formatting bonus; paper)."}
    )
    gamma: float = field(default=1.0, metadata={"help": "Discount of the potential in the process reward."})
    max_groups: int = field(default=2, metadata={"help": "Sibling groups taken from one tree."})
    easy_accuracy: float = field(
        default=0.8, metadata={"help": "Trees with at least this leaf accuracy feed the value loss alone; 1: none do."}
    )
    failed_leaves: FailedLeaves = field(
        default="zero", metadata={"help": "Potential of leaves without a correct answer: 'zero' or 'geometry' (paper)."}
    )

    value_weight: float = field(default=1.0, metadata={"help": "Weight of the value loss; 0 turns it off."})
    value_target: ValueTarget = field(
        default="potential", metadata={"help": "What the value head learns: 'potential', 'success_rate' or 'mixed'."}
    )
    value_states: str = field(
        default="path",
        metadata={
            "help": "States of the value loss: 'path' (those on the rows' own paths, at no extra pass), or 'tree' (all "
            "of the paper, from as many random root-to-leaf contexts as there are rows, in a second pass)."
        },
    )
    value_grad_to_backbone: bool = field(
        default=True, metadata={"help": "Whether the value loss trains the language model too."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.value_weight >= 0, "value_weight", "a number >= 0", self.value_weight)
        check_choice(self.value_states, "value_states", ("path", "tree"))
        check(self.num_positive >= 0, "num_positive", "an integer >= 0", self.num_positive)
        check(self.tree_concurrency >= 1, "tree_concurrency", "an integer >= 1", self.tree_concurrency)
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
        self.search_config()
        self.shaping_config()

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

    def search_config(self) -> SearchConfig:
        """The search that grows one training tree."""
        assert self.num_generations is not None and self.max_completion_length is not None
        return SearchConfig(
            simulations=self.simulations,
            breadth=self.num_generations,
            depth_limit=self.depth_limit,
            selection=self.selection,
            c_puct=self.c_puct,
            value_trust=self.value_trust,
            max_expands=self.max_expands,
            prune_every=self.prune_every,
            seed=self.seed,
            sampling=SamplingParams(
                max_tokens=self.max_completion_length,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                repetition_penalty=self.repetition_penalty,
            ),
        )

    def shaping_config(self) -> ShapingConfig:
        """How verdicts become rewards and value targets."""
        assert self.num_generations is not None
        return ShapingConfig(
            reward=self.process_reward,
            gamma=self.gamma,
            breadth=self.num_generations,
            max_groups=self.max_groups,
            value_target=self.value_target,
            easy_accuracy=self.easy_accuracy,
            failed_leaves=self.failed_leaves,
        )
