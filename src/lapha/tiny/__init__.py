"""The embedded policy: a Llama of 0.9 M parameters that walks among numbers, with its problems and its verifier.

It is a model like any other (`tiny_path()` goes wherever a Hugging Face name or path goes), small enough that search
and training run on a laptop in minutes. Transformers is needed only by what loads or builds the model.
"""

from lapha.tiny import problems
from lapha.tiny.checkpoint import load_tiny, tiny_metrics, tiny_path
from lapha.tiny.problems import Problem, TinyVerifier, generate, remaining_distance, step_problem, verify
from lapha.tiny.walk import MOVE_LIMIT
from lapha.types import SamplingParams

SEARCH = SamplingParams(max_tokens=40, temperature=0.7, top_p=1.0, top_k=0, repetition_penalty=1.0)
"""How the embedded policy is sampled: at this temperature one sample solves about a third of the held-out problems."""

DEPTH_LIMIT = MOVE_LIMIT
"""Most steps of an episode: one move each."""

BREADTH = 4
"""Children of an expansion: about one for each move."""

C_PUCT = 0.1
"""Weight of the prior in a search: the policy's habit misleads, and its value head is good (measured: docs/tiny.md)."""

MAX_EXPANDS = 1
"""Expansions of one state: four samples cover its moves, and a second four repeat them."""

__all__ = [
    "BREADTH",
    "C_PUCT",
    "DEPTH_LIMIT",
    "MAX_EXPANDS",
    "SEARCH",
    "Problem",
    "TinyVerifier",
    "generate",
    "load_tiny",
    "problems",
    "remaining_distance",
    "step_problem",
    "tiny_metrics",
    "tiny_path",
    "verify",
]
