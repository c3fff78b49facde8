"""Files from elsewhere: read as they were meant, or refused by a message that names file, line and field."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lapha._text import is_visible, strict_json, visible
from lapha.evaluation.data import Problem, load_problems, load_questions
from lapha.evaluation.folders import read_json_lines

ROW = {"question": "Größe? π", "answer": "é"}
EXPECTED = [Problem("Größe? π", "é")]
TEXTS = {
    ".jsonl": json.dumps(ROW, ensure_ascii=False) + "\n",
    ".json": json.dumps([ROW], ensure_ascii=False),
    ".csv": "question,answer\nGröße? π,é\n",
}


@pytest.mark.parametrize("suffix", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_windows_files_are_read(tmp_path, suffix, encoding, end):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(TEXTS[suffix].replace("\n", end).encode(encoding))
    assert load_problems(path) == EXPECTED
    assert load_questions(path) == [ROW["question"]]


def test_line_ends_of_unicode_do_not_end_a_record(tmp_path):
    row = {"question": "a\u2028b\x85c\x0bd", "answer": "1"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False).replace("\\u000b", "\\u000b") + "\n")
    assert load_questions(tmp_path / "a.jsonl") == [row["question"]]


def rows(*found):
    return "".join(json.dumps(row) + "\n" for row in found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "Größe".encode("latin-1"), r"data: expected UTF-8 in .*a\.jsonl:1, got byte 0xf6 at 2"),
        ("a.csv", "question,answer\nGröße,1\n".encode("latin-1"), r"UTF-8 in .*a\.csv:2, got byte"),
        (
            "a.jsonl",
            b'{"question": "q", "answer": NaN}\n',
            r"expected JSON in .*a\.jsonl:1, got NaN, which is no JSON, in field 'answer'",
        ),
        ("a.jsonl", b'{"question": "q", "answer": -Infinity}\n', r"a\.jsonl:1, got -Infinity, which is no JSON"),
        (
            "a.jsonl",
            rows({"question": "q", "answer": True}),
            r"text in field 'answer' of .*a\.jsonl:1, got true or false",
        ),
        ("a.jsonl", rows({"question": "q", "answer": [1, None]}), r"text in field 'answer' of .*a\.jsonl:1, got null"),
        (
            "a.jsonl",
            b'{"question": "q", "question": "r", "answer": "1"}\n',
            r"a\.jsonl:1, got the key 'question' twice",
        ),
        ("a.jsonl", rows(ROW, {"question": " ", "answer": "1"}), r"a\.jsonl:2, got"),
        (
            "a.jsonl",
            rows({"question": "\ud800", "answer": "1"}),
            r"text in field 'question' of .*a\.jsonl:1, got half of a surrogate",
        ),
        ("a.json", "[" * 100_000, r"expected JSON in .*a\.json, got"),
        ("a.jsonl", '{"a":' * 50_000, r"expected JSON in .*a\.jsonl:1, got"),
        ("a.json", '[{"question": "q"', r"expected JSON in .*a\.json, got Expecting"),
        ("a.csv", "question,answer,answer\nq,1,2\n", r"columns of different names in .*a\.csv, got 'answer' twice"),
        ("a.csv", "question,answer\nq,1,2\n", r"expected 2 fields in .*a\.csv:2, got more"),
        ("a.csv", "question,answer\nq\n", r"expected text in field 'answer' of .*a\.csv:2, got null"),
        ("a.csv", 'question,answer\n"q,1\n', r"expected CSV in .*a\.csv:\d, got"),
        ("a.csv", "question,answer\n ,1\n", r"a\.csv:2"),
        ("a.parquet", b"PAR1 no", r"expected Parquet in .*a\.parquet, got"),
        ("a.parquet", b"", r"expected Parquet in .*a\.parquet, got"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, name, content, message):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        load_problems(path)


def test_a_cell_may_be_long(tmp_path):
    (tmp_path / "a.csv").write_text(f"question,answer\n{'x' * 200_000},1\n")
    assert len(load_questions(tmp_path / "a.csv")[0]) == 200_000


@pytest.mark.parametrize("source", [None, 3, b"a.jsonl", ["a.jsonl"]])
def test_a_source_that_is_no_path_is_named(source):
    with pytest.raises(ValueError, match="data: expected a file's path or a name, got"):
        load_problems(source)


@pytest.mark.parametrize("name", ["aime-24", "aime-25", "gaokao-23", "math-500", "olympiad"])
def test_the_evaluation_sets_are_read(name):
    path = Path(__file__).parents[3] / "shared" / "data" / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("the evaluation sets are not here")
    problems = load_problems(path)
    assert [problem.question for problem in problems] == load_questions(path)


def test_records_with_a_mark_and_those_that_are_none(tmp_path):
    path = tmp_path / "a.pred.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n[2]\n')
    with pytest.raises(ValueError, match=r"a\.pred\.jsonl: expected a JSON object in line 2, got list"):
        read_json_lines(path)


FRAGMENTS = st.sampled_from(
    ['{"question": "q", "answer": "1"}', '{"question": "q"}', "{}", "[]", "[1]", "null", '"x"', "{", "}", '{"question": 3,', "\ufeff"]
    + ["question,answer", 'q,"1', "q,1", "\n", "\r", ",", '"', "\x00", "1e999", "-0", "NaN", '{"answer": {}, "question": [[]]}']
)  # fmt: skip


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(FRAGMENTS | st.text(max_size=8), max_size=8),
    suffix=st.sampled_from(sorted(TEXTS)),
    raw=st.binary(max_size=12),
)
def test_any_file_gives_problems_or_a_named_error(tmp_path, pieces, suffix, raw):
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes("".join(pieces).encode("utf-8", "surrogatepass") + raw * (len(pieces) % 2))
    try:
        found = load_problems(path)
    except ValueError as error:
        message = str(error)
        assert message.startswith("data: expected "), message
        assert "got" in message, message
        assert "fuzz" in message, message
    else:
        assert all(problem.question.strip() for problem in found)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_strict_json_reads_what_json_is(value):
    assert strict_json(json.dumps(value), "data", "here") == value


def test_what_hides_in_text_is_shown():
    assert visible("a\u202eb\x1b[31mc\x00") == "a⟨U+202E⟩b⟨U+001B⟩[31mc⟨U+0000⟩"
    assert visible("plain ünïcode 👩‍👩‍👧 \t\n") == "plain ünïcode 👩‍👩‍👧 \t\n"
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(chr(draw.randrange(0x110000)) for _ in range(20))
        assert is_visible(visible(text))
        visible(text).encode()
