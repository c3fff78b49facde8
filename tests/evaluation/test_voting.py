"""Which answers are one answer, and which are not."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.engines import ScriptedEngine
from lapha.evaluation import GraderPool, canonical_math, grade_answer
from lapha.evaluation.grading.spelling import normalize_answer
from lapha.evaluation.grading.voting import _Reader
from lapha.evaluation.modes import ModeRunner, answers_by_simulation
from lapha.search import Search, SearchConfig
from lapha.tiny import problems, verify

pytest.importorskip("math_verify", reason="needs lapha[llm]")

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

# one answer a line
SAME = [
    [
        "1/2",
        "\\frac{1}{2}",
        "0.5",
        "\\dfrac{2}{4}",
        "$0.50$",
        "\\boxed{\\frac12}",
        "x = 1/2",
        "\\frac{-1}{-2}",
        "2^{-1}",
    ],
    ["1/3", "\\frac{2}{6}", "\\tfrac13"],
    ["0.333", "333/1000"],
    ["3.14"],
    ["\\pi", "π", "pi", "$\\pi$", "\\frac{2\\pi}{2}"],
    ["50", "50.0", "+50", "\\$50", "50^\\circ", "50 \\text{ cm}", "5\\times10", "50\\%", "50 %"],
    ["1,234", "1234", "1{,}234"],
    ["2\\sqrt{2}", "\\sqrt{8}", "\\sqrt 8", "2sqrt(2)", "sqrt8", "2^{3/2}", "\\frac{4}{\\sqrt2}"],
    ["2\\sqrt{3}", "\\sqrt{12}"],
    ["\\frac{1+\\sqrt5}{2}", "\\frac12+\\frac{\\sqrt{5}}{2}", "\\frac{2}{\\sqrt5-1}"],
    ["2(x+1)", "2x+2", "2+2x", "y = 2x + 2", "2\\cdot(1+x)"],
    ["2x-2", "-2(1-x)"],
    ["\\frac{x+2}{x+1}", "1+\\frac{1}{x+1}"],
    ["x^2+2x+1", "(x+1)^2", "(1+x)(x+1)"],
    ["x^2+y^2=1", "y^2+x^2=1", "1=x^2+y^2"],
    ["x > 3", "3 < x"],
    ["x \\ge 3", "3\\le x", "x\\geq3"],
    ["(1, 2)", "(1,2)", "\\left(1, \\frac{4}{2}\\right)", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"],
    ["\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & \\frac{4}{2} \\\\ 3&4\\end{pmatrix}"],
    ["(2, 1)"],
    ["(3, 1)"],
    ["[1, 2]", "x \\in [1,2]"],
    ["[1, 2)"],
    ["1, 2", "2, 1", "1 and 2", "x=2 or x=1", "\\{1, 2\\}", "\\{2,1\\}", "\\{2, 1, 1\\}"],
    ["1, 1, 2"],
    ["(-\\infty, 0]\\cup[2,\\infty)", "[2,+\\infty) \\cup (-\\infty,0]"],
    ["(-\\infty, 0)\\cup[2,\\infty)"],
    ["A", "(A)", "\\text{(A)}"],
    ["e"],
    ["E"],
    ["\\text{no solution}", "No solution"],
    ["solution no"],
    ["ab"],
    ["ba"],
    ["2516_8"],
    ["2516"],
    ["10:30"],
    ["20:60"],
    ["1e5"],
    ["5e"],
    ["\\frac{1}{0}"],
    ["\\frac{2}{0}"],
    ["+10 +10 -1", "+10  +10 -1"],
    ["-1 +10 +10"],
    ["19"],
]


def test_spellings_of_one_answer_are_one_and_no_two_answers_are():
    forms = [{canonical_math(answer) for answer in answers} for answers in SAME]
    for answers, found in zip(SAME, forms):
        assert len(found) == 1, (answers, found)
    assert len(set().union(*forms)) == len(SAME), "two answers were taken for one"


@st.composite
def spelled(draw):
    """A rational number and one of its spellings."""
    value = Fraction(draw(st.integers(-300, 300)), draw(st.integers(1, 60)))
    by = draw(st.integers(1, 7))
    top, bottom = value.numerator * by, value.denominator * by
    spellings = [f"{top}/{bottom}", f"\\frac{{{top}}}{{{bottom}}}", f"\\dfrac{{{top}}}{{{bottom}}}"]
    if value.denominator == 1:
        spellings += [str(value), f"{value}.00"]
    if 10**6 % value.denominator == 0:
        digits = f"{abs(value.numerator) * (10**6 // value.denominator):07d}"
        spellings.append(("-" if value < 0 else "") + digits[:-6] + "." + digits[-6:])
    text = draw(st.sampled_from(spellings))
    return value, draw(st.sampled_from(["{}", "${}$", "\\boxed{{{}}}", "x = {}", " {} "])).format(text)


@settings(max_examples=300, deadline=None)
@given(spelled(), spelled())
def test_rationals_are_the_same_exactly_if_they_are_equal(first, second):
    (value, text), (other, other_text) = first, second
    assert canonical_math(text) == str(value)
    assert (canonical_math(text) == canonical_math(other_text)) == (value == other)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_every_text_has_a_form(text):
    assert isinstance(canonical_math(text), str)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["1", "x", "+", "-", "\\frac", "{", "}", "^", "(", ")", ",", "\\sqrt", "2", "=", "["])))
def test_broken_mathematics_has_a_form(pieces):
    assert isinstance(canonical_math("".join(pieces)), str)


def test_what_voting_takes_for_one_grading_does_too():
    for answers in SAME:
        first = answers[0]
        for other in answers[1:]:
            if other.count("+10") < 2:  # a list of moves has its own verifier
                assert grade_answer(other, first).correct is not False, (first, other)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets")
def test_gold_answers_that_are_taken_for_one_are_one_to_the_grader():
    answers = sorted({str(json.loads(line).get("answer")) for path in DATA.glob("*.jsonl") for line in path.open()})
    groups = {}
    for answer in answers:
        groups.setdefault(canonical_math(answer), []).append(answer)
    pairs = [(first, other) for first, *others in groups.values() for other in others]
    assert len(pairs) > 30
    with GraderPool(workers=1) as pool:
        assert [pair for pair, verdict in zip(pairs, pool.grade(pairs)) if verdict.correct is not True] == []


@pytest.mark.timeout(120)
def test_what_hangs_costs_its_time_limit_once():
    reader, hanging = _Reader(), ["9^{9^{9^{9^{9}}}}", "8^{9^{9^{9^{9}}}}"]
    assert reader.form(hanging[0]) != reader.form(hanging[1])
    assert reader.form("\\sqrt{50}") == reader.form("5\\sqrt2")  # another worker goes on
    assert reader._pool.unread == 2
    assert reader.form(hanging[0]) == normalize_answer(hanging[0])
    assert reader._pool.unread == 2  # it was not given to a worker again
    reader.close()


def test_a_fork_has_a_worker_of_its_own():
    """In a process with one thread: a parent that has used its worker, and a child that uses one at the same time."""
    code = """
import os
from lapha.evaluation import canonical_math as form
assert form("\\\\sqrt{8}") == form("2\\\\sqrt2")
child = os.fork()
right = all(form(f"2^{{{n}}}") == str(2**n) for n in (range(1, 60) if child else range(60, 120)))
if child == 0:
    os._exit(0 if right else 3)
assert os.waitpid(child, 0)[1] == 0
assert right
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_math_verify_numbers_are_settled_all_the_same(monkeypatch):
    reader = _Reader()
    monkeypatch.setattr(reader, "_can_parse", False)
    assert reader.form("\\frac12") == reader.form("0.5")
    assert reader.form("2x+2") == reader.form("2(x+1)")
    assert reader.form("\\int_0^1 x dx") == normalize_answer("\\int_0^1 x dx")
    assert reader._pool is None


class Halves(ScriptedEngine):
    """Answers in different spellings of a half, and the same spelling of other numbers."""

    def __post_init__(self):
        super().__post_init__()
        self.environment = _Spelling(self.environment)


class _Spelling:
    SPELLINGS = ("1/2", "\\frac{2}{4}", "0.5", "3", "3", "7")

    def __init__(self, inner):
        self.inner = inner

    def start(self, question):
        return self.inner.start(question)

    async def step(self, turn, sample, depth):
        step = await self.inner.step(turn, sample, depth)
        if step.answer is not None:
            step = type(step)(step.status, step.text, self.SPELLINGS[int(step.answer or "0") % 6], True, step.turn)
        return step

    def close(self, turn):
        self.inner.close(turn)


QUESTIONS = [f"question {index}" for index in range(8)]


def counted(answers, canonical):
    """The answer that occurs most often, in the spelling that came first; written out."""
    groups = {}
    for answer in answers:
        if answer is not None:
            groups.setdefault(canonical(answer), []).append(answer)
    return max(groups.values(), key=len)[0] if groups else None


def test_modes_and_searches_vote_on_values():
    config = SearchConfig(simulations=12, breadth=4, depth_limit=6, seed=3, answer="majority")
    votes = {}
    for canonical in (normalize_answer, canonical_math):
        searched = []
        runner = ModeRunner(Halves(answer_rate=0.4), config, canonical=canonical, on_search=searched.append)
        found = runner.run(QUESTIONS, ["value", "majority"])
        for outcome in found["majority"]:
            assert outcome.answer == counted(outcome.answers, canonical)
        for outcome, result in zip(found["value"], searched):
            assert canonical(outcome.answer) == canonical(counted(outcome.answers, canonical))
            assert answers_by_simulation(result, [12], "majority", canonical) == [outcome.answer]
        votes[canonical] = [canonical_math(outcome.answer) for group in found.values() for outcome in group]
    assert votes[normalize_answer] != votes[canonical_math], "values and spellings never disagreed"
    [alone] = Search(Halves(answer_rate=0.4), config=config, canonical=canonical_math).run(QUESTIONS[:1])
    assert canonical_math(alone.answer) == votes[canonical_math][0]


def test_walks_of_the_embedded_policys_problems_are_never_merged():
    """Other walks, other answers: by either rule, also where they end at the same number."""
    for canonical in (normalize_answer, canonical_math):
        walks = ["+10 +10 -1", "+10 -1 +10", "-1 +10 +10", "+10 +10", "+10", "+1 +1", "+1", "+1 +1 +1"]
        assert len({canonical(walk) for walk in walks}) == len(walks)
    problem = problems.generate(1, 0, "heldout")[0]
    assert verify(problem.question, problem.solution)
    assert canonical_math(problem.solution) == problem.solution


def test_the_grader_worker_is_not_started_for_numbers():
    reader = _Reader()
    for answer in ("1/2", "(1, 2)", "\\{3, 0.5\\}", "no solution", "A", "x" * 5000, "1" * 5000, "12_5"):
        reader.form(answer)
    assert reader._pool is None
    assert reader._pool is None
    assert reader.form("(1," * 49 + "0.5" + ")" * 49) == "(1, " * 49 + "1/2" + ")" * 49


def test_a_solution_keeps_its_names():
    assert canonical_math("x=1, y=2") == canonical_math("y = 2 and x = 1")
    assert canonical_math("x=1, y=2") != canonical_math("x=2, y=1")
    assert canonical_math("x=1 or x=2") == canonical_math("1, 2") == canonical_math("x = 2, x = 1")


def test_numbers_side_by_side_are_not_one_number():
    assert canonical_math("1 1/2") != canonical_math("11/2")
    assert canonical_math("100, 200") != canonical_math("100200")


def test_what_could_not_be_read_is_counted_and_logged(caplog):
    with GraderPool(workers=1, timeout=0.5) as pool, caplog.at_level("INFO"):
        assert pool.canonical(["x+1", "1+x"])[0] is not None
        assert pool.unread == 0
        assert pool.canonical(["9^{9^{9^{9^{9}}}}"]) == [None]
        assert pool.unread == 1
    assert "no form of '9^{9^{9^{9^{9}}}}'" in caplog.text
