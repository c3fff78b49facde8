"""A causal LM, saved as any other, that says what a script says: each header of a step has its one continuation.

The header of step k and its continuation are tokens of their own; the only layer passes on what it gets, and the output layer
maps each token to the one that follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from agent.conftest import make_tokenizer
from lapha.agent.protocol import step_header


def save_scripted_model(folder: Path, steps: Sequence[str]) -> Path:
    """Save a model and tokenizer that answer the k-th step's header with ``steps[k - 1]``; returns `folder`."""
    from tokenizers import AddedToken
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer("smollm2")
    pairs = [(step_header(number), text) for number, text in enumerate(steps, 1)]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for pair in pairs for text in pair])
    size = len(tokenizer) + len(tokenizer) % 2
    config = LlamaConfig(
        vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=8192, tie_word_embeddings=False, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        follows = torch.zeros(size, size)
        follows[tokenizer.eos_token_id] = 10.0
        for header, text in pairs:
            first, then = tokenizer.convert_tokens_to_ids([header, text])
            follows[:, first] = 0.0
            follows[then, first] = 10.0
        model.lm_head.weight.copy_(follows)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
