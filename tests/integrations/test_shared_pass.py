"""The trainer with each group's prompt computed once, against the trainer without, on the same recorded trees."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("trl")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
import compared
import recorded
from datasets import Dataset
from transformers import AutoConfig

from lapha.integrations.trl import SharedPrefixTrainer
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


@pytest.mark.parametrize("setting", compared.SETTINGS.values(), ids=compared.SETTINGS)
def test_losses_and_updates_are_those_of_the_plain_pass(tmp_path, trees, setting):
    if setting.rank:
        pytest.importorskip("peft")
    trainers = [compared.make_trainer(name, setting, tmp_path / name, trees, 4) for name in compared.TRAINERS]
    plain, shared = map(compared.outcome, trainers)
    compared.check_same(plain, shared)
    # and it is another pass: fewer sequences, fewer tokens
    rows, groups = plain["rows"][0], shared["rows"][0]
    assert groups[0] == rows[0] // recorded.BREADTH
    assert groups.numel() < rows.numel()
    # checkpointed layers run again in the backward pass; the reference that disabled adapters give needs none
    forward = 4 if setting.changes.get("value_states") == "tree" else 2
    reference = 2 if setting.rank and setting.changes.get("beta") else 0
    again = forward if setting.changes["gradient_checkpointing"] else 0
    assert shared["layer_passes"] == forward + reference + again
    if setting.changes.get("beta"):
        assert plain["losses"][1]["kl"] > 1e-5  # else a reference that is the policy itself would do


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


def test_adapters_that_go_by_columns_are_refused(tmp_path, trees):
    peft = pytest.importorskip("peft")
    from lapha.cli._training_run import lora

    waiting = lora(4)
    waiting.alora_invocation_tokens = [1, 2]
    for adapter in (peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), waiting):
        args = recorded.settings(tmp_path, 8)
        rollout = recorded.RecordedRollout(trees, search=args.search_config(), shaping=args.shaping_config())
        model, tokenizer, _ = load_tiny()
        with pytest.raises(ValueError, match="peft_config: expected adapters that act on every token"):
            SharedPrefixTrainer(
                model, args, rollout=rollout, processing_class=tokenizer, peft_config=adapter,
                train_dataset=Dataset.from_dict({"prompt": recorded.QUESTIONS}),
            )  # fmt: skip


@pytest.mark.parametrize(("said", "shares"), [({}, False), ({"share_prompts": True, "lora_rank": 2}, True)])
def test_a_training_file_says_whether_prompts_are_shared(tmp_path, said, shares):
    from lapha.cli._training_run import TrainingRun, read_settings

    pytest.importorskip("peft")
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load((ROOT / "configs/tiny.yaml").read_text()) | said))
    training = TrainingRun(read_settings(path, output_dir=tmp_path / "out", dry_run=True))
    assert isinstance(training.trainer, SharedPrefixTrainer) == shares
    training.train()
    assert training.trainer.state.global_step == 1
