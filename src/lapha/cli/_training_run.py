"""From a YAML file to a trainer: models, questions, verifiers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from lapha._checks import check
from lapha._options import build, convert, from_text, options_of, read_yaml, suggestion
from lapha.integrations.train_config import TrainConfig

logger = logging.getLogger(__name__)

DRY_RUN = {
    "max_steps": 1,
    "simulations": 2,
    "max_completion_length": 16,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 1,
}


@dataclass(frozen=True)
class RunSettings:
    """A training file, read.

    Attributes:
        config: what it says.
        arguments: arguments of `LaPhaConfig`, as the file and the command line gave them.
        dry_run: take one step, forward and backward, with a random-weight miniature of the architecture on the embedded
            problems and made-up rewards: precision, checkpointing, accumulation, adapters and losses are the run's own.
    """

    config: TrainConfig
    arguments: dict[str, Any] = field(default_factory=dict)
    dry_run: bool = False


def read_settings(
    path: Path,
    *,
    output_dir: Path | None = None,
    dry_run: bool = False,
    given: Mapping[str, Any] | None = None,
    trainer: Sequence[str] = (),
) -> RunSettings:
    """Read a training file.

    Args:
        path: the file.
        output_dir: in place of the file's.
        dry_run: see `RunSettings`.
        given: options of `TrainConfig` in place of the file's.
        trainer: ``"name=value"`` for any argument of `LaPhaConfig`, in place of the file's.

    Raises:
        ValueError: no such file, not a mapping, an unknown or repeated key, or a value that cannot work, by name.
    """
    import torch

    from lapha.integrations.trl import LaPhaConfig

    document = read_yaml(path)
    kinds = get_type_hints(LaPhaConfig)
    ours = {option.name: option for option in options_of(TrainConfig)}
    fields = {one.name for one in dataclasses.fields(LaPhaConfig)}
    for name in document:
        near = suggestion(name, {*ours, *fields})
        check(name in ours or name in fields, "config", "known settings", f"unknown {name} in {path}{near}")
    for name in ("model", "data"):
        check(name in document, name, f"a value in {path}", "nothing")
    for name, value in document.items():
        if name not in ours:
            document[name] = convert(value, kinds[name], name)
    document |= {**(given or {}), **_assigned(trainer, kinds, fields)}
    if output_dir is not None:
        document["output_dir"] = str(output_dir)
    if dry_run:
        document |= {"data": "tiny", "verifier": "tiny", "problems": 8}
    own = build(TrainConfig, {name: value for name, value in document.items() if name in ours}, source=str(path))
    arguments = {name: value for name, value in document.items() if name in fields}
    arguments.setdefault("output_dir", "runs/train")
    if dry_run:
        arguments |= DRY_RUN | {"per_device_train_batch_size": arguments.get("num_generations", 6)}
        if not torch.cuda.is_available():
            arguments["use_cpu"] = True
        for name in ("use_vllm", "deepspeed", "num_train_epochs"):
            arguments.pop(name, None)
    return RunSettings(own, arguments, dry_run)


def _assigned(pieces: Sequence[str], kinds: Mapping[str, Any], fields: set[str]) -> dict[str, Any]:
    """``name=value`` pieces, each value as the type of the argument that it names."""
    found = {}
    for piece in pieces:
        name, equals, text = piece.partition("=")
        check(bool(equals), "set", "name=value", repr(piece))
        check(name in fields, "set", "the name of an argument of LaPhaConfig", repr(name) + suggestion(name, fields))
        found[name] = from_text(text, kinds[name], name)
    return found


class TrainingRun:
    """Everything a training run needs, built and checked before the first step."""

    def __init__(self, settings: RunSettings) -> None:
        from datasets import Dataset

        from lapha.agent import ChatEnvironment
        from lapha.integrations.trl import LaPhaConfig, LaPhaTrainer, SharedPrefixTrainer, TreeRollout
        from lapha.integrations.trl.dry_run import DryRollout

        self.settings = settings
        arguments = LaPhaConfig(**settings.arguments)
        model, tokenizer, head = load_policy(settings)
        questions, verifier = load_problems(settings)
        depth, context = arguments.depth_limit, settings.config.context_limit
        rollout = (DryRollout if settings.dry_run else TreeRollout)(
            verifier,
            search=arguments.search_config(),
            shaping=arguments.shaping_config(),
            num_positive=arguments.num_positive,
            concurrency=arguments.tree_concurrency,
            environment=lambda tokenizer: ChatEnvironment(tokenizer, depth_limit=depth, context_limit=context),
        )
        trainer_class = SharedPrefixTrainer if settings.config.share_prompts else LaPhaTrainer
        self.trainer = trainer_class(
            model,
            arguments,
            rollout=rollout,
            value_head=head,
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": questions}),
            peft_config=lora(settings.config.lora_rank),
        )

    def train(self, resume: bool = True) -> None:
        """Train; with `resume`, from the last whole checkpoint in the output folder if there is one."""
        from lapha.integrations.trl.checkpoint import last_checkpoint
        from lapha.integrations.trl.saving import finished_state

        folder = Path(str(self.trainer.args.output_dir))
        last = last_checkpoint(folder) if resume else None
        if last and finished_state(last, self.trainer.args):
            self._finish(Path(last), folder)
            return
        if last:
            logger.info("resuming from %s", last)
        self.trainer.train(resume_from_checkpoint=last)
        if not self.settings.dry_run:
            self.trainer.save_model(str(folder))

    def _finish(self, last: Path, folder: Path) -> None:
        """A run that had reached its end: its weights are put beside its checkpoints if a kill had kept them from it."""
        from lapha.integrations.trl.checkpoint import export_checkpoint
        from lapha.integrations.trl.saving import finished_state

        if not self.trainer.accelerator.is_main_process:
            return
        best = self.trainer.args.load_best_model_at_end and finished_state(last, self.trainer.args)
        source = Path(best["best_model_checkpoint"] or last) if best else last
        new = export_checkpoint(source, folder)
        logger.warning("%s is finished: %s", folder, f"{source.name} is exported" if new else "nothing is left to do")


def load_policy(settings: RunSettings) -> tuple[Any, Any, Any]:
    """(model, tokenizer, value head or None) of a run."""
    from transformers import AutoTokenizer

    if settings.dry_run:
        return miniature(settings.config.architecture, Path(settings.arguments["output_dir"]) / "miniature")
    if settings.config.model == "tiny":
        from lapha.tiny import load_tiny

        return load_tiny()
    return settings.config.model, AutoTokenizer.from_pretrained(settings.config.model), None


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
    auto: Any = AutoModelForCausalLM  # not typed
    auto.from_config(config).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder), tokenizer, None


def lora(rank: int) -> Any:
    """A peft configuration for adapters on every linear layer; None for rank 0. (The head trains in full beside them.)"""
    if rank == 0:
        return None
    from lapha._imports import require

    return require("peft", extra="train").LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def load_problems(settings: RunSettings) -> tuple[list[str], Callable[[str, str], float | None]]:
    """(questions, verifier) of a run; the gold answers stay inside the verifier."""
    if settings.config.data == "tiny":
        from lapha.tiny import problems
        from lapha.tiny.problems import TinyVerifier

        seed = int(settings.arguments.get("seed", 42))
        return [problem.question for problem in problems.generate(settings.config.problems, seed=seed)], TinyVerifier()
    from lapha.evaluation.data import load_problems as read
    from lapha.evaluation.verifier import MathVerifier

    check(settings.config.verifier == "math", "verifier", "'math' for problems from a file", settings.config.verifier)
    found = read(settings.config.data)
    return [problem.question for problem in found], MathVerifier({p.question: p.answer for p in found})
