"""TRL's options, crossed with both trainers, against a plain loop: losses, and what each weight moved by."""

import copy
import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")
sys.path.insert(0, str(Path(__file__).parent))
import oracle
import recorded
from datasets import Dataset

from lapha.integrations.tree_packing import split_trees
from lapha.integrations.trl import LaPhaTrainer, SharedPrefixTrainer, tree_pass
from lapha.tiny import load_tiny

TRAINERS = {"rows": LaPhaTrainer, "shared": SharedPrefixTrainer, "tree": LaPhaTrainer}
RATE = 0.03


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    found = recorded.record(tmp_path_factory.mktemp("trees"))
    assert sum(bool(tree.groups) for tree in found.values()) >= 4
    targets = [tree.value_target[tree.tree.path(len(tree.tree) - 1)].tolist() for tree in found.values()]
    assert any(path != path[::-1] for path in targets), "targets along a path must differ from end to end"
    return found


class Rollout(recorded.RecordedRollout):
    """Recorded trees; while the trainer evaluates, the same trees as if nothing had been found out about them."""

    def grow(self, questions, trainer):
        trees = super().grow(questions, trainer)
        if trainer.model.training:
            return trees
        self.evaluations = getattr(self, "evaluations", 0) + 1
        return [recorded.without_signal(tree) for tree in trees]


def run(form, folder, trees, peft_config=None, questions=2, trainer_class=None, **changes):
    """(trainer, generations of micro-batches of row keys or parts of trees, initial weights, known rows)."""
    trainer_class = trainer_class or TRAINERS[form]
    if form == "tree":
        changes |= {"packing": "tree", "max_groups": 1024}
    values = {"max_steps": 2, "optim": "sgd", "learning_rate": RATE, "gradient_checkpointing": False, **changes}
    args = recorded.settings(folder, questions, **values)
    seen = []

    class Watched(trainer_class):
        def _tree_batches(self, generation_batch):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tree_pass, "split_trees", divide)
                return super()._tree_batches(generation_batch)

        def _compute_loss(self, model, inputs):
            if self.model.training and form != "tree":
                given = zip(*(inputs[name] for name in ("prompt_ids", "prompt_mask", "completion_ids")), strict=True)
                keys = []
                for prompt, mask, completion in given:
                    prompt = tuple(prompt[mask.bool()].tolist())
                    completion = tuple(completion.tolist())
                    keys.append(next(k for k in known if k[0] == prompt and k[1] == completion[: len(k[1])]
                                     and set(completion[len(k[1]) :]) <= {tokenizer.pad_token_id}))  # fmt: skip
                seen.append(keys)
            return super()._compute_loss(model, inputs)

    def divide(*args, **options):
        lists = split_trees(*args, **options)
        seen.extend([[(part.shaped, part.nodes) for part in parts] for parts in lists] * args_of.num_iterations)
        return lists

    args_of = args
    model, tokenizer, head = load_tiny()
    rollout = Rollout(trees, search=args.search_config(), shaping=args.shaping_config())
    known = dict(sorted(oracle.rows_of(trees.values()).items(), key=lambda item: -len(item[0][1])))
    data = Dataset.from_dict({"prompt": recorded.QUESTIONS})
    trainer = Watched(
        model, args, rollout=rollout, value_head=head, processing_class=tokenizer, train_dataset=data,
        eval_dataset=data.select(range(2)), peft_config=peft_config,
    )  # fmt: skip
    before = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    share = args.steps_per_generation * args.num_iterations
    generations = [seen[start : start + share] for start in range(0, len(seen), share)]
    return trainer, generations, before, known


def check_against_oracle(result, options, peft_config=None, reference=None, after_step=None):
    trainer, generations, before, known = result
    model, _, head = load_tiny()
    if peft_config is not None:
        from peft import get_peft_model

        model = get_peft_model(model, peft_config)
    policy = {name: tensor for name, tensor in before.items() if "value_head" not in name}
    model.load_state_dict(policy)
    model.eval()  # no dropout here or there
    hook = (lambda: after_step(model)) if after_step else None
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    if trainer.packing == "tree":
        batches = [[oracle.micro_batch(parts, options) for parts in generation] for generation in generations]
        trees = {id(shaped): shaped for generation in generations for parts in generation for shaped, _ in parts}
        assert sum(len(tree.groups) for tree in trees.values()) > len(trees) / 2  # more than one group of a tree
        assert [e["loss"] for e in logged] == pytest.approx(
            oracle.train_trees(model, head, batches, options, reference, hook), rel=1e-3, abs=2e-5
        )
        check_weights(trainer, before, model, head)
        return trainer
    losses = oracle.train(model, head, generations, known, options, reference, hook)
    steps = [losses[at : at + options.accumulation] for at in range(0, len(losses), options.accumulation)]
    assert len(logged) == len(steps) > 0
    for entry, parts in zip(logged, steps, strict=True):
        known_values = [value for _, value in parts if not math.isnan(value)]
        expected = sum(loss + options.value_weight * (0 if math.isnan(v) else v) for loss, v in parts) / len(parts)
        assert entry["loss"] == pytest.approx(expected, rel=1e-3, abs=2e-5)
        if known_values and options.value_weight:
            assert entry["lapha/value_loss"] == pytest.approx(sum(known_values) / len(known_values), rel=1e-3)
    check_weights(trainer, before, model, head)
    return trainer


def check_weights(trainer, before, model, head):
    """What each weight moved by is what it moved by in the plain loop."""
    after = trainer.model.state_dict()
    expected = {**model.state_dict(), **{f"value_head.{name}": tensor for name, tensor in head.state_dict().items()}}
    moved = 0
    for name, tensor in expected.items():
        found = next(key for key in after if key == name or (key.endswith(name) and "value_head" in name))
        want, got = tensor - before[found], after[found] - before[found]
        assert (got - want).norm() <= 2e-3 * want.norm() + 1e-7, name
        moved += bool(want.norm() > 0)
    assert moved > 2


CASES = {
    "plain": ({}, {}),
    "evaluation inside a generation": (
        {"steps_per_generation": 2, "per_device_train_batch_size": 4, "eval_strategy": "steps", "eval_steps": 1,
         "per_device_eval_batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 4}, {},
    ),
    "evaluation of another breadth": (
        {"eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 2, "per_device_eval_batch_size": 4}, {},
    ),
    "two iterations": ({"num_iterations": 2, "max_steps": 4}, {}),
    "gradient accumulation": (
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}, {"accumulation": 2},
    ),
    "entropy bonus": ({"entropy_coef": 0.1}, {"entropy_coef": 0.1}),
    "truncated completions masked": ({"mask_truncated_completions": True}, {"eos": True}),
    "rewards not scaled": ({"scale_rewards": "none"}, {"scaled": False}),
    "a rate of the head's own": ({"value_learning_rate": 1.0}, {"value_rate": 1.0}),
    "no value loss": ({"value_weight": 0.0}, {"value_weight": 0.0}),
}  # fmt: skip


@pytest.mark.parametrize("form", TRAINERS)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_updates_are_those_of_a_plain_loop(tmp_path, trees, case, form):
    changes, known = CASES[case]
    if case == "truncated completions masked":  # of which there must be some, and some not
        trees = cut_off(trees)
    result = run(form, tmp_path, trees, **changes)
    known = dict(known)
    if known.pop("eos", False):
        known["eos"] = tuple(result[0].eos_token_ids)
        if form != "tree":
            ended = [key[1][-1] in known["eos"] for batches in result[1] for batch in batches for key in batch]
            assert any(ended)
            assert not all(ended)
    check_against_oracle(result, oracle.Options(rate=RATE, **known))
    if "eval_strategy" in changes:
        assert result[0].rollout.evaluations >= 2


def cut_off(trees):
    """The same trees as if every third sampled step had been cut off before its last token, and its child after it."""
    cut = {}
    for question, shaped in trees.items():
        tree = copy.deepcopy(shaped.tree)
        for node in range(1, len(tree), 3):
            if not tree.children[node] and len(tree.tokens[node]) > tree.bridge_length[node] + 1:
                tree.tokens[node] = tree.tokens[node][:-1]
                tree.logprobs[node] = tree.logprobs[node][:-1]
        cut[question] = dataclasses.replace(shaped, tree=tree)
    return cut


@pytest.mark.parametrize("form", TRAINERS)
def test_an_ordinary_adapter_configuration_leaves_the_head_trained(tmp_path, trees, form):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, task_type="CAUSAL_LM", target_modules="all-linear", lora_dropout=0.0)
    result = run(form, tmp_path, trees, peft_config=config, learning_rate=1.0)
    trainer = check_against_oracle(result, oracle.Options(rate=1.0), peft_config=config)
    assert trainer.value_head.linear.weight.requires_grad


@pytest.mark.parametrize("form", TRAINERS)
def test_a_reference_model_follows_the_policy(tmp_path, trees, form):
    reference = load_tiny()[0].eval()

    def follow(model):
        with torch.no_grad():
            for target, source in zip(reference.parameters(), model.parameters(), strict=True):
                target.mul_(0.4).add_(source, alpha=0.6)

    changes = {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.6}
    result = run(form, tmp_path, trees, max_steps=3, **changes)
    check_against_oracle(result, oracle.Options(rate=RATE, beta=0.1), reference=reference, after_step=follow)


@pytest.mark.parametrize("form", TRAINERS)
def test_the_best_checkpoint_comes_back_with_its_own_head(tmp_path, trees, form):
    changes = {
        "max_steps": 3, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
        "per_device_eval_batch_size": 4, "load_best_model_at_end": True, "metric_for_best_model": "score",
        "greater_is_better": True,
    }  # fmt: skip

    class Judged(TRAINERS[form]):
        def evaluate(self, *args, **options):
            metrics = super().evaluate(*args, **options)
            return metrics | {"eval_score": -float(self.state.global_step)}  # the first is the best

    trainer, *_ = run(form, tmp_path, trees, trainer_class=Judged, **changes)
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    first, last = (recorded.saved(tmp_path / f"checkpoint-{step}") for step in (1, 3))
    now = {**trainer.model.state_dict(), **trainer.value_head.state_dict()}
    for name, tensor in first.items():
        assert torch.equal(now[name], tensor), name
    assert not torch.equal(first["linear.weight"], last["linear.weight"])


def test_the_hub_gets_the_head_while_training(tmp_path, trees, monkeypatch):
    """`hub_strategy="every_save"` copies a checkpoint's files by name, and uploads the folder."""
    import transformers.trainer

    class Hub:
        uploaded: list = []

        def upload_folder(self, *, folder_path, **options):
            self.uploaded.append({p.relative_to(folder_path).as_posix() for p in Path(folder_path).rglob("*")})

    trainer, *_ = run("rows", tmp_path, trees, save_strategy="steps", save_steps=2)
    monkeypatch.setattr(transformers.trainer, "hf_api", Hub)
    trainer.hub_model_id, trainer.push_in_progress = "someone/something", None
    trainer._push_from_checkpoint(str(tmp_path / "checkpoint-2"))
    assert "value_head/value_head.safetensors" in Hub.uploaded[0]
    sent, saved = (recorded.saved(folder) for folder in (tmp_path, tmp_path / "checkpoint-2"))
    assert all(torch.equal(sent[name], saved[name]) for name in saved)
