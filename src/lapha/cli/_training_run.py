"""From a YAML file to a trainer: models, questions, verifiers."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from lapha._checks import check, check_choice

logger = logging.getLogger(__name__)

_EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+$")

VERIFIERS = ("math", "tiny")
DRY_RUN = {
    "max_steps": 1,
    "simulations": 2,
    "max_completion_length": 16,
    "gradient_accumulation_steps": 1,
    "steps_per_generation": None,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 1,
}


@dataclass(frozen=True)
class RunSettings:
    """What a training file says besides the trainer's own arguments.

    Attributes:
        model: ``"tiny"``, a folder, or a name.
        data: ``"tiny"``, or a JSONL file with ``question`` (or ``problem``) and ``answer``.
        verifier: ``"math"`` (math-verify in worker processes) or ``"tiny"`` (the embedded problems' exact one).
        architecture: transformers' name of the model's architecture, for dry runs.
        context_limit: most tokens of a context.
        lora_rank: 0 trains all weights; > 0 adapters of this rank (and the value head) through peft.
        share_prompts: compute the prompt of each sibling group once (`SharedPrefixTrainer`).
        problems: how many problems the tiny generator makes.
        arguments: arguments of `LaPhaConfig`.
        dry_run: take one step with a random-weight miniature of `architecture` on the embedded problems.
    """

    model: str
    data: str
    verifier: str = "math"
    architecture: str = "qwen2"
    context_limit: int = 4096
    lora_rank: int = 0
    share_prompts: bool = False
    problems: int = 4096
    arguments: dict[str, Any] = field(default_factory=dict)
    dry_run: bool = False

    def __post_init__(self) -> None:
        check_choice(self.verifier, "verifier", VERIFIERS)
        check(self.context_limit >= 1, "context_limit", "an integer >= 1", self.context_limit)
        check(self.lora_rank >= 0, "lora_rank", "an integer >= 0", self.lora_rank)
        check(self.problems >= 1, "problems", "an integer >= 1", self.problems)


def read_settings(path: Path, *, output_dir: Path | None = None, dry_run: bool = False) -> RunSettings:
    """Read a training file.

    Raises:
        ValueError: no such file, not a mapping, an unknown key, or a value that cannot work.
    """
    from lapha.integrations.trl import LaPhaConfig

    document = read_yaml(path)
    own = {f.name for f in dataclasses.fields(RunSettings)} - {"arguments", "dry_run"}
    known = {f.name for f in dataclasses.fields(LaPhaConfig)}
    unknown = sorted(set(document) - own - known)
    check(not unknown, "config", "known settings", f"unknown {', '.join(unknown)} in {path}")
    for name in ("model", "data"):
        check(name in document, name, f"a value in {path}", "nothing")
    arguments = {name: value for name, value in document.items() if name in known}
    _check_numbers(arguments, LaPhaConfig)
    if output_dir is not None:
        arguments["output_dir"] = str(output_dir)
    arguments.setdefault("output_dir", "runs/train")
    if dry_run:
        arguments |= DRY_RUN | {"per_device_train_batch_size": arguments.get("num_generations", 6)}
        for name in ("use_vllm", "deepspeed", "num_train_epochs"):
            arguments.pop(name, None)
    settings = {name: value for name, value in document.items() if name in own}
    if dry_run:
        settings |= {"data": "tiny", "verifier": "tiny", "problems": 8}
    return RunSettings(**settings, arguments=arguments, dry_run=dry_run)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping; ``2e-4`` is a number in it, as in YAML 1.2.

    Raises:
        ValueError: no such file, no YAML, or no mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's, whose YAML 1.1 wants a point in every number with an exponent."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("+-0123456789"))
    check(path.is_file(), "config", "a YAML file", path)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"config: expected YAML, got {path} ({error})") from error
    check(isinstance(document, dict), "config", "a mapping of settings", type(document).__name__)
    return document


def _check_numbers(arguments: dict[str, Any], config: type) -> None:
    """Text where a number belongs would end in an error far from here."""
    hints = get_type_hints(config)
    for name, value in arguments.items():
        kinds = {*(get_args(hints[name]) or [hints[name]])} - {type(None)}
        if isinstance(value, str) and kinds <= {int, float}:
            raise ValueError(f"{name}: expected a number, got {value!r}")


class TrainingRun:
    """Everything a training run needs, built and checked before the first step."""

    def __init__(self, settings: RunSettings) -> None:
        from datasets import Dataset

        from lapha.agent import ChatEnvironment
        from lapha.integrations.trl import LaPhaConfig, LaPhaTrainer, SharedPrefixTrainer, TreeRollout

        self.settings = settings
        arguments = LaPhaConfig(**settings.arguments)
        model, tokenizer, head = load_policy(settings)
        questions, verifier = load_problems(settings)
        depth, context = arguments.depth_limit, settings.context_limit
        rollout = TreeRollout(
            verifier,
            search=arguments.search_config(),
            shaping=arguments.shaping_config(),
            num_positive=arguments.num_positive,
            concurrency=arguments.tree_concurrency,
            environment=lambda tokenizer: ChatEnvironment(tokenizer, depth_limit=depth, context_limit=context),
        )
        trainer_class = SharedPrefixTrainer if settings.share_prompts else LaPhaTrainer
        self.trainer = trainer_class(
            model,
            arguments,
            rollout=rollout,
            value_head=head,
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": questions}),
            peft_config=lora(settings.lora_rank),
        )

    def train(self, resume: bool = True) -> None:
        """Train; with `resume`, from the last whole checkpoint in the output folder if there is one."""
        from lapha.integrations.trl.checkpoint import last_checkpoint

        folder = Path(str(self.trainer.args.output_dir))
        last = last_checkpoint(folder) if resume else None
        if last:
            logger.info("resuming from %s", last)
        self.trainer.train(resume_from_checkpoint=last)
        if not self.settings.dry_run:
            self.trainer.save_model(str(folder))


def load_policy(settings: RunSettings) -> tuple[Any, Any, Any]:
    """(model, tokenizer, value head or None) of a run."""
    from transformers import AutoTokenizer

    if settings.dry_run:
        return miniature(settings.architecture, Path(settings.arguments["output_dir"]) / "miniature")
    if settings.model == "tiny":
        from lapha.tiny import load_tiny

        return load_tiny()
    return settings.model, AutoTokenizer.from_pretrained(settings.model), None


def miniature(architecture: str, folder: Path) -> tuple[Any, Any, None]:
    """A random-weight model of the architecture, two layers of width 64, with the embedded policy's tokenizer.

    It goes through `folder`, because TRL loads the KL term's reference model by name.

    Raises:
        ValueError: transformers knows no such architecture.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from lapha.tiny import load_tiny

    _, tokenizer, _ = load_tiny()
    size = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **size, **heads)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder), tokenizer, None


def lora(rank: int) -> Any:
    """A peft configuration that trains adapters and, in full, the value head; None for rank 0."""
    if rank == 0:
        return None
    from lapha._imports import require

    return require("peft", extra="train").LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", exclude_modules=["value_head.linear"],
        modules_to_save=["value_head"], task_type="CAUSAL_LM",
    )  # fmt: skip


def load_problems(settings: RunSettings) -> tuple[list[str], Callable[[str, str], float | None]]:
    """(questions, verifier) of a run; the gold answers stay inside the verifier."""
    if settings.data == "tiny":
        from lapha.tiny import problems
        from lapha.tiny.problems import TinyVerifier

        seed = int(settings.arguments.get("seed", 42))
        return [problem.question for problem in problems.generate(settings.problems, seed=seed)], TinyVerifier()
    from lapha.evaluation.data import load_problems as read
    from lapha.evaluation.verifier import MathVerifier

    check(settings.verifier == "math", "verifier", "'math' for problems from a file", settings.verifier)
    found = read(settings.data)
    return [problem.question for problem in found], MathVerifier({p.question: p.answer for p in found})
