"""Chat templates as append-only tokens.

A chat template renders whole conversations, and rendering a longer one may change the tokens of its beginning: white
space is trimmed, thinking is dropped from history, a tokenizer merges across a boundary. A tree's contexts must not
change under the model, so the template is asked once, with a made-up conversation, what it puts *between* turns; those
pieces are tokenised on their own and appended. No prefix is ever rendered or tokenised a second time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lapha._checks import check
from lapha.agent.plain_text import PlainText
from lapha.agent.template import ANSWER, FEEDBACK, QUESTION, SYSTEM, ChatTemplate

logger = logging.getLogger(__name__)

_RESPONSE = "<tool_response>\n{}\n</tool_response>"
_CONTINUE = "Continue."
_EARLIER = "LaphaEarlierMark"  # and two letters, one mark a message
_THINK = "<think>"
_CLOSED_THINKING = re.compile(r"<think>\s*</think>\s*$")


@dataclass(frozen=True, slots=True)
class _Gap:
    """One way in which a template goes on after an assistant turn's text.

    Attributes:
        closing: token ids from the text's end to where the feedback stands, or to the next generation prompt's end.
        ends: how many of them end the turn.
        after: ids from the feedback's end to the end of the next generation prompt (empty without feedback).
        change: what the template does to the feedback's text.
    """

    closing: tuple[int, ...]
    ends: int
    after: tuple[int, ...] = ()
    change: Callable[[str], str] = str

    def written(self, token_ids: Sequence[int | None]) -> int:
        """How many ids of `closing` stand already at the end of the sampled `token_ids`."""
        if not token_ids:
            return 0
        for count in range(min(self.ends, len(token_ids)), 0, -1):
            if tuple(token_ids[-count:]) == self.closing[:count]:
                return count
        last = token_ids[-1]
        return self.closing.index(last) + 1 if last in self.closing[: self.ends] else 0


class ChatFormat:
    """What a tokenizer's chat template writes, as pieces of tokens.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        options: variables of the template, such as ``{"enable_thinking": True}``.

    Attributes:
        opening: text that stands between the generation prompt and what the model is to write: the channel in which a
            template files answers, or the thinking that it opens in every turn.
        thinking: how the thinking stands after the generation prompt and `opening`: ``"open"``, ``"closed"`` (the
            template has told the model not to think) or ``"none"``.

    Raises:
        ValueError: the tokenizer has no chat template, or one that cannot render a user turn, an assistant turn and
            what follows them; the message names the model.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any] | None = None) -> None:
        self._tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, options)
        self.name = self.template.name
        self.plain_text = PlainText(tokenizer)
        self._first = [self.template.message("user", QUESTION)]
        self._turns = [*self._first, self.template.message("assistant", ANSWER)]
        prompt = self._after(self.template.must_render(self._first), QUESTION)
        ended = self._after(self.template.must_render(self._turns, opens=False), QUESTION)
        self.opening = _opening(prompt, ended.partition(ANSWER)[0])
        self.thinking = _thinking(prompt + self.opening)
        self._opening_ids = self.encode(self.opening)
        self._special = self._special_ids()
        ending = self._after(ended, ANSWER)
        self._last_ends = frozenset(self.encode(ending)) & frozenset().union(*self._ending_ids(ending))
        closed = self._after(self.template.must_render(self._first, opens=False), QUESTION)
        self._opened = prompt[len(closed) :] if prompt.startswith(closed) else ""  # the generation prompt
        self._plain = self._plain_gaps()
        self._with_feedback: list[_Gap] | None = None
        self._question_change = self.template.change(QUESTION, lambda text: [self.template.message("user", text)])

    def identity(self) -> dict[str, Any]:
        """All that the pieces depend on."""
        return {"tokenizer": self._tokenizer, "options": self.template.options}

    @property
    def end_of_turn(self) -> int | None:
        """The token that ends an assistant's turn; None where the template writes none.

        It need not be the end-of-sequence token: base models with a ChatML template have another one.
        """
        for gap in self._plain:
            if gap.ends:
                return gap.closing[gap.ends - 1]
        return None

    @property
    def turn_ends(self) -> frozenset[int]:
        """All tokens with which the template ends an assistant's turn, whatever follows it."""
        gaps = [*self._plain, *self._feedback_gaps()]
        return self._last_ends | {gap.closing[gap.ends - 1] for gap in gaps if gap.ends}

    def prompt(self, question: str, system: str | None = None, tools: list[dict[str, Any]] | None = None) -> str:
        """The rendered prompt as text, for people: `prompt_ids` is what a model gets. Arguments as there."""
        return self._rendered(system, tools).replace(QUESTION, self._question_change(question)) + self.opening

    def prompt_ids(
        self,
        question: str,
        system: str | None = None,
        tools: list[dict[str, Any]] | None = None,
        before: Sequence[Mapping[str, str]] = (),
    ) -> tuple[int, ...]:
        """The prompt: system prompt, question, generation prompt and `opening`; no part of the question is a special token.

        A template that refuses or drops the system role gets the system prompt at the head of the first user message.

        Args:
            question: the last user message.
            system: a system prompt; it follows a system message of `before` in the same message.
            tools: schemas for a template that has a section for them.
            before: messages before the question, ``{"role": …, "content": …}``; no part of them is a special token either.

        Raises:
            ValueError: the template cannot show the question or one of the messages.
        """
        earlier = list(before)
        if earlier and earlier[0]["role"] == "system":
            own = earlier.pop(0)["content"]
            system = f"{own}\n\n{system}" if system else own
        marks = [f"{_EARLIER}{chr(ord('A') + at // 26)}{chr(ord('A') + at % 26)}" for at in range(len(earlier))]
        texts = {mark: message["content"] for mark, message in zip(marks, earlier)}
        texts[QUESTION] = self._question_change(question)
        turns = [self.template.message(message["role"], mark) for mark, message in zip(marks, earlier)]
        pieces = re.split(f"({'|'.join(texts)})", self._rendered(system, tools, turns))
        shown = all(mark in pieces for mark in texts)
        check(shown, "tokenizer", "a chat template that shows the question", f"{self.name!r}'s")
        split: tuple[int, ...] = ()
        for piece in pieces:
            split += self.plain_text.encode(texts[piece]) if piece in texts else self.encode(piece)
        # as the model knows it, unless the question would then speak
        whole = self.encode("".join(texts.get(piece, piece) for piece in pieces))
        added = self.plain_text.added_ids
        same = [token for token in whole if token in added] == [token for token in split if token in added]
        return (whole if same else split) + self._opening_ids

    def speaks_tool_calls(self, tools: list[dict[str, Any]]) -> bool:
        """Whether the template has a tool section of its own that asks for calls as this protocol writes them."""
        plain, rendered = self.template.render(self._first), self.template.render(self._first, tools)
        if plain is None or rendered is None or rendered == plain:
            return False
        return "<tool_call>" in rendered and '"arguments"' in rendered

    def encode(self, text: str, *, trusted: bool = True) -> tuple[int, ...]:
        """Token ids of a piece on its own.

        Args:
            text: the piece.
            trusted: whether the template or the protocol wrote it. No part of any other text becomes an added token.
        """
        if not trusted:
            return self.plain_text.encode(text)
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    def bridge(self, sampled: Sequence[int] | bool, feedback: str | None = None) -> tuple[int, ...]:
        """Tokens from an assistant turn's end to the end of the next generation prompt and `opening`.

        Args:
            sampled: token ids of the turn. What its last tokens have already written of the turn's end is left out; a
                turn that its length or another token ended gets the template's whole end of turn. True stands for a
                turn that ends with `end_of_turn`, False for one that was cut off.
            feedback: what a tool answered, or None if no tool was called. None of it becomes an added token.
        """
        gaps = self._plain if feedback is None else self._feedback_gaps()
        token_ids = sampled if not isinstance(sampled, bool) else [self.end_of_turn] if sampled else []
        written = [gap.written(token_ids) for gap in gaps]
        best = max(range(len(gaps)), key=written.__getitem__)  # the first among equals
        gap = gaps[best]
        middle = self.plain_text.encode(gap.change(feedback)) if feedback else ()
        return gap.closing[written[best] :] + middle + gap.after + self._opening_ids

    # Asking the template ---------------------------------------------------------------------------------------

    def _rendered(
        self, system: str | None, tools: list[dict[str, Any]] | None, before: Sequence[dict[str, Any]] = ()
    ) -> str:
        template, turns = self.template, [*before, *self._first]
        if not system:
            return template.must_render(turns, tools)
        if self._keeps_system_role():
            return template.must_render([template.message("system", system), *turns], tools)
        first = next(at for at, turn in enumerate(turns) if turn["role"] == "user")
        turns[first] = template.message("user", f"{system}\n\n{_content(turns[first])}")
        return template.must_render(turns, tools)

    def _keeps_system_role(self) -> bool:
        rendered = self.template.render([self.template.message("system", SYSTEM), *self._first])
        return rendered is not None and SYSTEM in rendered and QUESTION in rendered

    def _after(self, rendered: str, mark: str) -> str:
        """What follows the last `mark`."""
        _, found, tail = rendered.rpartition(mark)
        what = "the question" if mark == QUESTION else "assistant turns"
        check(bool(found), "tokenizer", f"a chat template that shows {what}", f"{self.name!r}'s, which drops them")
        return tail

    def _plain_gaps(self) -> list[_Gap]:
        """Ways on without feedback: the next assistant turn at once where the template writes one, else a word to go on."""
        gaps = []
        opened = self._opened
        tail = self._after(self.template.must_render(self._turns), ANSWER)
        in_a_row = self.template.render([*self._turns, self._turns[-1]])  # some insist on a user between two turns
        if opened and tail.endswith(opened) and in_a_row is not None and in_a_row.count(ANSWER) == 2:
            gaps.append(self._gap(tail, opened))
        nudge = self.template.render([*self._turns, self.template.message("user", _CONTINUE)])
        if nudge is not None and _CONTINUE in nudge:
            gaps.append(self._gap(self._after(nudge, ANSWER), opened))
        check(
            bool(gaps), "tokenizer", "a chat template that opens an assistant's turn after another",
            f"{self.name!r}'s, which does not",
        )  # fmt: skip
        return gaps

    def _gap(self, closing: str, opened: str) -> _Gap:
        """A way on; its end of turn is the first special token, unless that one opens the next turn."""
        ids, ends = self.encode(closing), 0
        if closing != opened:
            found = (
                next((i + 1 for i, token in enumerate(ids) if token in kind), 0) for kind in self._ending_ids(closing)
            )
            ends = next(filter(None, found), 0)
        while ends and ends < len(ids) and ids[ends] in self._last_ends:
            ends += 1  # a template that ends its turns with several tokens
        return _Gap(ids, ends)

    def _feedback_gaps(self) -> list[_Gap]:
        """Ways on with feedback: in the role "tool" where the template knows it, or as a user's turn between tags."""
        if self._with_feedback is None:
            template = self.template

            def as_tool(text: str) -> list[dict[str, Any]]:
                return [*self._turns, template.message("tool", text)]

            def as_user(text: str) -> list[dict[str, Any]]:
                return [*self._turns, template.message("user", _RESPONSE.format(text))]

            ways = [as_tool, as_user] if self._knows_tool_role() else [as_user]
            self._with_feedback = [gap for way in ways if (gap := self._feedback_gap(way)) is not None]
            check(
                bool(self._with_feedback), "tokenizer", "a chat template that shows what follows a turn",
                f"{self.name!r}'s",
            )  # fmt: skip
        return self._with_feedback

    def _feedback_gap(self, way: Callable[[str], list[dict[str, Any]]]) -> _Gap | None:
        rendered = self.template.render(way(FEEDBACK))
        if rendered is None or ANSWER not in rendered:
            return None
        before, found, after = rendered.rpartition(ANSWER)[2].partition(FEEDBACK)
        if not found or not after.endswith(self._opened):
            return None  # after a tool, some templates let the model go on without a turn of its own
        gap = self._gap(before, "")
        return _Gap(gap.closing, gap.ends, self.encode(after), self.template.change(FEEDBACK, way))

    def _knows_tool_role(self) -> bool:
        """Whether the role "tool" is treated in a way of its own, not just written out like any made-up role."""
        tool = self.template.render([*self._turns, self.template.message("tool", FEEDBACK)])
        other = self.template.render([*self._turns, self.template.message("LaphaRole", FEEDBACK)])
        if tool is None or FEEDBACK not in tool or ANSWER not in tool:
            return False
        return other is None or tool != other.replace("LaphaRole", "tool")

    def _ending_ids(self, text: str) -> tuple[frozenset[int], frozenset[int]]:
        """Ids that may end a turn in `text`: special ones first, then other added ones; never one for what is unknown."""
        unknown = getattr(self._tokenizer, "unk_token", None)
        excluded = frozenset() if not unknown or unknown in text else frozenset({self._tokenizer.unk_token_id})
        return self._special - excluded, self.plain_text.added_ids - excluded

    def _special_ids(self) -> frozenset[int]:
        added = getattr(self._tokenizer, "added_tokens_decoder", {})  # some are special without a role of their own
        return frozenset(self._tokenizer.all_special_ids) | {token for token, entry in added.items() if entry.special}


def _opening(prompt: str, turn: str) -> str:
    """What past turns hold between the generation prompt and the text: a channel, or the beginning of their thinking.

    Args:
        prompt: what follows the question at the end of a prompt.
        turn: what stands between the question and the text of a finished turn.
    """
    if not turn.startswith(prompt) or _thinking(prompt) != "none":
        return ""
    lead = turn[len(prompt) :]
    before, thinks, after = lead.partition(_THINK)
    if not thinks:
        return lead
    return before + thinks + ("\n" if after.startswith("\n") else "")


def _thinking(prompt: str) -> str:
    if prompt.rstrip().endswith(_THINK):
        return "open"
    return "closed" if _CLOSED_THINKING.search(prompt) else "none"


def _content(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else content[0]["text"]
