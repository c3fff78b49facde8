"""lapha: latent Poincaré shaping for agentic reinforcement learning.

`import lapha` needs torch alone. Everything else is loaded when it is first touched, and says which extra it
needs when that is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapha._imports import lazy_exports

__version__ = "0.1.0"

# name -> module that defines it; modules are imported on first access
_EXPORTS = {
    "PolarPoints": "lapha.geometry",
    "PoincareBall": "lapha.geometry",
    "SearchTree": "lapha.tree",
    "LatentBank": "lapha.latent",
    "ValueHead": "lapha.latent",
    "potential": "lapha.shaping",
    "process_reward": "lapha.shaping",
    "adaptive_process_reward": "lapha.shaping",
    "sibling_advantages": "lapha.shaping",
    "choose_sibling_groups": "lapha.shaping",
    "shape": "lapha.shaping",
    "shape_tree": "lapha.shaping",
    "shape_chains": "lapha.shaping",
    "shape_rollouts": "lapha.integrations",
    "ShapingConfig": "lapha.shaping",
    "prune": "lapha.pruning",
    "PruneConfig": "lapha.pruning",
    "pairwise_dist": "lapha.kernels",
    "Search": "lapha.search",
    "SearchConfig": "lapha.search",
    "SearchResult": "lapha.search",
    "LaphaError": "lapha.errors",
}
_SUBMODULES = (
    "agent", "config", "engines", "errors", "evaluation", "geometry", "integrations", "kernels", "latent", "pruning", "sandbox", "search",
    "shaping", "tiny", "tree", "types", "viz",
)  # fmt: skip

__all__ = ["__version__", *sorted(_EXPORTS), *_SUBMODULES]

if TYPE_CHECKING:
    from lapha import agent as agent
    from lapha import config as config
    from lapha import engines as engines
    from lapha import errors as errors
    from lapha import evaluation as evaluation
    from lapha import geometry as geometry
    from lapha import integrations as integrations
    from lapha import kernels as kernels
    from lapha import latent as latent
    from lapha import pruning as pruning
    from lapha import sandbox as sandbox
    from lapha import search as search
    from lapha import shaping as shaping
    from lapha import tiny as tiny
    from lapha import tree as tree
    from lapha import types as types
    from lapha import viz as viz
    from lapha.errors import LaphaError as LaphaError
    from lapha.geometry import PoincareBall as PoincareBall
    from lapha.geometry import PolarPoints as PolarPoints
    from lapha.integrations import shape_rollouts as shape_rollouts
    from lapha.kernels import pairwise_dist as pairwise_dist
    from lapha.latent import LatentBank as LatentBank
    from lapha.latent import ValueHead as ValueHead
    from lapha.pruning import PruneConfig as PruneConfig
    from lapha.pruning import prune as prune
    from lapha.search import Search as Search
    from lapha.search import SearchConfig as SearchConfig
    from lapha.search import SearchResult as SearchResult
    from lapha.shaping import ShapingConfig as ShapingConfig
    from lapha.shaping import adaptive_process_reward as adaptive_process_reward
    from lapha.shaping import choose_sibling_groups as choose_sibling_groups
    from lapha.shaping import potential as potential
    from lapha.shaping import process_reward as process_reward
    from lapha.shaping import shape as shape
    from lapha.shaping import shape_chains as shape_chains
    from lapha.shaping import shape_tree as shape_tree
    from lapha.shaping import sibling_advantages as sibling_advantages
    from lapha.tree import SearchTree as SearchTree


__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS, _SUBMODULES)
