"""README's own search example on held-out problems: share of right answers, and sampled tokens.

python -m benchmarks.readme_search [OUTPUT] [PROBLEMS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.records import run_facts, write_records
from lapha.engines import TransformersEngine
from lapha.search import Search, SearchConfig
from lapha.tiny import C_PUCT, MAX_EXPANDS, SEARCH, problems, tiny_path, verify


def main(output: str, count: int) -> None:
    engine = TransformersEngine.from_pretrained(tiny_path(), value_head=tiny_path())
    questions = [problem.question for problem in problems.generate(count, seed=2, split="heldout")]
    config = SearchConfig(simulations=32, breadth=4, c_puct=C_PUCT, max_expands=MAX_EXPANDS, sampling=SEARCH)
    results = list(Search(engine, config=config).run(questions, concurrency=32))
    engine.close()
    right = sum(result.answer is not None and verify(result.question, result.answer) for result in results)
    tokens = sum(result.tree.sampled_tokens for result in results)
    found = {"suite": "readme-search", "problems": count, "right": right / count, "tokens": tokens / count}
    write_records([run_facts(torch.device("cpu")) | found], Path(output))
    print(f"{count} problems: {100 * right / count:.1f} % right, {tokens / count:.0f} tokens a problem")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        arguments[0] if arguments else "benchmarks/results/readme-search-cpu.jsonl",
        int(arguments[1]) if len(arguments) > 1 else 100,
    )
