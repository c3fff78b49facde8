from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapha.agent import PYTHON_TOOL, ToolCall, format_bonus, format_step, parse_step, step_header
from lapha.agent.protocol import MAX_NESTING


def call(payload) -> str:
    body = payload if isinstance(payload, str) else json.dumps(payload)
    return f"so\n</think>\n<tool_call>\n{body}\n</tool_call>"


WELL_FORMED = {
    "answer": ("so\n</think>\n<answer>42</answer>", "answer"),
    "call": (call({"name": "add", "arguments": {"a": 1}}), "tool_call"),
    "python block": ("so\n</think>\n```python\nprint(1)\n```", "tool_call"),
    "nothing": ("so far so good\n</think>", "think"),
    "nothing, spaced": ("so far\n</think>\n\n  ", "think"),
    "with its header": ("STEP-1:\n<think>\nso\n</think>\n<answer>42</answer>", "answer"),
    "an answer of several lines": ("so\n</think>\n<answer>\n1\n2\n</answer>", "answer"),
    "an answer's tag inside the code": ("so\n</think>\n```python\nprint('<answer>no</answer>')\n```", "tool_call"),
}

MALFORMED = {
    "empty": ("", "think"),
    "thinking never closed": ("hm", "think"),
    "answer inside thinking that is never closed": ("hm <answer>42</answer>", "answer"),
    "closed twice": ("a</think>b</think>", "think"),
    "opened again": ("<think>a</think>", "think"),
    "another step's header": ("a\nSTEP-2:\n<think>\nb</think>", "think"),
    "the wrong number": ("STEP-2:\n<think>\nso\n</think>\n<answer>42</answer>", "answer"),
    "two answers": ("a</think><answer>1</answer><answer>2</answer>", "answer"),
    "answer and call": (call({"name": "f", "arguments": {}}) + "<answer>1</answer>", "answer"),
    "two calls": (call({"name": "f", "arguments": {}}) * 2, "tool_call"),
    "text beside": ("a</think>The answer is <answer>1</answer>", "answer"),
    "blank answer": ("a</think><answer> \n</answer>", "think"),
    "answer never closed": ("a</think><answer>42", "think"),
    "nested answer": ("a</think><answer>x<answer>42</answer>", "answer"),
    "call never closed": ('a</think><tool_call>{"name": "f"', "think"),
    "block never closed": ("a</think>\n```python\nprint(1)", "think"),
    "python block inside a call": ("a</think><tool_call>\n```python\nprint(1)\n```\n</tool_call>", "tool_call"),
    "extra keys": (call({"name": "f", "arguments": {}, "id": 1}), "tool_call"),
    "no JSON": (call("{nope"), "tool_call"),
    "a list": (call([1]), "tool_call"),
    "no name": (call({"arguments": {}}), "tool_call"),
    "arguments as text": (call({"name": "f", "arguments": "{}"}), "tool_call"),
    "NaN": (call('{"name": "f", "arguments": {"x": NaN}}'), "tool_call"),
    "a huge number": (call('{"name": "f", "arguments": {"x": ' + "9" * 5000 + "}}"), "tool_call"),
    "deep JSON": (call('{"name": "f", "arguments": ' + '{"x": ' * 100_000 + "1" + "}" * 100_000 + "}"), "tool_call"),
    "rather deep JSON": (call('{"name": "f", "arguments": {"x": ' + "[" * 80 + "]" * 80 + "}}"), "tool_call"),
}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_well_formed_steps_earn_the_bonus(name):
    text, kind = WELL_FORMED[name]
    parsed = parse_step(text, 1)
    assert parsed.kind == kind
    assert parsed.well_formed
    assert format_bonus(parsed) == 1.0


@pytest.mark.parametrize("name", MALFORMED)
def test_departures_parse_and_cost_the_bonus(name):
    text, kind = MALFORMED[name]
    parsed = parse_step(text, 1)
    assert parsed.kind == kind
    assert not parsed.well_formed
    assert format_bonus(parsed) == 0.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a</think><answer> 42 </answer>", "42"),
        ("a</think><answer>1</answer><answer>2</answer>", "1"),
        ("a</think><answer></answer><answer>2</answer>", "2"),
        ("a</think><answer>x<answer>42</answer>", "42"),
        ("hm <answer>42</answer>", "42"),
        ("is it <answer>41</answer>? no</think><answer>42</answer>", "42"),
        ("is it <answer>41</answer>? no</think>", None),
    ],
)
def test_which_answer_counts(text, answer):
    assert parse_step(text, 1).answer == answer


@pytest.mark.parametrize("fence", ["```python\nx = 1\nx\n```", "```py\nx = 1\nx\n```", "```python3 \r\nx = 1\nx\n```"])
def test_a_python_block_calls_the_python_tool(fence):
    assert parse_step("a</think>\n" + fence, 1).tool_call == ToolCall(PYTHON_TOOL, {"code": "x = 1\nx"})


def test_an_empty_python_block_is_empty_code():
    assert parse_step("a</think>\n```python\n```", 1).tool_call == ToolCall(PYTHON_TOOL, {"code": ""})


@pytest.mark.parametrize("name", ["no JSON", "a list", "no name", "arguments as text", "NaN", "a huge number", "deep JSON", "rather deep JSON"])  # fmt: skip
def test_an_unreadable_call_says_in_one_line_what_is_wrong(name):
    parsed = parse_step(MALFORMED[name][0], 1)
    assert parsed.tool_call is None
    assert parsed.problem.startswith("tool_call: expected")
    assert "\n" not in parsed.problem
    assert len(parsed.problem) < 300


def test_the_deepest_allowed_nesting_is_read():
    def nested(levels: int) -> str:
        return call('{"name": "f", "arguments": ' + '{"x": ' * (levels - 1) + "{}" + "}" * levels)

    assert parse_step(nested(MAX_NESTING + 1), 1).tool_call is not None
    assert parse_step(nested(MAX_NESTING + 2), 1).tool_call is None


def test_a_call_has_one_key_whatever_its_spacing_and_order():
    first = parse_step(call('{"name": "f", "arguments": {"a": 1, "b": 2}}'), 1).tool_call
    second = parse_step(call('{"arguments":{"b":2,"a":1},"name":"f"}'), 1).tool_call
    assert first.key() == second.key()
    assert first.key() != ToolCall("f", {"a": 1, "b": 3}).key()


def test_the_header_is_the_protocols():
    assert step_header(3) == "STEP-3:\n<think>\n"


pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<tool_call>",
        "</tool_call>",
        "```python\n",
        "\n```",
        "\n",
        "STEP-1:",
    ]
    + ["{", "}", '"name"', ":", '"arguments"', ",", "[", "\ud800", "\x00", "é", "1"]
)


@given(st.one_of(st.text(), st.lists(pieces).map("".join)), st.integers(1, 9))
def test_any_text_parses(text, depth):
    parsed = parse_step(text, depth)
    assert (parsed.answer is not None) == (parsed.kind == "answer")
    assert parsed.tool_call is None or parsed.kind == "tool_call"
    assert (parsed.problem is not None) == (parsed.kind == "tool_call" and parsed.tool_call is None)
    assert not (parsed.problem and parsed.well_formed)
    assert parsed.answer is None or parsed.answer.strip()


plain = st.text(st.characters(codec="utf-8", exclude_characters="<`")).filter(lambda text: "STEP-" not in text)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(plain, st.integers(1, 99), plain.filter(str.strip))
def test_a_written_answer_reads_back(thought, step, answer):
    parsed = parse_step(format_step(step, thought, answer=answer), step)
    assert (parsed.kind, parsed.thought, parsed.answer, parsed.well_formed) == (
        "answer",
        thought.strip(),
        answer.strip(),
        True,
    )


@given(plain, st.integers(1, 99), st.text(min_size=1), st.dictionaries(st.text(), json_values, max_size=3))
def test_a_written_call_reads_back(thought, step, name, arguments):
    tool_call = ToolCall(name, arguments)
    parsed = parse_step(format_step(step, thought, tool_call=tool_call), step)
    assert (parsed.tool_call, parsed.well_formed) == (tool_call, True)


@pytest.mark.parametrize(
    "parts",
    [
        {"thought": "a</think>b"},
        {"thought": "a", "answer": " "},
        {"thought": "a", "answer": "1</answer>2"},
        {"thought": "a", "tool_call": ToolCall("f", {"x": float("nan")})},
        {"thought": "a", "answer": "1", "tool_call": ToolCall("f")},
        {"thought": "x\nSTEP-3: y"},
    ],
)
def test_what_would_not_read_back_is_refused(parts):
    with pytest.raises(ValueError, match="expected"):
        format_step(1, **parts)


@pytest.mark.parametrize(
    "piece", ["<answer>", "<tool_call>", "```python\n", "</think>", "{", "STEP-1:\n", "<tool_call>{</tool_call>"]
)
def test_reading_ten_megabytes_takes_linear_time(piece):
    text = "a</think>" + piece * (10_000_000 // len(piece))
    begin = time.perf_counter()
    parse_step(text, 1)
    assert time.perf_counter() - begin < 10
