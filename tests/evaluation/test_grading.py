import json
import random
import threading
import time
from pathlib import Path

import pytest
from grading_triples import triples_of

from lapha.evaluation import GraderPool, extract_answer, grade_answer
from lapha.evaluation.grading import read_form
from lapha.evaluation.grading.extraction import last_boxed
from lapha.evaluation.grading.verdicts import plain_verdict

pytest.importorskip("math_verify", reason="needs lapha[llm]")

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
HANG = ("9^{9^{9^{9}}}", "3")


@pytest.fixture(scope="module")
def pool():
    with GraderPool(workers=2, timeout=60) as grader:
        yield grader


CASES = [
    # prediction, gold, verdict
    ("\\frac12", "0.5", True),
    ("0.333", "\\frac13", False),
    ("2pi", "2\\pi", True),
    ("2 pi", "\\pi", False),
    ("pie", "\\pi", False),
    ("sqrt(2)/2", "\\frac{1}{\\sqrt2}", True),
    ("5 sqrt 3", "5\\sqrt{3}", True),
    ("sqrt(3)", "\\sqrt{2}", False),
    ("0.333333333", "\\frac{1}{3}", False),
    ("3.14159265", "\\pi", False),
    ("1,234", "1234", True),
    ("12345, 54321", "54321, 12345", True),
    ("12 and 8", "12, 8", True),
    ("5 or 7", "5", False),
    ("(1,2)", "[1,2]", False),
    ("(2,1)", "(1,2)", False),
    ("\\{2,1\\}", "\\{1,2\\}", True),
    ("\\{1\\}", "\\{1,2\\}", False),
    ("(-\\infty,2]", "(-\\infty, 2]", True),
    ("(-\\infty,2)", "(-\\infty, 2]", False),
    ("x\\in[2,\\infty)", "[2,+\\infty)", True),
    ("[2,\\infty) \\cup (-\\infty,0]", "(-\\infty,0]\\cup[2,\\infty)", True),
    ("50\\%", "50", True),
    ("0.5", "50\\%", True),
    ("0.5", "50", False),
    ("336", "336^\\circ", True),
    ("36 \\text{ cm}^2", "36", True),
    ("36 cm^2", "36 \\text{ square centimetres}", True),
    ("5\\pi", "5", False),
    ("5x", "5", False),
    ("5 m", "5", True),
    ("204 million", "204", False),
    ("5 squared", "5", False),
    ("\\$5", "5", True),
    ("-5", "5", False),
    (".5", "5", False),
    ("2516_8", "2516_8", True),
    ("2516_9", "2516_8", False),
    ("evelyn", "\\text{Evelyn}", True),
    ("Bob", "\\text{Evelyn}", False),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", True),
    ("\\begin{pmatrix}2\\\\1\\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", False),
    ("y=1+x", "y=x+1", True),
    ("y=1-x", "y=x+1", False),
    ("(x+1)^2", "x^2+2x+1", True),
    ("i-\\sqrt{3}", "-\\sqrt{3}+i", True),
    ("\\sqrt{8}", "2\\sqrt{2}", True),
    ("B", "B", True),
    ("(B) because 3 > 2", "B", True),
    ("A or B", "B", False),
    ("AB", "B", False),
    ("033", "33", True),
    ("The final answer is $\\boxed{\\frac{3}{4}}$.", "0.75", True),
    ("", "5", False),
]


def test_forms_that_must_pass_and_near_misses_that_must_fail(pool):
    verdicts = pool.grade([(prediction, gold) for prediction, gold, _ in CASES])
    wrong = [(case, verdict) for case, verdict in zip(CASES, verdicts) if verdict.correct is not case[2]]
    assert not wrong


def test_agreement_on_triples_from_published_answers(pool):
    if not DATA.is_dir():
        pytest.skip(f"no data files in {DATA}")
    triples = {triple for path in sorted(DATA.glob("*.jsonl")) for triple in _triples(path)}
    chosen = random.Random(0).sample(sorted(triples), 450)
    verdicts = pool.grade([(prediction, gold) for prediction, gold, _ in chosen])
    wrong = [(triple, verdict) for triple, verdict in zip(chosen, verdicts) if verdict.correct is not triple[2]]
    accepted = [item for item in wrong if item[1].correct]
    assert not accepted
    assert len(wrong) <= 0.01 * len(chosen), wrong


def _triples(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        yield from triples_of(json.loads(line)["answer"])


@pytest.mark.parametrize(
    ("prediction", "gold", "method"),
    [
        ("the big cat", "a feline", "string"),
        ("x", "\\text{Monday}", "string"),
        ("yx+1", "xy", "math"),
        ("1", "\\pi", "math"),
    ],
)
def test_words_are_told_apart_by_their_letters_alone(prediction, gold, method):
    """So that a judge may be asked."""
    verdict = grade_answer(prediction, gold)
    assert (verdict.correct, verdict.method) == (False, method)


def test_a_hanging_input_costs_itself_alone_and_delays_nothing_else():
    pairs = [("x+1", "1+x"), HANG, *[(f"{index}+y", f"y+{index}") for index in range(20)]]
    order = []
    with GraderPool(workers=2, timeout=60) as warm:
        warm.grade(pairs[2:12])
        warm.workers, warm.timeout = 1, 8  # one worker, and one that is warm to join it
        start = time.monotonic()
        verdicts = warm.grade(pairs, on_verdict=lambda place, verdict: order.append(place))
    assert verdicts[1].correct is None
    assert verdicts[1].method == "ungradable"
    assert "8 s" in verdicts[1].detail
    assert all(verdict.correct for index, verdict in enumerate(verdicts) if index != 1)
    assert sorted(order) == list(range(len(pairs)))
    assert order[-1] == 1  # what came behind it was not kept waiting
    assert time.monotonic() - start < 120


def test_a_slow_input_is_not_graded_twice_and_several_hangs_end():
    """What a slow worker has handed on is settled once, whoever is first; as many hangs as workers do not stop the rest."""
    hangs = [(f"{HANG[0]}+{index}", HANG[1]) for index in range(3)]
    pairs = [hangs[0], ("1+y", "y+1"), hangs[1], ("2+y", "y+2"), hangs[2], ("3+y", "y+2")]
    order = []
    with GraderPool(workers=1, timeout=60) as pool:
        pool.grade([("x+1", "1+x")])
        pool.timeout = 2.5
        verdicts = pool.grade(pairs, on_verdict=lambda place, verdict: order.append(place))
    assert [verdict.correct for verdict in verdicts] == [None, True, None, True, None, False]
    assert sorted(order) == list(range(6))


def test_the_pool_works_off_the_main_thread_and_again_after_a_kill(pool):
    found = []
    thread = threading.Thread(target=lambda: found.extend(pool.grade([("1/2", "0.5"), ("1/3", "0.5")])))
    thread.start()
    thread.join()
    assert [verdict.correct for verdict in found] == [True, False]


def test_equal_pairs_are_graded_once_and_come_back_in_order(pool):
    pairs = [("a+b", "b+a"), ("7", "8"), ("a+b", "b+a")]
    first, second, third = pool.grade(pairs)
    assert first is third
    assert (first.correct, second.correct) == (True, False)
    assert pool.grade([]) == []


def test_the_pool_refuses_nonsense():
    with pytest.raises(ValueError, match="workers: expected an integer >= 1, got 0"):
        GraderPool(workers=0)
    with pytest.raises(ValueError, match="timeout: expected seconds > 0, got 0"):
        GraderPool(timeout=0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\\boxed{1}</think><answer>2</answer>", "2"),
        ("<answer>so \\boxed{3}</answer>", "3"),
        ("first \\boxed{1}, then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("unbalanced \\boxed{1", None),
        ("The answer is 42.", "42"),
        ("Final answer: $x=3$\n", "$x=3$"),
        ("<answer></answer>", None),
        ("no idea", None),
    ],
)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


def test_last_boxed_skips_escaped_braces():
    assert last_boxed(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\\dfrac{1}{2}", "$\\frac12$"),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})"),
        (".5", "0.50"),
        ("\\text{Evelyn}", "evelyn"),
        ("x = 5", "5"),
        ("90^{\\circ}", "90°"),
    ],
)
def test_spellings_share_a_form(one, other):
    assert read_form(one).key == read_form(other).key is not None


def test_grading_without_a_prediction_is_wrong_and_says_why():
    assert grade_answer(None, "5").method == "missing"
    assert grade_answer(None, "5").correct is False


@pytest.mark.parametrize(
    ("prediction", "gold", "correct"),
    [
        ("200, 100", "100, 200", True),  # a list, in any order
        ("100, 200", "100200", False),
        ("2 3", "23", False),
        ("1 1/2", "11/2", False),
        ("1 1/2", "3/2", True),
        ("-1 1/2", "-1.5", True),
        ("1\\frac{4}{5}", "1 4/5", True),
        ("1 3/2", "5/2", False),
        ("1 000", "1000", True),
        ("1\\,000", "1000", True),
        ("x = 1,200", "1200", True),
        ("12 000 m", "12000", True),
    ],
)
def test_a_space_between_numbers_keeps_them_apart(prediction, gold, correct):
    assert bool(grade_answer(prediction, gold).correct) == correct


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        "12 characteristically uncharacteristically internationalisation (a)",
        "5" + "a" * 900 + "!",
        "3 " + "ab " * 400 + "?",
    ],
)
def test_long_words_after_a_number_are_read_in_no_time(text):
    """Degenerate samples look like this; the caller's own thread reads them, and no limit of time would stop it."""
    assert plain_verdict(text, "5") is None or not plain_verdict(text, "5").correct
    assert read_form(text).kind != "value"
