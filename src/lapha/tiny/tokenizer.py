"""The tokenizer of the embedded policy: one token for each number, move, tag and header, bytes for all other text.

The base is a byte-level model without merges, so any text round-trips exactly; the pieces of the number walk and of
the step protocol are added tokens, matched longest first.
"""

from __future__ import annotations

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


def _pieces() -> list[str]:
    """Every added piece of text, in the order of its id."""
    headers = [header(step) for step in range(1, 17)]
    tags = ["<think>", "</think>", "<answer>", "<tool_call>", "</tool_call>"]
    moves = [*MOVE_TEXT, *(" " + text for text in MOVE_TEXT)]
    numbers = [f" {number}" for number in range(NUMBERS)]
    return [*headers, *tags, THINK_END, ANSWER, ANSWER_END, FROM, TO, RULE, EQUALS, TAKEN_BACK, *moves, *numbers]


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast` with the chat template of the embedded policy.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", "llm")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    specials = [PAD, END, SYSTEM, USER, ASSISTANT, TOOL]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    raw.add_tokens([AddedToken(text, special=False, normalized=False) for text in _pieces()])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        lapha_protocol="native",
        model_max_length=512,
    )
