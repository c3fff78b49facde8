"""Making a transformers engine: bad arguments, folders, and what is not a model."""

import pytest
import torch
from engine_models import make_model, make_tokenizer, run

from lapha.engines import TransformersEngine
from lapha.types import SampleRequest, SamplingParams, State


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"max_batch": 0}, "max_batch"), ({"kv_budget_bytes": -1}, "kv_budget_bytes"), ({"stop_token_ids": []}, "stop_token_ids")],
)  # fmt: skip
def test_bad_arguments_are_named(model, tokenizer, arguments, name):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        TransformersEngine(model, tokenizer, **arguments)


def test_things_that_are_not_models(tokenizer, head):
    with pytest.raises(ValueError, match=r"^model: expected"):
        TransformersEngine(torch.nn.Linear(2, 2), tokenizer)
    with pytest.raises(ValueError, match=r"^value_head: expected hidden_size 16"):
        TransformersEngine(make_model(hidden_size=16), tokenizer, head)


class TestLoading:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("model")
        make_model().save_pretrained(path)
        make_tokenizer().save_pretrained(path)
        return path

    def test_a_folder(self, folder, head, tmp_path, model):
        head.save_pretrained(tmp_path)
        engine = TransformersEngine.from_pretrained(folder, value_head=tmp_path, device="cpu")
        request = SampleRequest(State((0, 14, 15)), (), 2, SamplingParams(max_tokens=5), 1)
        expected = run(TransformersEngine(model, engine.tokenizer).sample(request))
        assert [s.token_ids for s in run(engine.sample(request))] == [s.token_ids for s in expected]
        assert torch.equal(engine.value_head.linear.weight, head.linear.weight)
        root, _ = engine.environment.start("w10 w11")
        assert root.token_ids

    def test_no_such_model(self, tmp_path):
        with pytest.raises(ValueError, match=r"^name_or_path: expected a folder .* got '.*nowhere'"):
            TransformersEngine.from_pretrained(tmp_path / "nowhere")

    def test_no_chat_template(self, tmp_path):
        make_model().save_pretrained(tmp_path)
        make_tokenizer(template=None).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="chat template"):
            TransformersEngine.from_pretrained(tmp_path)
        assert TransformersEngine.from_pretrained(tmp_path, require_chat_template=False, device="cpu").reuses_kv

    def test_bad_value_head_and_dtype(self, folder, tmp_path):
        with pytest.raises(ValueError, match="value_head: expected"):
            TransformersEngine.from_pretrained(folder, value_head=tmp_path / "none", device="cpu")
        with pytest.raises(ValueError, match="dtype: expected"):
            TransformersEngine.from_pretrained(folder, dtype="float33", device="cpu")
