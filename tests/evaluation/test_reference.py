import json

import pytest
import torch

from lapha.cli import run
from lapha.evaluation.reference import (
    head_of_state,
    load_reference_head,
    merge_checkpoint,
    read_predictions,
    split_checkpoint,
    split_state,
)
from lapha.latent import ValueHead
from lapha.tiny import load_tiny, tiny_path

pytest.importorskip("transformers", reason="needs lapha[llm]")


@pytest.fixture(scope="module")
def tiny():
    return load_tiny()


def logits(folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25).unsqueeze(0)).logits


@pytest.mark.parametrize(
    "state",
    [
        {"weight": torch.arange(6.0).reshape(1, 6), "bias": torch.tensor([0.5])},
        {"linear.weight": torch.arange(6.0).reshape(1, 6), "linear.bias": torch.tensor([0.5])},
        {"value_head.proj.weight": torch.arange(6.0), "value_head.proj.bias": torch.tensor(0.5)},
    ],
)
def test_a_reference_head_gives_the_same_values(state, tmp_path):
    torch.save(state, tmp_path / "head.pt")
    head = load_reference_head(tmp_path / "head.pt")
    h = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.sigmoid(h @ torch.arange(6.0) + 0.5)
    torch.testing.assert_close(head(h), expected)


def test_a_wrapper_checkpoint_splits_into_a_policy_that_loads_and_merges_back(tiny, tmp_path):
    merged, again = tmp_path / "wrapper", tmp_path / "policy"
    merge_checkpoint(tiny_path(), tiny_path(), merged)
    from safetensors.torch import load_file

    names = set(load_file(merged / "model.safetensors"))
    assert {"value_head.weight", "value_head.bias"} <= names
    assert all(name.startswith(("base_lm.", "value_head.")) for name in names)
    head = split_checkpoint(merged, again)
    torch.testing.assert_close(head.linear.weight, tiny[2].linear.weight.detach().float())
    torch.testing.assert_close(logits(again), logits(tiny_path()))
    assert ValueHead.from_pretrained(again).hidden_size == head.hidden_size
    assert json.loads((again / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(again).chat_template


def test_a_sharded_bin_checkpoint_with_module_prefixes_and_a_wrapper_architecture(tiny, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    state = {f"module.policy_model.{name}": tensor for name, tensor in tiny[0].state_dict().items()}
    first = dict(list(state.items())[:7])
    second = dict(list(state.items())[7:]) | {
        "module.value_head.weight": torch.ones(1, tiny[2].hidden_size),
        "module.value_head.bias": torch.zeros(1),
    }
    torch.save(first, source / "a.bin")
    torch.save(second, source / "b.bin")
    index = {"weight_map": {name: "a.bin" for name in first} | {name: "b.bin" for name in second}}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    config = json.loads((tiny_path() / "config.json").read_text())
    config |= {"architectures": ["LM_Nd_ValueHead"], "auto_map": {"AutoModel": "x.Y"}}
    (source / "config.json").write_text(json.dumps(config))
    head = split_checkpoint(source, tmp_path / "out")
    assert float(head.linear.weight.detach().sum()) == tiny[2].hidden_size
    torch.testing.assert_close(logits(tmp_path / "out"), logits(tiny_path()))
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_a_checkpoint_without_a_head_stays_a_policy(tmp_path):
    assert split_checkpoint(tiny_path(), tmp_path / "out") is None
    assert not (tmp_path / "out" / "value_head").exists()


def test_predictions_are_read_by_their_questions(tmp_path):
    path = tmp_path / "a.pred.jsonl"
    rows = [
        {"question": "two?", "completion": "<answer>2</answer>", "final_answer": "2"},
        {"question": "one\n ?", "completion": "x", "completions": ["so \\boxed{1}", "no idea"], "k": 2},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_predictions(path, ["one ?", "two?"])
    assert (first.index, first.answer, first.answers) == (0, "1", ("1", None))
    assert (second.index, second.answer) == (1, "2")
    with pytest.raises(
        ValueError, match="predictions: expected a prediction for each of 3 questions, got 1 without one"
    ):
        read_predictions(path, ["one ?", "two?", "three?"])
    with pytest.raises(ValueError, match=r"predictions: expected questions of the data, got another one in .*record 1"):
        read_predictions(path, ["one ?"])


def test_the_command_scores_predictions_of_the_reference(tmp_path, capsys):
    pytest.importorskip("math_verify", reason="needs lapha[llm]")
    data, predictions = tmp_path / "data.jsonl", tmp_path / "a.pred.jsonl"
    data.write_text('{"question": "half?", "answer": "0.5"}\n{"question": "two?", "answer": "2"}\n')
    predictions.write_text(
        '{"question": "half?", "completion": "<answer>\\\\frac{1}{2}</answer>"}\n{"question": "two?", "completion": "3"}\n'
    )
    out = tmp_path / "run"
    assert run(["eval", "--data", str(data), "--predictions", str(predictions), "--out", str(out)]) == 0
    assert "50.0 %" in capsys.readouterr().out
    assert (out / "results.csv").read_text().splitlines()[1].startswith("single,2,0.500000")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: head_of_state({"weight": torch.ones(1, 3)}, "x"),
            "value_head: expected one weight and one bias in x",
        ),
        (lambda p: load_reference_head(p / "none.pt"), "path: expected a file that exists"),
        (lambda p: split_checkpoint(p, p / "out"), r"path: expected model\.safetensors or pytorch_model\.bin"),
        (lambda p: split_checkpoint(tiny_path(), tiny_path()), "out: expected an empty folder"),
        (
            lambda p: split_state({"base_lm.a": torch.ones(1), "other.b": torch.ones(1)}),
            r"source: expected tensors .*other\.b",
        ),
    ],
)
def test_bad_input_names_the_argument(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (print, ("owned",))

    (tmp_path / "head.pt").write_bytes(pickle.dumps({"weight": Evil()}))
    with pytest.raises(ValueError, match="path: expected a file of tensors"):
        load_reference_head(tmp_path / "head.pt")
