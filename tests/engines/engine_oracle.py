"""The engine's results computed the slow way: one sequence at a time, whole contexts, no cache."""

import numpy as np
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lapha.engines.transformers_engine.sampling import stream_keys, uniforms


@torch.no_grad()
def forward(model, token_ids):
    """(last hidden states (L, H), logits (L, V)) of one context."""
    output = model(input_ids=torch.tensor([token_ids]), use_cache=False, output_hidden_states=True)
    return output.hidden_states[-1][0].double(), output.logits[0].double()


def pooled(model, token_ids):
    return forward(model, token_ids)[0].mean(dim=0)


def continuation(model, context, params, seed, index, stop=1):
    """Tokens and log-probabilities of continuation `index`, by transformers' processors over the whole vocabulary."""
    processors = LogitsProcessorList()
    if params.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature not in (0, 1):
        processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    key = stream_keys(seed, index + 1)[index]
    tokens, logprobs = [], []
    while len(tokens) < params.max_tokens:
        ids = list(context) + tokens
        logits = forward(model, ids)[1][-1:]
        scores = processors(torch.tensor([ids]), logits)
        if params.temperature == 0:
            token = int(scores.argmax())
        else:
            cumulative = torch.softmax(scores, dim=-1)[0].numpy().cumsum()
            u = uniforms([key], [len(tokens)])[0]
            token = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
        tokens.append(token)
        logprobs.append(float(torch.log_softmax(logits, dim=-1)[0, token]))
        if token == stop:
            break
    return tokens, logprobs
