"""Modes over the scripted engine: real searches, no language model."""

import inspect
from collections import Counter

import numpy as np
import pytest

import lapha.evaluation.modes as modes_module
from lapha.engines import ScriptedEngine
from lapha.engines.scripted import ANSWER, DIGIT, WORD
from lapha.evaluation.comparison import accuracy_by_simulations, powers_of_two, score_mode
from lapha.evaluation.modes import MODES, ModeRunner, Outcome, answers_by_simulation
from lapha.search import SearchConfig
from lapha.search.seeds import QuestionKeys

QUESTIONS = [f"question {index}" for index in range(6)]


def runner(**options):
    config = SearchConfig(simulations=12, breadth=4, depth_limit=6, seed=3)
    return ModeRunner(ScriptedEngine(answer_rate=0.2), config, **options)


@pytest.fixture(scope="module")
def run():
    searches = []
    return runner(on_search=searches.append).run(QUESTIONS), searches


def test_every_mode_answers_every_question_in_order(run):
    outcomes, searches = run
    assert list(outcomes) == list(MODES)
    for mode in MODES:
        assert [outcome.index for outcome in outcomes[mode]] == list(range(6))
        assert {outcome.mode for outcome in outcomes[mode]} == {mode}
    assert [search.question for search in searches] == QUESTIONS


def test_chains_use_at_least_the_tokens_of_the_search_and_no_chain_more_than_needed(run):
    outcomes, _ = run
    for searched, voted, best in zip(outcomes["value"], outcomes["majority"], outcomes["best-of-n"]):
        assert voted.tokens == best.tokens
        assert voted.answers == best.answers
        assert voted.tokens >= searched.tokens
        # without its last chain it would have had too few; a chain has at most 6 steps of 11 tokens
        assert voted.tokens - searched.tokens < 6 * 11


def test_majority_takes_the_most_frequent_answer_and_best_of_n_the_best_valued(run):
    outcomes, _ = run
    seen = 0
    for voted, best in zip(outcomes["majority"], outcomes["best-of-n"]):
        given = Counter(answer for answer in voted.answers if answer is not None)
        if not given:
            assert voted.answer is None
            continue
        seen += len(given) > 1
        assert given[voted.answer] == max(given.values())
        top = max(value for answer, value in zip(best.answers, best.values) if answer is not None)
        assert best.value == top
        assert best.answers[best.values.index(top)] == best.answer
    assert seen >= 3


class Recorded(ScriptedEngine):
    """Keeps what it sampled, by the chain that asked (its key)."""

    chains: dict

    async def sample(self, request):
        samples = await super().sample(request)
        for sample in samples:
            self.chains.setdefault(request.name.split(", node")[0], []).append(sample)
        return samples


def test_best_of_n_without_a_value_head_takes_the_likeliest_chain():
    """Against the sampled tokens themselves. v̂ would choose otherwise."""
    engine = Recorded(answer_rate=0.2)
    engine.chains = {}
    config = SearchConfig(simulations=12, breadth=4, depth_limit=6, seed=3)
    found = ModeRunner(engine, config, best_by="logprob").run(QUESTIONS, ["best-of-n"], samples=6)["best-of-n"]
    for question, outcome in zip(QUESTIONS, found):
        digest = QuestionKeys().key(question).split("-")[0]
        answering = []
        for name, samples in engine.chains.items():
            tokens = [token for sample in samples for token in sample.token_ids]
            if digest in name and ANSWER in tokens:
                mean = sum(sum(sample.logprobs) for sample in samples) / len(tokens)
                after = tokens[tokens.index(ANSWER) + 1 :]
                answering.append((mean, "".join(str(t - DIGIT) for t in after if DIGIT <= t < WORD)))
        assert len(answering) == sum(answer is not None for answer in outcome.answers)
        assert outcome.answer == max(answering, default=(0, None))[1]
    by_value = ModeRunner(ScriptedEngine(answer_rate=0.2), config).run(QUESTIONS, ["best-of-n"], samples=6)["best-of-n"]
    assert [outcome.answers for outcome in by_value] == [outcome.answers for outcome in found]
    assert [outcome.answer for outcome in by_value] != [outcome.answer for outcome in found]


def test_independent_chains_differ(run):
    outcomes, _ = run
    assert any(len(set(outcome.values)) > 1 for outcome in outcomes["majority"])


def test_single_is_greedy_and_react_is_sampled():
    first, second = (runner().run(QUESTIONS, ["single", "react"]) for _ in range(2))
    assert first["single"][0].tokens == second["single"][0].tokens  # the same every time
    other = ModeRunner(ScriptedEngine(answer_rate=0.2), SearchConfig(simulations=12, breadth=4, depth_limit=6, seed=4))
    assert all(len(outcome.answers) <= 1 for outcome in first["react"])
    changed = [a.tokens != b.tokens for a, b in zip(first["react"], other.react(QUESTIONS))]
    assert any(changed)


def test_results_do_not_depend_on_concurrency_or_on_the_other_questions():
    def essence(outcomes):
        return [(o.mode, o.answer, o.tokens, o.answers) for group in outcomes.values() for o in group]

    together = runner(concurrency=6).run(QUESTIONS)
    alone = runner(concurrency=1).run(QUESTIONS)
    assert essence(together) == essence(alone)
    part = runner().run(QUESTIONS[:2])
    for mode in MODES:
        assert [o.answer for o in part[mode]] == [o.answer for o in together[mode][:2]]


def test_outcomes_are_handed_out_as_they_come():
    seen = []
    outcomes = runner(on_outcome=seen.append, concurrency=2).run(QUESTIONS)
    assert sorted(map(id, seen)) == sorted(id(outcome) for group in outcomes.values() for outcome in group)
    assert all(outcome.seconds >= 0 for outcome in seen)


def test_a_fixed_number_of_samples_needs_no_search():
    outcomes = runner().run(QUESTIONS, ["majority"], samples=3)
    assert list(outcomes) == ["majority"]
    assert all(len(outcome.answers) == 3 for outcome in outcomes["majority"])


def test_fewer_simulations_read_from_a_finished_search_are_those_of_a_shorter_search(run):
    _, searches = run
    short = ModeRunner(
        ScriptedEngine(answer_rate=0.2), SearchConfig(simulations=5, breadth=4, depth_limit=6, seed=3)
    ).value(QUESTIONS)
    for search, expected in zip(searches, short):
        assert answers_by_simulation(search, [5], "value") == [expected.answer]


def test_accuracy_by_simulations_counts_unanswered_as_wrong(run):
    _, searches = run
    intervals, tokens = accuracy_by_simulations(searches, [0, 4, 12], "value", lambda pairs: [True] * len(pairs))
    assert intervals[0].mean == 0.0
    answered = np.mean([search.answer is not None for search in searches])
    assert intervals[2].mean == pytest.approx(answered)
    assert tokens[0] == 0
    assert tokens == sorted(tokens)


def outcome(index, answer, answers, values):
    return Outcome(index, "majority", answer, 0.5, tuple(answers), tuple(values), 10, 0.1)


def test_scores_keep_ungradable_answers_apart():
    outcomes = [
        outcome(0, "1", ["1", "2", None], [0.9, 0.1, 0.5]),
        outcome(1, "?", ["?", "1"], [0.9, 0.2]),
        outcome(2, None, [None], [0.5]),
        outcome(3, "2", ["2", "2"], [0.4, 0.6]),
    ]
    asked = []

    def grade(pairs):
        asked.extend(pairs)
        return [None if answer == "?" else answer == "1" for _, answer in pairs]

    score = score_mode("majority", outcomes, grade)
    assert len(asked) == len(set(asked))
    assert score.accuracy.count == 3
    assert score.accuracy.mean == pytest.approx(1 / 3)  # 1 right of 3 graded; None is wrong, "?" is neither
    assert score.ungradable == 1
    assert score.any_correct.tolist() == [1, 1, 0, 0]
    assert score.mean_correct.tolist() == pytest.approx([1 / 3, 1, 0, 0])
    assert score.calibration.count == 5  # five graded answers with a value
    assert score.pass_at(2) == pytest.approx(np.mean([2 / 3, 0]))  # problems 0 (3 graded) and 3 (2 graded)


def test_no_signature_of_the_modes_takes_a_gold_answer():
    for name, function in inspect.getmembers(ModeRunner, inspect.isfunction):
        parameters = " ".join(inspect.signature(function).parameters)
        for word in ("gold", "answer", "truth", "target", "verif", "correct", "label"):
            assert word not in parameters, name
    assert "grade" not in vars(modes_module)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: runner().run(QUESTIONS, ["guess"]), r"modes: expected one of .*'value', got 'guess'"),
        (lambda: runner().run(QUESTIONS, ["majority"]), "samples: expected a number, or mode value to match"),
        (lambda: runner(best_by="luck"), "best_by: expected one of 'logprob', 'value', got 'luck'"),
        (lambda: runner(concurrency=0), "concurrency: expected an integer >= 1, got 0"),
        (lambda: runner().chains(QUESTIONS, budgets=[1]), "budgets: expected 6 numbers"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_powers_of_two_end_at_the_limit():
    assert powers_of_two(1) == [1]
    assert powers_of_two(24) == [1, 2, 4, 8, 16, 24]
    assert powers_of_two(32) == [1, 2, 4, 8, 16, 32]


def test_a_problem_without_any_answer_is_one_wrong_answer():
    """pass@1 and avg@k are of all problems, not of those that were answered."""
    outcomes = [outcome(0, "1", ["1", "1"], [0.9, 0.8]), outcome(1, None, [], [])]
    score = score_mode("value", outcomes, lambda pairs: [answer == "1" for _, answer in pairs])
    assert score.accuracy.mean == score.pass_at(1) == score.mean_correct.mean() == score.any_correct.mean() == 0.5
    assert score.samples == 1.0
    assert score.calibration.count == 2
