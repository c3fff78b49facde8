"""Echo detection: does a step only repeat what its context already holds?

A policy that copies itself would fill the tree with paraphrase-free repetitions; such states are terminal
(`Status.ECHO`). Two rules, both on text, so that every model is judged alike:

* the step calls a tool with exactly the arguments of an earlier call on its path, and the tool gives the same answer: so
  `go("north")` twice, the next page, or another try after a failure goes on, as long as something else comes of it;
* every line of its thinking stands, word for word, in the question, an earlier step or a tool's feedback, and the
  thinking is at least `min_chars` long. Shorter ones may recur in earnest ("go right", then "go right" again).
"""

from __future__ import annotations

from dataclasses import dataclass

from lapha.agent.protocol import ParsedStep

MIN_CHARS = 32


def normalise(text: str) -> str:
    """Case and spacing do not make a passage a new one."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True, slots=True)
class Seen:
    """What the context of a node already holds. Immutable: siblings share their parent's.

    Attributes:
        passages: normalised question, thoughts and feedback, in order.
        calls: (`ToolCall.key`, normalised feedback) of each call made so far.
    """

    passages: tuple[str, ...] = ()
    calls: frozenset[tuple[str, str]] = frozenset()

    def adding(self, parsed: ParsedStep, feedback: str = "") -> Seen:
        """What is seen after this step."""
        new = tuple(passage for passage in (normalise(parsed.thought), normalise(feedback)) if passage)
        call = {(parsed.tool_call.key(), normalise(feedback))} if parsed.tool_call else set()
        return Seen(self.passages + new, self.calls | call)

    def answered_alike(self, parsed: ParsedStep, feedback: str) -> bool:
        """Whether the step's call was made before and brought this very feedback."""
        return parsed.tool_call is not None and (parsed.tool_call.key(), normalise(feedback)) in self.calls

    def repeated_by(self, parsed: ParsedStep, min_chars: int = MIN_CHARS) -> bool:
        """Whether the step only thinks, and only what this context already holds."""
        lines = [line for line in map(normalise, parsed.thought.splitlines()) if line]
        if sum(map(len, lines)) < max(min_chars, 1):
            return False
        # a step that reasons no further, but calls a tool in a new way, goes on
        if parsed.kind != "think":
            return False
        return all(any(line in passage for passage in self.passages) for line in lines)
