"""The OpenRLHF reward function on responses of the embedded policy, called as OpenRLHF calls it."""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
import example_files

from lapha import potential
from lapha.latent import latent_points
from lapha.tiny import load_tiny, problems, verify

LABEL = "<answer>+10 +1</answer>"  # the embedded problems have many right answers; the function compares with one


@pytest.fixture
def module():
    """Loaded afresh as OpenRLHF does it, so that no goals are remembered from another test."""
    spec = importlib.util.spec_from_file_location("reward_func", example_files.FOLDER / "openrlhf_reward.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def responses():
    """(prompt, [response], gold): all answered paths of one tree, the gold answer being a correct one of them."""
    _, tokenizer, _ = load_tiny()
    for shaped, _ in example_files.shaped_trees():
        tree = shaped.tree
        answered = [int(node) for node in tree.answered()]
        right = [node for node in answered if verify(tree.question, tree.answer[node])]
        if right and len({tree.answer[node] for node in answered}) > 1:
            prompt = tokenizer.decode(tree.context_ids(0))
            texts = [tokenizer.decode(tree.context_ids(node))[len(prompt) :] for node in answered]
            return prompt, texts, tree.answer[right[0]]
    raise AssertionError("the embedded policy's trees must hold a right and another answer")


def test_rewards_are_the_potential_of_the_last_state(module, responses):
    prompt, texts, gold = responses
    result = module.reward_func([prompt + text for text in texts], [prompt] * len(texts), [gold] * len(texts))
    rewards, scores = result["rewards"], result["scores"]
    correct = torch.tensor([module.answer_of(text) == gold for text in texts])
    assert torch.equal(scores.bool(), correct)
    assert correct.any()
    assert not correct.all()
    assert rewards[correct].eq(1).all()
    assert ((rewards >= 0) & (rewards <= 1)).all()

    # once more, now that every goal is known: against a plain computation, one forward pass a response
    model, tokenizer, _ = load_tiny()

    def pooled(text):
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            return model.get_decoder()(ids).last_hidden_state[0].mean(0)

    again = module.reward_func([prompt + text for text in texts], [prompt] * len(texts), [gold] * len(texts))
    points = latent_points(torch.stack([pooled(prompt + text) for text in texts]), pooled(prompt))
    expected = potential(points, goal=correct)
    torch.testing.assert_close(again["rewards"], expected, rtol=1e-3, atol=1e-3)
    assert again["extra_logs"]["steps"].tolist() == [float(text.count("STEP-")) or 1.0 for text in texts]


def test_one_response_at_a_time_from_many_threads(module, responses):
    prompt, texts, gold = responses
    everything = module.reward_func([prompt + text for text in texts], [prompt] * len(texts), [gold] * len(texts))
    with ThreadPoolExecutor(4) as pool:
        single = list(pool.map(lambda text: module.reward_func([prompt + text], [prompt], [gold]), texts))
    assert [float(one["scores"]) for one in single] == everything["scores"].tolist()
    for one in single:
        assert {float(v) == float(v) for v in one["extra_logs"].values()} == {True}
        assert 0 <= float(one["rewards"]) <= 1


def test_a_worked_solution_is_a_goal_before_any_response_is_right(module, responses):
    prompt, texts, gold = responses
    wrong = next(text for text in texts if module.answer_of(text) not in (None, gold))
    alone = module.reward_func([prompt + wrong], [prompt], [gold])
    assert float(alone["rewards"]) == 0
    solution = next(text for text in texts if module.answer_of(text) == gold)
    guided = module.reward_func([prompt + wrong], [prompt], [solution])
    assert 0 < float(guided["rewards"]) < 1
    assert float(guided["scores"]) == 0


def test_text_without_steps_is_one_step(module):
    question = problems.generate(1, seed=3)[0].question
    result = module.reward_func([question + "who knows"], [question], [LABEL])
    assert result["extra_logs"]["steps"].tolist() == [1.0]
    assert module.split_steps("STEP-1:\na STEP-2:\nb") == ["STEP-1:\na ", "STEP-2:\nb"]
    assert module.answer_of("STEP-1:\n<think>\na\n</think>\nSTEP-2:\n<think>\nb\n</think>\n<answer> 7 </answer>") == "7"
