"""Tree rollouts for TRL: a `rollout_func` that grows one tree a question and returns sibling groups."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lapha._checks import check
from lapha.agent import ChatEnvironment
from lapha.engines import TransformersEngine
from lapha.errors import VerifierError as VerifierError
from lapha.integrations.trl.generation import live_engine, unwrapped_policy
from lapha.integrations.trl.policy_density import (
    LogprobsMode,
    RawLogprobs,
    comparable_logprobs,
    completion_logits,
    logprobs_mode,
)
from lapha.integrations.trl.prompts import Conversation, question_of
from lapha.integrations.trl.statistics import audit_statistics, rollout_statistics
from lapha.search import Search, SearchConfig
from lapha.shaping import (
    Auditor,
    ShapedTree,
    ShapingConfig,
    SiblingGroup,
    TreeRow,
    Verifier,
    rows_of_group,
    shape_trees,
)
from lapha.tree import SearchTree
from lapha.types import Environment, Evaluation, SamplingParams, Status

logger = logging.getLogger(__name__)


class TreeRollout:
    """Grows a tree for every question and hands TRL groups of siblings with their process rewards.

    A TRL group (``num_generations`` rows of one prompt) becomes one slot: the children of one state. A tree fills its own
    slot with its best group. In `LaPhaTrainer` the slots of trees without signal are filled with further groups of other
    trees; the stock trainer's reward functions get the data set's columns by slot, so that there nothing is lent. What
    stays empty is returned with NaN rewards, which TRL gives no gradient. Every process searches its own questions.

    While the trainer evaluates, trees grow as at test time: no verdict guides or ends them, leaves are graded
    afterwards, and ``num_generations_eval`` is their breadth.

    Args:
        verifier: ``(question, answer) -> reward in [0, 1]``, or None where it cannot grade.
        search: how trees grow; its breadth must be the trainer's ``num_generations``. Steps are sampled as the trainer's
            arguments say (temperature, top_p, top_k, repetition_penalty, max_completion_length): what is trained is the
            distribution that is sampled. ``first_chain`` and ``merge_twins`` are off whatever it says: a sibling group is
            independent samples.
        shaping: how verdicts become rewards.
        num_positive: stop a tree after so many correct leaves; 0 never.
        concurrency: trees in flight at once.
        environment: ``tokenizer -> Environment``; default: the engine's chat environment.
        max_verifier_errors: share of a batch's answers on which the verifier may raise, in [0, 1]. Those are logged and
            count as answers that could not be graded; more stop the training.

    Raises:
        ValueError: breadth differs from ``num_generations``, a group is split across processes, or `search` asks for
            another sampling than the trainer.
        VerifierError: (from a call) the verifier raised on more than `max_verifier_errors` of a batch's answers.
    """

    def __init__(
        self,
        verifier: Verifier,
        *,
        search: SearchConfig | None = None,
        shaping: ShapingConfig | None = None,
        num_positive: int = 1,
        concurrency: int = 64,
        environment: Callable[[Any], Environment] | None = None,
        max_verifier_errors: float = 0.1,
    ) -> None:
        check(callable(verifier), "verifier", "a callable (question, answer) -> reward", type(verifier).__name__)
        check(num_positive >= 0, "num_positive", "an integer >= 0", num_positive)
        self.verifier = verifier
        # a sibling group is `breadth` independent samples of the policy that is trained
        search = search or SearchConfig(simulations=24, breadth=6, prune_every=8)
        self.search = dataclasses.replace(search, first_chain=False, merge_twins=False)
        self.shaping = shaping or ShapingConfig(breadth=self.search.breadth)
        check(
            self.shaping.breadth == self.search.breadth,
            "shaping.breadth",
            f"the search's breadth {self.search.breadth}",
            self.shaping.breadth,
        )
        check(0 <= max_verifier_errors <= 1, "max_verifier_errors", "a share in [0, 1]", max_verifier_errors)
        self.num_positive = num_positive
        self.concurrency = concurrency
        self.max_verifier_errors = max_verifier_errors
        self.environment = environment
        self.rows: list[TreeRow] = []
        self.trees: list[ShapedTree] = []
        self.statistics: dict[str, float] = {}
        self._calls = (-1, True, 0)
        self._auditor: Auditor | None = None
        self._verdicts: dict[tuple[str, str], float | None] = {}
        self._errors: list[Exception] = []
        self._mode: LogprobsMode | None = None

    def __call__(self, prompts: list, trainer: Any) -> dict[str, Any]:
        """TRL's rollout function: as many rows as prompts, each run of `num_generations` rows a sibling group."""
        training = bool(trainer.model.training)
        size = trainer.num_generations if training else trainer.num_generations_eval
        breadth = self.search.breadth
        check(not training or size == breadth, "num_generations", f"the search's breadth {breadth}", size)
        name = "num_generations" if training else "num_generations_eval"
        check(len(prompts) % size == 0, "prompts", f"a multiple of {name} ({size}) on every process", len(prompts))
        questions = [question_of(prompt) for prompt in prompts[::size]]
        self.trees = self.grow(questions, trainer)
        self.rows = fill_slots(self.trees, size, lend=getattr(trainer, "lends_slots", False))
        self.statistics |= rollout_statistics(self.trees, self.rows)
        output = {
            "prompt_ids": [row.prompt_ids for row in self.rows],
            "completion_ids": [row.completion_ids for row in self.rows],
            "logprobs": self._told(trainer) if trainer.use_vllm else None,
            "process_reward": [row.reward for row in self.rows],
            "question": [row.question for row in self.rows],
        }
        if trainer.log_completions:
            output["context"] = trainer.processing_class.batch_decode(output["prompt_ids"])
        return output

    def grow(self, questions: list[str], trainer: Any) -> list[ShapedTree]:
        """Search every question with the trainer's current policy and shape the trees, in question order.

        In training, verdicts are the values of leaves that end, and may end a tree. In evaluation they are neither.
        """
        self._verdicts.clear()
        self._errors.clear()
        training = bool(trainer.model.training)
        config = dataclasses.replace(self.search, seed=self._seed(trainer), sampling=self._sampling(trainer))
        hooks: dict[str, Any] = {"terminal_value": self._terminal_value, "stop": self._stop}
        shaping = self.shaping
        if not training:
            hooks, breadth = {}, trainer.num_generations_eval
            config = dataclasses.replace(config, breadth=breadth)
            shaping = dataclasses.replace(shaping, breadth=max(breadth, 2))
        began = time.perf_counter()
        with live_engine(trainer) as (engine, model):
            policy: Any = engine
            if trainer.use_vllm and self._logprobs_mode(trainer) == "processed_logprobs":
                policy = RawLogprobs(engine, completion_logits(model, trainer.accelerator.autocast))
            search = Search(policy, environment=self._environment(trainer), config=config, **hooks)
            results = list(search.run(questions, concurrency=self.concurrency))
            seconds = time.perf_counter() - began
            busy = engine.stats.busy_s if isinstance(engine, TransformersEngine) else math.nan
        auditor = self._auditor_of(shaping) if training else None
        trees = shape_trees(
            [result.tree for result in results], [result.latents for result in results], self._verdict, shaping, auditor
        )
        self._check_errors()
        right = [
            float(tree.correct[result.node]) if result.node is not None else 0.0
            for tree, result in zip(trees, results, strict=True)
        ]
        self.statistics = {
            "rollout_seconds": seconds,
            "engine_idle": max(1 - busy / seconds, 0.0),
            "verifier_errors": float(len(self._errors)),
            "accuracy": sum(right) / len(right),
        }
        if auditor is not None:
            self.statistics |= audit_statistics(auditor.audit)
        return trees

    def context_tokens(self, tokenizer: Any) -> Callable[[str], int]:
        """``question -> tokens of the context that its tree starts with``; raises ValueError where it cannot be asked."""
        environment = self.environment(tokenizer) if self.environment else ChatEnvironment(tokenizer)

        def tokens(question: str) -> int:
            refuse_lost_messages(question, environment)
            state, turn = environment.start(question)
            environment.close(turn)
            return len(state.token_ids)

        return tokens

    def _environment(self, trainer: Any) -> Environment | None:
        return self.environment(trainer.processing_class) if self.environment else None

    def _sampling(self, trainer: Any) -> SamplingParams:
        """The trainer's own, so that what is trained is what is sampled.

        Raises:
            ValueError: `search` names another sampling.
        """
        args = trainer.args
        own = SamplingParams(
            max_tokens=args.max_completion_length,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            repetition_penalty=args.repetition_penalty,
        )
        same = self.search.sampling in (own, SearchConfig().sampling)
        check(same, "search.sampling", f"the trainer's {own}, or none", self.search.sampling)
        return own

    def _logprobs_mode(self, trainer: Any) -> LogprobsMode:
        if self._mode is None:
            self._mode = logprobs_mode(trainer)
        return self._mode

    def _told(self, trainer: Any) -> list[list[float]]:
        """What TRL is told that vLLM logged (see `policy_density`)."""
        if not trainer.vllm_importance_sampling_correction:
            return [row.logprobs for row in self.rows]
        with unwrapped_policy(trainer) as model:
            logits = completion_logits(model, trainer.accelerator.autocast)
            return comparable_logprobs(self.rows, logits, trainer.temperature)

    def _auditor_of(self, shaping: ShapingConfig) -> Auditor | None:
        """What decides ``process_reward="auto"``; it remembers this process's latest trees."""
        if shaping.reward == "auto" and self._auditor is None:
            self._auditor = Auditor(shaping)
        return self._auditor

    def _seed(self, trainer: Any) -> int:
        """Follows from the step, so that a resumed run grows the trees that the uninterrupted one would have grown."""
        step, training = trainer.state.global_step, bool(trainer.model.training)
        again = self._calls[2] + 1 if self._calls[:2] == (step, training) else 0
        self._calls = (step, training, again)
        parts = [self.search.seed, step, training, again, trainer.accelerator.process_index]
        return int(np.random.SeedSequence(parts).generate_state(1)[0])

    def _verdict(self, question: str, answer: str) -> float | None:
        key = (question, answer)
        if key not in self._verdicts:
            try:
                self._verdicts[key] = self.verifier(question, answer)
            except Exception as error:  # noqa: BLE001 - the user's code; counted, and an end of the training above a set share
                logger.warning("the verifier raised on answer %r to %r: %r", answer, question, error)
                self._errors.append(error)
                self._verdicts[key] = None
            verdict = self._verdicts[key]
            good = verdict is None or 0 <= float(verdict) <= 1
            check(good, "verifier", "a reward in [0, 1] or None", f"{verdict!r} for answer {answer!r}")
        return self._verdicts[key]

    def _check_errors(self) -> None:
        failed, asked = len(self._errors), len(self._verdicts)
        if failed > self.max_verifier_errors * asked:
            message = f"the verifier raised on {failed} of {asked} answers (max_verifier_errors = {self.max_verifier_errors:g})"
            raise VerifierError(f"{message}; the first time: {self._errors[0]!r}") from self._errors[0]

    def _terminal_value(self, tree: SearchTree, node: int, evaluation: Evaluation) -> float:
        answer = tree.answer[node]
        return (self._verdict(tree.question, answer) or 0.0) if answer is not None else 0.0

    def _stop(self, tree: SearchTree) -> bool:
        if not self.num_positive:
            return False
        answered = np.flatnonzero(tree.status == Status.ANSWERED)
        answers = (tree.answer[node] for node in answered)
        good = sum(
            (self._verdict(tree.question, a) or 0.0) >= self.shaping.correct_at for a in answers if a is not None
        )
        return good >= self.num_positive

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "rows": [], "trees": []}


def refuse_lost_messages(question: str, environment: Environment) -> None:
    """Refuse a conversation that the environment would cut down to its last message.

    Raises:
        ValueError: the environment does not say that it takes conversations.
    """
    kept = not isinstance(question, Conversation) or getattr(environment, "takes_conversations", False)
    check(
        kept, "prompt", f"a single user message, which is all that {type(environment).__name__} takes (it has no attribute "
        "takes_conversations)", "a conversation of more",
    )  # fmt: skip


def fill_slots(trees: list[ShapedTree], size: int, *, lend: bool = True) -> list[TreeRow]:
    """One sibling group per tree, in order; with `lend`, trees without one lend their slot to others' further groups.

    A slot that stays empty holds the tree's first `size` siblings with NaN rewards: they feed the value loss where
    the tree has targets, and nothing where it has none.
    """
    spare = iter([(tree, group) for tree in trees for group in tree.groups[1:]] if lend else [])
    rows: list[TreeRow] = []
    for tree in trees:
        chosen = (tree, tree.groups[0]) if tree.groups else next(spare, None)
        rows += rows_of_group(*chosen)[:size] if chosen else placeholder_rows(tree, size)
    return rows


def placeholder_rows(tree: ShapedTree, size: int) -> list[TreeRow]:
    """`size` rows of `tree` that carry no policy signal: siblings, one after the other, as often as it takes.

    A tree that could not be expanded gives its prompt, the last token of it as the completion.
    """
    siblings = max(tree.tree.siblings(), key=lambda entry: len(entry[1][:size]), default=None)
    if siblings is None or not siblings[1]:
        root = list(tree.tree.tokens[0])
        alone = TreeRow(
            root[:-1], root[-1:], [0.0], math.nan, math.nan, [len(root)], [float(tree.value_target[0])], tree.tree.question
        )  # fmt: skip
        rows = [alone]
    else:
        parent, children = siblings
        rows = rows_of_group(tree, SiblingGroup(parent, torch.tensor(children[:size])), policy=False)
    again = [dataclasses.replace(row, value_targets=[math.nan] * len(row.value_targets)) for row in rows]
    return (rows + again * size)[:size]
