"""The five modes of answering a question, compared at the same number of sampled tokens.

A mode never sees a gold answer: it returns what it would answer, and grading happens elsewhere.

* ``single``: one chain of most likely steps, without tools;
* ``react``: one sampled chain, with the environment's tools;
* ``value``: value-guided search;
* ``majority``, ``best-of-n``: independent sampled chains, the most frequent answer, or the chain whose end the value
  head likes best (without a head: the chain with the highest mean log-probability a token). They sample until they have
  used the tokens that ``value`` used on the same question: the last chain is finished, so they get no fewer.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lapha._checks import check, check_choice
from lapha.evaluation.grading.spelling import normalize_answer
from lapha.search import AnswerRule, Search, SearchConfig, SearchResult, answer_rule
from lapha.search.answers import Canonical, best_by_logprob
from lapha.tree.rewind import rewind
from lapha.types import Environment, Evaluator, Policy

MODES = ("single", "react", "value", "majority", "best-of-n")
CHAIN_MODES = ("majority", "best-of-n")
BEST_BY = ("value", "logprob")
_LONGEST_CHAIN = 1000  # steps, where the environment alone knows a limit


@dataclass(frozen=True)
class Outcome:
    """What one mode made of one question.

    Attributes:
        index: the question's place.
        mode: one of `MODES`.
        answer: the answer given, or None.
        value: v̂ in [0, 1] of the leaf that gave it; NaN without one.
        answers: every chain's answer, or every answering leaf's, for pass@k (None where a chain has none).
        values: v̂ of those, same length.
        tokens: tokens sampled.
        seconds: wall-clock seconds since the mode's previous outcome. Questions run together, so their mean is the
            time per problem, and a single one means little.
        error: what went wrong, or None.
    """

    index: int
    mode: str
    answer: str | None
    value: float
    answers: tuple[str | None, ...]
    values: tuple[float, ...]
    tokens: int
    seconds: float
    error: str | None = None


class ModeRunner:
    """Answers questions in several modes with one policy.

    Args:
        policy: samples steps; also the evaluator and the environment unless those are given.
        config: the search of ``value``; chains take its sampling parameters and its depth limit.
        evaluator: gives h(s) and v̂(s).
        environment: the agent's, with its tools.
        plain_environment: of ``single``, without tools; default: `environment`.
        concurrency: trees and chains in flight at once, ≥ 1.
        best_by: what best-of-n ranks chains by, a name in `BEST_BY`: ``"value"``, v̂ of the chain's end, or
            ``"logprob"``, its mean log-probability a token, for a policy whose v̂ says nothing.
        canonical: maps an answer to what makes two answers the same, for ``majority`` and the search's own rule; default:
            spelling. `lapha.evaluation.grading.voting_math` knows mathematics.
        on_outcome: called with every outcome as it comes.
        on_search: called with every search of ``value``, before its outcome.
        on_texts: called before every outcome with its question's place, its mode and what was written: every chain, or the
            path to every answering leaf of a search.
    """

    def __init__(
        self,
        policy: Policy,
        config: SearchConfig,
        *,
        evaluator: Evaluator | None = None,
        environment: Environment | None = None,
        plain_environment: Environment | None = None,
        concurrency: int = 32,
        best_by: str = "value",
        canonical: Canonical = normalize_answer,
        on_outcome: Callable[[Outcome], None] | None = None,
        on_search: Callable[[SearchResult], None] | None = None,
        on_texts: Callable[[int, str, list[str]], None] | None = None,
    ) -> None:
        check(concurrency >= 1, "concurrency", "an integer >= 1", concurrency)
        check_choice(best_by, "best_by", BEST_BY)
        self.policy = policy
        self.config = config
        self.evaluator = evaluator
        self.environment = environment
        self.plain_environment = plain_environment or environment
        self.concurrency = concurrency
        self.best_by = best_by
        self.canonical = canonical
        self.on_outcome = on_outcome or (lambda outcome: None)
        self.on_search = on_search
        self.on_texts = on_texts or (lambda place, mode, texts: None)

    def run(
        self, questions: Sequence[str], modes: Sequence[str] = MODES, *, samples: int | None = None
    ) -> dict[str, list[Outcome]]:
        """Outcomes of each mode, in question order.

        Args:
            questions: what to answer.
            modes: which, in any order.
            samples: chains per question of majority and best-of-n; None for as many as use up the tokens that
                ``value`` used.

        Raises:
            ValueError: an unknown mode, or majority or best-of-n with neither `samples` nor ``value``.
        """
        check_modes(modes, samples)
        outcomes: dict[str, list[Outcome]] = {}
        if "single" in modes:
            outcomes["single"] = self.single(questions)
        if "react" in modes:
            outcomes["react"] = self.react(questions)
        if "value" in modes:
            outcomes["value"] = self.value(questions)
        if set(modes) & set(CHAIN_MODES):
            budgets = None if samples is not None else [outcome.tokens for outcome in outcomes["value"]]
            outcomes |= self.chains(questions, budgets=budgets, samples=samples or 1)
        return {mode: outcomes[mode] for mode in MODES if mode in modes}

    def single(self, questions: Sequence[str]) -> list[Outcome]:
        """One chain of most likely steps per question."""
        greedy = dataclasses.replace(self.config.sampling, temperature=0.0)
        config = dataclasses.replace(self._chain_config(), sampling=greedy)
        return self._searched("single", questions, config, self.plain_environment)

    def react(self, questions: Sequence[str]) -> list[Outcome]:
        """One sampled chain per question."""
        return self._searched("react", questions, self._chain_config(), self.environment)

    def value(self, questions: Sequence[str]) -> list[Outcome]:
        """Value-guided search per question."""
        return self._searched("value", questions, self.config, self.environment, self.on_search)

    def chains(
        self, questions: Sequence[str], *, budgets: Sequence[int] | None = None, samples: int = 1
    ) -> dict[str, list[Outcome]]:
        """Majority vote and best-of-n over the same independent chains.

        Args:
            questions: what to answer.
            budgets: tokens to spend per question, or None.
            samples: chains per question where there are no budgets.
        """
        check(budgets is None or len(budgets) == len(questions), "budgets", f"{len(questions)} numbers", budgets)
        check(samples >= 1, "samples", "an integer >= 1", samples)
        outcomes: dict[str, list[Outcome]] = {mode: [] for mode in CHAIN_MODES}
        choices = (self._most_frequent, _best_valued if self.best_by == "value" else _likeliest)
        for start in range(0, len(questions), self.concurrency):  # what is finished is handed out before more begins
            part = slice(start, start + self.concurrency)
            began = time.perf_counter()
            taken = self._sample_chains(questions[part], None if budgets is None else budgets[part], samples)
            seconds = (time.perf_counter() - began) / len(taken)
            for offset, results in enumerate(taken):
                for mode, choose in zip(CHAIN_MODES, choices):
                    outcome = _outcome_of_chains(start + offset, mode, results, choose(results), seconds)
                    outcomes[mode].append(outcome)
                    self.on_texts(outcome.index, mode, [texts_of(result, chain=True)[0] for result in results])
                    self.on_outcome(outcome)
        return outcomes

    def _sample_chains(
        self, questions: Sequence[str], budgets: Sequence[int] | None, samples: int
    ) -> list[list[SearchResult]]:
        """Chains per question, in rounds until each has spent its budget."""
        taken: list[list[SearchResult]] = [[] for _ in questions]
        wanted = {index: samples if budgets is None else 1 for index in range(len(questions))}
        rounds = 0
        while wanted:
            plan = [index for index, count in sorted(wanted.items()) for _ in range(count)]
            config = dataclasses.replace(self._chain_config(), seed=_seed(self.config.seed, 1 + rounds))
            search = Search(self.policy, self.evaluator, self.environment, config, canonical=self.canonical)
            found = search.run([questions[index] for index in plan], self.concurrency, on_error="record")
            for index, result in zip(plan, found, strict=True):
                taken[index].append(result)
            wanted = {} if budgets is None else _still_wanted(taken, budgets)
            rounds += 1
        if budgets is None:
            return taken
        return [_until_spent(results, budget) for results, budget in zip(taken, budgets)]

    def _most_frequent(self, results: Sequence[SearchResult]) -> SearchResult | None:
        """A chain that gives the most frequent answer, the earliest; ties go to the answer that came first."""
        given = [(self.canonical(result.answer), result) for result in results if result.answer is not None]
        if not given:
            return None
        (winner, _), *_ = Counter(key for key, _ in given).most_common(1)
        return next(result for key, result in given if key == winner)

    def _chain_config(self) -> SearchConfig:
        return dataclasses.replace(
            self.config, simulations=self.config.depth_limit or _LONGEST_CHAIN, breadth=1, max_expands=1,
            selection="frontier", first_chain=False, widening=None, parallel_expansions=1, prune_every=0, max_tokens=None, answer="value",
        )  # fmt: skip

    def _searched(
        self,
        mode: str,
        questions: Sequence[str],
        config: SearchConfig,
        environment: Environment | None,
        on_search: Callable[[SearchResult], None] | None = None,
    ) -> list[Outcome]:
        search = Search(self.policy, self.evaluator, environment, config, canonical=self.canonical)
        outcomes = []
        before = time.perf_counter()
        for result in search.run(list(questions), self.concurrency, on_error="record"):
            now = time.perf_counter()
            outcome = outcome_of_search(result, mode, now - before)
            before = now
            if on_search is not None:
                on_search(result)
            self.on_texts(outcome.index, mode, texts_of(result, chain=config.breadth == 1))
            outcomes.append(outcome)
            self.on_outcome(outcome)
        return outcomes


def check_modes(modes: Sequence[str], samples: int | None) -> None:
    """Raise `ValueError` unless all `modes` are known and the chains among them know how much to sample."""
    for mode in modes:
        check_choice(mode, "modes", MODES)
    wanted = [mode for mode in CHAIN_MODES if mode in modes]
    matched = samples is not None or "value" in modes
    check(matched or not wanted, "samples", f"a number, or mode value to match, for {wanted}", samples)


def texts_of(result: SearchResult, *, chain: bool) -> list[str]:
    """What a search wrote: the chain, with an answer or without; or the path to every answering leaf of a tree."""
    tree = result.tree
    leaves = [len(tree) - 1] if chain else [int(leaf) for leaf in tree.answered()]
    return ["".join(tree.text[node] for node in tree.path(leaf)[1:]) for leaf in leaves]


def outcome_of_search(result: SearchResult, mode: str, seconds: float) -> Outcome:
    """One search as an outcome; its answering leaves are its answers."""
    tree = result.tree
    leaves = tree.answered()
    return Outcome(
        index=result.index,
        mode=mode,
        answer=result.answer,
        value=result.value,
        answers=tuple(tree.answer[leaf] for leaf in leaves),
        values=tuple(float(tree.value[leaf]) for leaf in leaves),
        tokens=tree.sampled_tokens,
        seconds=seconds,
        error=result.error,
    )


def answers_by_simulation(
    result: SearchResult,
    simulations: Sequence[int],
    rule: str | AnswerRule,
    canonical: Canonical = normalize_answer,
) -> list[str | None]:
    """What a finished search would have answered after fewer simulations, without running it again.

    Args:
        result: a search without pruning decisions that depend on later simulations.
        simulations: numbers of simulations, each ≥ 0.
        rule: an answer rule, or the name of one in `lapha.search.ANSWER_RULES`.
        canonical: what makes two answers the same; as the search had it.

    Raises:
        ValueError: unknown rule, or a negative number.
    """
    choose = answer_rule(rule)
    answers = []
    for count in simulations:
        past = rewind(result.tree, count)
        latents = None if result.latents is None else result.latents[: len(past)]
        choice = choose(past, latents, canonical)
        answers.append(None if choice is None else choice.answer)
    return answers


def tokens_by_simulation(result: SearchResult, simulations: Sequence[int]) -> list[int]:
    """Tokens that the search had sampled after so many simulations."""
    return [rewind(result.tree, count).sampled_tokens for count in simulations]


def _seed(seed: int, stream: int) -> int:
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0])


def _spent(results: Sequence[SearchResult]) -> int:
    return sum(max(1, result.tree.sampled_tokens) for result in results)  # an empty chain still counts: rounds end


def _still_wanted(taken: Sequence[Sequence[SearchResult]], budgets: Sequence[int]) -> dict[int, int]:
    """How many further chains each question needs, by the mean length of its chains so far."""
    wanted = {}
    for index, (results, budget) in enumerate(zip(taken, budgets)):
        left = budget - _spent(results)
        if left > 0:
            wanted[index] = math.ceil(left / (_spent(results) / len(results)))
    return wanted


def _until_spent(results: Sequence[SearchResult], budget: int) -> list[SearchResult]:
    """The first chains, up to and including the one that uses up the budget."""
    spent = 0
    for count, result in enumerate(results, 1):
        spent += max(1, result.tree.sampled_tokens)
        if spent >= budget:
            return list(results[:count])
    return list(results)


def _best_valued(results: Sequence[SearchResult]) -> SearchResult | None:
    given = [result for result in results if result.answer is not None and not math.isnan(result.value)]
    return max(given, key=lambda result: result.value, default=None)


def _likeliest(results: Sequence[SearchResult]) -> SearchResult | None:
    """The answering chain with the highest mean log-probability a token; the earliest among equals."""
    ranked = [(choice.score, result) for result in results if (choice := best_by_logprob(result.tree)) is not None]
    return max(ranked, key=lambda pair: pair[0], default=(0.0, None))[1]


def _outcome_of_chains(
    index: int, mode: str, results: Sequence[SearchResult], chosen: SearchResult | None, seconds: float
) -> Outcome:
    errors = [result.error for result in results if result.error is not None]
    return Outcome(
        index=index,
        mode=mode,
        answer=None if chosen is None else chosen.answer,
        value=math.nan if chosen is None else chosen.value,
        answers=tuple(result.answer for result in results),
        values=tuple(result.value for result in results),
        tokens=sum(result.tree.sampled_tokens for result in results),
        seconds=seconds,
        error="; ".join(errors) or None,
    )
