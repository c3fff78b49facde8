"""Chat templates as append-only tokens.

A chat template renders whole conversations, and rendering a longer one may change the tokens of its beginning: white
space is trimmed, thinking is dropped from history, a tokenizer merges across a boundary. A tree's contexts must not
change under the model, so the template is asked once, with a made-up conversation, what it puts *between* turns; those
pieces are tokenised on their own and appended. No prefix is ever rendered or tokenised a second time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

from lapha._checks import check
from lapha._imports import require

logger = logging.getLogger(__name__)

# Letters only: no template trims, escapes or interprets them, and no question contains them.
_SYSTEM, _QUESTION, _ANSWER, _FEEDBACK = "LaphaSystemMark", "LaphaQuestionMark", "LaphaAnswerMark", "LaphaFeedbackMark"
_RESPONSE = "<tool_response>\n{}\n</tool_response>"


@dataclass(frozen=True, slots=True)
class _Between:
    """Token ids that the template puts after an assistant turn's text.

    Attributes:
        closing: what ends the assistant's turn, its end token included, up to where the next turn opens.
        skip: how many of them a completion that ended by itself has already written.
        before: what follows `closing`, up to the feedback (empty without feedback).
        after: from the feedback's end to the end of the next generation prompt.
    """

    closing: tuple[int, ...]
    skip: int
    before: tuple[int, ...]
    after: tuple[int, ...]


class ChatFormat:
    """What a tokenizer's chat template writes, as pieces of tokens.

    Args:
        tokenizer: a transformers tokenizer with a chat template.

    Raises:
        ValueError: the tokenizer has no chat template, or one that cannot render a user turn, an assistant turn and
            what follows them; the message names the model.
    """

    identity_excludes: ClassVar[frozenset[str]] = frozenset(("_with_feedback",))  # made when first asked for

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        check(
            bool(getattr(tokenizer, "chat_template", None)),
            "tokenizer",
            "a model with a chat template (use its instruction-tuned version, or set tokenizer.chat_template)",
            f"{self.name!r} without one",
        )
        self._plain = self._gap(None)
        self._with_feedback: _Between | None = None

    @property
    def end_of_turn(self) -> int | None:
        """The token that ends an assistant's turn; None where the template writes none.

        It need not be the end-of-sequence token: base models with a ChatML template have another one.
        """
        plain = self._plain
        return plain.closing[plain.skip - 1] if plain.skip else None

    def prompt(self, question: str, system: str | None = None, tools: list[dict[str, Any]] | None = None) -> str:
        """The rendered prompt: system prompt, question, generation prompt.

        A template that refuses or drops the system role gets the system prompt at the head of the question.
        """
        user = {"role": "user", "content": question}
        if not system:
            return self._must_render([user], tools)
        if self._keeps_system_role():
            return self._must_render([{"role": "system", "content": system}, user], tools)
        return self._must_render([{"role": "user", "content": f"{system}\n\n{question}"}], tools)

    def speaks_tool_calls(self, tools: list[dict[str, Any]]) -> bool:
        """Whether the template has a tool section of its own that asks for calls as this protocol writes them."""
        messages = [{"role": "user", "content": _QUESTION}]
        plain, rendered = self._render(messages), self._render(messages, tools)
        if plain is None or rendered is None or rendered == plain:
            return False
        return "<tool_call>" in rendered and '"arguments"' in rendered

    def encode(self, text: str, *, trusted: bool = True) -> tuple[int, ...]:
        """Tokenise a piece on its own.

        Args:
            text: the piece.
            trusted: whether text that looks like a special token may become one. Tool output may not: it could
                otherwise end the turn and speak as the system.
        """
        options: dict[str, Any] = {"add_special_tokens": False}
        if not trusted:
            options["split_special_tokens"] = True
        return tuple(self._tokenizer(text, **options)["input_ids"])

    def bridge(self, ended_by_itself: bool, feedback: str | None = None) -> tuple[int, ...]:
        """Tokens from an assistant turn's end to the end of the next generation prompt.

        Args:
            ended_by_itself: whether the completion ends with the model's end token. One that was cut off by its
                length gets the template's own end of turn first.
            feedback: what a tool answered, or None if no tool was called.
        """
        if feedback is None:
            between = self._plain
        else:
            if self._with_feedback is None:
                self._with_feedback = self._feedback_gap()
            between = self._with_feedback
        closing = between.closing[between.skip :] if ended_by_itself else between.closing
        middle = self.encode(feedback, trusted=False) if feedback else ()
        return closing + between.before + middle + between.after

    # Rendering -------------------------------------------------------------------------------------------------

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str | None:
        """The rendered conversation with a generation prompt, or None where the template refuses it."""
        jinja_errors = require("jinja2", extra="llm").TemplateError
        try:
            return self._tokenizer.apply_chat_template(
                messages, tools=tools or None, tokenize=False, add_generation_prompt=True
            )
        except (jinja_errors, TypeError):
            # templates raise on roles they do not know, and add strings to what is not there
            return None

    def _must_render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str:
        rendered = self._render(messages, tools)
        if rendered is None:
            roles = [message["role"] for message in messages]
            raise ValueError(
                f"tokenizer: expected a chat template that renders {roles}, got {self.name!r}'s, which fails"
            )
        return rendered

    def _keeps_system_role(self) -> bool:
        rendered = self._render([{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _QUESTION}])
        return rendered is not None and _SYSTEM in rendered

    def _gap(self, feedback: dict[str, Any] | None) -> _Between:
        turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
        rendered = self._must_render(turns + ([feedback] if feedback else []))
        _, found, tail = rendered.rpartition(_ANSWER)
        check(
            bool(found), "tokenizer", "a chat template that shows assistant turns", f"{self.name!r}'s, which drops them"
        )
        if feedback is None:
            closing, skip = self._split_closing(self.encode(tail))
            return _Between(closing, skip, (), ())
        before, found, after = tail.partition(_FEEDBACK)
        check(bool(found), "tokenizer", "a chat template that shows what follows a turn", f"{self.name!r}'s")
        closing, skip = self._split_closing(self.encode(before))
        return _Between(closing, skip, (), self.encode(after))

    def _split_closing(self, closing: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """The ids, and how many of them end the turn: through the first end-of-sequence or other special token."""
        eos = self._tokenizer.eos_token_id
        added = getattr(self._tokenizer, "added_tokens_decoder", {})  # some are special without a role of their own
        special = {*self._tokenizer.all_special_ids, *(token for token, entry in added.items() if entry.special)}
        for ends in ({eos}, special):
            for index, token in enumerate(closing):
                if token in ends:
                    return closing, index + 1
        return closing, 0

    def _feedback_gap(self) -> _Between:
        """Feedback in the role "tool" where the template knows it, else as a user's turn between tags."""
        if self._knows_tool_role():
            return self._gap({"role": "tool", "content": _FEEDBACK})
        return self._gap({"role": "user", "content": _RESPONSE.format(_FEEDBACK)})

    def _knows_tool_role(self) -> bool:
        """Whether the role "tool" is treated in a way of its own, not just written out like any made-up role."""
        turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
        tool = self._render([*turns, {"role": "tool", "content": _FEEDBACK}])
        other = self._render([*turns, {"role": "LaphaRole", "content": _FEEDBACK}])
        if tool is None or _FEEDBACK not in tool:
            return False
        return other is None or tool != other.replace("LaphaRole", "tool")


def end_of_turn_ids(tokenizer: Any) -> frozenset[int]:
    """Tokens with which a model ends its turn by its tokenizer's chat template: what sampling should stop at.

    Args:
        tokenizer: a transformers tokenizer, with or without a chat template.

    Returns:
        One id, or none where there is no template, one that writes no such token, or one that a conversation cannot be
        made with (`ChatFormat` says why; an environment of the caller's own may not need it).
    """
    if not getattr(tokenizer, "chat_template", None):
        return frozenset()
    try:
        found = ChatFormat(tokenizer).end_of_turn
    except ValueError as problem:
        logger.warning("sampling does not stop at a chat template's end of turn: %s", problem)
        return frozenset()
    return frozenset() if found is None else frozenset({found})
