"""`ChatEnvironment`: the agent protocol over a tokenizer's chat template, with tools."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lapha._checks import check
from lapha.agent import prompts
from lapha.agent.answer_reader import read_answer
from lapha.agent.chat import ChatFormat
from lapha.agent.echo import MIN_CHARS, Seen, normalise
from lapha.agent.protocol import PYTHON_TOOL, ParsedStep, ToolCall, parse_step, step_header
from lapha.agent.sessions import SharedSession
from lapha.agent.tools import ToolBox, ToolResult, argument_problem, python_schema
from lapha.types import Sample, State, Status, Step, Turn

_THINK = "<think>"
NO_OUTPUT = "(no output)"
"""What a sandbox says of code that shows nothing."""

FEEDBACK_CHARS = 4000
"""Longest tool feedback in characters; the middle of a longer one is left out, and the agent is told."""


class SandboxLike(Protocol):
    """What the environment needs of a sandbox: `open` gives a session (see `lapha.sandbox`)."""

    def open(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class AgentContext:
    """The agent's side of a node.

    Attributes:
        step: number of the step that comes next, 1 at the root.
        seen: what the context already holds, for echo detection.
        session: the python session whose state this node ends in, or None before the first use.
    """

    step: int
    seen: Seen
    session: SharedSession | None = None


class ChatEnvironment:
    """Turns questions into prompts, and sampled steps into what follows them. Implements `lapha.types.Environment`.

    Contexts are token ids that only ever append: the prompt is tokenised once, and every later piece (the end of a
    turn, a tool's feedback, the next turn's opening with its header ``STEP-k:\\n<think>\\n``) on its own.

    A step that its length cut off is read as it stands, is never well-formed, and has its turn ended by the template's
    own end token in the bridge, so that what follows is a conversation the model knows.

    Args:
        tokenizer: a transformers tokenizer with a chat template. One whose ``init_kwargs`` hold
            ``lapha_protocol="native"`` belongs to a model that was trained on the protocol, and gets no system prompt.
        tools: typed Python functions (see `ToolBox`); they run in this process.
        depth_limit: most steps of one line of reasoning, ≥ 1; None for the model's own (``lapha_depth_limit`` in the
            tokenizer's ``init_kwargs``), or 6.
        context_limit: most tokens of a context, ≥ 1.
        system_prompt: None for the one that explains the protocol, "" for none.
        sandbox: a `lapha.sandbox` sandbox; the agent may then run Python in it, each branch in its own session.
            The caller closes it.
        echo: whether a step that only repeats its context is terminal. A tool that is marked with `stateful` is exempt.
        echo_chars: shortest thinking, in characters, that counts as an echo when it only repeats its context.
        answer_reader: finds a final answer in a step without a well-formed one, such as ``\\boxed{42}`` or "the answer is
            42"; such a step is not well-formed. None reads the protocol alone.
        template_options: variables of the chat template, such as ``{"enable_thinking": True}``. A template that tells
            the model not to think is asked to let it think, since a step of this protocol begins with its thinking.

    Raises:
        ValueError: the tokenizer has no chat template (the message names the model), or one that tells the model not to
            think; a limit is below 1, or a tool has no usable schema.
    """

    takes_conversations = True
    """`start` keeps the messages before the question, where the question has an attribute `messages`."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        tools: Sequence[Callable[..., Any]] = (),
        depth_limit: int | None = None,
        context_limit: int = 4096,
        system_prompt: str | None = None,
        sandbox: SandboxLike | None = None,
        echo_chars: int = MIN_CHARS,
        echo: bool = True,
        answer_reader: Callable[[str], str | None] | None = read_answer,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        if depth_limit is None:
            depth_limit = int(getattr(tokenizer, "init_kwargs", {}).get("lapha_depth_limit", 6))
        check(depth_limit >= 1, "depth_limit", "an integer >= 1", depth_limit)
        check(context_limit >= 1, "context_limit", "an integer >= 1", context_limit)
        self.tokenizer = tokenizer
        self.depth_limit = depth_limit
        self.context_limit = context_limit
        self._chat = _thinking_format(tokenizer, template_options or {})
        self._toolbox = ToolBox(tools, also=(PYTHON_TOOL,) if sandbox is not None else ())
        self._sandbox = sandbox
        self._python_schema = python_schema() if sandbox is not None else None
        self._echo_chars = echo_chars
        self._echo = echo
        self._reader = answer_reader
        self._stateful = frozenset(tool.__name__ for tool in tools if getattr(tool, "stateful", False))
        schemas = self._toolbox.schemas + ([self._python_schema] if self._python_schema else [])
        native = getattr(tokenizer, "init_kwargs", {}).get("lapha_protocol") == "native"
        self._template_tools = schemas if schemas and self._chat.speaks_tool_calls(schemas) else None
        if system_prompt is None:
            listed = [] if self._template_tools else schemas
            system_prompt = ""
            if not native:
                system_prompt = _system_prompt(depth_limit, schemas, listed, sandbox is not None, self._header(1))
        self._system_prompt = system_prompt

    def start(self, question: str) -> tuple[State, Turn]:
        """The root: prompt, generation prompt and first header; its turn.

        Raises:
            ValueError: the question is blank or no text that UTF-8 can hold, or its prompt fills the context.
        """
        check(isinstance(question, str), "question", "a string", type(question).__name__)
        check(bool(question.strip()), "question", "text that is not blank", repr(question))
        check(
            clean(question, keep_controls=True) == question, "question", "text without lone surrogates", repr(question)
        )
        before = getattr(question, "messages", [])[:-1]  # of a conversation that the question ends
        token_ids = self._chat.prompt_ids(question, self._system_prompt, self._template_tools, before)
        token_ids += self._chat.encode(self._header(1))
        limit = self.context_limit
        check(
            len(token_ids) < limit,
            "question",
            f"a prompt shorter than context_limit = {limit}",
            f"{len(token_ids)} tokens",
        )
        return State(token_ids), Turn(context=AgentContext(1, Seen((normalise(question),))))

    async def step(self, turn: Turn, sample: Sample, depth: int) -> Step:
        """Read a sampled step, run its tool call in a fork of the parent's session, and open the next step.

        Args:
            turn: the parent's turn.
            sample: the sampled step.
            depth: the child's depth (root: 0).

        Returns:
            The step. A tool's feedback is part of `Step.text` (between ``<tool_response>`` tags) and of the bridge.
            `Step.details` counts ``malformed``, ``truncated``, ``tool_call``, ``malformed_tool_call`` and what came of
            the call (``unknown_tool``, ``bad_arguments``, ``tool_error``, ``timeout``, …).
        """
        context: AgentContext = turn.context
        parsed = self._read(sample.text, context.step)
        truncated = sample.finish_reason == "length"
        well_formed = parsed.well_formed and not truncated
        details = {"malformed": int(not well_formed), "truncated": int(truncated)}
        text = step_header(context.step) + sample.text
        status = self._status(context, parsed, sample.state, depth)
        if status.terminal:
            return _step(status, text, parsed.answer, well_formed, Turn(), details)

        feedback, session = None, context.session
        if parsed.kind == "tool_call":
            result, session = await self._run_tool(parsed, session)
            details |= {"tool_call": 1, result.outcome: int(result.outcome != "ok")}
            feedback = shorten(clean(result.text), FEEDBACK_CHARS)
            text += f"\n<tool_response>\n{feedback}\n</tool_response>"
            if self._echoes_call(context, parsed, feedback):
                if session is not None:
                    session.release()
                return _step(Status.ECHO, text, None, well_formed, Turn(), details)
        elif session is not None:
            session.hold()
        bridge = self._chat.bridge(sample.token_ids, feedback) + self._chat.encode(self._header(context.step + 1))
        if len(sample.state.token_ids) + len(bridge) >= self.context_limit:
            if session is not None:
                session.release()
            return _step(Status.CONTEXT_LIMIT, text, None, well_formed, Turn(), details)
        after = replace(
            context, step=context.step + 1, seen=context.seen.adding(parsed, feedback or ""), session=session
        )
        return _step(Status.OPEN, text, None, well_formed, Turn(bridge, after), details)

    def close(self, turn: Turn) -> None:
        """Let go of a node's python session. Sessions that children still use stay until those are closed too."""
        if turn.context is not None and turn.context.session is not None:
            turn.context.session.release()
            turn.context = replace(turn.context, session=None)

    def _read(self, text: str, step: int) -> ParsedStep:
        """The step as the protocol reads it; without an action of its own, an answer that it gives in another way."""
        parsed = parse_step(text, step)
        if parsed.kind != "think" or self._reader is None:
            return parsed
        answer = self._reader(text)
        return parsed if answer is None else replace(parsed, kind="answer", answer=answer, well_formed=False)

    def _header(self, step: int) -> str:
        """What opens step `step` in the context; a template's own ``<think>`` comes before the number."""
        return f"STEP-{step}:\n" if self._chat.thinking == "open" else step_header(step)

    def _status(self, context: AgentContext, parsed: ParsedStep, state: State, depth: int) -> Status:
        if parsed.kind == "answer":
            return Status.ANSWERED
        if self._echo and context.seen.repeated_by(parsed, self._echo_chars):
            return Status.ECHO
        if depth >= self.depth_limit:
            return Status.DEPTH_LIMIT
        if len(state.token_ids) >= self.context_limit:
            return Status.CONTEXT_LIMIT
        return Status.OPEN

    def _echoes_call(self, context: AgentContext, parsed: ParsedStep, feedback: str) -> bool:
        """Whether the call and its answer were there before, and nothing else can have come of it."""
        if not self._echo or parsed.tool_call is None or parsed.tool_call.name in self._stateful:
            return False
        if parsed.tool_call.name == PYTHON_TOOL and feedback == NO_OUTPUT:
            return False  # code that shows nothing was run for what it changes
        return context.seen.answered_alike(parsed, feedback)

    async def _run_tool(
        self, parsed: ParsedStep, session: SharedSession | None
    ) -> tuple[ToolResult, SharedSession | None]:
        """The call's result, and a hold on the session that the node ends in."""
        call = parsed.tool_call
        if call is not None and call.name == PYTHON_TOOL and self._python_schema is not None:
            problem = argument_problem(call, self._python_schema)
            if problem is None:
                return await self._run_python(call, session)
            result = ToolResult(problem, "bad_arguments")
        elif call is None:
            result = ToolResult(parsed.problem or "tool_call: cannot be read", "malformed_tool_call")
        else:
            result = await self._toolbox.call(call)
        if session is not None:
            session.hold()
        return result, session

    async def _run_python(self, call: ToolCall, session: SharedSession | None) -> tuple[ToolResult, SharedSession]:
        """Run code in a fork of the parent's session; the fork is the child's."""
        assert self._sandbox is not None  # the schema exists only beside a sandbox
        child = SharedSession(session.fork() if session is not None else self._sandbox.open())
        finished = False
        try:
            result = await child.run(call.arguments["code"])
            finished = True
        finally:
            if not finished:
                child.release()  # a cancelled search must not leave the session behind
        return ToolResult(result.message(), result.outcome), child


def _thinking_format(tokenizer: Any, options: Mapping[str, Any]) -> ChatFormat:
    """The tokenizer's chat format, with thinking switched on where the template would switch it off unasked."""
    chat = ChatFormat(tokenizer, options)
    if chat.thinking == "closed" and "enable_thinking" not in options:
        chat = ChatFormat(tokenizer, {**options, "enable_thinking": True})
    check(
        chat.thinking != "closed",
        "template_options",
        "a chat template that lets the model think (steps begin with thinking; see ReasoningEnvironment for others)",
        f"{chat.name!r}'s, which closes its thinking with {dict(options)}",
    )
    return chat


def clean(text: str, *, keep_controls: bool = False) -> str:
    """Text that any tokenizer takes: lone surrogates, and unless kept control characters, become U+FFFD."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if keep_controls or text.isprintable():
        return text
    kept = "\n\t"
    return "".join(
        char if char in kept or unicodedata.category(char) not in ("Cc", "Cs") else "\ufffd"
        for char in text.replace("\r\n", "\n")
    )


def shorten(text: str, limit: int) -> str:
    """`text`, or its beginning and end with a line between them that says how much is left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def _step(
    status: Status, text: str, answer: str | None, well_formed: bool, turn: Turn, details: dict[str, int]
) -> Step:
    counted = {name: count for name, count in details.items() if count}
    return Step(status, text, answer, well_formed, turn, counted)


def _system_prompt(depth_limit: int, schemas: list[Any], listed: list[Any], python: bool, header: str) -> str:
    """The default system prompt: the protocol, and the tools that the template does not list itself."""
    lines = [prompts.load("python_line")] if python else []
    if schemas:
        lines.append(prompts.load("tool_line"))
    tool_line = "".join(line + "\n" for line in lines)
    text = prompts.load("system").replace("{depth_limit}", str(depth_limit)).replace("{tool_line}\n", tool_line)
    text = text.replace("{header}\n", header if _THINK in header else f"{_THINK}\n{header}")
    if listed:
        described = "\n".join(json.dumps(schema) for schema in listed)
        text += "\n" + prompts.load("tools").replace("{schemas}", described)
    return text
