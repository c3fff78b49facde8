"""TRL sends every parameter of the policy to vLLM; vLLM knows nothing of a value head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lapha.integrations.trl.checkpoint import PREFIX


def skip_value_head(generation: Any) -> None:
    """Make one `trl.generation.vllm_generation.VLLMGeneration` leave the value head out when it sends weights.

    TRL has no option for that. Its generator of (name, parameter) pairs is wrapped on this one object; every process
    still iterates all of them, because gathering a parameter is a collective operation.
    """
    everything = generation._iter_named_params

    def policy_alone() -> Iterator[tuple[str, Any]]:
        return ((name, parameter) for name, parameter in everything() if not name.startswith(PREFIX))

    generation._iter_named_params = policy_alone
