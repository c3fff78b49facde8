"""A policy given by name is loaded as TRL's own trainer loads it."""

import logging

import pytest
import torch

pytest.importorskip("trl")
from datasets import Dataset
from test_trl_trainer import QUESTIONS, lapha_config
from trl import GRPOTrainer

from lapha.integrations.trl import LaPhaTrainer
from lapha.tiny import load_tiny
from lapha.tiny.problems import TinyVerifier

FRUITFUL = {"simulations": 14, "max_expands": 1, "c_puct": 0.1, "process_reward": "strict"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The embedded policy as most models are stored: in bfloat16."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model, tokenizer, head = load_tiny()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    head.save_pretrained(folder)
    return str(folder)


def trainer_of(checkpoint, folder, **changes):
    args = lapha_config(folder, **changes)
    data = Dataset.from_dict({"prompt": QUESTIONS})
    return LaPhaTrainer(checkpoint, args, verifier=TinyVerifier(), train_dataset=data)


def test_bfloat16_weights_are_trained_in_float32(checkpoint, tmp_path):
    trainer = trainer_of(checkpoint, tmp_path, learning_rate=1e-6, beta=1e-8, **FRUITFUL)
    before = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
    theirs = GRPOTrainer(checkpoint, reward_funcs=len, args=trainer.args, train_dataset=trainer.train_dataset)
    assert trainer.model.dtype == theirs.model.dtype == torch.float32
    assert trainer.ref_model.dtype == theirs.ref_model.dtype
    trainer.train()
    for name in ("model.layers.0.mlp.up_proj.weight", "value_head.linear.weight"):
        moved = (trainer.model.state_dict()[name] != before[name]).float().mean()
        assert moved > 0.9, name  # a step of 1e-6 is lost in bfloat16


def test_another_dtype_is_taken_at_its_word(checkpoint, tmp_path, caplog):
    options = {"dtype": "bfloat16", "attn_implementation": "eager"}
    with caplog.at_level(logging.WARNING):
        trainer = trainer_of(checkpoint, tmp_path, model_init_kwargs=options, beta=0.1)
    assert trainer.model.dtype == trainer.value_head.linear.weight.dtype == torch.bfloat16
    assert trainer.args.model_init_kwargs == options
    assert trainer.ref_model.dtype == torch.bfloat16
    assert trainer.ref_model.config._attn_implementation == "eager"
    assert "ignored" not in caplog.text  # they were not


def test_the_tokenizer_beside_the_model_is_checked_too(checkpoint, tmp_path):
    model, tokenizer, _ = load_tiny()
    tokenizer.add_tokens(["<one>", "<more>"])
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="processing_class: expected at most the model's"):
        trainer_of(str(tmp_path / "model"), tmp_path / "out")
