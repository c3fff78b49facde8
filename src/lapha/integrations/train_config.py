"""TrainConfig: what a training run trains on what, and how its trees are grown and shaped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from lapha._options import check_options, documented, option, part
from lapha.search import SearchConfig
from lapha.shaping.config import ShapingConfig
from lapha.types import SamplingParams

Verification: TypeAlias = Literal["math", "tiny"]
ValueStates: TypeAlias = Literal["path", "tree"]
Packing: TypeAlias = Literal["auto", "tree", "prompt", "none"]
BrokenPrompts: TypeAlias = Literal["error", "skip"]

ALL_GROUPS = 1024
"""More sibling groups than a training tree has: all with packed trees; without them `LaPhaTrainer` takes the paper's two."""

# what TRL calls these
_TRL_NAMES = {"breadth": "num_generations", "max_tokens": "max_completion_length"}


def _training_search() -> SearchConfig:
    return SearchConfig(
        simulations=24,
        depth_limit=6,
        first_chain=False,  # its steps are not drawn from the policy that is trained
        merge_twins=False,  # a sibling group is `breadth` independent samples
        prune_every=8,
        sampling=SamplingParams(),
        seed=42,
    )


def _training_shaping() -> ShapingConfig:
    return ShapingConfig(max_groups=ALL_GROUPS)


@documented
@dataclass(frozen=True)
class TrainerOptions:
    """What `LaPhaConfig` adds to `trl.GRPOConfig`: its fields are derived from these.

    Raises:
        ValueError: a value of another type or outside its range.
    """

    search: SearchConfig = part(_training_search, "The search that grows a training tree.", rename=_TRL_NAMES)
    shaping: ShapingConfig = part(_training_shaping, "How verdicts become rewards.", rename=_TRL_NAMES)
    packing: Packing = option(
        "auto",
        "How trees go through the model: 'tree' (every token once, all groups and states), 'prompt' (each sibling group's "
        "prompt once), 'none' (row by row), or 'auto': the first of these that the model takes.",
    )
    num_positive: int = option(1, "Stop a tree after so many correct leaves; 0 never.", ge=0)
    tree_concurrency: int = option(64, "Trees in flight at once on one process.", ge=1)
    value_weight: float = option(1.0, "Weight of the value loss; 0 turns it off.", ge=0)
    value_states: ValueStates = option(
        "path",
        "States of the value loss without packed trees (which take all): 'path' (those on the rows' own paths, at no "
        "extra pass), or 'tree' (from as many random root-to-leaf contexts as there are rows, in a second pass).",
    )
    value_grad_to_backbone: bool = option(True, "Whether the value loss trains the language model too.")
    value_learning_rate: float | None = option(
        None, "Peak learning rate of the value head.", gt=0, shown="the policy's"
    )
    broken_prompts: BrokenPrompts = option(
        "error", "Prompts that no tree can grow from (too long, blank), before step 1: 'error' or 'skip'."
    )

    def __post_init__(self) -> None:
        check_options(self)


@documented
@dataclass(frozen=True)
class TrainConfig:
    """A training run. A file for `lapha train` has these names, and those of `trl.GRPOConfig`.

    Raises:
        ValueError: a value of another type or outside its range.
    """

    model: str = option("tiny", "'tiny', a folder, or a model's name on the Hugging Face hub.")
    data: str = option("tiny", "'tiny', or a JSONL file with question (or problem) and answer.")
    verifier: Verification = option("math", "'math' (math-verify), or 'tiny' (of the embedded problems, exact).")
    architecture: str = option("qwen2", "transformers' name of the model's architecture, for dry runs.")
    context_limit: int = option(4096, "Most tokens of a context.", ge=1)
    lora_rank: int = option(0, "Rank of the adapters that peft trains; 0 trains all weights.", ge=0)
    share_prompts: bool = option(False, "Compute the prompt of each sibling group once (`SharedPrefixTrainer`).")
    problems: int = option(4096, "How many problems the embedded generator makes.", ge=1)
    trainer: TrainerOptions = part(TrainerOptions, "Trees, rewards and the value loss.")

    def __post_init__(self) -> None:
        check_options(self)
