"""What a search asks of the outside world, bound together: engine, environment, the caller's two hooks, budgets."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lapha.search.seams import checked_sample
from lapha.tree import SearchTree
from lapha.types import Environment, Evaluation, Evaluator, Policy, Sample, SampleRequest, Step

# the value of a terminal node: by default the evaluator's own estimate; training closes over what it knows
TerminalValue = Callable[[SearchTree, int, Evaluation], float] | Callable[[SearchTree, int, Evaluation, Step], float]
NodeValue = Callable[[SearchTree, int, Evaluation, Step], float]
# whether a tree may end early, asked after every simulation
Stop = Callable[[SearchTree], bool]


def seeing_steps(hook: TerminalValue) -> NodeValue:
    """`hook`, called with the environment's `Step` too: as a fourth argument where it takes one."""
    try:
        inspect.signature(hook).bind(None, 0, None, None)
    except TypeError:
        return lambda tree, node, evaluation, step: hook(tree, node, evaluation)  # type: ignore[call-arg]
    except ValueError:  # a builtin without a signature
        return lambda tree, node, evaluation, step: hook(tree, node, evaluation)  # type: ignore[call-arg]
    return hook  # type: ignore[return-value]


def never(tree: SearchTree) -> bool:
    """The default `stop`: a tree ends by its budget."""
    return False


@dataclass
class RunMeter:
    """Counts and times of one run; its budgets end all trees.

    Attributes:
        max_tokens: no expansion starts once the run has sampled so many tokens; None for no limit.
        deadline: `time.monotonic()` at which the run's trees end; None for no limit.
        trees, failed, nodes, tokens, simulations: of trees that have ended (tokens: sampled so far by all).
        resumed: trees taken from the journal rather than searched.
        policy_idle_s: seconds during which no request was with the policy.
        seconds: from start to end of the run.
    """

    max_tokens: int | None = None
    deadline: float | None = None
    trees: int = 0
    failed: int = 0
    resumed: int = 0
    nodes: int = 0
    tokens: int = 0
    simulations: int = 0
    policy_idle_s: float = 0.0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    _in_flight: int = 0
    _idle_since: float | None = None

    def __post_init__(self) -> None:
        self._idle_since = self.started

    def spent(self) -> str | None:
        """The run's budget that is used up, as a stop reason, or None."""
        if self.max_tokens is not None and self.tokens >= self.max_tokens:
            return "run_max_tokens"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "run_deadline"
        return None

    def request_starts(self) -> None:
        if self._in_flight == 0 and self._idle_since is not None:
            self.policy_idle_s += time.monotonic() - self._idle_since
            self._idle_since = None
        self._in_flight += 1

    def request_ends(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle_since = time.monotonic()

    def finish(self) -> None:
        """Close the books."""
        now = time.monotonic()
        if self._idle_since is not None:
            self.policy_idle_s += now - self._idle_since
            self._idle_since = None
        self.seconds = now - self.started


@dataclass(frozen=True)
class Services:
    """Everything one tree needs besides its question and settings."""

    policy: Policy
    evaluator: Evaluator
    environment: Environment
    terminal_value: NodeValue
    stop: Stop
    meter: RunMeter

    async def sample(self, request: SampleRequest) -> list[Sample]:
        """Ask the policy, and check what it returns.

        Raises:
            ValueError: another number of samples, states that do not append, or log-probabilities that cannot be.
        """
        self.meter.request_starts()
        try:
            samples = await self.policy.sample(request)
        finally:
            self.meter.request_ends()
        samples = [checked_sample(sample, request, index) for index, sample in enumerate(samples)]
        if len(samples) != request.n:
            raise ValueError(f"policy: expected {request.n} samples for {request.name}, got {len(samples)}")
        self.meter.tokens += sum(len(sample.token_ids) for sample in samples)
        return samples
