import json
import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha._store import replace_file
from lapha.tree import SearchTree, load_tree, save_tree
from lapha.tree.search_tree import FIELDS
from lapha.tree.storage import tree_from_dict, tree_to_dict
from lapha.types import Status


def random_tree(seed: int, nodes: int) -> SearchTree:
    generator = np.random.default_rng(seed)
    tree = SearchTree("Größe? \U0001f600 \ud800 \x00 'x'", generator.integers(0, 2**31, 5).tolist(), capacity=1)
    while len(tree) < nodes:
        parent = int(generator.choice(np.flatnonzero(tree.status == Status.OPEN)))
        status = Status(int(generator.choice(6, p=[0.7, 0.1, 0.05, 0.05, 0.05, 0.05]))) if len(tree) > 3 else 0
        length = int(generator.integers(0, 6))
        node = tree.add(
            parent,
            tokens=generator.integers(0, 2**31, length + 2).tolist(),
            bridge_length=2,
            logprobs=(-generator.exponential(size=length)).tolist(),
            text="".join(map(chr, generator.integers(32, 0xD7FF, 8))),
            answer=str(length) if status == Status.ANSWERED else None,
            status=status,
            well_formed=bool(generator.random() < 0.5),
            value=float(generator.random()) if generator.random() < 0.8 else math.nan,
        )
        tree.visits[node] = generator.integers(0, 100)
        tree.value_sum[node] = generator.normal()
        tree.simulation[node] = len(tree)
        tree.pruned[node] = generator.random() < 0.1
    tree.revisits = [(3, 1)]
    tree.stats = {"tool_error": 2}
    return tree


def same(a: SearchTree, b: SearchTree) -> bool:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype
    for name in ("question", "tokens", "logprobs", "text", "answer", "children", "revisits", "stats"):
        assert getattr(a, name) == getattr(b, name), name
    return True


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), nodes=st.integers(1, 60))
def test_a_tree_survives_exactly(seed, nodes, tmp_path_factory):
    tree = random_tree(seed, nodes)
    path = tmp_path_factory.mktemp("trees") / "tree.json"
    tree.save(path)
    loaded = SearchTree.load(path)
    assert same(tree, loaded)
    if (loaded.status == Status.OPEN).any():
        loaded.add(int(np.flatnonzero(loaded.status == Status.OPEN)[0]), tokens=[1])  # and goes on growing
        assert len(loaded) == nodes + 1


def test_the_file_is_plain_json_that_says_what_it_is(tmp_path):
    path = tmp_path / "tree.json"
    save_tree(random_tree(0, 10), path)
    document = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document["format"] == "lapha-search-tree"
    assert document["version"] == 2
    assert next(iter(document)) == "crc32"


def write(path, change):
    save_tree(random_tree(1, 12), path)
    document = json.loads(path.read_text())
    del document["crc32"]
    document["version"] = 1  # which had no checksum
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other"), "expected a file of format 'lapha-search-tree', got 'other'"),
        (lambda d: d.pop("format"), "expected a file of format 'lapha-search-tree', got None"),
        (lambda d: d.update(version=3), "expected version 1 to 2 of 'lapha-search-tree', got 3"),
        (lambda d: d.update(version=2), "expected a file that begins with its checksum, got one that is damaged"),
        (lambda d: d["fields"].pop("visits"), "expected a search tree .*visits"),
        (lambda d: d["fields"]["visits"].pop(), "visits: expected length 12, got 11"),
        (lambda d: d["tokens"].pop(), "tokens: expected length 12, got 11"),
        (
            lambda d: d["fields"]["parent"].__setitem__(3, 7),
            r"parent: expected an index earlier .* got .*parent\[3\] = 7",
        ),
        (lambda d: d["fields"]["parent"].__setitem__(3, -1), "parent: expected a single root, got several"),
        (lambda d: d["fields"]["parent"].__setitem__(0, 0), "parent: expected a root first"),
        (lambda d: d["fields"].update(depth=["x"] * 12), "expected a search tree .*invalid literal"),
    ],
)
def test_foreign_and_damaged_files_are_refused_by_name(tmp_path, change, message):
    path = tmp_path / "bad-tree.json"
    write(path, change)
    with pytest.raises(ValueError, match=f"bad-tree.json.*{message}"):
        load_tree(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_files_are_refused_by_name(tmp_path, share):
    path = tmp_path / "short.json"
    save_tree(random_tree(1, 12), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"short\.json: expected JSON that is not truncated"):
        load_tree(path)


def test_missing_and_binary_files_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.json: expected a readable file"):
        load_tree(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"binary\.json"):
        load_tree(tmp_path / "binary.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"list\.json: expected a file of format"):
        load_tree(tmp_path / "list.json")


def test_bad_places_are_found_out_before_writing(tmp_path):
    with pytest.raises(ValueError, match="path: expected a file in an existing folder"):
        save_tree(random_tree(0, 3), tmp_path / "no" / "tree.json")
    with pytest.raises(ValueError, match="path: expected a file, got the folder"):
        save_tree(random_tree(0, 3), tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "tree.json"
    save_tree(random_tree(0, 5), path)
    before = path.read_bytes()
    bad = random_tree(1, 5)
    bad.value_sum[2] = math.inf  # JSON has no such number
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_tree(bad, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["tree.json"]


def test_dictionary_round_trip_names_its_source():
    tree = random_tree(4, 20)
    assert same(tree, tree_from_dict(json.loads(json.dumps(tree_to_dict(tree)))))
    with pytest.raises(ValueError, match="page 3: expected a search tree"):
        tree_from_dict({}, "page 3")


def test_a_replaced_file_has_the_rights_of_any_new_file(tmp_path):
    """Runs are shared: what is written durably is no more private than what is written plainly."""
    (tmp_path / "plain").write_bytes(b"")
    replace_file(tmp_path / "durable", b"1")
    replace_file(tmp_path / "durable", b"2")
    assert (tmp_path / "durable").read_bytes() == b"2"
    assert (tmp_path / "durable").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["durable", "plain"]
