"""The tokenizer round-trips everything, and the protocol's pieces are single tokens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from lapha.agent import ChatEnvironment, step_header
from lapha.tiny import generate
from lapha.tiny import tokenizer as pieces
from lapha.tiny.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


PIECES = [
    pieces.END, pieces.USER, pieces.ASSISTANT, "<think>", "</think>", "<answer>", "</answer>", "<tool_call>",
    pieces.EQUALS, pieces.TAKEN_BACK, pieces.RULE, *(f" {number}" for number in range(100)), *pieces.MOVE_TEXT, " +10", " -1",
    *(step_header(step) for step in range(1, 9)),
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_pieces_are_single_tokens(tokenizer: Any, piece: str) -> None:
    ids = encode(tokenizer, piece)
    assert len(ids) == 1
    assert tokenizer.decode(ids) == piece


def test_the_header_is_the_agents(tokenizer: Any) -> None:
    assert all(pieces.header(step) == step_header(step) for step in range(1, 20))


TEXT = st.one_of(
    st.text(max_size=30), st.lists(st.sampled_from(PIECES + ["7", " ", "\n", "é", "100"]), max_size=12).map("".join)
)


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_any_text_round_trips(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_a_question_is_short(tokenizer: Any) -> None:
    for problem in generate(50, seed=0):
        ids = encode(tokenizer, problem.question)
        assert len(ids) == 8
        assert tokenizer.decode(ids) == problem.question


def test_the_template_only_appends(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Walk"}]
    before = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert before == "<|user|>Walk<|end|><|assistant|>"
    messages += [{"role": "assistant", "content": " a \n"}, {"role": "tool", "content": "x"}]
    after = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert after == before + " a \n<|end|><|tool|>x<|end|><|assistant|>"


def test_it_survives_saving(tokenizer: Any, tmp_path: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|user|>Walk from 7 to 56<|end|><|assistant|>STEP-1:\n<think>\n+10 = 17\n</think>"
    assert encode(loaded, text) == encode(tokenizer, text)
    assert loaded.decode(encode(loaded, text)) == text
    assert loaded.chat_template == tokenizer.chat_template
    assert (loaded.eos_token, loaded.pad_token) == (pieces.END, pieces.PAD)
    state, _ = ChatEnvironment(loaded).start("Walk from 7 to 56")
    assert loaded.decode(list(state.token_ids)) == text.partition("+10")[0]  # trained on the protocol: no system prompt
