from __future__ import annotations

import asyncio
import time

import pytest

from lapha.agent import ChatEnvironment, stateful, step_header
from lapha.agent.environment import FEEDBACK_CHARS, clean, shorten
from lapha.types import Environment, Status

from .conftest import sampled

pytestmark = pytest.mark.anyio


def add(a: int, b: int = 2) -> int:
    """
    Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


async def slow(seconds: float) -> str:
    """
    Wait.

    Args:
        seconds: How long.
    """
    await asyncio.sleep(seconds)
    return "waited"


def blocking(seconds: float) -> str:
    """
    Wait without giving way.

    Args:
        seconds: How long.
    """
    time.sleep(seconds)
    return "waited"


def fails(reason: str) -> str:
    """
    Fail.

    Args:
        reason: Why.
    """
    raise RuntimeError(reason)


def call(name: str, arguments: str) -> str:
    return f'so</think>\n<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


@pytest.fixture
def environment(qwen):
    return ChatEnvironment(qwen, tools=[add, slow, blocking, fails])


async def take(environment, text, *, depth=1, ended=True, turn=None, state=None):
    if turn is None:
        state, turn = environment.start("how many eggs?")
    sample = sampled(environment.tokenizer, state, turn, text, ended)
    return await environment.step(turn, sample, depth), sample.state


def bridge_text(environment, step) -> str:
    return environment.tokenizer.decode(list(step.turn.bridge_ids))


def test_it_is_an_environment(environment):
    assert isinstance(environment, Environment)


async def test_an_answer_ends_the_episode(environment):
    step, _ = await take(environment, "so</think>\n<answer>36</answer>")
    assert (step.status, step.answer, step.well_formed) == (Status.ANSWERED, "36", True)
    assert step.turn.bridge_ids == ()
    assert step.text == step_header(1) + "so</think>\n<answer>36</answer>"
    assert step.details == {}


async def test_a_thought_goes_on(environment):
    step, _ = await take(environment, "so</think>")
    assert (step.status, step.answer, step.well_formed) == (Status.OPEN, None, True)
    assert bridge_text(environment, step).endswith(step_header(2))


async def test_a_step_cut_off_is_never_well_formed(environment):
    step, _ = await take(environment, "so</think>", ended=False)
    assert (step.status, step.well_formed) == (Status.OPEN, False)
    assert step.details == {"malformed": 1, "truncated": 1}


async def test_the_depth_limit_is_terminal_but_an_answer_there_counts(environment):
    step, _ = await take(environment, "so</think>", depth=6)
    assert step.status is Status.DEPTH_LIMIT
    step, _ = await take(environment, "so</think><answer>1</answer>", depth=6)
    assert step.status is Status.ANSWERED
    step, _ = await take(environment, "so</think>", depth=5)
    assert step.status is Status.OPEN


async def test_no_tool_runs_at_the_depth_limit(environment):
    step, _ = await take(environment, call("fails", '{"reason": "x"}'), depth=6)
    assert (step.status, step.details) == (Status.DEPTH_LIMIT, {})


async def test_an_echo_is_terminal(environment):
    thought = "each of the twelve hens lays three eggs\n</think>"
    first, state = await take(environment, thought)
    second, _ = await take(environment, thought, depth=2, turn=first.turn, state=state)
    assert second.status is Status.ECHO


async def test_a_repeated_call_is_terminal(environment):
    first, state = await take(environment, call("add", '{"a": 1}'))
    second, _ = await take(environment, call("add", '{"a":1}'), depth=2, turn=first.turn, state=state)
    assert second.status is Status.ECHO


async def test_a_stateful_tool_may_be_called_alike_again(qwen):
    rooms = iter(["hall", "cellar", "cellar", "cellar"])

    def go(way: str) -> str:
        """
        Walk.

        Args:
            way: Where to.
        """
        return next(rooms)

    north = call("go", '{"way": "north"}')
    environment = ChatEnvironment(qwen, tools=[go])
    first, state = await take(environment, north)
    second, state = await take(environment, north, depth=2, turn=first.turn, state=state)
    assert second.status is Status.OPEN, "another room"
    third, state = await take(environment, north, depth=3, turn=second.turn, state=state)
    assert third.status is Status.ECHO, "the same room"
    for exempt in (ChatEnvironment(qwen, tools=[stateful(go)]), ChatEnvironment(qwen, tools=[go], echo=False)):
        rooms = iter(["cellar"] * 2)
        first, state = await take(exempt, north)
        second, _ = await take(exempt, north, depth=2, turn=first.turn, state=state)
        assert second.status is Status.OPEN


async def test_the_context_limit_is_terminal(qwen):
    room = len(ChatEnvironment(qwen).start("how many eggs?")[0].token_ids)
    environment = ChatEnvironment(qwen, context_limit=room + 40)
    step, state = await take(environment, "so</think>" + "x" * 40)
    assert len(state.token_ids) >= environment.context_limit
    assert step.status is Status.CONTEXT_LIMIT
    # full once the next turn has been opened
    step, state = await take(environment, "so</think>")
    assert len(state.token_ids) < environment.context_limit
    bridge = ChatEnvironment(qwen)._chat.bridge(True) + ChatEnvironment(qwen)._chat.encode(step_header(2))
    fits = len(state.token_ids) + len(bridge) < environment.context_limit
    assert step.status is (Status.OPEN if fits else Status.CONTEXT_LIMIT)
    exact = ChatEnvironment(qwen, context_limit=len(state.token_ids) + len(bridge))
    step, _ = await take(exact, "so</think>")
    assert step.status is Status.CONTEXT_LIMIT


async def test_a_tools_answer_is_fed_back(environment):
    step, _ = await take(environment, call("add", '{"a": 40}'))
    assert step.details == {"tool_call": 1}
    assert "<tool_response>\n42\n</tool_response>" in bridge_text(environment, step)
    assert step.text.endswith("<tool_response>\n42\n</tool_response>")


BAD_CALLS = {
    "unknown tool": (call("nope", "{}"), "unknown_tool", "nope: no such tool; tools are: add, slow, blocking, fails"),
    "missing": (call("add", "{}"), "bad_arguments", "add: argument 'a' is missing"),
    "unexpected": (call("add", '{"a": 1, "c": 2}'), "bad_arguments", "add: no argument 'c'; arguments are: a, b"),
    "text": (call("add", '{"a": "1"}'), "bad_arguments", "add: argument 'a': expected integer, got \"1\""),
    "boolean": (call("add", '{"a": true}'), "bad_arguments", "add: argument 'a': expected integer, got true"),
    "float": (call("add", '{"a": 1.5}'), "bad_arguments", "add: argument 'a': expected integer, got 1.5"),
    "no JSON": ("so</think><tool_call>{</tool_call>", "malformed_tool_call", "tool_call: expected one JSON object"),
    "failing tool": (call("fails", '{"reason": "a\\nb"}'), "tool_error", "fails: RuntimeError: a b"),
    "no sandbox": ("so</think>\n```python\n1\n```", "unknown_tool", "execute_python_code: no such tool"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
async def test_a_bad_call_costs_one_readable_line_and_is_counted(environment, name):
    text, counter, line = BAD_CALLS[name]
    step, _ = await take(environment, text)
    assert step.status is Status.OPEN
    assert step.details["tool_call"] == 1
    assert step.details[counter] == 1
    feedback = step.text.split("<tool_response>\n")[1].split("\n</tool_response>")[0]
    assert line in feedback
    assert "\n" not in feedback
    assert line in bridge_text(environment, step)


async def test_tools_run_side_by_side(environment):
    begin = time.perf_counter()
    texts = [call("slow", '{"seconds": 0.3}'), call("blocking", '{"seconds": 0.3}')] * 2
    steps = await asyncio.gather(*(take(environment, text) for text in texts))
    assert time.perf_counter() - begin < 0.9  # one after the other: 1.2
    assert all("waited" in step.text for step, _ in steps)


@pytest.mark.parametrize("question", ["", "  \n", "a lone \ud800 surrogate", "x " * 5000, 7])
def test_questions_that_cannot_be_asked(environment, question):
    with pytest.raises(ValueError, match="question: expected"):
        environment.start(question)


@pytest.mark.parametrize("limits", [{"depth_limit": 0}, {"context_limit": 0}])
def test_limits_must_be_positive(qwen, limits):
    with pytest.raises(ValueError, match="_limit: expected an integer >= 1, got 0"):
        ChatEnvironment(qwen, **limits)


def test_tools_need_hints_and_descriptions(qwen):
    def untyped(a):
        """
        Bad.

        Args:
            a: Something.
        """

    def undescribed(a: int) -> int:
        return a

    for tool in (untyped, undescribed):
        with pytest.raises(ValueError, match=f"tools: {tool.__name__}: expected type hints"):
            ChatEnvironment(qwen, tools=[tool])
    with pytest.raises(ValueError, match="tools: expected typed Python functions"):
        ChatEnvironment(qwen, tools=["python"])
    with pytest.raises(ValueError, match="tools of different names"):
        ChatEnvironment(qwen, tools=[add, add])


async def test_feedback_that_no_tokenizer_takes_is_cleaned(qwen):
    def binary(n: int) -> str:
        """
        Return rubbish.

        Args:
            n: How much.
        """
        return "\ud800\x00\x1b[31m\r\n" * n

    environment = ChatEnvironment(qwen, tools=[binary])
    step, _ = await take(environment, call("binary", '{"n": 1}'))
    assert "<tool_response>\n\ufffd\ufffd\ufffd[31m\n\n</tool_response>" in step.text


async def test_long_feedback_loses_its_middle(qwen):
    def flood(n: int) -> str:
        """
        Return a lot.

        Args:
            n: How much.
        """
        return "a" * n + "z"

    environment = ChatEnvironment(qwen, tools=[flood], context_limit=100_000)
    step, _ = await take(environment, call("flood", '{"n": 1000000}'))
    feedback = step.text.split("<tool_response>\n")[1].split("\n</tool_response>")[0]
    assert len(feedback) < FEEDBACK_CHARS + 100
    assert "[… 996001 characters left out …]" in feedback
    assert feedback.endswith("z")


def test_clean_keeps_what_it_can():
    assert clean("é\n\t漢😀") == "é\n\t漢😀"
    assert clean("\ud83d\ude00") == "😀"
    assert clean("a\udcffb\x7f") == "a\ufffdb\ufffd"
    assert clean("a\x00", keep_controls=True) == "a\x00"
    assert shorten("abc", 3) == "abc"
