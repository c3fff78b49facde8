"""Reading servers' answers: nothing is believed that was not checked, and a bad answer is that server's failure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lapha.engines.errors import BadAnswerError

_LARGEST_ID = 2**31 - 1
_ROUNDING = 1e-4  # servers compute log-probabilities in half precision: a certain token may come out just above 0


@dataclass(frozen=True, slots=True)
class Completion:
    """One continuation as a server gave it.

    Attributes:
        text: the text, or None where the server sends ids alone.
        token_ids: the sampled ids, or None where the server sends text alone.
        logprobs: of each sampled token, ≤ 0; None where the server gives none.
        stopped: whether it ended by itself rather than by its length.
    """

    text: str | None
    token_ids: list[int] | None
    logprobs: list[float] | None
    stopped: bool


def bad_answer(what: str, wanted: str, got: Any) -> BadAnswerError:
    """The error for an answer that cannot be: another server, or the same one later, may do better."""
    text = repr(got)
    return BadAnswerError(f"{what}: expected {wanted}, got {text if len(text) <= 80 else text[:79] + '…'}")


def must(condition: bool, what: str, wanted: str, got: Any) -> None:
    """Raise `bad_answer` unless `condition` holds."""
    if not condition:
        raise bad_answer(what, wanted, got)


def member(answer: Any, name: str, kind: type | tuple[type, ...], what: str) -> Any:
    """`answer[name]`, which must be there and of a kind."""
    must(isinstance(answer, Mapping), what, "an object", answer)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join(one.__name__ for one in kinds)
    must(name in answer, f"{what}.{name}", expected, "nothing")
    value = answer[name]
    must(isinstance(value, kinds) and not isinstance(value, bool), f"{what}.{name}", expected, value)
    return value


def choices_of(answer: Any, count: int) -> list[Mapping[str, Any]]:
    """The choices of an OpenAI-like answer, by index: `count` of them, each once.

    Raises:
        BadAnswerError: the answer has another form.
    """
    choices = member(answer, "choices", list, "answer")
    must(len(choices) == count, "choices", f"{count} continuations", len(choices))
    ordered: list[Mapping[str, Any] | None] = [None] * count
    for choice in choices:
        index = member(choice, "index", int, "choice")
        must(0 <= index < count and ordered[index] is None, "choice.index", f"each of 0 … {count - 1} once", index)
        ordered[index] = choice
    return [choice for choice in ordered if choice is not None]


def token_ids_of(value: Any, most: int, what: str) -> list[int]:
    """Token ids: 1 to `most` integers that are no negative numbers.

    Raises:
        BadAnswerError: something else.
    """
    must(isinstance(value, list), what, "a list of token ids", value)
    must(1 <= len(value) <= most, what, f"1 to {most} tokens, as asked", f"{len(value)} tokens")
    for place, token in enumerate(value):
        good = isinstance(token, int) and not isinstance(token, bool) and 0 <= token <= _LARGEST_ID
        must(good, f"{what}[{place}]", "a token id", token)
    return value


def logprobs_of(value: Any, count: int, what: str) -> list[float]:
    """Log-probabilities: `count` finite numbers that are not above 0.

    Raises:
        BadAnswerError: something else.
    """
    must(isinstance(value, list) and len(value) == count, what, f"{count} log-probabilities", value)
    for place, number in enumerate(value):
        good = isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
        must(good and number <= _ROUNDING, f"{what}[{place}]", "a finite number <= 0", number)
    return [min(float(number), 0.0) for number in value]


def finish_of(value: Any, what: str) -> bool:
    """Whether a continuation ended by itself.

    Raises:
        BadAnswerError: a reason for which it cannot be used, or none.
    """
    must(value in ("stop", "length"), what, "'stop' or 'length'", value)
    return value == "stop"


def read_completions(answer: Any, count: int, max_tokens: int) -> list[Completion]:
    """`count` continuations of at most `max_tokens` tokens, with ids and log-probabilities, as vLLM sends them.

    Raises:
        BadAnswerError: the answer has another form, or numbers that cannot be.
    """
    found = []
    for choice in choices_of(answer, count):
        must(
            choice.get("token_ids") is not None, "choice.token_ids",
            "token ids and as many log-probabilities (is the server vLLM, with return_token_ids?)", "none",
        )  # fmt: skip
        ids = token_ids_of(choice["token_ids"], max_tokens, "choice.token_ids")
        table = member(choice, "logprobs", Mapping, "choice")  # type: ignore[type-abstract]
        logprobs = logprobs_of(table.get("token_logprobs"), len(ids), "choice.logprobs.token_logprobs")
        found.append(Completion(None, ids, logprobs, finish_of(choice.get("finish_reason"), "choice.finish_reason")))
    return found


def rows_of(answer: Any, count: int, size: int, decode: Any, what: str) -> list[Any]:
    """One vector of `size` finite numbers a state, by index, from an embedding answer.

    Args:
        answer: the server's.
        count: number of states.
        size: length of a vector.
        decode: turns an item's member `what` into an array.
        what: ``"data"`` or ``"embedding"``.

    Raises:
        BadAnswerError: the answer has another form.
    """
    items = member(answer, "data", list, "answer")
    must(len(items) == count, "data", f"{count} vectors", len(items))
    rows: list[Any] = [None] * count
    for item in items:
        index = member(item, "index", int, "data")
        must(0 <= index < count and rows[index] is None, "data.index", f"each of 0 … {count - 1} once", index)
        try:
            row = decode(item[what])
        except (KeyError, TypeError, ValueError) as problem:
            raise bad_answer(f"data[{index}].{what}", f"{size} numbers", str(problem)) from problem
        must(
            getattr(row, "shape", None) == (size,), f"data[{index}].{what}",
            f"one vector of {size} numbers (is the server started with MEAN pooling, and is the value head this model's?)",
            f"shape {getattr(row, 'shape', None)}",
        )  # fmt: skip
        must(bool(abs(row).sum() < math.inf), f"data[{index}].{what}", "finite numbers", "NaN or infinite ones")
        rows[index] = row
    return rows
