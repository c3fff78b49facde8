"""A tokenizer's chat template, asked with made-up conversations what it writes around messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from lapha._checks import check
from lapha._imports import require

# Letters only: no template trims, escapes or interprets them, and no question contains them.
SYSTEM, QUESTION, ANSWER, FEEDBACK = "LaphaSystemMark", "LaphaQuestionMark", "LaphaAnswerMark", "LaphaFeedbackMark"

Message = dict[str, Any]


def _json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


# what templates do to a message's text before they write it
_CHANGES: tuple[Callable[[str], str], ...] = (
    str,
    str.strip,
    str.rstrip,
    str.lstrip,
    _json_text,
    lambda text: _json_text(text.strip()),
)


class ChatTemplate:
    """Renders conversations.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        options: variables of the template, such as ``{"enable_thinking": True}``.

    Raises:
        ValueError: there is no chat template; the message names the model.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any] | None = None) -> None:
        self._tokenizer = tokenizer
        self.options = dict(options or {})
        self.name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        check(
            bool(getattr(tokenizer, "chat_template", None)),
            "tokenizer",
            "a model with a chat template (use its instruction-tuned version, or set tokenizer.chat_template)",
            f"{self.name!r} without one",
        )
        self._parts = False
        shown = self.render([self.message("user", QUESTION)])
        if shown is None or QUESTION not in shown:
            self._parts = True
            shown = self.render([self.message("user", QUESTION)])
            self._parts = shown is not None and QUESTION in shown

    def message(self, role: str, text: str) -> Message:
        """A message as this template reads it: its content a string, or a list of parts."""
        return {"role": role, "content": [{"type": "text", "text": text}] if self._parts else text}

    def render(self, messages: list[Message], tools: list[Any] | None = None, *, opens: bool = True) -> str | None:
        """The rendered conversation, or None where the template refuses it.

        Args:
            messages: the conversation.
            tools: JSON schemas.
            opens: whether to add the generation prompt.
        """
        jinja_errors = require("jinja2", extra="llm").TemplateError
        try:
            return self._tokenizer.apply_chat_template(
                messages, tools=tools or None, tokenize=False, add_generation_prompt=opens, **self.options
            )
        except (jinja_errors, TypeError):
            # templates raise on roles they do not know, and add strings to what is not there
            return None

    def must_render(self, messages: list[Message], tools: list[Any] | None = None, *, opens: bool = True) -> str:
        """The rendered conversation.

        Raises:
            ValueError: the template refuses it; names the model.
        """
        rendered = self.render(messages, tools, opens=opens)
        if rendered is None:
            roles = [message["role"] for message in messages]
            raise ValueError(
                f"tokenizer: expected a chat template that renders {roles}, got {self.name!r}'s, which fails"
            )
        return rendered

    def change(self, mark: str, conversation: Callable[[str], list[Message]]) -> Callable[[str], str]:
        """What the template does to the text of one message: nothing, stripping it, or writing it as JSON.

        Args:
            mark: a word for the text.
            conversation: messages around a text.
        """
        probe = f'\n {mark}"\n{mark} \n'
        rendered = self.render(conversation(probe)) or ""
        return next((change for change in _CHANGES if change(probe) in rendered), str)
