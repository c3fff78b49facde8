"""Tools from plain typed Python functions.

A function with type hints and a Google style docstring becomes a tool: `transformers.utils.get_json_schema` makes its
schema, arguments are checked against that schema before the call, and whatever goes wrong is one readable line for
the agent. Functions run in this process with this process's rights: they are the caller's code, not the model's.
Model-written code belongs in a sandbox (`lapha.sandbox`).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from lapha._checks import check
from lapha._imports import require
from lapha.agent.protocol import PYTHON_TOOL, ToolCall

logger = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool call came to.

    Attributes:
        text: what the agent reads.
        outcome: ``"ok"``, or the counter's name of what went wrong (``"unknown_tool"``, ``"bad_arguments"``,
            ``"tool_error"``, or a sandbox's own such as ``"timeout"``).
    """

    text: str
    outcome: str = "ok"


def python_schema() -> dict[str, Any]:
    """JSON schema of the python tool."""
    return _schema_of(execute_python_code)


def execute_python_code(code: str) -> str:
    """
    Run Python code in a session that belongs to this line of reasoning. Variables, functions and imports stay for the next call.

    Args:
        code: The code to run. What it prints is returned, and the value of its last line.
    """
    raise NotImplementedError("runs in a sandbox session, never here")


def stateful(tool: F) -> F:
    """Mark a tool whose same call may do something new each time (moving, turning a page): it is never an echo."""
    tool.stateful = True  # type: ignore[attr-defined]
    return tool


class ToolBox:
    """The tools that an agent may call.

    Args:
        functions: typed functions, plain or async, each with a docstring that describes its arguments. Plain ones run
            in a worker thread, so that a slow tool stalls nothing.
        also: names of tools that others run, for the message about an unknown one.

    Raises:
        ValueError: something is not callable, has no usable schema, or two tools share a name.
    """

    def __init__(self, functions: Iterable[Callable[..., Any]] = (), also: tuple[str, ...] = ()) -> None:
        self._also = also
        self._functions: dict[str, Callable[..., Any]] = {}
        self._schemas: dict[str, dict[str, Any]] = {}
        for function in functions:
            check(callable(function), "tools", "typed Python functions", repr(function))
            schema = _schema_of(function)
            name = schema["function"]["name"]
            taken = name in self._functions or name == PYTHON_TOOL
            check(not taken, "tools", "tools of different names", f"a second {name!r}")
            self._functions[name] = function
            self._schemas[name] = schema

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """JSON schemas, in the order given."""
        return list(self._schemas.values())

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def problem_with(self, call: ToolCall) -> ToolResult | None:
        """Why the call cannot be made, or None."""
        if call.name not in self._functions:
            known = ", ".join([*self._functions, *self._also]) or "none"
            return ToolResult(f"{_short(call.name)}: no such tool; tools are: {known}", "unknown_tool")
        problem = argument_problem(call, self._schemas[call.name])
        return ToolResult(problem, "bad_arguments") if problem else None

    async def call(self, call: ToolCall) -> ToolResult:
        """Run a tool. An exception of the tool is the agent's to read, and is counted as ``"tool_error"``."""
        if problem := self.problem_with(call):
            return problem
        function = self._functions[call.name]
        try:
            if inspect.iscoroutinefunction(function):
                value = await function(**call.arguments)
            else:
                value = await asyncio.to_thread(function, **call.arguments)
        except Exception as error:  # the boundary to the user's tool: logged, counted, and the agent's to read
            logger.info("tool %s raised on %r", call.name, call.arguments, exc_info=error)
            return ToolResult(f"{call.name}: {type(error).__name__}: {' '.join(str(error).split())}", "tool_error")
        return ToolResult(value if isinstance(value, str) else _as_text(value))


def argument_problem(call: ToolCall, schema: dict[str, Any]) -> str | None:
    """One line about arguments that do not fit the tool's schema, or None."""
    parameters = schema["function"].get("parameters", {})
    properties = parameters.get("properties", {})
    for name in parameters.get("required", ()):
        if name not in call.arguments:
            return f"{call.name}: argument {name!r} is missing"
    for name, value in call.arguments.items():
        if name not in properties:
            return f"{call.name}: no argument {_short(name)!r}; arguments are: {', '.join(properties) or 'none'}"
        if not _fits(value, properties[name]):
            expected = _describe(properties[name])
            return f"{call.name}: argument {name!r}: expected {expected}, got {_short(json.dumps(value))}"
    return None


def _schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    utils = require("transformers.utils", extra="llm")
    chat = require("transformers.utils.chat_template_utils", extra="llm")
    try:
        return utils.get_json_schema(function)
    except (chat.DocstringParsingException, chat.TypeHintParsingException) as error:
        name = getattr(function, "__name__", repr(function))
        expected = "type hints on every argument and a docstring with an Args section"
        raise ValueError(f"tools: {name}: expected {expected}, got: {error}") from error


_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a JSON value fits the subset of JSON schema that `get_json_schema` writes."""
    if value is None and schema.get("nullable"):
        return True
    if "anyOf" in schema:
        return any(_fits(value, option) for option in schema["anyOf"])
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        is_bool = isinstance(value, bool)
        if not any(isinstance(value, _PYTHON_TYPES[kind]) and (not is_bool or kind == "boolean") for kind in kinds):
            return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return all(_fits(item, schema["items"]) for item in value)
    return True


def _describe(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_describe(option) for option in schema["anyOf"])
    kinds = schema.get("type", "any value")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
