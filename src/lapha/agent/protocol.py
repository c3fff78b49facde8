"""The step protocol: what one assistant turn may say, and how it is read.

A step is one assistant turn::

    STEP-k:
    <think>
    …reasoning…
    </think>
    <answer>…</answer>                                      ends the episode
      or <tool_call>{"name": …, "arguments": {…}}</tool_call>   asks for a tool
      or a fenced python block                              the same as calling `execute_python_code`
      or nothing                                            reasoning goes on in the next step

The header ``STEP-k:\\n<think>\\n`` is pre-filled in the prompt, so a completion starts inside the thinking.

Reading is strict and total: every text parses to something, nothing raises, and whatever departs from the protocol
only costs the formatting bonus b(j) of the process reward (Xia et al., arXiv 2602.09375).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lapha._checks import check
from lapha._typed import typed

PYTHON_TOOL = "execute_python_code"
"""The tool that a fenced python block calls; its one argument is ``code``."""

MAX_NESTING = 64
"""Deepest nesting of a tool call's JSON. Deeper ones would overflow the stack of whoever walks them."""

_HEADER = re.compile(r"\s*STEP-(\d{1,9}):[ \t]*\r?\n\s*<think>[ \t]*\r?\n?")
_LATER_HEADER = re.compile(r"^[ \t]*STEP-\d+:", re.MULTILINE)
_OPENING = re.compile(r"<answer>|<tool_call>|```(?:python3?|py)[ \t]*\r?\n")
_FENCE_IN_CALL = re.compile(r"\s*```(?:python3?|py)[ \t]*\r?\n(.*?)\r?\n?```\s*", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<tool_call>", "</tool_call>")

Kind = Literal["answer", "tool_call", "think"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A request for a tool.

    Attributes:
        name: the tool's name.
        arguments: its arguments by name, as JSON values.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """The same text for the same call, whatever the order or spacing of its JSON."""
        return json.dumps([self.name, self.arguments], sort_keys=True)


@dataclass(frozen=True, slots=True)
class ParsedStep:
    """What one step says.

    Attributes:
        kind: ``"answer"``, ``"tool_call"`` (also one that cannot be read: see `problem`) or ``"think"``.
        thought: the reasoning, stripped.
        answer: the final answer, stripped and not blank, where `kind` is ``"answer"``; else None.
        tool_call: the call, where `kind` is ``"tool_call"`` and it could be read; else None.
        problem: one line for the agent about a tool call that could not be read; else None.
        well_formed: whether the step follows the protocol to the letter.
    """

    kind: Kind
    thought: str
    answer: str | None
    tool_call: ToolCall | None
    problem: str | None
    well_formed: bool


class _Action(NamedTuple):
    kind: Literal["answer", "tool_call", "python"]
    body: str
    start: int
    end: int


@typed
def step_header(step: int) -> str:
    """The opening of step `step` (1 for the first), which is pre-filled and never sampled."""
    return f"STEP-{step}:\n<think>\n"


@typed
def parse_step(text: str, depth: int) -> ParsedStep:
    """Read one step.

    Args:
        text: the completion, or the whole step with its header.
        depth: the step's number, 1 for the first; a header with another number is not well-formed.

    Returns:
        What the step says. Never raises, for any text:

        * what is written inside the thinking is not acted on; if the thinking is never closed, the whole text is
          searched for an action and the step is not well-formed;
        * of several actions the first answer counts, else the first call, and the step is not well-formed;
        * a blank answer and an answer that is never closed are no answers;
        * any other text beside the action makes the step not well-formed.
    """
    header = _HEADER.match(text)
    body = text[header.end() :] if header else text
    good = header is None or int(header.group(1)) == depth
    thought, closing, region = body.partition("</think>")
    if not closing:
        region, good = body, False
    actions, all_closed = _find_actions(region)
    if not closing and actions:
        thought = body[: actions[0].start]
    good = good and all_closed and len(actions) <= 1 and not _outside(region, actions).strip()
    good = good and "<think>" not in body and "</think>" not in region and not _LATER_HEADER.search(body)

    for action in actions:
        if action.kind == "answer" and action.body.strip():
            answer = action.body.rpartition("<answer>")[2].strip()
            if answer:
                return ParsedStep("answer", thought.strip(), answer, None, None, good and "<answer>" not in action.body)
    good = good and not any(action.kind == "answer" for action in actions)
    for action in actions:
        if action.kind != "answer":
            call, problem, to_the_letter = _read_call(action)
            return ParsedStep("tool_call", thought.strip(), None, call, problem, good and to_the_letter)
    return ParsedStep("think", thought.strip(), None, None, None, good)


def format_step(
    step: int, thought: str, *, answer: str | None = None, tool_call: ToolCall | None = None, header: bool = True
) -> str:
    """Write a well-formed step: the inverse of `parse_step`.

    Args:
        step: its number, ≥ 1.
        thought: the reasoning; no tag of the protocol, and no line that looks like a step's header.
        answer: the final answer, not blank.
        tool_call: the call; not together with `answer`.
        header: whether to write the header, or the completion alone.

    Raises:
        ValueError: the parts cannot be written so that they read back the same.
    """
    check(step >= 1, "step", "an integer >= 1", step)
    check(answer is None or tool_call is None, "tool_call", "None beside an answer", tool_call)
    action = ""
    if answer is not None:
        action = f"\n<answer>{answer}</answer>"
    elif tool_call is not None:
        payload = json.dumps({"name": tool_call.name, "arguments": tool_call.arguments}).replace("<", "\\u003c")
        action = f"\n<tool_call>\n{payload}\n</tool_call>"
    completion = f"{thought}\n</think>{action}"
    parsed = parse_step(completion, step)
    same = (parsed.thought, parsed.answer, parsed.tool_call) == (thought.strip(), answer and answer.strip(), tool_call)
    check(parsed.well_formed and same, "thought/answer/tool_call", f"text free of {', '.join(_TAGS)}", repr(completion))
    return step_header(step) + completion if header else completion


def format_bonus(parsed: ParsedStep) -> float:
    """b(j) of the process reward: 1.0 for a well-formed step, else 0.0."""
    return float(parsed.well_formed)


def _find_actions(region: str) -> tuple[list[_Action], bool]:
    """Actions from left to right, and whether every one that opens also closes. Linear in the text's length."""
    actions: list[_Action] = []
    never_closed: set[str] = set()
    position = 0
    while opening := _OPENING.search(region, position):
        tag = opening.group()
        closing = "\n```" if tag.startswith("```") else tag.replace("<", "</")
        # "\n```" may share its newline with the opening line: an empty block
        start = opening.end() - 1 if closing == "\n```" else opening.end()
        end = -1 if closing in never_closed else region.find(closing, start)
        if end < 0:
            never_closed.add(closing)
            position = opening.end()
            continue
        kind: Any = {"<answer>": "answer", "<tool_call>": "tool_call"}.get(tag, "python")
        actions.append(_Action(kind, region[opening.end() : end], opening.start(), end + len(closing)))
        position = end + len(closing)
    return actions, not never_closed


def _outside(region: str, actions: list[_Action]) -> str:
    """The text of the region that belongs to no action."""
    parts, position = [], 0
    for action in actions:
        parts.append(region[position : action.start])
        position = action.end
    return "".join([*parts, region[position:]])


def _read_call(action: _Action) -> tuple[ToolCall | None, str | None, bool]:
    """The call, or one line about what is wrong with it; and whether it is written as the protocol asks."""
    if action.kind == "python":
        return ToolCall(PYTHON_TOOL, {"code": action.body}), None, True
    if fence := _FENCE_IN_CALL.fullmatch(action.body):
        return ToolCall(PYTHON_TOOL, {"code": fence.group(1)}), None, False
    try:
        value = json.loads(action.body, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        return None, f"tool_call: expected one JSON object, got text that is no JSON ({reason})", False
    if not isinstance(value, dict):
        return None, f"tool_call: expected a JSON object, got {_json_type(value)}", False
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str) or not name:
        return None, f'tool_call: expected a string under "name", got {_json_type(name)}', False
    if not isinstance(arguments, dict):
        return None, f'tool_call: expected an object under "arguments", got {_json_type(arguments)}', False
    if not _nesting_within(arguments, MAX_NESTING):
        return None, f"tool_call: expected at most {MAX_NESTING} levels of nesting, got more", False
    return ToolCall(name, arguments), None, set(value) == {"name", "arguments"}


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), "a number")


def _nesting_within(value: Any, limit: int) -> bool:
    """Whether `value` nests at most `limit` deep, without recursion."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False
