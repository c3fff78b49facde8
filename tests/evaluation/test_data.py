import json
import pickle

import pytest

from lapha.evaluation.data import REGISTRY, Problem, Selection, fingerprint, load_problems, load_questions, parse_shard
from lapha.evaluation.verifier import MathVerifier

ROWS = [
    {"question": "1+1?", "answer": "2"},
    {"problem": "2+2?", "answer": 4.0},
    {"question": "3?", "final_answer": ["3", "5"]},
]
EXPECTED = [Problem("1+1?", "2"), Problem("2+2?", "4"), Problem("3?", "3, 5")]


def write(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_local_format_gives_the_same_problems(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs lapha[train]")
    parquet = pytest.importorskip("pyarrow.parquet")
    assert load_problems(write(tmp_path / "a.jsonl")) == EXPECTED
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    assert load_problems(tmp_path / "a.json") == EXPECTED
    (tmp_path / "a.csv").write_text('question,answer\n1+1?,2\n2+2?,4\n3?,"3, 5"\n')
    assert load_problems(tmp_path / "a.csv") == EXPECTED
    flat = [{"question": problem.question, "answer": problem.answer} for problem in EXPECTED]
    parquet.write_table(pyarrow.Table.from_pylist(flat), tmp_path / "a.parquet")
    assert load_problems(tmp_path / "a.parquet") == EXPECTED


def test_questions_can_be_read_where_there_are_no_answers(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "?"}])
    assert load_questions(path) == ["?"]
    with pytest.raises(ValueError, match=r"data: expected answer or final_answer in .*a\.jsonl:1, got fields question"):
        load_problems(path)


def test_worked_solutions_end_in_the_answer(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "?", "answer": "3 + 4 = 7\n#### 7"}])
    assert load_problems(path)[0].answer == "7"


def test_shards_cut_the_selection_into_disjoint_parts(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": str(i), "answer": str(i)} for i in range(11)])
    whole = load_questions(path, Selection(limit=9, shuffle_seed=3))
    parts = [load_questions(path, Selection(limit=9, shuffle_seed=3, shard=(i, 3))) for i in (1, 2, 3)]
    assert sorted([question for part in parts for question in part]) == sorted(whole)
    assert len(set(whole)) == 9
    assert whole != [str(i) for i in range(9)]
    assert load_questions(path, Selection(limit=9, shuffle_seed=3)) == whole
    assert parse_shard("2/8") == (2, 8)


def test_fingerprints_tell_questions_apart():
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
    assert fingerprint(["a", "b"]) != fingerprint(["b", "a"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: load_problems(p / "none.jsonl"),
            r"data: expected an existing file, tiny, or one of math-500, .*none\.jsonl",
        ),
        (lambda p: load_problems(write(p / "a.txt")), r"data: expected a file ending in \.jsonl"),
        (lambda p: load_problems(write(p / "b.jsonl", [])), "data: expected at least one problem, got none"),
        (
            lambda p: load_problems(write(p / "c.jsonl", [["x"]])),
            r"data: expected a JSON object in .*c\.jsonl:1, got list",
        ),
        (
            lambda p: load_problems(write(p / "d.jsonl", [{"q": 1}])),
            r"data: expected question or problem in .*d\.jsonl:1",
        ),
        (lambda p: Selection(limit=0), "limit: expected an integer >= 1, got 0"),
        (lambda p: Selection(shard=(3, 2)), "shard: expected i/n with 1 <= i <= n, got 3/2"),
        (lambda p: parse_shard("two"), "shard: expected i/n, such as 1/8, got 'two'"),
        (lambda p: MathVerifier({}), "gold: expected at least one question"),
        (lambda p: MathVerifier({"q": "1"}, timeout=0), "timeout: expected seconds > 0, got 0"),
    ],
)
def test_bad_input_names_the_argument(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


GOOD = '{"question": "1+1?", "answer": "2"}'


def test_what_editors_add_does_not_matter(tmp_path):
    """A byte order mark, Windows line ends, blank lines."""
    (tmp_path / "a.jsonl").write_bytes(
        b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n" + GOOD.replace("1+1", "2+0").encode()
    )
    assert [problem.answer for problem in load_problems(tmp_path / "a.jsonl")] == ["2", "2"]
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfquestion,answer\r\n1+1?,2\r\n")
    assert load_problems(tmp_path / "a.csv") == [Problem("1+1?", "2")]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[" + GOOD.encode() + b"]\r\n")
    assert load_problems(tmp_path / "a.json") == [Problem("1+1?", "2")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", GOOD + '\n{"question": "?", "answer": NaN}', r"expected JSON in .*a\.jsonl:2, got NaN, .*in field 'answer'"),
        ("a.jsonl", '{"question": "?", "answer": [1, -Infinity]}', r"a\.jsonl:1, got -Infinity, .*in field 'answer'"),
        ("a.jsonl", GOOD + '\n{"question": null, "answer": "2"}', r"expected text in field 'question' of .*a\.jsonl:2, got null"),
        ("a.jsonl", '{"question": "?", "answer": null}', r"expected text in field 'answer' of .*a\.jsonl:1, got null"),
        ("a.jsonl", '{"question": "?", "answer": [1, null]}', r"expected text in field 'answer' of .*a\.jsonl:1, got null"),
        ("a.jsonl", '{"question": "?", "answer": []}', r"expected text in field 'answer' of .*a\.jsonl:1, got an empty list"),
        ("a.jsonl", '{"question": {"a": 1}, "answer": 1}', r"expected text in field 'question' of .*a\.jsonl:1, got an object"),
        ("a.jsonl", '{"question": "?", "answer": true}', r"expected text in field 'answer' of .*a\.jsonl:1, got true or false"),
        ("a.jsonl", '{"question": "  ", "answer": 1}', r"expected a question in .*a\.jsonl:1, got an empty one"),
        ("a.jsonl", '{"question": "\\ud800", "answer": 1}', r"field 'question' of .*a\.jsonl:1, got half of a surrogate pair"),
        ("a.jsonl", '{"id": 7, "question": "?", "answer": 1}\n{"id": 7, "question": "!", "answer": 1}',
         r"expected another id in .*a\.jsonl:2 than in .*a\.jsonl:1, got 7"),
        ("a.jsonl", GOOD[:-3], r"expected JSON in .*a\.jsonl:1, got "),
        ("a.jsonl", b"\x89PNG\r\n\x1a\n\0\0", r"expected UTF-8 in .*a\.jsonl:1, got byte 0x89 at 0"),
        ("a.jsonl", b"PK\x03\x04\0\0", r"expected text in .*a\.jsonl:1, got binary data"),
        ("a.csv", "question,answer\n1,2,3\n", r"expected 2 fields in .*a\.csv:2, got more"),
        ("a.csv", "question,answer\n1\n", r"expected text in field 'answer' of .*a\.csv:2, got null"),
        ("a.json", '{"question": 1}', r"expected a JSON list in .*a\.json, got dict"),
        ("a.parquet", b"PAR1 it is not", r"expected Parquet in .*a\.parquet, got "),
        ("a.jsonl", "[" * 100_000, r"expected JSON in .*a\.jsonl:1, got "),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_with_its_line_and_its_field(name, content, message, tmp_path):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="needs lapha[eval]")
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        load_problems(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_line_of_a_hundred_megabytes_is_not_read(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD.encode() + b"\n")
        file.truncate(100 << 20)
    with pytest.raises(ValueError, match=r"expected lines of at most 16 MB in .*a\.jsonl:2, got a longer one"):
        load_problems(path)


def test_the_nearest_name_is_suggested():
    with pytest.raises(ValueError, match=r"got 'tinny'; did you mean 'tiny'\?"):
        load_questions("tinny")
    with pytest.raises(ValueError, match=r"got 'math500'; did you mean 'math-500'\?"):
        load_questions("math500")


def test_the_registry_names_what_the_method_was_evaluated_on():
    assert {"math-500", "aime-24", "aime-25", "gaokao-23-en", "olympiadbench", "gsm8k", "amc"} <= set(REGISTRY)


def test_the_verifier_grades_keeps_verdicts_and_can_be_pickled():
    pytest.importorskip("math_verify", reason="needs lapha[llm]")
    verifier = MathVerifier({"half?": "\\frac{1}{2}"}, timeout=20)
    try:
        assert [verifier("half?", answer) for answer in ("0.5", "2/4", "0.4", None)] == [1.0, 1.0, 0.0, 0.0]
        copy = pickle.loads(pickle.dumps(verifier))
        assert copy("half?", "1/2") == 1.0
        copy.close()
        with pytest.raises(ValueError, match="question: expected one with a gold answer, got 'other'"):
            verifier("other", "1")
    finally:
        verifier.close()


def test_the_verifier_needs_no_process_for_numbers_letters_and_equal_strings():
    pytest.importorskip("math_verify", reason="needs lapha[llm]")
    verifier = MathVerifier({"half?": "\\frac{1}{2}", "which?": "B", "who?": "Evelyn"})
    assert [verifier("half?", answer) for answer in ("0.5", "2/4", "0.49", "\\dfrac12")] == [1.0, 1.0, 0.0, 1.0]
    assert [verifier("which?", answer) for answer in ("(B)", "C")] == [1.0, 0.0]
    assert verifier("who?", "\\text{evelyn}") == 1.0
    assert verifier._pool is None


@pytest.mark.timeout(120)
def test_a_hang_costs_the_verifier_its_time_limit_once():
    pytest.importorskip("math_verify", reason="needs lapha[llm]")
    verifier = MathVerifier({"three?": "3"}, timeout=1.0)
    try:
        assert verifier("three?", "\\sqrt{9}") == 1.0
        assert verifier("three?", "9^{9^{9^{9}}}") is None
        pool, verifier._pool = verifier._pool, None
        assert verifier("three?", "9^{9^{9^{9}}}") is None
        assert verifier._pool is None  # nobody was asked again
        verifier._pool = pool
        assert verifier("three?", "\\sqrt{10}") == 0.0
        assert verifier("three?", "1" * 5000) in (0.0, None)
    finally:
        verifier.close()
