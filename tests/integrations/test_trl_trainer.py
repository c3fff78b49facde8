"""The TRL adapter against the real TRL trainer, on the embedded policy."""

import dataclasses
import pickle

import pytest
import torch

pytest.importorskip("trl")
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from lapha.agent import ChatEnvironment
from lapha.integrations import ShapingConfig, rows_of_group
from lapha.integrations.trl import LaPhaConfig, LaPhaTrainer, ProcessReward, TreeRollout
from lapha.integrations.trl.prompts import question_of
from lapha.integrations.trl.rollout import fill_slots, placeholder_rows
from lapha.latent import ValueHead
from lapha.search import SearchConfig
from lapha.shaping import SiblingGroup
from lapha.tiny import SEARCH, load_tiny, problems
from lapha.tiny.problems import TinyVerifier
from lapha.tree import SearchTree

QUESTIONS = [problem.question for problem in problems.generate(32, seed=5, split="train")]
GENERATION = {"max_completion_length": SEARCH.max_tokens, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
COMMON = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "repetition_penalty": 1.0,
    "beta": 0.0,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "lr_scheduler_type": "constant",
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    **GENERATION,
}


def environment(tokenizer):
    return ChatEnvironment(tokenizer, depth_limit=8, context_limit=512)


def lapha_config(folder, **changes):
    own = {"simulations": 8, "depth_limit": 8, "prune_every": 0, "num_positive": 3, "easy_accuracy": 1.0}
    return LaPhaConfig(output_dir=str(folder), **{**COMMON, **own, "max_steps": 1, **changes})


def make_trainer(folder, verifier=None, **changes):
    model, tokenizer, head = load_tiny()
    args = lapha_config(folder, **changes)
    rollout = TreeRollout(
        verifier or TinyVerifier(),
        search=args.search_config(),
        shaping=args.shaping_config(),
        num_positive=args.num_positive,
        environment=environment,
    )
    data = Dataset.from_dict({"prompt": QUESTIONS})
    return LaPhaTrainer(model, args, rollout=rollout, value_head=head, processing_class=tokenizer, train_dataset=data)


def parameters(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def test_a_step_moves_policy_and_head_and_saves_what_transformers_loads(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=2)
    before = parameters(trainer.model)
    trainer.train()
    after = parameters(trainer.model)
    assert any(not torch.equal(before[name], after[name]) for name in before if not name.startswith("value_head"))
    assert not torch.equal(before["value_head.linear.weight"], after["value_head.linear.weight"])
    log = trainer.state.log_history[0]
    assert log["lapha/tree_size"] > 8
    assert 0 <= log["lapha/leaf_accuracy"] <= 1
    assert log["lapha/value_loss"] > 0

    trainer.save_model(str(tmp_path / "saved"))
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, after[name])
    head = ValueHead.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(head.linear.weight.detach(), after["value_head.linear.weight"])


def test_the_form_of_packing_is_the_first_that_the_model_takes(tmp_path, caplog):
    caplog.set_level("INFO", logger="lapha.integrations.trl.trainer")
    assert make_trainer(tmp_path).packing == "tree"
    assert "packing='tree'" in caplog.text
    model, tokenizer, head = load_tiny()
    data = Dataset.from_dict({"prompt": QUESTIONS})
    options = {"verifier": TinyVerifier(), "value_head": head, "processing_class": tokenizer, "train_dataset": data}
    model.config._attn_implementation = "eager"
    trainer = LaPhaTrainer(model, lapha_config(tmp_path), **options)
    assert trainer.packing == "prompt"
    assert "no packing='tree': attention 'eager'" in caplog.text
    assert trainer.rollout.shaping.max_groups == 2
    model.config._attn_implementation = "flash_attention_2"
    assert LaPhaTrainer(model, lapha_config(tmp_path), **options).packing == "none"
    model.config._attn_implementation = "eager"
    with pytest.raises(
        ValueError, match=r"^packing: expected 'auto' or another form, got 'tree' with attention 'eager'"
    ):
        LaPhaTrainer(model, lapha_config(tmp_path, packing="tree"), **options)


def test_rows_are_sibling_groups_in_the_order_trl_groups_them(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    rows = trainer.rollout.rows
    assert len(rows) == 8
    for start in (0, 4):
        group = rows[start : start + 4]
        assert len({tuple(row.prompt_ids) for row in group}) == 1
        assert all(row.completion_ids for row in group)


def test_value_loss_comes_from_the_policy_s_own_forward_pass(tmp_path):
    trainer = make_trainer(tmp_path, packing="none")
    passes = []
    trainer.model.get_decoder().register_forward_hook(lambda module, args, output: passes.append(module.training))
    compute, calls = trainer._compute_loss, []

    def counting(model, inputs):
        start = len(passes)
        loss = compute(model, inputs)
        calls.append((len(passes) - start, inputs, trainer._metrics["train"]["lapha/value_loss"][-1]))
        return loss

    trainer._compute_loss = counting
    weights = parameters(trainer.model)
    trainer.train()
    (count, inputs, logged), *_ = calls
    assert count == 1

    # the logged loss equals a plain computation with a second model: pool every prefix, apply the head
    model, _, head = load_tiny()
    model.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("value_head")})
    squared = []
    for row in range(len(inputs["prompt_ids"])):
        ids = torch.cat([inputs["prompt_ids"][row], inputs["completion_ids"][row]])
        mask = torch.cat([inputs["prompt_mask"][row], inputs["completion_mask"][row]]).bool()
        with torch.no_grad():
            hidden = model.get_decoder()(ids[mask][None]).last_hidden_state[0]
            for end, target in zip(
                inputs["value_ends"][row].tolist(), inputs["value_targets"][row].tolist(), strict=True
            ):
                if target == target:
                    squared.append((float(head(hidden[:end].mean(0))) - target) ** 2)
    if squared:
        assert logged == pytest.approx(sum(squared) / len(squared), rel=1e-3)
    else:
        assert logged != logged


def test_trees_without_any_signal_do_not_move_the_weights(tmp_path):
    trainer = make_trainer(tmp_path, verifier=lambda question, answer: 0.0, weight_decay=0.1)
    before = parameters(trainer.model)
    trainer.train()
    assert trainer.state.log_history[0]["lapha/no_signal_batches"] == 1
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_stock_trainer_takes_tree_rollouts(tmp_path):
    model, tokenizer, _ = load_tiny()
    rollout = TreeRollout(
        TinyVerifier(),
        search=SearchConfig(simulations=8, breadth=4, depth_limit=8, value_trust=0.0),
        environment=environment,
    )
    trainer = GRPOTrainer(
        model,
        reward_funcs=ProcessReward(),
        args=GRPOConfig(output_dir=str(tmp_path), max_steps=1, **COMMON),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": QUESTIONS}),
        rollout_func=rollout,
    )
    before = parameters(model)
    trainer.train()
    rewards = [row.reward for row in rollout.rows]
    moved = any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert len(rewards) == 8
    assert moved == any(reward == reward for reward in rewards)


def test_other_groups_fill_the_slots_of_trees_without_signal(tmp_path):
    trainer = make_trainer(tmp_path, simulations=16)
    grown = trainer.rollout.grow(QUESTIONS[:12], trainer)
    rich = next(tree for tree in grown if tree.groups)
    poor = next(tree for tree in grown if tree is not rich)
    other = next(nodes for parent, nodes in rich.tree.siblings() if parent != rich.groups[0].parent)
    second = SiblingGroup(int(rich.tree.parent[other[0]]), torch.tensor(other[:4]))
    rich = dataclasses.replace(rich, groups=[rich.groups[0], second])
    poor = dataclasses.replace(poor, groups=[])
    for trees, lender in (([rich, poor], 1), ([poor, rich], 0)):
        rows = fill_slots(trees, 4)
        lent = rows[4 * lender : 4 * lender + 4]
        assert [row.completion_ids for row in lent] == [row.completion_ids for row in rows_of_group(rich, second)]
        assert all(row.reward == row.reward for row in rows)  # 8 policy rows
        kept = fill_slots(trees, 4, lend=False)
        assert [row.question for row in kept] == [tree.tree.question for tree in trees for _ in range(4)]
        assert sum(row.reward == row.reward for row in kept) == 4


def test_a_tree_that_could_not_be_expanded_gives_rows_without_signal(tmp_path):
    trainer = make_trainer(tmp_path)
    grown = trainer.rollout.grow(QUESTIONS[:1], trainer)[0]
    root = SearchTree(grown.tree.question, list(grown.tree.tokens[0]))
    bare = dataclasses.replace(grown, tree=root, value_target=torch.tensor([0.25]), groups=[])
    rows = placeholder_rows(bare, 4)
    assert len(rows) == 4
    assert all(row.prompt_ids + row.completion_ids == list(root.tokens[0]) and row.completion_ids for row in rows)
    assert [row.value_targets[-1] for row in rows[:1]] == [0.25]
    assert all(row.value_targets[-1] != row.value_targets[-1] for row in rows[1:])  # the state counts once
    assert all(row.reward != row.reward for row in rows)


@pytest.mark.parametrize("weights", [None, [1.0, 0.5]])
def test_other_reward_functions_get_their_own_question_s_columns(tmp_path, weights):
    """The stock trainer, a second reward function, and trees without a group beside trees with several."""
    model, tokenizer, _ = load_tiny()
    seen = []

    def second(prompts, completions, gold, question, **columns):
        seen.extend(zip(prompts, gold, question, strict=True))
        return [0.0] * len(prompts)

    rollout = TreeRollout(
        TinyVerifier(), search=SearchConfig(simulations=14, breadth=4, depth_limit=8, max_expands=1, c_puct=0.1, value_trust=0.0),
        shaping=ShapingConfig(breadth=4, reward="strict", easy_accuracy=1.0), num_positive=0, environment=environment,
    )  # fmt: skip
    grow = rollout.grow

    def uneven(questions, trainer):
        trees = grow(questions, trainer)
        return [dataclasses.replace(tree, groups=[]) if number % 2 else tree for number, tree in enumerate(trees)]

    rollout.grow = uneven
    settings = {**COMMON, "per_device_train_batch_size": 32, "max_steps": 1, "reward_weights": weights}
    GRPOTrainer(
        model,
        reward_funcs=[ProcessReward(), second],
        args=GRPOConfig(output_dir=str(tmp_path), log_completions=True, **settings),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": QUESTIONS, "gold": [f"gold of {q}" for q in QUESTIONS]}),
        rollout_func=rollout,
    ).train()
    assert len(seen) == 32
    assert all(gold == f"gold of {question}" == f"gold of {prompt}" for prompt, gold, question in seen)
    assert any(len(tree.groups) > 1 for tree in rollout.trees)  # which would have been lent


def test_the_stock_trainer_s_sampling_is_the_search_s(tmp_path):
    model, tokenizer, _ = load_tiny()
    other = SearchConfig(simulations=8, breadth=4, sampling=dataclasses.replace(SEARCH, temperature=0.9))
    trainer = GRPOTrainer(
        model, reward_funcs=ProcessReward(), rollout_func=TreeRollout(TinyVerifier(), search=other),
        args=GRPOConfig(output_dir=str(tmp_path), max_steps=1, **COMMON), processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": QUESTIONS}),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"^search.sampling: expected the trainer's"):
        trainer.train()


def test_process_reward_pickles_and_says_what_is_missing():
    reward = pickle.loads(pickle.dumps(ProcessReward()))
    assert reward(["p"] * 2, ["c"] * 2, process_reward=[0.5, float("nan")]) == [0.5, None]
    with pytest.raises(ValueError, match="process_reward"):
        reward(["p"], ["c"])


def test_questions_are_found_in_both_kinds_of_prompt():
    assert question_of("why?") == "why?"
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "why?"}]
    question = pickle.loads(pickle.dumps(question_of(turns)))
    assert question == "why?"
    assert question.messages == turns
    assert question_of([{"role": "user", "content": [{"type": "text", "text": "why?"}]}]) == "why?"
    with pytest.raises(ValueError, match="prompt"):
        question_of([{"role": "system", "content": "s"}])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"per_device_train_batch_size": 6}, "num_generations"),
        ({"value_weight": -1.0}, "value_weight"),
        ({"process_reward": "loose"}, "reward"),
        ({"selection": "best"}, "selection"),
        ({"value_target": "oracle"}, "value_target"),
        ({"use_liger_kernel": True, "liger_kernel_config": {"fused_linear_cross_entropy": True}}, "fused_linear"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(tmp_path, changes, name):
    with pytest.raises(ValueError, match=name):
        lapha_config(tmp_path, **changes)


def test_trainer_refuses_what_it_cannot_use(tmp_path):
    model, tokenizer, _ = load_tiny()
    data = Dataset.from_dict({"prompt": QUESTIONS})
    with pytest.raises(ValueError, match="args"):
        LaPhaTrainer(model, GRPOConfig(output_dir=str(tmp_path), **COMMON), verifier=TinyVerifier())
    with pytest.raises(ValueError, match="verifier"):
        LaPhaTrainer(model, lapha_config(tmp_path), train_dataset=data, processing_class=tokenizer)
    with pytest.raises(ValueError, match="reward_funcs"):
        LaPhaTrainer(model, lapha_config(tmp_path), verifier=TinyVerifier(), reward_funcs=[])
    with pytest.raises(ValueError, match="value_head"):
        LaPhaTrainer(model, lapha_config(tmp_path), verifier=TinyVerifier(), value_head=ValueHead(3))


def test_audited_rewards_fall_back_to_verdicts_until_the_potential_has_proved_itself(tmp_path):
    """Two trees are too few to trust V: their rewards are differences of success rates, and the log says so."""
    trainer = make_trainer(tmp_path, process_reward="auto", max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["lapha/audit_trusts_potential"] == 0
    assert logged["lapha/audit_pairs"] < 30
    solved = [tree for tree in trainer.rollout.trees if tree.has_goal]
    assert solved
    for tree in solved:
        graded = tree.tree.status != 0
        assert float(tree.value[0]) == pytest.approx(float(tree.correct[graded].double().mean()), abs=1e-6)
