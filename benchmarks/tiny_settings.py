"""Search settings of the embedded policy, compared on problems of its training split.

    python -m benchmarks.tiny_settings [OUTPUT]

These are where `lapha.tiny.C_PUCT`, `MAX_EXPANDS` and the demo's pruning come from; no held-out problem is looked at.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.records import run_facts, write_records
from lapha.agent import ChatEnvironment
from lapha.engines import TransformersEngine
from lapha.pruning import PruneConfig
from lapha.search import Search, SearchConfig
from lapha.tiny import BREADTH, DEPTH_LIMIT, SEARCH, generate, load_tiny, verify

PROBLEMS = 150
ONE_OF_EACH = PruneConfig(fraction=0.99, cut="distance", distance=1e-3, scope="all", survivors="value")
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    *((f"c_puct {weight:g}", {"simulations": 24, "c_puct": weight}) for weight in (1.0, 0.3, 0.1, 0.0)),
    ("c_puct 1, two expansions", {"simulations": 24, "c_puct": 1.0, "max_expands": 2}),
    ("c_puct 0.1, two expansions", {"simulations": 24, "c_puct": 0.1, "max_expands": 2}),
    ("12 expansions", {"simulations": 12, "c_puct": 0.1}),
    ("12 expansions, one of each step", {"simulations": 12, "c_puct": 0.1, "prune_every": 1, "prune": ONE_OF_EACH}),
)


def measure(settings: dict[str, Any], questions: list[str]) -> dict[str, float]:
    """Share of problems that value-guided search solves, and mean sampled tokens."""
    model, tokenizer, head = load_tiny()
    engine = TransformersEngine(model, tokenizer, head)
    environment = ChatEnvironment(tokenizer, depth_limit=DEPTH_LIMIT, context_limit=512)
    fixed = {"breadth": BREADTH, "depth_limit": DEPTH_LIMIT, "sampling": SEARCH}
    search = Search(engine, environment=environment, config=SearchConfig(**{"max_expands": 1, **fixed, **settings}))
    results = list(search.run(questions, concurrency=64))
    engine.close()
    solved = sum(result.answer is not None and verify(result.question, result.answer) for result in results)
    tokens = sum(result.tree.sampled_tokens for result in results)
    return {"solved": solved / len(results), "tokens": tokens / len(results)}


def main(output: str) -> None:
    questions = [problem.question for problem in generate(PROBLEMS, seed=21, split="train")]
    for name, settings in CASES:
        found = measure(settings, questions)
        print(f"{name:32s} solved {found['solved']:.3f}, {found['tokens']:.0f} tokens", flush=True)
        facts = run_facts(torch.device("cpu")) | {"suite": "tiny-settings", "name": name, "problems": PROBLEMS}
        write_records([facts | found], Path(output))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/results/tiny-settings-cpu.jsonl")
