"""`LaPhaTrainer` and `SharedPrefixTrainer` in the same settings on the same trees.

As a script, also under `accelerate launch`, several settings in turn: `python compared.py OUT TREES FILE`.
"""

import argparse
import pickle
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from recorded import QUESTIONS, RecordedRollout, settings, without_signal
from transformers import AutoModelForCausalLM

from lapha.cli import run
from lapha.cli._training_run import lora
from lapha.integrations.trl import LaPhaTrainer, SharedPrefixTrainer
from lapha.tiny import load_tiny

TRAINERS = {"plain": LaPhaTrainer, "shared": SharedPrefixTrainer}


@dataclass(frozen=True)
class Setting:
    """What both trainers are given.

    Attributes:
        changes: arguments of `LaPhaConfig`. Plain gradient descent, because Adam hides a factor of the gradient.
        rank: of LoRA adapters; 0 trains everything.
        untied: whether the head has weights of its own, as larger models' heads do.
        uneven: whether the second process has one question twice, and a tree of it that teaches nothing.
    """

    changes: dict = field(default_factory=dict)
    rank: int = 0
    untied: bool = False
    uneven: bool = False


PLAIN = {"gradient_checkpointing": False}
STORED = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
REENTRANT = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
REFERENCE = {"beta": 0.1}
ADAPTERS = {"learning_rate": 1.0}  # their gradients are small: one of the two factors starts at zero
SETTINGS = {
    "checkpointing": Setting(STORED),
    "reentrant checkpointing": Setting(REENTRANT),
    "all states": Setting(REENTRANT | {"value_states": "tree"}),
    "reference model": Setting(PLAIN | REFERENCE),
    "entropy bonus": Setting(PLAIN | {"entropy_coef": 0.1}),
    "adapters": Setting(PLAIN | ADAPTERS | REFERENCE, rank=4),
    "adapters, checkpointing": Setting(STORED | ADAPTERS, rank=4),
    "adapters, reentrant checkpointing": Setting(REENTRANT | ADAPTERS, rank=4),
}
SAVED = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2}
UNEVEN = "tied, uneven"  # which one process cannot do
SHARDED = {
    UNEVEN: Setting(STORED | REFERENCE | SAVED | {"value_states": "tree"}, uneven=True),
    "untied": Setting(REENTRANT | REFERENCE, untied=True),
    "adapters": Setting(REENTRANT | ADAPTERS | REFERENCE, rank=4, untied=True),
}


class UnevenRollout(RecordedRollout):
    """The second process has nothing to learn, and fewer groups once neighbours with one prompt are packed."""

    def grow(self, questions, trainer):
        trees = super().grow(questions, trainer)
        second = trainer.accelerator.process_index == 1
        return [without_signal(trees[0])] * len(trees) if second else trees


def make_trainer(name, setting, folder, trees, questions, untied=None):
    values = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.03, **setting.changes}
    args = settings(folder, questions, **values)
    model, tokenizer, head = load_tiny()
    if setting.untied:
        model = AutoModelForCausalLM.from_pretrained(untied)
    rollout_class = UnevenRollout if setting.uneven else RecordedRollout
    rollout = rollout_class(trees, search=args.search_config(), shaping=args.shaping_config())
    return TRAINERS[name](
        model, args, rollout=rollout, value_head=head, processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": QUESTIONS}), peft_config=lora(setting.rank),
    )  # fmt: skip


def save_untied(folder):
    """The embedded policy with a head of its own, in a folder, because TRL loads the reference model by its name."""
    model = load_tiny()[0]
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(folder)


def trained_weights(trainer):
    """Copies of all that trains, gathered under ZeRO-3."""
    named = {name: tensor for name, tensor in trainer.model.named_parameters() if tensor.requires_grad}
    gathered = nullcontext()
    if any(hasattr(tensor, "ds_id") for tensor in named.values()):
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters(list(named.values()))
    with gathered:
        return {name: tensor.detach().clone() for name, tensor in named.items()}


def outcome(trainer, resume=None):
    """Train, and say what came of it.

    Returns:
        ``losses``, a dictionary a step; ``before`` and ``after``, weights; ``rows``, shapes that the decoder got;
        ``layer_passes``, how often its first layer ran.
    """
    rows, passes = [], []
    decoder = trainer.model.get_decoder()

    def keep(module, args, given):
        assert "labels" not in given  # not every decoder would let them pass
        rows.append(given["input_ids"].shape)

    decoder.register_forward_pre_hook(keep, with_kwargs=True)
    decoder.layers[0].register_forward_pre_hook(lambda module, args: passes.append(1))
    before = trained_weights(trainer)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    names = ("loss", "lapha/value_loss", "entropy", "kl", "lapha/no_signal_batches")
    losses = [
        {name: entry[name] for name in names if name in entry}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]  # fmt: skip
    after = trained_weights(trainer)
    return {"losses": losses, "before": before, "after": after, "rows": rows, "layer_passes": len(passes)}


def check_same(plain, shared):
    """Both trainers' losses, and what they added to every weight that trains, are the same up to rounding."""
    assert len(plain["losses"]) == len(shared["losses"]) > 0
    for first, second in zip(plain["losses"], shared["losses"], strict=True):
        assert second == pytest.approx(first, rel=1e-3, abs=1e-6)
    assert plain["before"].keys() == shared["before"].keys()
    for name, before in plain["before"].items():
        expected, got = plain["after"][name] - before, shared["after"][name] - shared["before"][name]
        assert expected.norm() > 0, name
        assert (got - expected).norm() <= 1e-3 * expected.norm(), name


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("trees", type=Path, help="beside it lies `untied`, of `save_untied`")
    parser.add_argument("training_file", type=Path, help="what `lapha train` is given at the end")
    given = parser.parse_args()
    torch.set_num_threads(1)
    trees, untied = pickle.loads(given.trees.read_bytes()), given.trees.parent / "untied"
    runs = [(UNEVEN, "plain", None), *((setting, "shared", None) for setting in SHARDED)]
    runs.append((UNEVEN, "shared", given.out / UNEVEN / "shared" / "checkpoint-2"))
    for setting, name, resume in runs:
        label = "resumed" if resume else name
        trainer = make_trainer(name, SHARDED[setting], given.out / setting / label, trees, 2, untied)
        result = outcome(trainer, resume)
        result["whole"] = [name for name, tensor in trainer.model.named_parameters() if tensor.ds_persist]
        first = torch.tensor([result["rows"][0][0]])
        result["sequences"] = trainer.accelerator.gather(first).tolist()
        if trainer.accelerator.is_main_process:
            torch.save(result, given.out / setting / f"{label}.pt")
    assert run(["train", "--config", str(given.training_file)]) == 0


if __name__ == "__main__":
    main()
