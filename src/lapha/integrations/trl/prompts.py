"""Questions out of TRL's prompts, and what is wrong with them before the first step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from lapha._checks import check

logger = logging.getLogger(__name__)

_SHOWN = 3  # rows that a message names


class Conversation(str):
    """The last user message of a conversation, with what stood before it.

    A search treats it as the question's text. An environment that has ``start_conversation`` opens its contexts with
    all of the messages.

    Attributes:
        messages: the conversation, ``[{"role": …, "content": …}, …]``, the question last.
    """

    messages: list[dict[str, Any]]

    def __new__(cls, messages: list[dict[str, Any]]) -> Conversation:
        self = super().__new__(cls, messages[-1]["content"])
        self.messages = messages
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Conversation, (self.messages,)


def question_of(prompt: Any) -> str:
    """The question in a TRL prompt: a string as it is, or a conversation that ends in a user message.

    Raises:
        ValueError: neither; or a conversation with images or other parts that are no text.
    """
    if isinstance(prompt, str):
        return prompt
    good = isinstance(prompt, list) and prompt and all(isinstance(message, dict) for message in prompt)
    check(bool(good), "prompt", "a string or a conversation", repr(prompt)[:100])
    check(prompt[-1].get("role") == "user", "prompt", "a conversation that ends in a user message", _roles(prompt))
    for message in prompt:
        text = message.get("content")
        if isinstance(text, list) and all(part.get("type") == "text" for part in text):
            text = "".join(part["text"] for part in text)
        check(isinstance(text, str), "prompt", "messages of text (no images)", repr(message.get("content"))[:100])
    plain = [{**message, "content": _text(message["content"])} for message in prompt]
    return plain[0]["content"] if len(plain) == 1 else Conversation(plain)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _roles(prompt: list[dict[str, Any]]) -> str:
    return " → ".join(str(message.get("role")) for message in prompt)


def problem_of(prompt: Any, start: Callable[[str], int], limit: int) -> str | None:
    """Why a tree cannot grow from a prompt, or None.

    Args:
        prompt: as in the data set.
        start: ``question -> tokens of its context``; raises ValueError where it cannot be asked.
        limit: the model's window in tokens.
    """
    try:
        tokens = start(question_of(prompt))
    except ValueError as error:
        return str(error)
    if tokens >= limit:
        return f"question: expected a prompt shorter than the model's window of {limit} tokens, got {tokens} tokens"
    return None


def usable_prompts(dataset: Any, name: str, start: Callable[[str], int], limit: int, broken: str) -> Any:
    """The data set without the prompts that no tree can grow from; every other column stays.

    Args:
        dataset: with a ``prompt`` column. One that can only be iterated is filtered as it is read, with ``"skip"``, and
            otherwise left alone.
        name: of the data set, for messages.
        start, limit: as of `problem_of`.
        broken: ``"error"`` refuses such prompts, ``"skip"`` leaves them out with a warning.

    Raises:
        ValueError: there are such prompts (the first are named by row), or no other ones.
    """
    if not hasattr(dataset, "select"):
        if broken == "skip":
            return dataset.filter(lambda row: problem_of(row["prompt"], start, limit) is None)
        return dataset
    problems = {
        row: problem
        for row, prompt in enumerate(dataset["prompt"])
        if (problem := problem_of(prompt, start, limit)) is not None
    }
    if not problems:
        return dataset
    shown = "; ".join(f"row {row}: {problem}" for row, problem in list(problems.items())[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    left = [row for row in range(len(dataset)) if row not in problems]
    if broken == "error" or not left:
        raise ValueError(
            f"{name}: expected prompts that a tree can grow from (or broken_prompts='skip'), got {shown}{more}"
        )
    logger.warning("%s: %d of %d prompts are left out: %s%s", name, len(problems), len(dataset), shown, more)
    return dataset.select(left)
