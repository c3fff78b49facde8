"""Files of the reference implementation: predictions, value heads, wrapper checkpoints.

Read as data (`torch.load` with ``weights_only``): nothing in them is executed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lapha._checks import check
from lapha._imports import require
from lapha._store import replace_file
from lapha.evaluation.folders import read_json_lines
from lapha.evaluation.grading.extraction import extract_answer
from lapha.evaluation.modes import Outcome
from lapha.latent import ValueHead

WRAPPER_PREFIXES = ("base_lm.", "base_model.", "policy_model.", "backbone.", "actor.")
"""What a wrapper checkpoint may put before the names of the language model's tensors."""

_HEAD_PREFIX = "value_head."
_SIDE_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "spiece.model", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read_predictions(path: str | Path, questions: Sequence[str]) -> list[Outcome]:
    """Outcomes of mode ``"single"`` from a ``*.pred.jsonl``: what it calls completions become answers.

    Args:
        path: the file; each record has ``question`` and ``completions`` (or ``completion``).
        questions: which question stands at which index.

    Raises:
        ValueError: a record without a question or a completion, or whose question is none of `questions`; questions
            without a prediction.
    """
    places: dict[str, list[int]] = {}
    for index, asked in enumerate(questions):
        places.setdefault(" ".join(asked.split()), []).append(index)
    outcomes: dict[int, Outcome] = {}
    for number, record in enumerate(read_json_lines(path), 1):
        at = f"{path}, record {number}"
        question: Any = record.get("question")
        completions = record.get("completions") or [record.get("completion")]
        check(isinstance(question, str), "predictions", f"a question in {at}", question)
        check(all(isinstance(text, str) for text in completions), "predictions", f"completions in {at}", completions)
        where = places.get(" ".join(question.split()), [])
        check(len(where) > 0, "predictions", "questions of the data", f"another one in {at}")
        answers = tuple(extract_answer(text) for text in completions)
        for index in where:
            nothing = tuple(float("nan") for _ in answers)
            outcomes[index] = Outcome(index, "single", answers[0], float("nan"), answers, nothing, 0, 0.0)
    missing = len(questions) - len(outcomes)
    check(missing == 0, "predictions", f"a prediction for each of {len(questions)} questions", f"{missing} without one")
    return [outcomes[index] for index in sorted(outcomes)]


def load_reference_head(path: str | Path) -> ValueHead:
    """A linear value head from a file of the reference: ``{"weight", "bias"}``, or a state dict that holds them.

    Raises:
        ValueError: the file is missing or holds no linear head.
    """
    return head_of_state(_read_tensors(Path(path)), str(path))


def head_of_state(state: Mapping[str, torch.Tensor], source: str) -> ValueHead:
    """A value head from tensors named ``…weight`` (1, H) and ``…bias`` (1,), whatever stands before.

    Raises:
        ValueError: no such pair, or other tensors beside it (a head that is not linear).
    """
    weights = {name: t for name, t in state.items() if name.split(".")[-1] == "weight"}
    biases = {name: t for name, t in state.items() if name.split(".")[-1] == "bias"}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    linear = len(weights) == 1 and len(biases) == 1 and len(state) == 2
    check(linear, "value_head", f"one weight and one bias in {source}", shapes)
    weight, bias = next(iter(weights.values())), next(iter(biases.values()))
    weight = weight.reshape(1, -1)
    check(bias.numel() == 1, "value_head", f"a bias of one number in {source}", shapes)
    head = ValueHead(weight.shape[1])
    head.load_state_dict({"linear.weight": weight.float(), "linear.bias": bias.float().reshape(1)})
    return head


def split_checkpoint(source: str | Path, out: str | Path) -> ValueHead | None:
    """Split a checkpoint into a policy that transformers and vLLM load, with the value head in a file beside it.

    Takes wrapper checkpoints of the reference (a prefix before the language model's names) and checkpoints that hold
    ``value_head.*`` among the model's own tensors; safetensors or ``.bin``, sharded or not.

    Args:
        source: the checkpoint's folder.
        out: the policy's folder; must be absent or empty.

    Returns:
        The head, or None where the checkpoint has none.

    Raises:
        ValueError: no weights in `source`, tensors that belong to neither part, or an `out` that is not empty.
    """
    source, out = Path(source), Path(out)
    policy, head_state = split_state(_read_tensors(source))
    check(bool(policy), "source", "a checkpoint with a language model's weights", str(source))
    head = head_of_state(head_state, str(source)) if head_state else None
    _empty_folder(out)
    require("huggingface_hub", extra="llm").save_torch_state_dict(policy, str(out))
    _copy_side_files(source, out, plain_config)
    if head is not None:
        head.save_pretrained(out)
    return head


def merge_checkpoint(policy: str | Path, value_head: str | Path, out: str | Path) -> None:
    """The reverse: one wrapper checkpoint, as the reference's trainer and evaluation load it (``base_lm.``, ``value_head.``).

    Args:
        policy: folder of a causal LM.
        value_head: folder of a head that `ValueHead.save_pretrained` wrote, or a reference's head file.
        out: the wrapper's folder; must be absent or empty.

    Raises:
        ValueError: a part is missing, sizes that differ, or an `out` that is not empty.
    """
    policy, value_head, out = Path(policy), Path(value_head), Path(out)
    folder_head = value_head.is_dir() or value_head.suffix == ".safetensors"
    head = ValueHead.from_pretrained(value_head) if folder_head else load_reference_head(value_head)
    state = _read_tensors(policy)
    hidden = json.loads((policy / "config.json").read_text(encoding="utf-8")).get("hidden_size")
    check(hidden in (None, head.hidden_size), "value_head", f"hidden size {hidden} as the model's", head.hidden_size)
    merged = {WRAPPER_PREFIXES[0] + name: tensor for name, tensor in state.items()}
    merged |= {_HEAD_PREFIX + name: t.detach().clone() for name, t in head.linear.state_dict().items()}
    _empty_folder(out)
    require("huggingface_hub", extra="llm").save_torch_state_dict(merged, str(out))
    _copy_side_files(policy, out, lambda config: config)


def split_state(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(policy's tensors, value head's tensors), names without wrapper prefixes.

    Raises:
        ValueError: a tensor beside a wrapped model that belongs to neither.
    """
    names = {name: name.removeprefix("module.") for name in state}
    prefix = next((p for p in WRAPPER_PREFIXES if any(name.startswith(p) for name in names.values())), "")
    policy, head, strange = {}, {}, []
    for name, bare in names.items():
        if bare.startswith(_HEAD_PREFIX):
            head[bare.removeprefix(_HEAD_PREFIX)] = state[name]
        elif bare.startswith(prefix):
            policy[bare.removeprefix(prefix)] = state[name]
        elif bare.startswith("lm_head."):
            policy[bare] = state[name]
        else:
            strange.append(name)
    check(not strange, "source", f"tensors of {prefix}* or {_HEAD_PREFIX}*", ", ".join(strange[:5]))
    return policy, head


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """A model configuration that names transformers' own class in place of a wrapper's."""
    names = require("transformers.models.auto.modeling_auto", extra="llm").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    own = names.get(config.get("model_type"))
    check(own is not None, "source", "a model_type that transformers knows as a causal LM", config.get("model_type"))
    return {**{key: value for key, value in config.items() if key != "auto_map"}, "architectures": [own]}


def _copy_side_files(source: Path, out: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    config = source / "config.json"
    check(config.is_file(), "source", "a folder with config.json", str(source))
    document = change(json.loads(config.read_text(encoding="utf-8")))
    replace_file(out / "config.json", (json.dumps(document, indent=2) + "\n").encode())
    for name in _SIDE_FILES:
        if (source / name).is_file():
            shutil.copy2(source / name, out / name)


def _empty_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    found = sorted(entry.name for entry in path.iterdir())
    check(not found, "out", "an empty folder", f"{path} with {', '.join(found[:3])}")


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, or of a folder's weight files."""
    files = _weight_files(path) if path.is_dir() else [path]
    state: dict[str, torch.Tensor] = {}
    for file in files:
        check(file.is_file(), "path", "a file that exists", str(file))
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state |= load_file(file)
        else:
            state |= _load_pickle(file)
    return state


def _weight_files(folder: Path) -> list[Path]:
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / shard for shard in sorted(set(shards))]
        if (folder / name).is_file():
            return [folder / name]
    raise ValueError(f"path: expected {' or '.join(_WEIGHTS)} (or their index), got {folder}")


def _load_pickle(file: Path) -> dict[str, torch.Tensor]:
    import pickle

    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"path: expected a file of tensors, got {file} ({' '.join(str(error).split())[:160]})"
        ) from error
    for key in ("state_dict", "model"):  # some trainers wrap the state dict once more
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    good = isinstance(found, dict) and all(isinstance(value, torch.Tensor) for value in found.values())
    check(good, "path", "a dictionary of tensors", f"{file} with {type(found).__name__}")
    return dict(found)
