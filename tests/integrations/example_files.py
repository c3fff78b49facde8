"""Loading the example files that people copy, and shaped trees of the embedded policy for them."""

import runpy
from functools import cache
from pathlib import Path

from lapha.engines import TransformersEngine
from lapha.integrations import ShapingConfig, shape_tree
from lapha.search import Search, SearchConfig
from lapha.tiny import BREADTH, DEPTH_LIMIT, SEARCH, load_tiny, problems
from lapha.tiny.problems import TinyVerifier

FOLDER = Path(__file__).parents[2] / "examples"


def load(name):
    """The names that an example defines."""
    return runpy.run_path(str(FOLDER / name))


@cache
def shaped_trees(count=6, simulations=10):
    """Trees of the embedded policy on its own problems, shaped strictly, with their latents."""
    engine = TransformersEngine(*load_tiny())
    config = SearchConfig(simulations=simulations, breadth=BREADTH, depth_limit=DEPTH_LIMIT, sampling=SEARCH)
    questions = [problem.question for problem in problems.generate(count, seed=0)]
    results = list(Search(engine, config=config).run(questions))
    engine.close()
    shaping = ShapingConfig(reward="strict", breadth=BREADTH, easy_accuracy=1.0)
    return [(shape_tree(r.tree, r.latents, TinyVerifier(), shaping), r.latents) for r in results]
