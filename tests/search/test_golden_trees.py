"""Trees worked out by hand (`golden/search_tree.json`), replayed alone and in a batch."""

import numpy as np
import pytest
from search_helpers import SCRIPT, ScriptedTree, check_statistics, fingerprint

from lapha.search import Search, SearchConfig

CASES = {case["name"]: case for case in SCRIPT["cases"]}


def check_case(case, result):
    tree = result.tree
    ids = [str(tokens[-1]) for tokens in tree.tokens]
    assert ids == case["script_ids"]
    expanded = [ids[tree.parent[np.flatnonzero(tree.simulation == s)[0]]] for s in sorted(set(tree.simulation[1:]))]
    assert expanded == case["expanded"]
    assert [[s, ids[leaf]] for s, leaf in tree.revisits] == case.get("revisits", [])
    assert tree.visits.tolist() == case["visits"]
    np.testing.assert_allclose(tree.value_sum, case["value_sum"], atol=1e-6)
    np.testing.assert_allclose(tree.prior, case["prior"], rtol=1e-5)
    assert result.answer == case["answer"]
    assert result.stop_reason == "simulations"
    check_statistics(tree)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_alone(case):
    [result] = Search(ScriptedTree(SCRIPT), config=SearchConfig(first_chain=False, **case["config"])).run(["q"])
    check_case(case, result)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_in_a_batch_whose_requests_come_back_out_of_order(case):
    world = ScriptedTree(SCRIPT, delay=0.001)
    search = Search(world, config=SearchConfig(first_chain=False, **case["config"]))
    results = list(search.run([f"question {i}" for i in range(7)], concurrency=5))
    assert len({name for name, _ in world.asked[:4]}) == 4, "the trees must really be in flight together"
    for index, result in enumerate(results):
        assert (result.index, result.question) == (index, f"question {index}")
        check_case(case, result)
        [alone] = Search(ScriptedTree(SCRIPT), config=SearchConfig(first_chain=False, **case["config"])).run(
            [f"question {index}"]
        )
        assert fingerprint(alone) == fingerprint(result)
