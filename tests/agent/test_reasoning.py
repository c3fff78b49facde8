"""Plain chain of thought: answers as models write them, steps of one turn, and the one question at the end."""

from __future__ import annotations

import pytest

from lapha.agent import ChatEnvironment, ReasoningEnvironment, read_answer
from lapha.types import Sample, State, Status

from .conftest import end_of_turn, make_tokenizer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}", "42"), (r"\boxed{\frac{1}{2}} or \boxed{\frac{3}{4}}", r"\frac{3}{4}"), (r"\boxed{4", None),
        ("The answer is 42.", "42"), ("The final answer is: 3.5 metres.", "3.5 metres"), ("Answer: **7**", "7"),
        ("The answer to the problem is 12", "12"), ("12\n#### 18\n", "18"), ("<Answer>9</Answer>", "9"),
        ("<answer>42", "42"), ('{"answer": 5}', "5"), ('so {"answer": "x+1", "why": {}} ', "x+1"), ("nothing", None), ("", None),
        ("the answer is\n", None), ("{" * 5000, None),
    ],
)  # fmt: skip
def test_answers_are_read_as_models_write_them(text, answer):
    assert read_answer(text) == answer


async def take(environment, tokenizer, text, state, turn, depth, ended=False):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + ([end_of_turn(tokenizer)] if ended else [])
    child = State(state.token_ids + turn.bridge_ids + tuple(ids))
    return await environment.step(turn, Sample(ids, [0.0] * len(ids), text, "stop", child), depth), child


@pytest.mark.parametrize("style", ["qwen2.5", "llama-3", "gemma", None])
async def test_the_model_is_asked_for_its_answer_once(style):
    tokenizer = make_tokenizer(style or "qwen2.5")
    if style is None:
        tokenizer.chat_template = None
    environment = ReasoningEnvironment(tokenizer, depth_limit=2)
    assert environment.depth_limit == 3
    state, turn = environment.start("6 times 7?")
    step, state = await take(environment, tokenizer, "Seven sixes.\n\n", state, turn, 1)
    assert (step.status, step.turn.bridge_ids, step.well_formed) == (Status.OPEN, (), True)
    step, state = await take(environment, tokenizer, "It is forty-two.", state, step.turn, 2, ended=True)
    assert step.status is Status.OPEN
    shown = tokenizer.decode(list(state.token_ids + step.turn.bridge_ids))
    assert shown.endswith("The final answer is \\boxed{")
    if style is not None:
        opening = tokenizer.decode(list(environment.start("x")[0].token_ids)).rpartition("x")[2].strip()
        assert opening.split("\n")[-1] in shown.rpartition("forty-two.")[2], "in a turn of its own"
    answered, _ = await take(environment, tokenizer, "42}", state, step.turn, 3)
    assert (answered.status, answered.answer, answered.well_formed) == (Status.ANSWERED, "42", False)
    silent, _ = await take(environment, tokenizer, "", state, step.turn, 3, ended=True)
    assert silent.status is not Status.OPEN


async def test_steps_end_at_blank_lines():
    tokenizer = make_tokenizer("qwen2.5")
    _, turn = ReasoningEnvironment(tokenizer).start("why?")
    assert turn.stop_token_ids
    assert all("\n\n" in tokenizer.decode([token]) for token in turn.stop_token_ids)


async def test_an_answer_on_the_way_ends_the_solution():
    tokenizer = make_tokenizer("qwen2.5")
    environment = ReasoningEnvironment(tokenizer)
    state, turn = environment.start("6 times 7?")
    step, _ = await take(environment, tokenizer, "So \\boxed{42}", state, turn, 1)
    assert (step.status, step.answer, step.well_formed) == (Status.ANSWERED, "42", True)


async def test_the_context_limit_leaves_room_for_the_answer():
    tokenizer = make_tokenizer("qwen2.5")
    length = len(ReasoningEnvironment(tokenizer).start("6 times 7?")[0].token_ids)
    environment = ReasoningEnvironment(tokenizer, context_limit=length + 50)
    state, turn = environment.start("6 times 7?")
    step, _ = await take(environment, tokenizer, "seven sixes are ", state, turn, 1)
    assert step.details == {"asked": 1}
    with pytest.raises(ValueError, match=r"question: .*context_limit"):
        ReasoningEnvironment(tokenizer, context_limit=length).start("6 times 7?")


async def test_the_step_protocol_reads_leniently_and_rewards_strictly():
    tokenizer = make_tokenizer("qwen2.5")
    for reader, kind in (({}, Status.ANSWERED), ({"answer_reader": None}, Status.OPEN)):
        environment = ChatEnvironment(tokenizer, **reader)
        state, turn = environment.start("6 times 7?")
        step, _ = await take(
            environment, tokenizer, "six sevens\n</think>\nThe answer is 42.", state, turn, 1, ended=True
        )
        assert step.status is kind
        assert not step.well_formed
        assert step.answer == ("42" if reader == {} else None)


async def test_a_search_stops_at_the_environments_tokens():
    from lapha.engines import TransformersEngine
    from lapha.search import Search, SearchConfig
    from lapha.tiny import SEARCH, load_tiny

    model, tokenizer, head = load_tiny()
    environment = ReasoningEnvironment(tokenizer, breaks=(" =",), depth_limit=5)
    engine = TransformersEngine(model, tokenizer, head, environment=environment)
    config = SearchConfig(simulations=4, breadth=3, sampling=SEARCH)
    async for result in Search(engine, config=config).arun(["Walk from 54 to 78"]):
        tree = result.tree
        stops = set(environment.start("x")[1].stop_token_ids)
        inner = [tokens for node in range(1, len(tree)) for tokens in [tree.sampled_ids(node)] if len(tokens) > 1]
        assert inner
        asked = [tree.text[node].startswith("The final answer") for node in range(len(tree))]
        assert any(asked)
        for node in range(1, len(tree)):
            if not asked[node]:
                assert not stops & set(tree.sampled_ids(node)[:-1])
    engine.close()
