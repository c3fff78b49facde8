"""A small random Llama and a word-level tokenizer: real ones, made on the spot."""

import asyncio

import torch

VOCABULARY = 97
END = 1


def run(awaitable):
    return asyncio.run(awaitable)


def make_model(seed=0, **changes):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = dict(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=END, pad_token_id=2,
        attention_dropout=0.5,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**(config | changes))).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # far from uniform, so that top-p and top-k have something to cut
    return model


def make_tokenizer(template="{% for m in messages %}{{ m.content }} {% endfor %}"):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<s>": 0, "</s>": END, "<pad>": 2, "<unk>": 3} | {f"w{i}": i for i in range(4, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.chat_template = template
    return fast
