"""The transformers engine: continuous batching over any Hugging Face causal LM, with KV reuse along search trees.

From the outside in: `engine` (the public class), `loading`, `batcher` (the decoding loop), `prefill`, `jobs`,
`segments` (what a state keeps), `slots` (the running batch's cache), `model`, `sampling`; `plain` for models whose
cache does not fit.
"""

from lapha.engines.transformers_engine.engine import TransformersEngine

__all__ = ["TransformersEngine"]
