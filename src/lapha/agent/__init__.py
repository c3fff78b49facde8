"""The agent: step protocol, prompts, tools, and the environment that search and training drive.

Needs transformers' tokenizers only where a `ChatEnvironment` with tools is made; importing needs nothing.
"""

from lapha.agent.answer_reader import read_answer
from lapha.agent.chat import ChatFormat
from lapha.agent.echo import Seen
from lapha.agent.environment import AgentContext, ChatEnvironment
from lapha.agent.protocol import (
    PYTHON_TOOL,
    ParsedStep,
    ToolCall,
    format_bonus,
    format_step,
    parse_step,
    step_header,
)
from lapha.agent.reasoning import REASONING_STEPS, ReasoningEnvironment
from lapha.agent.tools import ToolBox, ToolResult, stateful
from lapha.agent.turn_end import end_of_turn_ids, stop_token_ids

__all__ = [
    "PYTHON_TOOL",
    "REASONING_STEPS",
    "AgentContext",
    "ChatEnvironment",
    "ChatFormat",
    "ParsedStep",
    "ReasoningEnvironment",
    "Seen",
    "ToolBox",
    "ToolCall",
    "ToolResult",
    "end_of_turn_ids",
    "format_bonus",
    "format_step",
    "parse_step",
    "read_answer",
    "stateful",
    "step_header",
    "stop_token_ids",
]
