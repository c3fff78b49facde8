"""Tool calls run in a fork of the parent's session, concurrently, and sessions are let go."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from lapha.agent import ChatEnvironment
from lapha.sandbox import Limits, MontySandbox, SandboxError
from lapha.types import Sample, State, Status

from .conftest import make_tokenizer, sampled

pytestmark = pytest.mark.anyio
LIMITS = Limits(wall_seconds=1.0, cpu_seconds=1.0, memory_bytes=64 << 20, output_bytes=5000, code_bytes=20_000)


@pytest.fixture(scope="module")
def sandbox():
    with MontySandbox(LIMITS, concurrency=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer("qwen2.5")


@pytest.fixture
def environment(tokenizer, sandbox):
    return ChatEnvironment(tokenizer, sandbox=sandbox, context_limit=100_000)


def python(code: str) -> str:
    return f"so</think>\n```python\n{code}\n```"


class Node:
    """A node of a tree, as search holds it."""

    def __init__(self, environment, state=None, turn=None, depth=0, step=None):
        self.environment, self.depth, self.step = environment, depth, step
        self.state, self.turn = environment.start("how many?") if state is None else (state, turn)

    async def grow(self, text):
        sample = sampled(self.environment.tokenizer, self.state, self.turn, text)
        step = await self.environment.step(self.turn, sample, self.depth + 1)
        return Node(self.environment, sample.state, step.turn, self.depth + 1, step)

    @property
    def feedback(self):
        return self.step.text.split("<tool_response>\n")[1].split("\n</tool_response>")[0]


async def test_state_goes_down_the_tree_and_never_sideways(environment):
    root = Node(environment)
    first = await root.grow(python("x = 1\nx"))
    assert first.feedback == "1"
    left, right, thought = await asyncio.gather(
        first.grow(python("x += 10\nx")), first.grow(python("x += 100\nx")), first.grow("hm</think>")
    )
    assert (left.feedback, right.feedback) == ("11", "101")
    below = await thought.grow(python("x + 0.5"))
    assert below.feedback == "1.5"
    assert (await left.grow(python("x"))).feedback == "11"
    cousin = await root.grow(python("y = 2\nx"))
    assert "NameError" in cousin.feedback
    assert cousin.step.status is Status.OPEN
    assert cousin.step.details == {"tool_call": 1, "error": 1}


async def test_a_breach_leaves_the_parents_state(environment):
    first = await Node(environment).grow(python("x = 1"))
    stopped = await first.grow(python("x = 2\nwhile True: pass"))
    assert stopped.step.details == {"tool_call": 1, "timeout": 1}
    assert stopped.feedback.startswith("Stopped: it ran longer than 1 s.")
    assert (await stopped.grow(python("x"))).feedback == "1"


@pytest.mark.parametrize(
    ("text", "counter", "line"),
    [
        (python("x = 1\n" * 2_000_000), "refused", "code: expected at most 20000 bytes, got 12000000"),
        ('so</think><tool_call>{"name": "execute_python_code", "arguments": {"code": 5}}</tool_call>', "bad_arguments",
         "execute_python_code: argument 'code': expected string, got 5"),
        ('so</think><tool_call>{"name": "execute_python_code", "arguments": {}}</tool_call>', "bad_arguments",
         "execute_python_code: argument 'code' is missing"),
        ('so</think><tool_call>{"name": "python", "arguments": {}}</tool_call>', "unknown_tool", "python: no such tool; tools are: execute_python_code"),
        ('so</think><tool_call>{"name": "execute_python_code", "arguments": {"code": "\'\\ud800\'"}}</tool_call>', "refused",
         "code: expected text that UTF-8 can hold, got a lone surrogate at 1"),
        ("so</think><tool_call>nonsense</tool_call>", "malformed_tool_call", "tool_call: expected one JSON object"),
    ],
    ids=["long code", "wrong type", "missing", "unknown", "surrogate", "malformed"],
)  # fmt: skip
async def test_bad_calls_cost_one_line_are_counted_and_the_tree_goes_on(environment, text, counter, line):
    sample_node = Node(environment)
    ids = [5, environment.tokenizer.eos_token_id]
    sample = Sample(ids, [0.0, 0.0], text, "stop", State(sample_node.state.token_ids + tuple(ids)))
    step = await environment.step(sample_node.turn, sample, 1)
    assert step.status is Status.OPEN
    assert step.details["tool_call"] == 1
    assert step.details[counter] == 1
    feedback = step.text.split("<tool_response>\n")[1].split("\n</tool_response>")[0]
    assert line in feedback
    assert "\n" not in feedback


async def test_binary_output_reaches_the_model_as_text(environment):
    node = await Node(environment).grow(python("print('a\\x00\\x1b[31m\\x85b')"))
    assert node.feedback == "a\ufffd\ufffd[31m\ufffdb"
    assert environment.tokenizer.decode(list(node.turn.bridge_ids)).count("\x00") == 0


async def test_slow_code_stalls_nobody(environment):
    """While one branch's code runs, others step, and the event loop turns."""
    node = await Node(environment).grow(python("x = 1"))
    slow = asyncio.create_task(node.grow(python("while True: pass")))
    begin = time.perf_counter()
    quick = 0
    while not slow.done():
        assert (await node.grow(python(f"x + {quick}"))).feedback == str(1 + quick)
        quick += 1
    assert quick >= 3
    assert time.perf_counter() - begin < 10


async def test_sessions_are_let_go_with_their_nodes(tokenizer):
    with MontySandbox(LIMITS, concurrency=1) as sandbox:
        environment = ChatEnvironment(tokenizer, sandbox=sandbox, context_limit=100_000)
        first = await Node(environment).grow(python("x = 'a' * 10_000"))
        thought = await first.grow("hm</think>")
        below = await thought.grow(python("y = x + 'b'"))
        held = sandbox.describe()["state_bytes"]
        assert held > 20_000
        environment.close(first.turn)
        environment.close(first.turn)
        assert sandbox.describe()["state_bytes"] == held  # the thought below still holds it
        environment.close(thought.turn)
        gc.collect()
        assert 10_000 < sandbox.describe()["state_bytes"] < held
        environment.close(below.turn)
        gc.collect()
        assert sandbox.describe()["state_bytes"] == 0


async def test_a_terminal_step_holds_no_session(tokenizer):
    with MontySandbox(LIMITS, concurrency=1) as sandbox:
        room = len(ChatEnvironment(tokenizer, sandbox=sandbox).start("how many?")[0].token_ids)
        tight = ChatEnvironment(tokenizer, sandbox=sandbox, context_limit=room + 90)
        full = await Node(tight).grow(python("x = 'a' * 10_000\nx"))
        assert full.step.status is Status.CONTEXT_LIMIT
        assert full.turn.context is None
        gc.collect()
        assert sandbox.describe()["state_bytes"] == 0


async def test_a_cancelled_step_holds_no_session(tokenizer):
    with MontySandbox(LIMITS, concurrency=1) as sandbox:
        environment = ChatEnvironment(tokenizer, sandbox=sandbox)
        growing = asyncio.create_task(Node(environment).grow(python("x = 'a' * 10_000\nwhile True: pass")))
        await asyncio.sleep(0.05)
        growing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await growing
        await sandbox.open().run("1")  # comes after it, with one worker
        gc.collect()
        assert sandbox.describe()["counters"] == {"timeout": 1, "ok": 1}
        assert sandbox.describe()["state_bytes"] == 0


async def test_a_broken_sandbox_is_no_mere_feedback(tokenizer):
    sandbox = MontySandbox(LIMITS, concurrency=1)
    environment = ChatEnvironment(tokenizer, sandbox=sandbox)
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        await Node(environment).grow(python("1"))


async def test_the_prompt_describes_the_python_tool(environment):
    prompt = environment.tokenizer.decode(list(environment.start("how many?")[0].token_ids))
    assert "```python" in prompt
    assert prompt.count('"name": "execute_python_code"') == 1
