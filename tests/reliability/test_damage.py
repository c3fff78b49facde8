"""Every format, damaged in 29 ways: refused by name, or a damaged tail dropped with a count. Never other content."""

import json
import logging
import random
from pathlib import Path

import pytest
import torch
from test_identity import SMALL

from lapha._store import LineFile, read_lines
from lapha.engines import ScriptedEngine
from lapha.evaluation.grading import Verdict
from lapha.evaluation.grading.judge import known_verdicts
from lapha.evaluation.modes import Outcome
from lapha.evaluation.results import GradedRun, grade_run, read_graded
from lapha.evaluation.run_folder import RunFolder, read_config, read_outcomes
from lapha.geometry import PolarPoints
from lapha.latent import LatentBank, ValueHead
from lapha.search import Journal, Search, SearchResult
from lapha.tree import load_tree, save_tree


def damages(content):
    """(name, damaged content): 8 truncations, 18 bit flips and zeroed or random regions, and three more."""
    draw = random.Random(len(content))
    size = len(content)
    for share in (0.0, 0.001, 0.1, 0.3, 0.5, 0.9, 0.99):
        yield f"cut to {share}", content[: int(share * size)]
    yield "cut by one", content[:-1]
    for region in range(6):
        first, last = region * size // 6, (region + 1) * size // 6
        for _ in range(2):
            at = draw.randrange(first, last)
            yield f"bit at {at}", content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
        at, length = draw.randrange(first, last), min(size // 6, draw.choice([1, 4, 64, 4096]))
        filling = draw.choice([bytes(length), draw.randbytes(length)])
        yield f"{length} bytes at {at}", content[:at] + filling + content[at + length :]
    yield "padded", content + bytes(100)
    yield "doubled", content + content
    at = draw.randrange(size // 2)
    yield "a region missing", content[:at] + content[at + 5 :]


def searched():
    [result] = Search(ScriptedEngine(), config=SMALL).run(["What is 1 + 1?"])
    return result


def bank():
    made = LatentBank(4)
    made.append(PolarPoints.from_tangent(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), 1.0), 3)
    return made


def head():
    made = ValueHead(6)
    torch.nn.init.constant_(made.linear.weight, 0.25)
    return made


def run_of(folder):
    made = RunFolder(folder, {"seed": 1, "nested": {"name": "a"}})
    made.identify({"policy": "A"})
    for index in range(4):
        made.add(Outcome(index, "single", "7", 0.5, ("7",), (0.5,), 12, 0.25))
    made.close()
    grade_run(folder, lambda pairs: [Verdict(True, "exact")] * len(pairs))
    return folder


def contents_of_bank(path):
    found = LatentBank.from_file(path)
    points = found[range(len(found))]
    return repr((found.tree_ids, found.curvature, points.direction.tolist(), points.radius.tolist()))


def contents_of_result(path):
    found = SearchResult.load(path)
    return repr(
        (found.to_dict(), found.latents.direction.tolist(), found.latents.radius.tolist(), found.latents.curvature)
    )


def contents_of_journal(folder):
    book = Journal.open(folder, SMALL, Search(ScriptedEngine(), config=SMALL).identity())
    try:
        found = [book.read(key, 0) for key in sorted(book._offsets)]
        return [repr((f.to_dict(), f.latents.direction.tolist(), f.latents.radius.tolist())) for f in found]
    finally:
        book.close()


def contents_of_head(path):
    found = ValueHead.from_pretrained(path)
    return repr((found.state_dict(), found.curvature, found.value_target))


def judged(path):
    made = LineFile(path, checked=False)
    for key in ("a", "b", "c"):
        made.append({"key": key, "pair": ["1", "2"], "correct": key == "b"})
    made.close()


def make_journal(folder):
    list(Search(ScriptedEngine(), config=SMALL).run(["one", "two", "three"], journal=folder))


def contents_of_run(folder):
    return [repr(outcome) for outcome in sorted(read_outcomes(folder), key=lambda o: o.index)]


def contents_of_grades(folder):
    return repr(sorted(read_graded(folder).verdicts.items()))


def resumed(folder):
    again = RunFolder(folder, {"seed": 1, "nested": {"name": "a"}})
    again.close()
    return [repr(outcome) for outcome in sorted(again.outcomes, key=lambda o: o.index)]


# format -> (write to a folder, the file in it that is damaged, read)
FORMATS = {
    "tree": (lambda f: save_tree(searched().tree, f / "t.json"), "t.json", lambda f: repr(load_tree(f / "t.json").columns)),
    "result": (lambda f: searched().save(f / "r.json"), "r.json", lambda f: contents_of_result(f / "r.json")),
    "result latents": (
        lambda f: searched().save(f / "r.json"), "r.safetensors", lambda f: contents_of_result(f / "r.json"),
    ),
    "bank": (lambda f: bank().save(f / "b"), "b", lambda f: contents_of_bank(f / "b")),
    "value head": (
        lambda f: head().save_pretrained(f), "value_head/value_head.safetensors", contents_of_head,
    ),
    "journal header": (lambda f: make_journal(f / "j"), "j/header.json", lambda f: contents_of_journal(f / "j")),
    "journal lines": (lambda f: make_journal(f / "j"), "j/results.jsonl", lambda f: contents_of_journal(f / "j")),
    "journal latents": (lambda f: make_journal(f / "j"), "j/latents/*", lambda f: contents_of_journal(f / "j")),
    "run settings": (
        lambda f: run_of(f / "run"), "run/config.yaml",
        lambda f: repr([read_config(f / "run")[n] for n in ("settings", "identity", "format")]),
    ),
    "rollouts read": (lambda f: run_of(f / "run"), "run/rollouts.jsonl", lambda f: contents_of_run(f / "run")),
    "rollouts resumed": (lambda f: run_of(f / "run"), "run/rollouts.jsonl", lambda f: resumed(f / "run")),
    "grades": (lambda f: run_of(f / "run"), "run/grades.jsonl", lambda f: contents_of_grades(f / "run")),
    "judge": (
        lambda f: judged(f / "judge.jsonl"), "judge.jsonl",
        lambda f: [repr(pair) for pair in known_verdicts(read_lines(f / "judge.jsonl", checked=False).records, f / "judge.jsonl").items()],
    ),
}  # fmt: skip


def attempt(read, folder):
    """(what was read, None) or (None, the message of the refusal)."""
    try:
        return read(folder), None
    except ValueError as error:
        return None, str(error)


@pytest.mark.parametrize("kind", FORMATS)
def test_no_damage_changes_what_is_read(kind, tmp_path, caplog):
    make, name, read = FORMATS[kind]
    make(tmp_path)
    path = sorted(tmp_path.glob(name))[0]
    whole, expected = path.read_bytes(), read(tmp_path)
    refused = dropped = 0
    tried = list(damages(whole))
    assert len(tried) == 29
    for damage, content in tried:
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found, message = attempt(read, tmp_path)
        if message is not None:
            refused += 1
            named = path.name in message or str(tmp_path) in message
            assert named and "expected" in message and "got" in message, f"{damage}: {message}"  # noqa: PT018
        elif found != expected:
            assert isinstance(expected, list), f"{damage}: other content"
            assert found == expected[: len(found)] or set(found) < set(expected), f"{damage}: other content"
            cut_between_lines = content == b"" or (whole.startswith(content) and content.endswith(b"\n"))
            counted = [r for r in caplog.records if "cut off or damaged" in r.getMessage()]
            assert cut_between_lines or counted, f"{damage}: dropped without a word"
            dropped += 1
        path.write_bytes(whole)
    assert read(tmp_path) == expected
    assert refused > 0 or dropped > 0


def test_old_files_are_read_as_they_are(tmp_path):
    """Version 1 had no checksums: a document, lines, and tensors."""
    from safetensors.torch import save_file

    from lapha._store import read_document, write_document

    result = searched()
    result.save(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    del document["crc32"], document["latents"]
    document["version"] = 1
    (tmp_path / "r.json").write_text(json.dumps(document))
    metadata = {"format": "lapha-latents-1", "key": result.key, "curvature": "1.0"}
    tensors = {"direction": result.latents.direction.contiguous(), "radius": result.latents.radius.contiguous()}
    save_file(tensors, tmp_path / "r.safetensors", metadata)
    loaded = SearchResult.load(tmp_path / "r.json")
    assert loaded.tree.tokens == result.tree.tokens
    assert torch.equal(loaded.latents.direction, result.latents.direction)
    metadata = {"format": "lapha.LatentBank", "version": "1", "curvature": "1.0", "dim": "4"}
    points = bank()[range(30)]
    tree_id = torch.full((30,), 3)
    save_file({"direction": points.direction, "radius": points.radius, "tree_id": tree_id}, tmp_path / "b", metadata)
    assert contents_of_bank(tmp_path / "b") == (bank().save(tmp_path / "c"), contents_of_bank(tmp_path / "c"))[1]
    write_document(tmp_path / "d.json", "kind", 1, {"a": 1})
    (tmp_path / "d.json").write_text('{"format": "kind", "version": 1, "a": 1}')
    assert read_document(tmp_path / "d.json", "kind", 2)["a"] == 1


def test_an_old_journal_goes_on_with_lines_that_are_checked(tmp_path):
    import zlib

    make_journal(tmp_path / "j")
    path = tmp_path / "j" / "results.jsonl"
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    old = [json.dumps({k: v for k, v in r.items() if k not in ("crc32", "latents")}).encode() for r in records]
    path.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in old))
    search = Search(ScriptedEngine(), config=SMALL)
    assert len(list(search.run(["one", "two", "three", "four"], journal=tmp_path / "j"))) == 4
    assert search.meter.resumed == 3
    assert len(contents_of_journal(tmp_path / "j")) == 4


def test_an_old_run_is_read_and_goes_on(tmp_path):
    import yaml

    run_of(tmp_path)
    before = contents_of_run(tmp_path)
    settings = read_config(tmp_path)["settings"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"settings": settings, "environment": {}}))
    rollouts = tmp_path / "rollouts.jsonl"
    lines = [json.loads(line) for line in rollouts.read_text().splitlines()]
    rollouts.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "crc32"}) + "\n" for r in lines))
    assert contents_of_run(tmp_path) == before == resumed(tmp_path)
    assert isinstance(read_graded(tmp_path), GradedRun)
    again = RunFolder(tmp_path, settings)
    with pytest.raises(ValueError, match=r"expected a run that says which model .* one of an older version"):
        again.identify({"policy": "A"})
    again.close()


def test_records_that_lack_a_field_or_have_another_type_are_named(tmp_path):
    for change in (
        {"answers": None},
        {"tokens": "3"},
        {"index": True},
        {"mode": "guess"},
        {"values": []},
        {"answer": 3},
    ):
        folder = tmp_path / f"{next(iter(change))}-{len(list(Path(tmp_path).iterdir()))}"
        run_of(folder)
        (folder / "rollouts.jsonl").unlink()
        file = LineFile(folder / "rollouts.jsonl")
        good = {"index": 0, "mode": "single", "answer": "7", "value": 0.5, "answers": ["7"], "values": [0.5]}
        file.append({**good, "tokens": 3, "seconds": 0.1, "error": None, **change})
        file.close()
        with pytest.raises(ValueError, match=r"rollouts\.jsonl: record 1: expected .*, got"):
            read_outcomes(folder)
