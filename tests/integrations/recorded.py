"""Training on recorded trees, so that runs with different numbers of processes see the same rows.

As a script: `python recorded.py OUT TREES QUESTIONS_PER_PROCESS`, also under `accelerate launch`.
"""

import argparse
import dataclasses
import json
import pickle
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import load_file

from lapha.agent import ChatEnvironment
from lapha.integrations.trl import LaPhaConfig, LaPhaTrainer, TreeRollout
from lapha.tiny import SEARCH, load_tiny, problems
from lapha.tiny.problems import TinyVerifier

BREADTH = 4
PACKINGS = {"rows": "none", "shared": "prompt", "tree": "tree"}
QUESTIONS = [problem.question for problem in problems.generate(8, seed=5, split="train")]


def environment(tokenizer):
    return ChatEnvironment(tokenizer, depth_limit=8, context_limit=512)


class RecordedRollout(TreeRollout):
    """Hands out trees that were grown before."""

    def __init__(self, trees, **kwargs):
        super().__init__(TinyVerifier(), environment=environment, **kwargs)
        self.recorded = trees

    def grow(self, questions, trainer):
        return [self.recorded[question] for question in questions]


def settings(folder, questions_per_process, **changes):
    values = {
        "output_dir": str(folder),
        "max_steps": 3,
        "per_device_train_batch_size": questions_per_process * BREADTH,
        "num_generations": BREADTH,
        "max_completion_length": SEARCH.max_tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "beta": 0.0,
        "packing": "none",
        "loss_type": "grpo",
        "simulations": 12,
        "max_expands": 1,
        "c_puct": 0.1,
        "process_reward": "strict",  # a signal even where all leaves are right
        "easy_accuracy": 1.0,
        "depth_limit": 8,
        "prune_every": 0,
        "num_positive": 0,
        "max_groups": 1,  # so that the rows do not depend on which trees share a process
        "value_target": "success_rate",
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 0.0,
        "seed": 3,
    }
    return LaPhaConfig(**{**values, **changes})


def make_trainer(args, trees=None):
    model, tokenizer, head = load_tiny()
    rollout_class = TreeRollout if trees is None else RecordedRollout
    first = {"verifier": TinyVerifier(), "environment": environment} if trees is None else {"trees": trees}
    rollout = rollout_class(
        **first, search=args.search_config(), shaping=args.shaping_config(), num_positive=args.num_positive
    )
    return LaPhaTrainer(
        model,
        args,
        rollout=rollout,
        value_head=head,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": QUESTIONS}),
    )


def record(folder):
    """Grow a tree for every question with the embedded policy."""
    trainer = make_trainer(settings(folder, 4))
    trees = trainer.rollout.grow(QUESTIONS, trainer)
    return dict(zip(QUESTIONS, trees, strict=True))


def losses(trainer):
    names = ("loss", "lapha/value_loss", "lapha/no_signal_batches", "entropy")
    return [{name: entry[name] for name in names} for entry in trainer.state.log_history if "loss" in entry]


def saved(folder):
    """The policy's and the head's tensors in a checkpoint."""
    folder = Path(folder)
    return {
        **load_file(folder / "model.safetensors"),
        **load_file(folder / "value_head" / "value_head.safetensors"),
    }


def without_signal(tree):
    """The same tree as if nothing had been found out about it."""
    nothing = torch.full_like(tree.value_target, float("nan"))
    return dataclasses.replace(tree, groups=[], value_target=nothing)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("trees", type=Path)
    parser.add_argument("questions_per_process", type=int)
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--packing", choices=PACKINGS, default="rows")
    parser.add_argument("--without-signal-after", type=int, help="trees of later steps teach nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    trees = pickle.loads(given.trees.read_bytes())
    options = {"save_strategy": "steps", "save_steps": 2, "weight_decay": 0.1}
    options |= {"gradient_checkpointing": given.checkpointing, "packing": PACKINGS[given.packing]}
    trainer = make_trainer(settings(given.out, given.questions_per_process, **options), trees)
    if given.without_signal_after is not None:
        grow = trainer.rollout.grow

        def grow_barren(questions, trainer):
            known = grow(questions, trainer)
            late = trainer.state.global_step >= given.without_signal_after
            return [without_signal(tree) for tree in known] if late else known

        trainer.rollout.grow = grow_barren
    trainer.train(resume_from_checkpoint=str(given.resume) if given.resume else None)
    trainer.save_model(str(given.out / "final"))
    if trainer.accelerator.is_main_process:
        (given.out / "losses.json").write_text(json.dumps(losses(trainer)))


if __name__ == "__main__":
    main()
