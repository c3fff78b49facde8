"""The packaged policy keeps what its metrics promise, on held-out problems drawn afresh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from lapha.tiny import SEARCH, generate, load_tiny, tiny_metrics, tiny_path, verify
from lapha.tiny.encoding import Vocabulary
from lapha.tiny.evaluation import _valid_part
from lapha.tiny.measure import guided_rate, order_siblings
from lapha.tiny.problems import question_text
from lapha.tiny.sampling import sample_walks
from lapha.tiny.training import TARGETS, TinyModel
from lapha.tiny.walk import generate_walks


@pytest.fixture(scope="module")
def loaded() -> tuple[TinyModel, Any, Vocabulary]:
    lm, tokenizer, _ = load_tiny()
    vocabulary = Vocabulary(tokenizer)
    model = TinyModel(vocabulary, 0)
    model.lm = lm
    for target in TARGETS:
        head = load_tiny(value_target=target)[2]
        model.heads[target].load_state_dict(head.linear.state_dict())
    return model.eval(), tokenizer, vocabulary


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in tiny_path().rglob("*") if file.is_file()) < 4_000_000


def test_the_shipped_head_is_the_better_guide() -> None:
    metrics = tiny_metrics()
    head = load_tiny()[2]
    assert head.value_target == metrics["value_target"]
    assert metrics["guided"][head.value_target] == max(metrics["guided"][target] for target in TARGETS)
    assert metrics["guided"][head.value_target] > metrics["guided"]["none"] + 0.2


def test_the_promises_of_the_metrics() -> None:
    metrics = tiny_metrics()
    assert metrics["training"]["complete"]
    assert 0.2 < metrics["single_shot"][str(SEARCH.temperature)]["rate"] < 0.5
    for name in ("potential", "success_rate_head", "potential_head"):
        assert metrics["sibling_order"][name]["all"] > 0.65


def test_invalid_steps_are_rare() -> None:
    assert tiny_metrics()["invalid_steps"]["share"] < 0.02


def test_it_walks_as_measured(loaded: tuple[TinyModel, Any, Vocabulary]) -> None:
    model, tokenizer, vocabulary = loaded
    walks = generate_walks(60, np.random.default_rng(5), "heldout")
    questions = [
        question_text(int(s), int(t), a.tolist())
        for s, t, a in zip(walks.start, walks.target, walks.avoid, strict=True)
    ]
    sampled = sample_walks(model.lm, tokenizer, vocabulary, walks, questions, 8, SEARCH.temperature, seed=5)
    promised = tiny_metrics()
    rate = promised["single_shot"][str(SEARCH.temperature)]["rate"]
    assert abs(sampled.solved.mean() - rate) < 0.1
    invalid = promised["single_shot"][str(SEARCH.temperature)]["invalid_steps"]
    assert abs(sum(sampled.problems_found.values()) / sampled.steps - invalid) < 0.03
    part, rollouts = _valid_part(walks, sampled)
    order = order_siblings(model, vocabulary, part, rollouts, seed=5)
    for name in ("potential", "success_rate_head", "potential_head"):
        assert order[name]["all"] > 0.65
    guided = guided_rate(model, vocabulary, walks, promised["value_target"], breadth=4, seed=5)
    assert guided > guided_rate(model, vocabulary, walks, None, breadth=4, seed=5) + 0.1


def test_transformers_generates_with_it() -> None:
    """The checkpoint is a model like any other: AutoModel, chat template, `generate`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_path()), AutoTokenizer.from_pretrained(tiny_path())
    problem = generate(1, seed=0, split="heldout")[0]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": problem.question}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(chat + "STEP-1:\n<think>\n", return_tensors="pt", add_special_tokens=False)["input_ids"]
    torch.manual_seed(0)
    step = tokenizer.decode(model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :])
    assert step.endswith("\n</think><|end|>")
    # the move that it made, behind those that it took back
    move, _, number = step.split("\n")[0].rpartition(" no ")[2].partition(" = ")
    assert int(number) == problem.start + int(move)
    assert not verify(problem.question, move)
