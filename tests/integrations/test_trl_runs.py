"""Whole runs with TRL: stopping and going on, adapters, mixed precision, gradient checkpointing, and what stops a run."""

import json
from contextlib import nullcontext

import pytest
import torch

pytest.importorskip("trl")
from accelerate import DeepSpeedPlugin
from datasets import Dataset
from recorded import QUESTIONS, environment, saved, settings
from safetensors.torch import load_file

from lapha.engines import TransformersEngine
from lapha.integrations.trl import LaPhaTrainer, TreeRollout, VerifierError
from lapha.integrations.trl.generation import autocast_dtype, server_url
from lapha.integrations.trl.row_trainer import refuse_two_reentrant_passes
from lapha.latent import ValueHead
from lapha.tiny import load_tiny
from lapha.tiny.problems import TinyVerifier

# enough expansions, well directed, for trees with right answers; and rewards that do not fade where all are right
FRUITFUL = {"simulations": 14, "max_expands": 1, "c_puct": 0.1, "easy_accuracy": 1.0, "process_reward": "strict"}


def make_trainer(folder, verifier=None, rollout_options=None, trainer_options=None, **changes):
    args = settings(folder, 2, **{**FRUITFUL, "max_steps": 2, **changes})
    model, tokenizer, head = load_tiny()
    rollout = TreeRollout(
        verifier or TinyVerifier(), search=args.search_config(), shaping=args.shaping_config(),
        num_positive=args.num_positive, environment=environment, **(rollout_options or {}),
    )  # fmt: skip
    return LaPhaTrainer(
        model, args, rollout=rollout, value_head=head, processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": QUESTIONS}), **(trainer_options or {}),
    )  # fmt: skip


def numbers(trainer):
    """Everything logged that does not measure time."""
    timed = ("seconds", "time", "runtime", "per_second", "idle", "total_flos")
    return [
        {name: value for name, value in entry.items() if not any(word in name for word in timed)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


def same(first, second):
    """Equal to the bit, where NaN equals NaN."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


@pytest.mark.parametrize("save_steps", [2, 4, 5])
def test_a_resumed_run_goes_on_as_the_uninterrupted_one(tmp_path, save_steps):
    saving = {"max_steps": 6, "save_strategy": "steps", "save_steps": save_steps, "weight_decay": 0.1}
    through = make_trainer(tmp_path / "through", **saving)  # four steps are an epoch
    through.train()
    resumed = make_trainer(tmp_path / "resumed", **saving)
    torch.manual_seed(99)  # whatever state the process is in
    resumed.train(resume_from_checkpoint=str(tmp_path / "through" / f"checkpoint-{save_steps}"))
    assert len(numbers(through)) == 6
    assert any(entry["lapha/no_signal_batches"] == 0 for entry in numbers(through)[save_steps:])
    assert same(numbers(through), numbers(resumed))
    expected = through.model.state_dict()
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_saves_between_two_steps_of_one_generation_are_refused(tmp_path):
    with pytest.raises(ValueError, match="save_steps"):
        settings(tmp_path, 2, num_iterations=2, save_strategy="steps", save_steps=3)
    settings(tmp_path, 2, num_iterations=2, save_strategy="steps", save_steps=4)


def test_adapters_and_the_head_train_and_come_back(tmp_path):
    pytest.importorskip("peft")
    from lapha.cli._training_run import lora

    options = {"trainer_options": {"peft_config": lora(4)}}
    trainer = make_trainer(tmp_path, **options, save_strategy="steps", save_steps=2)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert any("lora_" in name for name in moved)
    assert any("value_head" in name for name in moved)
    assert all("lora_" in name or "value_head" in name for name in moved), moved

    folder = tmp_path / "checkpoint-2"
    head = ValueHead.from_pretrained(folder)
    trained = trainer.value_head.linear.weight
    torch.testing.assert_close(head.linear.weight.detach(), trained.detach())
    again = make_trainer(tmp_path / "again", **options)
    again._load_from_checkpoint(str(folder))
    for name, tensor in again.model.state_dict().items():
        torch.testing.assert_close(tensor, after[name], msg=name)


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"bf16": True}])
def test_memory_savers_leave_the_training_as_it_is(tmp_path, changes):
    # TRL's own default is to checkpoint
    plain = make_trainer(tmp_path / "plain", max_steps=1, gradient_checkpointing=False)
    saving = make_trainer(tmp_path / "saving", max_steps=1, **{"gradient_checkpointing": False, **changes})
    if "bf16" in changes:  # other rounding, other samples: the same trees for both
        trees = plain.rollout.grow(QUESTIONS[:2], plain)
        plain.rollout.grow = saving.rollout.grow = lambda questions, trainer: trees
    plain.train()
    saving.train()
    assert not plain.model.is_gradient_checkpointing
    assert saving.model.is_gradient_checkpointing == ("gradient_checkpointing" in changes)
    expected, got = numbers(plain)[0], numbers(saving)[0]
    tolerance = 0.05 if "bf16" in changes else 1e-5
    assert got["lapha/value_loss"] == pytest.approx(expected["lapha/value_loss"], rel=tolerance)
    assert got["entropy"] == pytest.approx(expected["entropy"], rel=tolerance)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, True),
        ({"value_states": "path"}, False),
        ({"value_weight": 0.0}, False),
        ({"gradient_checkpointing": False}, False),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": False}}, False),
        ({"stage": 2}, False),
    ],
)
def test_zero3_takes_no_second_pass_with_reentrant_checkpoints(tmp_path, changes, refused):
    pytest.importorskip("deepspeed")
    stage = changes.pop("stage", 3)
    given = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    args = settings(tmp_path, 2, **{**given, "value_states": "tree", **changes})
    args.deepspeed_plugin = DeepSpeedPlugin(zero_stage=stage)
    with pytest.raises(ValueError, match=r"^value_states: expected 'path'") if refused else nullcontext():
        refuse_two_reentrant_passes(args)


def test_mixed_precision_samples_in_the_dtype_it_trains_in(tmp_path):
    trainer = make_trainer(tmp_path, bf16=True)
    assert autocast_dtype(trainer.accelerator, trainer.model) is torch.bfloat16
    assert autocast_dtype(trainer.accelerator, trainer.model.to(torch.bfloat16)) is None
    assert autocast_dtype(make_trainer(tmp_path).accelerator, load_tiny()[0]) is None


def test_group_variance_and_idle_share_are_logged(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert 0 <= entry["lapha/engine_idle"] < 1
    assert entry["lapha/rollout_seconds"] > 0
    variances = [
        float(tree.reward[group.members].double().var(unbiased=False))
        for tree in trainer.rollout.trees
        for group in tree.groups
    ]
    if variances:
        assert entry["lapha/group_variance"] == pytest.approx(sum(variances) / len(variances))
    else:
        assert entry["lapha/group_variance"] is None


class Flaky:
    """Raises on every `period`-th distinct answer."""

    def __init__(self, period):
        self.period, self.asked = period, 0

    def __call__(self, question, answer):
        self.asked += 1
        if self.asked % self.period == 0:
            raise ZeroDivisionError("no such number")
        return TinyVerifier()(question, answer)


def test_a_verifier_that_often_raises_stops_the_training(tmp_path):
    trainer = make_trainer(tmp_path, Flaky(2), {"max_verifier_errors": 0.25})
    with pytest.raises(VerifierError, match=r"raised on \d+ of \d+ answers.*no such number"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_verifier_that_seldom_raises_is_counted(tmp_path):
    trainer = make_trainer(tmp_path, Flaky(2), {"max_verifier_errors": 1.0}, max_steps=1)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["lapha/verifier_errors"] > 0
    assert entry["lapha/ungraded"] >= entry["lapha/verifier_errors"]


@pytest.mark.parametrize("reward", [float("nan"), 2.0, -1.0])
def test_a_reward_that_is_none_stops_the_training_at_the_first_step(tmp_path, reward):
    trainer = make_trainer(tmp_path, lambda question, answer: reward)
    with pytest.raises(ValueError, match="verifier"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_vocabulary_that_the_model_does_not_have_is_refused(tmp_path):
    model, tokenizer, head = load_tiny()
    tokenizer.add_tokens(["<one>", "<more>"])
    with pytest.raises(ValueError, match="processing_class"):
        LaPhaTrainer(
            model, settings(tmp_path, 2), verifier=TinyVerifier(), value_head=head, processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": QUESTIONS}),
        )  # fmt: skip


LONG = "Walk on, and on. " * 200
BROKEN = {"prompt": [*QUESTIONS, LONG, " ", LONG], "gold": list(range(11))}


def trainer_with(folder, data, **changes):
    args = settings(folder, 2, max_steps=1, **changes)
    model, tokenizer, head = load_tiny()
    rollout = TreeRollout(
        TinyVerifier(), search=args.search_config(), shaping=args.shaping_config(), environment=environment
    )
    return LaPhaTrainer(
        model, args, rollout=rollout, value_head=head, processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": QUESTIONS}) if "eval" in data else data["train"],
        eval_dataset=data.get("eval"),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["train", "eval"])
def test_prompts_that_no_tree_can_grow_from_are_named_by_row_before_step_1(tmp_path, name):
    data = {name: Dataset.from_dict(BROKEN)}
    expected = (
        rf"^{name}_dataset: .* row 8: question: expected a prompt shorter than context_limit = 512.*row 9: .*blank"
    )
    with pytest.raises(ValueError, match=expected):
        trainer_with(tmp_path, data)
    trainer = trainer_with(tmp_path, data, broken_prompts="skip")
    left = getattr(trainer, f"{name}_dataset")
    assert left["gold"] == list(range(8))
    with pytest.raises(ValueError, match=f"^{name}_dataset"):  # nothing is left
        trainer_with(tmp_path, {name: Dataset.from_dict({"prompt": [LONG, LONG]})}, broken_prompts="skip")


def test_a_prompt_that_fills_the_model_s_window_is_named(tmp_path):
    from lapha.integrations.trl.prompts import usable_prompts

    data = Dataset.from_dict({"prompt": ["a b", "a b c"]})
    with pytest.raises(ValueError, match="row 1: question: expected a prompt shorter than the model's window of 3"):
        usable_prompts(data, "train_dataset", lambda question: len(question.split()), 3, "error")


def test_conversations_keep_their_system_prompt_and_earlier_turns(tmp_path):
    turns = [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "Deux."},
        {"role": "user", "content": QUESTIONS[0]},
    ]
    trainer = trainer_with(tmp_path, {"train": Dataset.from_dict({"prompt": [turns] * 8})}, log_completions=True)
    trainer.train()
    for row in trainer.rollout.rows:
        context = trainer.processing_class.decode(row.prompt_ids)
        places = [context.index(text) for text in ("Answer in French.", "What is 1 + 1?", "Deux.", QUESTIONS[0])]
        assert places == sorted(places)
        assert row.question == QUESTIONS[0]
    table = list(trainer._logs["prompt"])
    assert table == trainer.processing_class.batch_decode([row.prompt_ids for row in trainer.rollout.rows])
    advantages = torch.tensor([row.advantage for row in trainer.rollout.rows]).nan_to_num(0.0)
    torch.testing.assert_close(torch.tensor(list(trainer._logs["advantages"])), advantages)


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    ],
)
def test_conversations_that_would_lose_something_are_refused(tmp_path, prompt):
    with pytest.raises(ValueError, match=r"^train_dataset: .*row 0: prompt: expected"):
        trainer_with(tmp_path, {"train": Dataset.from_list([{"prompt": prompt}] * 8)})


def test_an_environment_that_takes_no_conversations_gets_none():
    from lapha.engines.scripted import ScriptedEnvironment
    from lapha.integrations.trl.prompts import question_of
    from lapha.integrations.trl.rollout import refuse_lost_messages

    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "why?"}]
    with pytest.raises(ValueError, match="takes_conversations"):
        refuse_lost_messages(question_of(turns), ScriptedEnvironment.__new__(ScriptedEnvironment))
    refuse_lost_messages("why?", ScriptedEnvironment.__new__(ScriptedEnvironment))


def test_an_evaluation_is_label_free(tmp_path, monkeypatch):
    """The search gets neither of the hooks that know verdicts, and every verdict is asked for after it has ended."""
    import lapha.integrations.trl.rollout as module

    events = []

    class Watched(module.Search):
        def __init__(self, *args, **options):
            events.append(sorted(options))
            super().__init__(*args, **options)

        def run(self, *args, **options):
            yield from super().run(*args, **options)
            events.append("searched")

    def verifier(question, answer):
        events.append("graded")
        return TinyVerifier()(question, answer)

    monkeypatch.setattr(module, "Search", Watched)
    evaluating = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8, "num_positive": 1}
    trainer = make_trainer(
        tmp_path, verifier, trainer_options={"eval_dataset": Dataset.from_dict({"prompt": QUESTIONS})}, **evaluating
    )
    metrics = trainer.evaluate()
    assert ["config", "environment"] in events
    assert "graded" in events
    searching = False
    for event in events:
        searching = searching or isinstance(event, list)
        assert not (searching and event == "graded")
        searching = searching and event != "searched"
    for name in ("accuracy", "pass_at_1", "majority_accuracy", "solved_trees"):
        assert 0 <= metrics[f"eval_lapha/{name}"] <= 1
    assert metrics["eval_lapha/accuracy"] <= metrics["eval_lapha/solved_trees"]
    assert all(
        tree.tree.simulation.max() == trainer.args.simulations for tree in trainer.rollout.trees
    )  # none ended early


def test_a_finished_run_that_is_started_again_stays_as_it_is(tmp_path):
    saving = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}  # four steps are an epoch
    make_trainer(tmp_path, **saving).train()
    again = make_trainer(tmp_path, **saving)
    result = again.train(resume_from_checkpoint=True)
    assert result.global_step == 3
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-1",
        "checkpoint-2",
        "checkpoint-3",
    ]
    weights = {**again.model.state_dict(), **again.value_head.state_dict()}
    for name, tensor in saved(tmp_path / "checkpoint-3").items():
        assert torch.equal(weights[name], tensor), name
    more = make_trainer(tmp_path, **{**saving, "max_steps": 4})  # a run made longer goes on
    assert more.train(resume_from_checkpoint=True).global_step == 4


def test_an_optimizer_of_the_caller_s_own_gets_the_head(tmp_path):
    model = load_tiny()[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = make_trainer(tmp_path, trainer_options={"optimizers": (optimizer, schedule)})
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert all(id(parameter) in known for parameter in trainer.value_head.parameters())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"min_p": 0.1}, "min_p"),
        ({"generation_kwargs": {"num_beams": 2}}, "generation_kwargs"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
        ({"scale_rewards": "batch"}, "scale_rewards"),
        ({"reward_weights": [1.0]}, "reward_weights"),
        ({"value_learning_rate": 0.0}, "value_learning_rate"),
        ({"broken_prompts": "drop"}, "broken_prompts"),
        ({"value_states": "tree", "ddp_find_unused_parameters": True}, "ddp_find_unused_parameters"),
    ],
)
def test_options_of_trl_that_trees_do_not_use_are_refused(tmp_path, changes, name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        settings(tmp_path, 2, **changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"vllm_tensor_parallel_size": 2}, "vllm_tensor_parallel_size"), ({"vllm_enable_sleep_mode": True}, "sleep_mode")],
)
def test_what_vllm_beside_the_trainer_cannot_do_is_refused(tmp_path, changes, name):
    with pytest.raises(ValueError, match=name):
        settings(tmp_path, 2, use_vllm=True, vllm_mode="colocate", **changes)


def test_the_server_that_gets_the_weights_is_the_one_that_samples(tmp_path):
    assert server_url(settings(tmp_path, 2, vllm_server_host="node7", vllm_server_port=81)) == "http://node7:81"
    assert server_url(settings(tmp_path, 2, vllm_server_base_url="http://node7/v")) == "http://node7/v"


def test_the_gate_steps_when_an_earlier_micro_batch_had_a_signal():
    from lapha.integrations.trl.signal_gate import SignalGate

    class Accelerator:  # the two attributes of accelerate's that the gate reads
        sync_gradients = False

        def __init__(self):
            self.seen = []

        def backward(self, loss, **options):
            self.seen.append((float(loss), self.sync_gradients))

    accelerator = Accelerator()
    gate = SignalGate(accelerator)

    def step(*signals):
        accelerator.seen.clear()
        for index, signal in enumerate(signals):
            gate.open, accelerator.sync_gradients = signal, index + 1 == len(signals)
            accelerator.backward(torch.tensor(2.0))
        return list(accelerator.seen)

    assert step(True, True) == [(2.0, False), (2.0, True)]
    assert step(True, False) == [(2.0, False), (0.0, True)]
    assert step(False, True) == [(2.0, True)]
    assert step(False, False) == []
    assert step(False) == []


def test_checkpoints_hold_what_transformers_loads(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert not any("value_head" in name for name in saved)
    engine = TransformersEngine.from_pretrained(tmp_path / "checkpoint-2", value_head=tmp_path / "checkpoint-2")
    torch.testing.assert_close(engine.value_head.linear.weight, trainer.value_head.linear.weight)
