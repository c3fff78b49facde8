"""Shards that are put together are the run without shards, to the byte."""

import json
import shutil

import pytest
import torch
from killable_run import QUESTIONS, evaluate

from lapha.evaluation.data import fingerprint
from lapha.evaluation.folders import read_json_lines
from lapha.evaluation.merging import merge_shards, settings_of_whole
from lapha.evaluation.modes import MODES
from lapha.evaluation.run_folder import read_config, read_outcomes
from lapha.search import SearchResult

COUNT = 3


def run(path, shard=None, fail=None, **settings):
    asked = QUESTIONS if shard is None else QUESTIONS[shard - 1 :: COUNT]
    name = None if shard is None else f"{shard}/{COUNT}"
    about = {"shard": name, "modes": list(MODES), "questions": fingerprint(asked), "problems": len(asked)}
    return evaluate(path, questions=asked, settings=about | settings, fail=fail)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "whole")
    for shard in range(1, COUNT + 1):
        run(folder / f"part{shard}", shard)
    return folder


def parts_of(runs):
    return [runs / f"part{shard}" for shard in (2, 3, 1)]  # in any order


def merge(parts, path):
    return merge_shards(parts, path, QUESTIONS)


def tables(folder):
    return [(folder / name).read_bytes() for name in ("results.csv", "grades.jsonl")]


def search(folder, index):
    return SearchResult.load(folder / "trees" / f"{index:05d}.json")


def test_the_whole_is_the_run_without_shards(runs, tmp_path):
    merged = merge(parts_of(runs), tmp_path / "merged")
    assert tables(tmp_path / "merged") == tables(runs / "whole")
    assert read_config(tmp_path / "merged")["settings"] == read_config(runs / "whole")["settings"]
    assert [outcome.index for outcome in merged.outcomes["value"]] == list(range(len(QUESTIONS)))
    for index, question in enumerate(QUESTIONS):
        found, expected = search(tmp_path / "merged", index), search(runs / "whole", index)
        assert found.question == question
        assert found.tree.tokens == expected.tree.tokens
        assert torch.equal(found.latents.direction, expected.latents.direction)


def test_a_merge_that_was_cut_off_goes_on(runs, tmp_path):
    merge(parts_of(runs), tmp_path / "merged")
    rollouts = tmp_path / "merged" / "rollouts.jsonl"
    lines = rollouts.read_bytes().splitlines(keepends=True)
    rollouts.write_bytes(b"".join(lines[:7]) + lines[7][:20])
    (tmp_path / "merged" / "results.csv").unlink()
    merge(parts_of(runs), tmp_path / "merged")
    assert len(read_outcomes(tmp_path / "merged")) == len(MODES) * len(QUESTIONS)
    assert tables(tmp_path / "merged") == tables(runs / "whole")


def gone(request):
    return ConnectionError("the server is gone")


def test_a_shard_that_was_asked_again_after_a_merge_is_merged_again(runs, tmp_path):
    """Its failures count as failures until then, and a merge of nothing new writes nothing."""
    _, three, one = parts_of(runs)
    run(tmp_path / "part", 2, fail=gone)
    parts = [tmp_path / "part", three, one]
    merged = merge(parts, tmp_path / "merged")
    assert {score.failed for score in merged.scores.values()} == {3}
    rollouts = (tmp_path / "merged" / "rollouts.jsonl").read_bytes()
    merge(parts, tmp_path / "merged")
    assert (tmp_path / "merged" / "rollouts.jsonl").read_bytes() == rollouts
    run(tmp_path / "part", 2)
    merge(parts, tmp_path / "merged")
    assert tables(tmp_path / "merged") == tables(runs / "whole")
    assert search(tmp_path / "merged", 1).tree.tokens == search(runs / "whole", 1).tree.tokens


def test_all_shards_of_one_run_are_wanted(runs, tmp_path):
    two, three, one = parts_of(runs)
    with pytest.raises(ValueError, match=r"shards 1/3 to 3/3 once, got 1/3, 3/3"):
        settings_of_whole([one, three])
    with pytest.raises(ValueError, match=r"got 1/3, 2/3, 2/3, 3/3"):
        settings_of_whole([one, two, two, three])
    with pytest.raises(ValueError, match="made with --shard"):
        settings_of_whole([one, two, runs / "whole"])
    run(tmp_path / "other", 3, nested={"seed": 2})
    with pytest.raises(ValueError, match=r"nested.seed was 1 and is 2"):
        settings_of_whole([one, two, tmp_path / "other"])


def test_a_shard_of_other_questions_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="of these questions"):
        merge_shards(parts_of(runs), tmp_path / "merged", QUESTIONS[::-1])


def test_a_shard_that_is_not_finished_is_refused(runs, tmp_path):
    parts = parts_of(runs)
    shutil.copytree(parts[0], tmp_path / "cut")
    rollouts = tmp_path / "cut" / "rollouts.jsonl"
    rollouts.write_bytes(b"".join(rollouts.read_bytes().splitlines(keepends=True)[:-2]))
    with pytest.raises(ValueError, match=r"a finished run in .*cut .*, got 1 of majority, 1 of best-of-n to do"):
        merge([tmp_path / "cut", *parts[1:]], tmp_path / "merged")
    (tmp_path / "cut" / "grades.jsonl").unlink()
    with pytest.raises(ValueError, match="graded"):
        merge([tmp_path / "cut", *parts[1:]], tmp_path / "merged2")


def test_what_the_judge_has_said_comes_along(runs, tmp_path):
    parts = [tmp_path / part.name for part in parts_of(runs)]
    for part, found in zip(parts, parts_of(runs)):
        shutil.copytree(found, part)
    records = [{"key": key, "pair": ["a", "b"], "correct": key != "y"} for key in "xyz"]
    for part, own in ((parts[0], records[:2]), (parts[2], records[1:])):
        (part / "judge.jsonl").write_text("".join(json.dumps(record) + "\n" for record in own))
    merge(parts, tmp_path / "merged")
    merged = read_json_lines(tmp_path / "merged" / "judge.jsonl")
    assert [{name: record[name] for name in record if name != "crc32"} for record in merged] == records
