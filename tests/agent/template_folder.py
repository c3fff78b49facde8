"""Tokenizers for real chat templates: those that TRL's package carries, and two in formats that it lacks."""

from __future__ import annotations

import re
from pathlib import Path

import trl

FOLDER = Path(trl.__file__).parent / "chat_templates"
_TOKEN = re.compile(
    r"<[|｜][^<>|｜\n]{1,40}[|｜]>|</?[a-zA-Z_][a-zA-Z_]*(?:turn)?\|?>|<\|[a-z_]+>|\[/?[A-Z_]{2,20}\]|\[gMASK\]"
)

# assistant turns are opened by the user's: there is no generation prompt
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
# a tool's answer is written as JSON text
JSON_TOOL = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'tool' %}{{ m.content | tojson }}{% else %}{{ m.content | trim }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def templates() -> dict[str, str]:
    found = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.jinja"))}
    return found | {"own_mistral": MISTRAL, "own_json_tool": JSON_TOOL}


def tokenizer_for(template: str):
    """A byte-level tokenizer whose added tokens are those that the template spells, some special and some not."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<BOS>", eos_token="<EOS>", clean_up_tokenization_spaces=False
    )
    names = sorted({*_TOKEN.findall(template), "<think>", "</think>", "<tool_response>", "</tool_response>"})
    special = [name for name in names if "|" in name or "｜" in name or "turn" in name or "utterance" in name]
    fast.add_tokens([AddedToken(name, special=name in special, normalized=False) for name in names])
    fast.chat_template = template
    return fast
