"""The trainer with each group's prompt computed once, against the trainer without, on the same recorded trees."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")
sys.path.insert(0, str(Path(__file__).parent))
import recorded
from datasets import Dataset
from transformers import AutoConfig

from lapha.integrations.trl import LaPhaTrainer, SharedPrefixTrainer
from lapha.integrations.trl.shared_pass import regroup, takes_packed_rows
from lapha.tiny import load_tiny, tiny_path


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return recorded.record(tmp_path_factory.mktemp("trees"))


def run(trainer_class, folder, trees, **changes):
    args = recorded.settings(folder, 8, **{"max_steps": 2, **changes})
    model, tokenizer, head = load_tiny()
    rollout = recorded.RecordedRollout(trees, search=args.search_config(), shaping=args.shaping_config())
    trainer = trainer_class(
        model,
        args,
        rollout=rollout,
        value_head=head,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": recorded.QUESTIONS}),
    )
    lengths = []
    model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    trainer.train()
    return trainer, recorded.losses(trainer), lengths


@pytest.mark.parametrize("value_states", ["path", "tree"])
def test_losses_and_weights_are_those_of_the_plain_pass(tmp_path, trees, value_states):
    plain, expected, rows = run(LaPhaTrainer, tmp_path / "plain", trees, value_states=value_states)
    shared, got, groups = run(SharedPrefixTrainer, tmp_path / "shared", trees, value_states=value_states)
    for first, second in zip(expected, got, strict=True):
        assert second == pytest.approx(first, rel=1e-3, abs=1e-5)
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(shared.model.state_dict()[name], tensor, rtol=1e-3, atol=2e-4)
    # and it is another pass: fewer sequences, fewer tokens
    assert groups[0][0] == rows[0][0] // recorded.BREADTH
    assert groups[0].numel() < rows[0].numel()


def test_micro_batches_hold_whole_groups(tmp_path, trees):
    seen = []

    class Watching(SharedPrefixTrainer):
        def _compute_loss(self, model, inputs):
            seen.append(inputs["row_number"].tolist())
            return super()._compute_loss(model, inputs)

    changes = {"per_device_train_batch_size": recorded.BREADTH, "gradient_accumulation_steps": 8, "max_steps": 1}
    run(Watching, tmp_path, trees, **changes)
    assert len(seen) == 8
    assert all(rows == list(range(rows[0], rows[0] + recorded.BREADTH)) for rows in seen)
    assert sorted(rows[0] // recorded.BREADTH for rows in seen) == list(range(8))
    assert [rows[0] for rows in seen] != sorted(rows[0] for rows in seen)  # TRL's shuffle still decides their order


def test_regrouping_moves_every_column_and_leaves_the_rest():
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    batches = [
        {"completion_ids": rows[:, None] * 10, "row_number": rows, "total": torch.tensor(6.0), "nothing": None}
        for rows in order.split(3)
    ]
    first, second = regroup(batches, 3)
    assert first["row_number"].tolist() == [3, 4, 5]
    assert second["row_number"].tolist() == [0, 1, 2]
    assert first["completion_ids"].tolist() == [[30], [40], [50]]
    assert first["total"] == 6
    assert first["nothing"] is None


def test_models_that_cannot_take_packed_rows_go_their_own_way():
    config = AutoConfig.from_pretrained(tiny_path())
    config._attn_implementation = "sdpa"
    assert takes_packed_rows(config)
    config._attn_implementation = "flash_attention_2"
    assert not takes_packed_rows(config)
    config._attn_implementation = "eager"
    config.layer_types = ["full_attention", "sliding_attention"]
    assert not takes_packed_rows(config)
    config.layer_types = None
    config.final_logit_softcapping = 30.0
    assert not takes_packed_rows(config)


def test_adapters_are_refused(tmp_path):
    from lapha.cli._training_run import lora

    with pytest.raises(ValueError, match="peft_config"):
        SharedPrefixTrainer(load_tiny()[0], recorded.settings(tmp_path, 8), peft_config=lora(4))
