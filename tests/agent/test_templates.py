"""Every real template: what the model reads is what the template renders, or the template is refused by name."""

from __future__ import annotations

import functools
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from lapha.agent import ChatEnvironment, ChatFormat, stop_token_ids
from lapha.types import Sample, State

from .conftest import make_tokenizer
from .template_folder import templates, tokenizer_for

TEMPLATES = templates()
QUESTION, FEEDBACK = "how many eggs?", "add: no such tool; tools are: none"


@functools.cache
def tokenizer_of(name):
    return tokenizer_for(TEMPLATES[name])


def render(tokenizer, messages, **options):
    """The template's own rendering, with the content as text or as parts; None where it refuses."""
    for parts in (False, True):
        given = [
            {**m, "content": [{"type": "text", "text": m["content"]}] if parts else m["content"]} for m in messages
        ]
        try:
            text = tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True, **options)
        except (TemplateError, TypeError):
            continue
        if QUESTION in text:
            return text
    return None


def user(text):
    return {"role": "user", "content": text}


def ways_on(feedback):
    """The conversations that may follow an assistant's turn."""
    if feedback is None:
        return [[], [user("Continue.")]]
    return [[{"role": "tool", "content": feedback}], [user(f"<tool_response>\n{feedback}\n</tool_response>")]]


def test_there_are_enough_templates():
    assert len(TEMPLATES) >= 30


async def two_turns(tokenizer, call):
    """The context before each of three turns, and the two turns as the assistant wrote them."""
    environment = ChatEnvironment(tokenizer, system_prompt="")
    stops, closing = stop_token_ids(tokenizer), environment._chat.bridge(False)
    end = closing[0] if closing[0] in stops else environment._chat.end_of_turn  # what sampling stops at first
    state, turn = environment.start(QUESTION)
    contexts, turns = [state.token_ids], []
    action = '\n<tool_call>{"name": "add", "arguments": {"a": 1, "b": %d}}</tool_call>' if call else ""
    for depth, word in enumerate(("firstwords", "otherwords"), start=1):
        text = f"{word}\n</think>" + (action % depth if call else "")
        ids = (*tokenizer(text, add_special_tokens=False)["input_ids"], end)
        sample = Sample(list(ids), [0.0] * len(ids), text, "stop", State(contexts[-1] + ids))
        step = await environment.step(turn, sample, depth)
        assert not step.status.terminal
        state, turn = sample.state, step.turn
        contexts.append(state.token_ids + turn.bridge_ids)
        turns.append(text)
    return [tokenizer.decode(list(ids)) for ids in contexts], turns


@pytest.mark.anyio
@pytest.mark.parametrize("call", [False, True], ids=["thought", "tool"])
@pytest.mark.parametrize("name", TEMPLATES)
async def test_contexts_are_what_the_template_renders(name, call):
    tokenizer = tokenizer_of(name)
    contexts, turns = await two_turns(tokenizer, call)
    options = {"enable_thinking": True} if "nothink" in name else {}  # asked to let the model think
    prompt = render(tokenizer, [user(QUESTION)], **options)
    assert contexts[0].startswith(prompt)
    lead, _, thinks = contexts[0][len(prompt) :].partition("STEP-1:\n")  # lead: a channel, or the thinking's opening
    assert thinks in ("<think>\n", "")
    feedback = FEEDBACK if call else None
    said, whole = [user(QUESTION)], [user(QUESTION)]
    for number, (context, text) in enumerate(zip(contexts[1:], turns, strict=True), start=2):
        assert context[context.index(QUESTION) :].count("<think>") == number  # once a turn, never twice
        after = context.rpartition(text)[2].removesuffix(f"{lead}STEP-{number}:\n{thinks}")
        word = text.partition("\n")[0]
        said.append({"role": "assistant", "content": word})  # what follows a turn does not depend on what it says
        found = None
        for way in ways_on(feedback):
            rendered = render(tokenizer, said + way, **options)
            if rendered is not None and rendered.rpartition(word)[2] == after:
                found = way
        assert found is not None, f"no conversation that the template renders has {after!r} after its last turn"
        said += found
        whole += [{"role": "assistant", "content": f"STEP-{number - 1}:\n{thinks}{text}"}, *found]
    # a template that writes history as it stands renders the whole context to the letter
    if "think" not in TEMPLATES[name]:
        assert render(tokenizer, whole) + f"{lead}STEP-3:\n{thinks}" == contexts[-1]


def test_a_template_that_closes_the_thinking_is_asked_to_open_it_or_refused():
    tokenizer = tokenizer_of("qwen3")
    with pytest.raises(ValueError, match=r"template_options: .*lets the model think"):
        ChatEnvironment(tokenizer, template_options={"enable_thinking": False})
    state, _ = ChatEnvironment(tokenizer, template_options={"enable_thinking": True}).start(QUESTION)
    assert tokenizer.decode(list(state.token_ids)).endswith("<|im_start|>assistant\n<think>\nSTEP-1:\n")


def test_the_system_prompt_shows_the_opening_that_the_template_makes():
    tokenizer = tokenizer_of("qwen3_5_think")
    state, _ = ChatEnvironment(tokenizer).start(QUESTION)
    assert "for you:\n\n<think>\nSTEP-1:\nyour reasoning" in tokenizer.decode(list(state.token_ids))


# --- where a turn ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feedback", [None, "36"])
def test_a_turn_that_another_token_ended_gets_the_templates_end(feedback):
    tokenizer = make_tokenizer("qwen2.5")
    chat = ChatFormat(tokenizer)
    other = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert chat.bridge([5, other], feedback) == chat.bridge(False, feedback)
    assert chat.bridge([5, chat.end_of_turn], feedback) == chat.bridge(True, feedback)
    assert chat.bridge([5, 6], feedback) == chat.bridge(False, feedback)


def test_an_end_of_several_tokens_is_finished_where_sampling_stopped():
    tokenizer = tokenizer_of("cohere2")
    chat = ChatFormat(tokenizer)
    response, turn = map(tokenizer.convert_tokens_to_ids, ("<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"))
    whole = chat.bridge(False)
    assert whole[:2] == (response, turn)
    assert chat.bridge([response]) == whole[1:]
    assert chat.bridge([response, turn]) == whole[2:]
    assert {response, turn} <= stop_token_ids(tokenizer)


def test_the_next_speaker_ends_a_turn():
    """GLM has no token of its own for it: what the model samples says who speaks next."""
    tokenizer = tokenizer_of("glm4moe")
    chat = ChatFormat(tokenizer)
    asked, tool = map(tokenizer.convert_tokens_to_ids, ("<|user|>", "<|observation|>"))
    assert {asked, tool} <= stop_token_ids(tokenizer)
    assert tokenizer.decode(chat.bridge([asked])).startswith("\nContinue.<|assistant|>")
    assert tokenizer.decode(chat.bridge([tool], "36")).startswith("\n<tool_response>\n36")
    assert tokenizer.decode(chat.bridge([asked], "36")).startswith("\n<tool_response>\n36")


class Configured:
    def __init__(self, eos):
        self.eos_token_id = eos


def test_sampling_stops_at_what_any_source_names_and_disagreements_are_logged(caplog):
    tokenizer = make_tokenizer("qwen2.5")
    begin, end, text_end = map(tokenizer.convert_tokens_to_ids, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
    with caplog.at_level(logging.WARNING):
        assert stop_token_ids(tokenizer, Configured([end, text_end])) == {end, text_end}
        assert not caplog.records
        tokenizer.eos_token = "<|im_start|>"  # a conversion's mistake
        assert stop_token_ids(tokenizer, Configured(end)) == {begin, end}
        assert "<|im_start|>" in caplog.text
        assert ChatFormat(tokenizer).end_of_turn == end
        assert tokenizer.decode(ChatFormat(tokenizer).bridge([end])) == "\n<|im_start|>assistant\n"


# --- text is text --------------------------------------------------------------------------------------------------

SPELLED = ["<|im_end|>", "<|im_start|>system\n", "</think>", "<think>", "<tool_response>", "<|user|>", "<EOS>", "|>", "<", "a b", "\n"]  # fmt: skip


def tokenizers():
    from lapha.tiny.tokenizer import build_tokenizer

    yield "tiny", build_tokenizer()
    for style in ("qwen2.5", "llama-3", "smollm2", "gemma"):
        yield style, make_tokenizer(style)
    for name in TEMPLATES:
        yield name, tokenizer_of(name)


def added_in(tokenizer, ids):
    added = set(tokenizer.get_added_vocab().values())
    return sum(token in added for token in ids)


@pytest.mark.parametrize(("name", "tokenizer"), tokenizers(), ids=lambda value: value if isinstance(value, str) else "")
def test_no_text_from_outside_becomes_an_added_token(name, tokenizer):
    environment = ChatEnvironment(tokenizer)
    chat = environment._chat
    plain = added_in(tokenizer, environment.start("why")[0].token_ids)
    answered = added_in(tokenizer, chat.bridge(True, "36"))
    evil = "".join(tokenizer.get_added_vocab()) + " and " + " ".join(tokenizer.get_added_vocab())
    for text in (evil, *tokenizer.get_added_vocab(), *SPELLED):
        if text.strip():
            ids = environment.start(text)[0].token_ids
            assert added_in(tokenizer, ids) == plain, text
        assert added_in(tokenizer, chat.bridge(True, text)) == answered, text
    assert evil in tokenizer.decode(environment.start(evil)[0].token_ids)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pieces=st.lists(st.sampled_from(SPELLED) | st.text(max_size=4), min_size=1, max_size=8))
def test_added_tokens_do_not_depend_on_the_question(pieces):
    question = "".join(pieces).encode("utf-8", "ignore").decode()
    if not question.strip():
        return
    for name in ("qwen3", "gemma3", "own_json_tool"):
        tokenizer = tokenizer_of(name)
        chat = ChatFormat(tokenizer)
        assert added_in(tokenizer, chat.prompt_ids(question)) == added_in(tokenizer, chat.prompt_ids("why"))
        assert added_in(tokenizer, chat.bridge(True, question)) == added_in(tokenizer, chat.bridge(True, "why"))


def test_a_harmless_question_is_tokenised_as_the_template_would_have_it():
    tokenizer = make_tokenizer("llama-3")
    chat = ChatFormat(tokenizer)
    whole = tokenizer(chat.prompt("\n\n42 eggs "), add_special_tokens=False)["input_ids"]
    assert chat.prompt_ids("\n\n42 eggs ") == tuple(whole)
    assert chat.prompt("\n\n42 eggs ") == tokenizer.apply_chat_template(
        [user("\n\n42 eggs ")], tokenize=False, add_generation_prompt=True
    )
