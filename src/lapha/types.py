"""The records and protocols at lapha's seams.

Search meets the world through three protocols, so that users can bring their own:

* `Policy` samples n continuations of a token prefix, with log-probabilities;
* `Evaluator` gives the pooled hidden state h(s) and the value v̂(s) of states;
* `Environment` turns a question into a prompt and a sampled step into what follows it.

None of them has a parameter through which a gold answer could enter: verification belongs to training and to
grading, outside the search (see `docs/search.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import torch

from lapha._options import check_options, documented, option


class Status(IntEnum):
    """What a node of a search tree is. Only `OPEN` nodes can be expanded."""

    OPEN = 0
    ANSWERED = 1  # the step holds a final answer
    DEPTH_LIMIT = 2  # no step is left
    ECHO = 3  # the step repeats a passage or a tool call that the context already holds
    CONTEXT_LIMIT = 4  # prompt and completion fill the model's context
    FAILED = 5  # the environment could not go on from here; the reason is in the node's text

    @property
    def terminal(self) -> bool:
        return self is not Status.OPEN


@documented
@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How a policy samples one step.

    Raises:
        ValueError: a value of another type or outside its range.
    """

    max_tokens: int = option(1024, "Most tokens of one step.", ge=1)
    temperature: float = option(0.7, "Sampling temperature; 0 takes the most likely token.", ge=0)
    top_p: float = option(0.8, "Nucleus mass.", gt=0, le=1)
    top_k: int = option(20, "Most likely tokens kept; 0 keeps all.", ge=0)
    repetition_penalty: float = option(1.05, "Repetition penalty; 1 leaves logits alone.", gt=0)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class State:
    """A state s: everything the model has read and written, up to the end of its last completed step.

    Attributes:
        token_ids: the whole context as token ids. Contexts only ever append: a child's ids start with its parent's.
        handle: what the engine keeps for this state (KV cache segment, running sum of hidden states), or None.
            It is an optimisation: a state without a handle means the same thing.
    """

    token_ids: tuple[int, ...]
    handle: Any = field(
        default=None, repr=False
    )  # a repr of a whole path's tensors takes seconds, and asyncio makes them


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """Ask a policy for `n` continuations of one state.

    Attributes:
        state: the state to continue.
        bridge_ids: tokens to append to the state before sampling (tool feedback, the next turn's opening, the
            pre-filled step header). They are part of the child states, and are not sampled.
        n: number of continuations, ≥ 1.
        params: sampling parameters.
        seed: 63-bit seed of this request; a policy that is deterministic returns the same samples for the same
            request whatever else is in its batch.
        name: says which request this is, in error messages and logs.
        stop_token_ids: tokens that end these continuations too, beside those at which the policy stops anyway.
    """

    state: State
    bridge_ids: tuple[int, ...]
    n: int
    params: SamplingParams
    seed: int
    name: str = ""
    stop_token_ids: tuple[int, ...] = ()


@dataclass(slots=True)
class Sample:
    """One sampled continuation.

    Attributes:
        token_ids: sampled tokens, up to and including the first end-of-sequence token.
        logprobs: log-probability of each sampled token under the model at temperature 1, same length.
        text: the decoded completion, without special tokens that end it.
        finish_reason: ``"stop"`` (the model ended its step) or ``"length"``.
        state: the child state: parent ids + bridge ids + token ids.
        pooled: (H,) float32 h(s) of the child state if the policy has it at no extra cost, else None.
    """

    token_ids: list[int]
    logprobs: list[float]
    text: str
    finish_reason: str
    state: State
    pooled: torch.Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """h(s) and v̂(s) of one state.

    Attributes:
        pooled: (H,) float32 mean of the last hidden states over the state's tokens, on the CPU or the device; None where
            the evaluator knows none: all states of the tree then lie at the origin.
        value: v̂(s) in [0, 1]; NaN where it is not known.
    """

    pooled: torch.Tensor | None = field(repr=False)
    value: float


@runtime_checkable
class Policy(Protocol):
    """Samples continuations of token prefixes."""

    async def sample(self, request: SampleRequest) -> list[Sample]:
        """Return `request.n` continuations. Requests that arrive together should be batched."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Gives h(s) and v̂(s) of states."""

    async def evaluate(self, states: Sequence[State]) -> list[Evaluation]:
        """Evaluate states, in order. Must be exact: the same state gives the same h(s) by any road."""
        ...


@dataclass(slots=True)
class Turn:
    """What the environment makes of a context: the agent's side of a node.

    Attributes:
        bridge_ids: tokens that open the next step (appended to the node's state before sampling).
        context: whatever the environment needs to carry on from this node (step number, sandbox session, seen
            passages); children get it through `Environment.step`.
        stop_token_ids: tokens that end the next step too, beside those at which the policy stops anyway.
    """

    bridge_ids: tuple[int, ...] = ()
    context: Any = None
    stop_token_ids: tuple[int, ...] = ()


@dataclass(slots=True)
class Step:
    """What one sampled step turned out to be.

    Attributes:
        status: `Status.OPEN` if the tree can grow from here.
        text: the step as a person reads it, header included.
        answer: the final answer's text if the step answers, else None.
        well_formed: whether the step follows the protocol: the formatting bonus b(j) of the process reward.
        turn: how to carry on; its bridge is empty for a terminal step.
        details: counters for the run's statistics, such as ``{"tool_error": 1}``.
        reward: what the step itself earned (a test run, a game's score: known at test time), or None; it is backed up
            along the path together with the values of what follows.
    """

    status: Status
    text: str
    answer: str | None
    well_formed: bool
    turn: Turn
    details: dict[str, int] = field(default_factory=dict)
    reward: float | None = None


@runtime_checkable
class Environment(Protocol):
    """The agent protocol: prompts, steps, tools."""

    def start(self, question: str) -> tuple[State, Turn]:
        """The root state (prompt with the generation prompt and the first step's header) and its turn.

        The root's `Turn.bridge_ids` is normally empty: the header is already part of the prompt.

        Raises:
            ValueError: the question cannot be asked (empty, or longer than the context).
        """
        ...

    async def step(self, turn: Turn, sample: Sample, depth: int) -> Step:
        """Read one sampled step taken from a node whose turn is `turn`; `depth` is the child's depth (root: 0)."""
        ...

    def close(self, turn: Turn) -> None:
        """Release what a node's context holds (a sandbox session). Called once a node can grow no more."""
        ...
