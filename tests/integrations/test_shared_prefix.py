"""Packed sibling rows against the same rows one by one, in float64."""

import pytest
import torch

pytest.importorskip("transformers")
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lapha.integrations.shared_prefix import NOTHING, pack_groups

SIZE = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
PROMPTS = [[5, 6, 7, 8], [5, 6, 7, 8], [5, 6, 7, 8], [9], [9], [5, 6, 7, 8]]
COMPLETIONS = [[1, 2, 3], [4], [1, 2, 9, 9, 1], [3, 3], [4, 5, 6], [7, 7]]


def padded(rows, left):
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for row, values in enumerate(rows):
        place = slice(width - len(values), None) if left else slice(0, len(values))
        ids[row, place], mask[row, place] = torch.tensor(values), 1
    return ids, mask


def batch():
    return (*padded(PROMPTS, left=True), *padded(COMPLETIONS, left=False))


def model_of(kind, attention):
    torch.manual_seed(0)
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind](**SIZE, num_key_value_heads=2)
    config._attn_implementation = attention
    return {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM}[kind](config).double()


def run_packed(model, packed):
    dtype = torch.bool if model.config._attn_implementation == "sdpa" else torch.float64
    hidden = model.get_decoder()(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=packed.attention_mask(dtype),
        use_cache=False,
    ).last_hidden_state
    logprobs = model.lm_head(hidden).log_softmax(-1)
    chosen = logprobs.gather(-1, packed.next_ids.clamp(min=0)[..., None])[..., 0]
    return packed.unpack(hidden), packed.completion_scores(chosen)


def test_neighbouring_rows_with_one_prompt_form_a_group():
    packed = pack_groups(*batch())
    assert len(packed.input_ids) == 3
    assert packed.input_ids[0].tolist() == [5, 6, 7, 8, 1, 2, 3, 8, 4, 8, 1, 2, 9, 9, 1]
    assert packed.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 3, 4, 3, 4, 5, 6, 7, 8]
    assert packed.next_ids[0].tolist()[3:9] == [1, 2, 3, NOTHING, 4, NOTHING]
    assert packed.input_ids[1].tolist()[:7] == [9, 3, 3, 9, 4, 5, 6]  # a prompt of one token has no shared part
    assert packed.branch[1].tolist()[7:] == [-1] * 8
    real = int((packed.branch >= 0).sum())
    assert real < sum(map(len, PROMPTS)) + sum(map(len, COMPLETIONS))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_states_log_probabilities_and_gradients_are_those_of_the_rows_alone(kind, attention):
    model = model_of(kind, attention)
    packed = pack_groups(*batch())
    hidden, scores = run_packed(model, packed)
    weights = torch.linspace(-1, 1, len(PROMPTS), dtype=torch.float64)
    columns = packed.prompt_columns
    total = sum(
        weights[row]
        * (scores[row, : len(COMPLETIONS[row])].sum() + hidden[row, columns + len(COMPLETIONS[row]) - 1].sum())
        for row in range(len(PROMPTS))
    )
    total.backward()
    packed_gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    expected_total = 0.0
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        ids = torch.tensor([prompt + completion])
        alone = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        logprobs = model.lm_head(alone[0, len(prompt) - 1 : -1]).log_softmax(-1)
        expected = logprobs.gather(-1, torch.tensor(completion)[:, None])[:, 0]
        torch.testing.assert_close(scores[row, : len(completion)], expected, rtol=1e-9, atol=1e-10)
        own = hidden[row, columns - len(prompt) : columns + len(completion)]
        torch.testing.assert_close(own, alone[0], rtol=1e-9, atol=1e-10)
        expected_total = expected_total + weights[row] * (expected.sum() + alone[0, -1].sum())
    expected_total.backward()
    for got, parameter in zip(packed_gradients, model.parameters(), strict=True):
        # the models' norms compute in float32 whatever the weights' dtype
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda p, pm, c, cm: (p, pm.flip(1), c, cm), "prompt_mask"),
        (lambda p, pm, c, cm: (p, pm, c, cm.flip(1)), "completion_mask"),
        (lambda p, pm, c, cm: (p, pm[:, 1:], c, cm), "prompt_mask"),
        (lambda p, pm, c, cm: (p, pm, c[1:], cm), "completion_ids"),
        (lambda p, pm, c, cm: (p, pm, c, cm[:, 1:]), "completion_mask"),
    ],
)
def test_wrong_batches_are_named(change, name):
    with pytest.raises(ValueError, match=name):
        pack_groups(*change(*batch()))
