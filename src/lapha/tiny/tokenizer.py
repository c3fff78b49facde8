"""The tokenizer of the embedded policy: one token for each number, move, tag and header, bytes for all other text.

The base is a byte-level model without merges, so any text round-trips exactly. The pieces of the number walk are words
of its vocabulary, matched longest first; those of the step protocol and the chat template are added tokens, which only
lapha itself writes: a question or a tool's answer that spells them is bytes.
"""

from __future__ import annotations

import re
from typing import Any

from lapha._imports import require
from lapha.tiny.walk import MOVE_LIMIT, MOVES, NUMBERS

PAD, END = "<|pad|>", "<|end|>"
SYSTEM, USER, ASSISTANT, TOOL = "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"
FROM, TO = "Walk from", " to"
RULE = f" in at most {MOVE_LIMIT} moves of +1 -1 +10 -10, avoiding"
EQUALS, TAKEN_BACK, THINK_END, ANSWER, ANSWER_END = " =", " no", "\n</think>", "\n<answer>", "</answer>"
MOVE_TEXT = tuple(f"{move:+d}" for move in MOVES)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def header(step: int) -> str:
    """What opens step `step` (from 1): the pre-filled header of the step protocol."""
    return f"STEP-{step}:\n<think>\n"


def _control() -> list[str]:
    """The protocol's pieces, in the order of their ids; `_words` lie between the first and the last of them."""
    headers = [header(step) for step in range(1, 17)]
    return [*headers, "<think>", "</think>", "<answer>", "<tool_call>", "</tool_call>", THINK_END, ANSWER, ANSWER_END]


def _words() -> list[str]:
    """The walk's pieces, in the order of their ids."""
    moves = [*MOVE_TEXT, *(" " + text for text in MOVE_TEXT)]
    return [FROM, TO, RULE, EQUALS, TAKEN_BACK, *moves, *(f" {number}" for number in range(NUMBERS))]


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast` with the chat template of the embedded policy.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", "llm")
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    specials = [PAD, END, SYSTEM, USER, ASSISTANT, TOOL]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = [bytes_only.pre_tokenize_str(word)[0][0] for word in _words()]
    entries = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *specials, *_control(), *spelled]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    words = "|".join(re.escape(word) for word in sorted(_words(), key=len, reverse=True))
    split = pre_tokenizers.Split(Regex(words), behavior="isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    raw.add_tokens([AddedToken(text, special=False, normalized=False) for text in _control()])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        lapha_protocol="native",
        lapha_depth_limit=MOVE_LIMIT,
        model_max_length=512,
    )
