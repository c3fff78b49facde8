import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from search_helpers import fingerprint

from lapha.engines.scripted import ScriptedEngine
from lapha.search import Journal, Search, SearchConfig, SearchResult

CONFIG = SearchConfig(first_chain=False, simulations=6, breadth=3, seed=2)
QUESTIONS = [f"question {i}" for i in range(6)]


def run(journal, questions=QUESTIONS, config=CONFIG, engine=None, **options):
    search = Search(engine or ScriptedEngine(), config=config)
    return search, list(search.run(questions, journal=journal, **options))


def test_killed_at_twenty_moments_and_resumed_gives_the_same_results(tmp_path):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "kill_and_resume.py"), str(tmp_path / "journal"), "20", "3"],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["different"] == 0
    assert report["kills"] == 20
    assert report["kills_with_some_finished"] >= 3, "the kills came too early or too late to test anything"
    assert report["lost"] == report["repeated"] == report["unfinished"] == report["begun_again_needlessly"] == 0


def test_finished_trees_are_read_and_not_searched_again(tmp_path):
    _, first = run(tmp_path / "journal", QUESTIONS[:4])
    engine = ScriptedEngine()
    search, second = run(tmp_path / "journal", engine=engine)
    assert search.meter.resumed == 4
    assert search.meter.trees == 2
    assert engine.stats.requests == 2 * CONFIG.simulations
    assert [fingerprint(r) for r in second[:4]] == [fingerprint(r) for r in first]
    assert [r.seconds for r in second[:4]] == [r.seconds for r in first]
    assert [r.index for r in second] == list(range(6))


def test_questions_may_come_in_another_order(tmp_path):
    _, first = run(tmp_path / "journal")
    search, second = run(tmp_path / "journal", QUESTIONS[::-1])
    assert search.meter.resumed == 6
    assert [r.index for r in second] == list(range(6))
    assert [fingerprint(r) for r in second[::-1]] == [fingerprint(r) for r in first]


@pytest.mark.parametrize("cut", [1, 5, 30, 2000])
def test_a_line_cut_short_is_searched_again(tmp_path, cut):
    _, first = run(tmp_path / "journal")
    path = tmp_path / "journal" / "results.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    search, second = run(tmp_path / "journal")
    assert search.meter.resumed == 5
    assert [fingerprint(r) for r in second] == [fingerprint(r) for r in first]
    assert len(path.read_bytes().splitlines()) == 6


def test_a_damaged_last_line_is_searched_again(tmp_path):
    _, first = run(tmp_path / "journal")
    path = tmp_path / "journal" / "results.jsonl"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    search, second = run(tmp_path / "journal")
    assert search.meter.resumed == 5
    assert [fingerprint(r) for r in second] == [fingerprint(r) for r in first]


def test_a_damaged_line_in_the_middle_is_refused_by_name(tmp_path):
    run(tmp_path / "journal")
    path = tmp_path / "journal" / "results.jsonl"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"results\.jsonl: expected lines as they were written, got a damaged one: line 1"
    ):
        run(tmp_path / "journal")
    assert path.read_bytes() == bytes(content), "a file that is not understood is left alone"


def test_other_settings_are_refused_and_named(tmp_path):
    run(tmp_path / "journal", QUESTIONS[:1])
    other = dataclasses.replace(CONFIG, simulations=7, prune=dataclasses.replace(CONFIG.prune, fraction=0.5))
    with pytest.raises(
        ValueError,
        match=r"expected a journal of the same settings, got one whose prune.fraction was .* and is 0.5; "
        "simulations was 6 and is 7",
    ):
        run(tmp_path / "journal", config=other)


def test_only_one_process_at_a_time(tmp_path):
    book = Journal.open(tmp_path / "journal", CONFIG)
    with pytest.raises(ValueError, match="expected a journal that no other process has open"):
        run(tmp_path / "journal")
    book.close()
    assert len(run(tmp_path / "journal")[1]) == 6


def test_foreign_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="journal: expected a folder in an existing one"):
        run(tmp_path / "no" / "journal")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="journal: expected a folder, got the file"):
        run(tmp_path / "file")
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "results.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"foreign: expected a journal with a header\.json, got one without"):
        run(folder)
    (folder / "header.json").write_text('{"format": "something"}')
    with pytest.raises(ValueError, match=r"header\.json: expected a file of format 'lapha-search-journal'"):
        run(folder)


def test_latents_that_are_missing_are_named(tmp_path):
    _, results = run(tmp_path / "journal", QUESTIONS[:2])
    (tmp_path / "journal" / "latents" / f"{results[1].key}.safetensors").unlink()
    with pytest.raises(
        ValueError, match=rf"{results[1].key}\.safetensors: expected a (file that exists|complete safetensors file)"
    ):
        run(tmp_path / "journal")


def test_trees_that_failed_are_not_kept(tmp_path):
    def fail(request):
        return RuntimeError("no") if "node 0, expansion 1" in request.name and len(engine.seen) == 2 else None

    engine = ScriptedEngine(fail=lambda request: engine.seen.add(request.name.split(",")[0]) or fail(request))
    engine.seen = set()
    _, results = run(tmp_path / "journal", engine=engine, concurrency=1, on_error="record")
    assert [r.stop_reason == "error" for r in results] == [False, True, False, False, False, False]
    search, again = run(tmp_path / "journal")
    assert search.meter.resumed == 5
    assert again[1].error is None


def test_trees_that_a_budget_of_the_run_cut_short_are_not_kept(tmp_path):
    _, first = run(tmp_path / "journal", concurrency=2, max_tokens=200)
    assert {r.stop_reason for r in first} >= {"run_max_tokens"}
    whole = [r for r in first if r.stop_reason == "simulations"]
    search, second = run(tmp_path / "journal")
    assert search.meter.resumed == len(whole)
    assert {r.stop_reason for r in second} == {"simulations"}
    assert [fingerprint(r) for r in second] == [fingerprint(r) for r in run(None)[1]]


def test_closing_early_keeps_what_was_yielded(tmp_path):
    async def main():
        results = Search(ScriptedEngine(), config=CONFIG).arun(QUESTIONS, concurrency=2, journal=tmp_path / "journal")
        seen = [(await anext(results)).key for _ in range(3)]
        await results.aclose()
        return seen

    seen = asyncio.run(main())
    book = Journal.open(tmp_path / "journal", CONFIG)
    assert all(key in book for key in seen)
    book.close()


@pytest.mark.parametrize("answer_rate", [0.0, 0.5])
def test_a_result_survives_saving(tmp_path, answer_rate):
    _, [result] = run(None, ["q?"], engine=ScriptedEngine(answer_rate=answer_rate))
    result.save(tmp_path / "result.json")
    loaded = SearchResult.load(tmp_path / "result.json")
    assert fingerprint(loaded) == fingerprint(result)
    assert (loaded.index, loaded.seconds, loaded.node) == (result.index, result.seconds, result.node)
    assert loaded.latents.curvature == result.latents.curvature


def test_a_result_refuses_the_latents_of_another(tmp_path):
    _, (one, two) = run(None, ["one?", "two?"])
    one.save(tmp_path / "one.json")
    two.save(tmp_path / "two.json")
    (tmp_path / "two.safetensors").rename(tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match=r"one\.safetensors: expected the latents of '.*', got those of"):
        SearchResult.load(tmp_path / "one.json")
    with pytest.raises(ValueError, match=r"two\.safetensors: expected a (file that exists|complete safetensors file)"):
        SearchResult.load(tmp_path / "two.json")
    content = (tmp_path / "one.safetensors").read_bytes()
    (tmp_path / "one.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"one\.safetensors: expected a (file that exists|complete safetensors file)"):
        SearchResult.load(tmp_path / "one.json")
