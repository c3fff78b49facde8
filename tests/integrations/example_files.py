"""Loading the example files that people copy, and shaped trees of the embedded policy for them."""

import runpy
from functools import cache
from pathlib import Path

from lapha.agent import ChatEnvironment
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
def shaped_trees(count=16, simulations=32):
    """Trees of the embedded policy on its own problems, shaped strictly, with their latents.

    They are grown as trees to train on are. With little trust in its value head the search goes where the policy goes, and finds wrong answers too.
    """
    engine = TransformersEngine(*load_tiny())
    config = SearchConfig(
        simulations=simulations, breadth=BREADTH, depth_limit=DEPTH_LIMIT, max_expands=1, value_trust=0.1, c_puct=0.3,
        first_chain=False, merge_twins=False, sampling=SEARCH,
    )  # fmt: skip
    environment = ChatEnvironment(engine.tokenizer, depth_limit=DEPTH_LIMIT, context_limit=512)
    questions = [problem.question for problem in problems.generate(count, seed=0)]
    results = list(Search(engine, environment=environment, config=config).run(questions))
    engine.close()
    shaping = ShapingConfig(reward="strict", breadth=BREADTH, easy_accuracy=1.0)
    return [(shape_tree(r.tree, r.latents, TinyVerifier(), shaping), r.latents) for r in results]
