"""What TRL would send to vLLM, by TRL's own iteration over the parameters."""

import contextlib
from types import SimpleNamespace

import pytest

pytest.importorskip("trl")
from trl.generation.vllm_generation import VLLMGeneration

from lapha.integrations.trl.vllm_sync import skip_value_head
from lapha.tiny import load_tiny


def test_the_value_head_is_never_sent():
    model, _, head = load_tiny()
    model.value_head = head
    generation = VLLMGeneration.__new__(VLLMGeneration)
    generation.model = model
    generation._dist = SimpleNamespace(is_fsdp=False, gather_params=lambda parameters: contextlib.nullcontext())
    before = [name for name, _ in generation._iter_named_params()]
    assert any(name.startswith("value_head.") for name in before)
    skip_value_head(generation)
    sent = [name for name, _ in generation._iter_named_params()]
    assert sent == [name for name in before if not name.startswith("value_head.")]
    assert sent
