"""Right answers against sampled tokens: every way of spending them, on the embedded policy's held-out problems.

    python -m benchmarks.search_quality [OUTPUT] [PROBLEMS]

One search of many simulations gives its whole curve, and one set of independent chains those of
`single`, majority and best-of-n. Three difficulties: problems whose shortest way has 3–4, 5, and 6 moves.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.records import run_facts, write_records
from lapha.engines import TransformersEngine
from lapha.search import Search, SearchConfig, SearchResult
from lapha.tiny import BREADTH, C_PUCT, MAX_EXPANDS, SEARCH, Problem, generate, tiny_path, verify

SIMULATIONS = 33
CHAINS = 16
BUDGETS = (20, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1000)
BASE = SearchConfig(
    simulations=SIMULATIONS, breadth=BREADTH, c_puct=C_PUCT, max_expands=MAX_EXPANDS, sampling=SEARCH, seed=1
)
WAYS: dict[str, dict[str, Any]] = {
    "frontier": {},
    "frontier, no first chain": {"first_chain": False},
    "frontier, no first chain, twins kept": {"first_chain": False, "merge_twins": False},
    "puct": {"selection": "puct"},
    "beam 1": {"selection": "beam", "beam_width": 1},
    "beam 4": {"selection": "beam", "beam_width": 4},
    "dvts 4": {"selection": "dvts", "beam_width": 4},
}


def problems_by_difficulty(count: int) -> dict[str, list[Problem]]:
    """`count` held-out problems of each difficulty."""
    found: dict[str, list[Problem]] = {"3-4 moves": [], "5 moves": [], "6 moves": []}
    for problem in generate(60 * count, seed=41, split="heldout"):
        name = "3-4 moves" if problem.distance <= 4 else f"{problem.distance} moves"
        if name in found and len(found[name]) < count:
            found[name].append(problem)
    return found


def right(question: str, answer: str | None) -> bool:
    return answer is not None and verify(question, answer)


def curve_of(result: SearchResult) -> list[tuple[int, bool]]:
    """(tokens, right) after every simulation, as long as the tree grew, by the leaf with the highest v̂."""
    tree = result.tree
    spent = np.zeros(result.stats["simulations"] + 1, dtype=np.int64)
    for node in range(1, len(tree)):
        spent[tree.simulation[node]] += len(tree.sampled_ids(node))
    for simulation, node in tree.repeats:
        spent[simulation] += len(tree.sampled_ids(node))
    best: dict[int, int] = {}  # the best new leaf of a simulation
    for leaf in tree.answered().tolist():
        made = int(tree.simulation[leaf])
        if made not in best or tree.value[leaf] > tree.value[best[made]]:
            best[made] = leaf
    points, chosen, good = [], None, False
    for simulation, tokens in enumerate(spent.cumsum().tolist()):
        leaf = best.get(simulation)
        if leaf is not None and (chosen is None or tree.value[leaf] > tree.value[chosen]):
            chosen, good = leaf, right(result.question, tree.answer[leaf])
        points.append((tokens, good))
    return points


def at(points: list[tuple[int, bool]], budget: int) -> bool:
    """Whether the answer is right that stands when `budget` tokens have been sampled, and not one more."""
    return [good for tokens, good in points if tokens <= budget][-1]


def chain_curves(chains: list[SearchResult]) -> dict[str, list[tuple[int, bool]]]:
    """Curves of majority and best-of-n (by v̂) over independent chains of one question."""
    curves: dict[str, list[tuple[int, bool]]] = {"majority": [(0, False)], "best-of-n": [(0, False)]}
    tokens, seen = 0, []
    for chain in chains:
        tokens += chain.tree.sampled_tokens
        if chain.answer is not None:
            seen.append(chain)
        if seen:
            votes = Counter(chain.answer for chain in seen)
            curves["majority"].append((tokens, right(chain.question, votes.most_common(1)[0][0])))
            curves["best-of-n"].append((tokens, right(chain.question, max(seen, key=lambda c: c.value).answer)))
    return curves


def measure(problems: list[Problem]) -> dict[str, list[list[tuple[int, bool]]]]:
    """Curves by way, one a problem."""
    engine = TransformersEngine.from_pretrained(tiny_path(), value_head=tiny_path())
    questions = [problem.question for problem in problems]
    curves: dict[str, list[list[tuple[int, bool]]]] = {}
    for name, settings in WAYS.items():
        search = Search(engine, config=dataclasses.replace(BASE, **settings))
        curves[name] = [curve_of(result) for result in search.run(questions, concurrency=64)]
    chain = dataclasses.replace(BASE, simulations=100, breadth=1, max_expands=1, first_chain=False)
    for name, config, count in (
        ("single", dataclasses.replace(chain, sampling=dataclasses.replace(SEARCH, temperature=0.0)), 1),
        ("chains", chain, CHAINS),
    ):
        asked = [question for question in questions for _ in range(count)]
        found = list(Search(engine, config=config).run(asked, concurrency=128))
        groups = [found[first : first + count] for first in range(0, len(found), count)]
        if name == "single":
            curves["single"] = [[(0, False), (r.tree.sampled_tokens, right(r.question, r.answer))] for [r] in groups]
        else:
            for way in ("majority", "best-of-n"):
                curves[way] = [chain_curves(group)[way] for group in groups]
    engine.close()
    return curves


def interval(first: np.ndarray, second: np.ndarray) -> list[float]:
    """95 % interval of the mean of first − second, paired, by bootstrap."""
    difference = first.astype(float) - second.astype(float)
    draws = np.random.default_rng(0).integers(len(difference), size=(2000, len(difference)))
    return np.quantile(difference[draws].mean(axis=1), [0.025, 0.975]).round(4).tolist()


def main(output: str, count: int) -> None:
    for difficulty, problems in problems_by_difficulty(count).items():
        curves = measure(problems)
        found = {name: {b: np.array([at(c, b) for c in each]) for b in BUDGETS} for name, each in curves.items()}
        for name in curves:
            for budget in BUDGETS:
                record = {"suite": "search-quality", "difficulty": difficulty, "name": name, "budget": budget}
                record |= {"problems": len(problems), "right": float(found[name][budget].mean())}
                record |= {"default_minus": interval(found["frontier"][budget], found[name][budget])}
                tokens = [max(t for t, _ in curve if t <= budget) for curve in curves[name]]
                record |= {"tokens": float(np.mean(tokens))}
                write_records([run_facts(torch.device("cpu")) | record], Path(output))
            line = " ".join(f"{100 * found[name][budget].mean():5.1f}" for budget in BUDGETS)
            print(f"{difficulty:10s} {name:38s} {line}", flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        arguments[0] if arguments else "benchmarks/results/search-quality-cpu.jsonl",
        int(arguments[1]) if len(arguments) > 1 else 100,
    )
