"""`ReasoningEnvironment`: plain chain of thought, for models that were trained on no step protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lapha._checks import check
from lapha.agent.answer_reader import read_answer
from lapha.agent.chat import ChatFormat
from lapha.agent.plain_text import PlainText
from lapha.agent.turn_end import stop_token_ids
from lapha.types import Sample, State, Status, Step, Turn

INSTRUCTION = "Reason step by step, and put the final answer in \\boxed{}."
_ASK = "The final answer is \\boxed{"
REASONING_STEPS = 8
AnswerReader = Callable[[str], "str | None"]


@dataclass(frozen=True, slots=True)
class ReasoningContext:
    """What a node knows: the text of the solution so far, and whether it has been asked for its answer."""

    text: str = ""
    asked: bool = False


class ReasoningEnvironment:
    """A solution is one assistant turn, and a step a piece of it. Implements `lapha.types.Environment`.

    A step ends at a blank line (or another of `breaks`), at the model's own end of turn, or at its length. A state has
    answered as soon as `answer_reader` finds an answer in the solution. Where the turn, the depth or the context ends
    without one, the model is asked for it once: the next step begins with "The final answer is \\boxed{".

    Args:
        tokenizer: a transformers tokenizer; without a chat template the question stands alone, as for a base model.
        depth_limit: most steps before the answer is asked for, ≥ 1.
        context_limit: most tokens of a context, ≥ 1.
        system_prompt: the instruction; "" for none.
        breaks: texts that end a step: it ends with the first token that holds one.
        answer_reader: finds the final answer in a solution, or returns None.
        template_options: variables of the chat template.

    Attributes:
        depth_limit: the depth at which a state ends: the step that is asked for its answer included.

    Raises:
        ValueError: a limit below 1.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        depth_limit: int = REASONING_STEPS,
        context_limit: int = 4096,
        system_prompt: str = INSTRUCTION,
        breaks: tuple[str, ...] = ("\n\n",),
        answer_reader: AnswerReader = read_answer,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        check(depth_limit >= 1, "depth_limit", "an integer >= 1", depth_limit)
        check(context_limit >= 1, "context_limit", "an integer >= 1", context_limit)
        self.tokenizer = tokenizer
        self.depth_limit = depth_limit + 1
        self.context_limit = context_limit
        self._reader = answer_reader
        self._system_prompt = system_prompt
        chat = bool(getattr(tokenizer, "chat_template", None))
        self._chat = ChatFormat(tokenizer, template_options) if chat else None
        self._plain_text = PlainText(tokenizer)
        self._ends = stop_token_ids(tokenizer)
        self._break_ids = _tokens_with(tokenizer, breaks) - self._ends
        self._brace_ids = _tokens_with(tokenizer, ("}",)) - self._ends

    def start(self, question: str) -> tuple[State, Turn]:
        """The root: the prompt.

        Raises:
            ValueError: the question is blank, or its prompt leaves no room for a step and an answer.
        """
        check(
            isinstance(question, str) and bool(question.strip()), "question", "text that is not blank", repr(question)
        )
        if self._chat is not None:
            ids = self._chat.prompt_ids(question, self._system_prompt)
        else:
            head = f"{self._system_prompt}\n\n" if self._system_prompt else ""
            ids = self._encode(head) + self._plain_text.encode(question) + self._encode("\n\n")
        room = len(self._question(()))
        check(
            len(ids) + room < self.context_limit,
            "question",
            f"a prompt shorter than context_limit = {self.context_limit}, with room for the answer",
            f"{len(ids)} tokens",
        )
        return State(ids), Turn(context=ReasoningContext(), stop_token_ids=tuple(sorted(self._break_ids)))

    async def step(self, turn: Turn, sample: Sample, depth: int) -> Step:
        """Read one piece of a solution; `Step.well_formed` says that it holds an answer that was not asked for, or goes on."""
        context: ReasoningContext = turn.context
        ended = bool(sample.token_ids) and sample.token_ids[-1] in self._ends
        piece = self.tokenizer.decode(
            sample.token_ids[:-1] if ended else sample.token_ids,
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        text = context.text + (_ASK if context.asked else "") + piece
        shown = _ASK + piece if context.asked else piece
        answer = self._reader(text + "}" if context.asked and "}" not in piece else text)
        if answer is not None:
            return Step(Status.ANSWERED, shown, answer, not context.asked, Turn())
        question = self._question(sample.token_ids)
        room = self.context_limit - len(sample.state.token_ids) - len(question)
        if context.asked or room < 1:
            return Step(Status.CONTEXT_LIMIT if room < 1 else Status.DEPTH_LIMIT, shown, None, False, Turn())
        after = replace(context, text=text)
        if ended or depth >= self.depth_limit - 1 or room <= len(sample.token_ids):
            stops = tuple(sorted(self._brace_ids))
            asked = Turn(question, replace(after, text=text + "\n\n", asked=True), stops)
            return Step(Status.OPEN, shown, None, False, asked, {"asked": 1})
        return Step(Status.OPEN, shown, None, True, Turn((), after, tuple(sorted(self._break_ids))))

    def close(self, turn: Turn) -> None:
        """Nothing is held."""

    def _question(self, token_ids: Any) -> tuple[int, ...]:
        """What asks for the answer after a solution that ends with `token_ids`."""
        if token_ids and token_ids[-1] in self._ends and self._chat is not None:
            return self._chat.bridge(token_ids) + self._encode(_ASK)
        return self._encode("\n\n" + _ASK)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()


def _tokens_with(tokenizer: Any, texts: tuple[str, ...]) -> frozenset[int]:
    """Tokens whose own text holds one of `texts`."""
    ids = list(range(len(tokenizer)))
    spelled = tokenizer.batch_decode([[token] for token in ids], clean_up_tokenization_spaces=False)
    return frozenset(token for token, text in zip(ids, spelled) if any(one in text for one in texts))
