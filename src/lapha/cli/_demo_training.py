"""The demo's training run: TRL's GRPO trainer with tree rollouts, shaped rewards and the joint value loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from lapha.latent import ValueHead


def train(
    model: Any,
    tokenizer: Any,
    value_head: ValueHead,
    *,
    folder: Path,
    steps: int,
    trees: int,
    seed: int,
    report: Callable[[int, dict[str, float]], None],
) -> ValueHead:
    """Train `model` in place and save it, with its head, to ``folder/checkpoint``; returns the trained head.

    Interrupted, it saves what there is and lets the interrupt pass.

    Args:
        model, tokenizer, value_head: the policy.
        folder: the demo's folder.
        steps: optimiser steps.
        trees: questions, each grown into a tree, per step.
        seed: of questions and sampling.
        report: called with (step, numbers) after every step.
    """
    from datasets import Dataset
    from transformers import TrainerCallback

    from lapha.agent import ChatEnvironment
    from lapha.integrations.trl import LaPhaConfig, LaPhaTrainer, TreeRollout
    from lapha.shaping.config import ValueTarget
    from lapha.tiny import BREADTH, DEPTH_LIMIT, MAX_EXPANDS, SEARCH, problems
    from lapha.tiny.problems import TinyVerifier

    breadth = BREADTH
    args = LaPhaConfig(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=trees * breadth,
        num_generations=breadth,
        max_completion_length=SEARCH.max_tokens,
        learning_rate=6e-5,
        temperature=0.7,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        simulations=16,
        depth_limit=DEPTH_LIMIT,
        max_expands=MAX_EXPANDS,
        prune_every=8,
        # The embedded policy solves a good part of its trees: several correct leaves a tree, and no tree is too easy.
        num_positive=4,
        easy_accuracy=1.0,
        process_reward="strict",
        value_target=cast(ValueTarget, value_head.value_target),
        beta=0.0,
        bf16=False,
        use_cpu=model.device.type == "cpu",
        seed=seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        gradient_checkpointing=False,
    )

    class Report(TrainerCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any
        ) -> None:
            numbers = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, (int, float))}
            if "loss" in numbers:  # the last entry is the run's summary
                report(state.global_step, numbers)

    rollout = TreeRollout(
        TinyVerifier(),
        search=args.search_config(),
        shaping=args.shaping_config(),
        num_positive=args.num_positive,
        environment=lambda tokenizer: ChatEnvironment(tokenizer, depth_limit=DEPTH_LIMIT, context_limit=512),
    )
    questions = problems.generate(steps * trees, seed=seed + 1, split="train")
    trainer = LaPhaTrainer(
        model,
        args,
        rollout=rollout,
        value_head=value_head,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": problem.question} for problem in questions]),
        callbacks=[Report()],
    )
    _drop_printing(trainer)
    try:
        trainer.train()
    finally:
        trainer.save_model(str(folder / "checkpoint"))
    return trainer.value_head


def _drop_printing(trainer: Any) -> None:
    """The progress bar shows what transformers would print."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
