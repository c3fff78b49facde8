"""Whether a search that goes on where it was cut off gives the trees of the unbroken one, and why not where it does not.

``python -m benchmarks.resumed_search [PROBLEMS] [OUTPUT]``: the embedded policy on held-out problems, unbroken twice and
from a quarter, a half and three quarters on; in float32 with 32 trees and with one tree at once, and in float64.
"""

import json
import sys
import time
from pathlib import Path

import torch

from lapha.agent import ChatEnvironment
from lapha.engines import TransformersEngine
from lapha.evaluation.provenance import environment_record
from lapha.latent import ValueHead
from lapha.search import Search, SearchConfig
from lapha.tiny import BREADTH, C_PUCT, DEPTH_LIMIT, MAX_EXPANDS, SEARCH, problems, tiny_path


def trees(questions, dtype, concurrency):
    """Question -> tokens of its tree and its answer; seconds."""
    head = ValueHead.from_pretrained(tiny_path())
    engine = TransformersEngine.from_pretrained(tiny_path(), value_head=head, dtype=dtype)
    environment = ChatEnvironment(engine.tokenizer, depth_limit=DEPTH_LIMIT)
    config = SearchConfig(
        simulations=32,
        breadth=BREADTH,
        depth_limit=DEPTH_LIMIT,
        c_puct=C_PUCT,
        max_expands=MAX_EXPANDS,
        sampling=SEARCH,
    )
    search, started = Search(engine, environment=environment, config=config), time.monotonic()
    found = {r.question: (list(map(list, r.tree.tokens)), r.answer) for r in search.run(questions, concurrency)}
    engine.close()
    return found, time.monotonic() - started


def main(count, output):
    torch.set_num_threads(1)
    questions = [problem.question for problem in problems.generate(count, seed=0, split="heldout")]
    rows = []
    for dtype, concurrency in ((torch.float32, 32), (torch.float32, 1), (torch.float64, 32)):
        (whole, seconds), (again, _) = trees(questions, dtype, concurrency), trees(questions, dtype, concurrency)
        row = {"dtype": str(dtype), "concurrency": concurrency, "seconds": round(seconds, 1), "resumed": []}
        row["unbroken_again_differ"] = sum(whole[q] != again[q] for q in questions)
        for cut in (count // 4, count // 2, 3 * count // 4):
            rest, _ = trees(questions[cut:], dtype, concurrency)
            differ = sum(rest[q] != whole[q] for q in questions[cut:])
            row["resumed"].append({"from": cut, "asked": count - cut, "differ": differ})
        rows.append(row)
        print(row, flush=True)
    output.write_text(
        json.dumps({"environment": environment_record(), "problems": count, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 40,
        Path(sys.argv[2] if len(sys.argv) > 2 else "benchmarks/results/resumed_search.json"),
    )
