"""The value head, its file, and its loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lapha.latent import ValueHead, value_loss


def _random_head(hidden_size: int = 6, **options) -> ValueHead:
    head = ValueHead(hidden_size, **options)
    torch.nn.init.normal_(head.linear.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.constant_(head.linear.bias, 0.25)
    return head


def test_value_is_the_sigmoid_of_a_linear_read_out() -> None:
    head = _random_head()
    h = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    logit = h.double() @ head.linear.weight.detach().double()[0] + 0.25
    assert head(h).shape == (2, 5)
    torch.testing.assert_close(head.logits(h).double(), logit, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head(h).double(), 1 / (1 + torch.exp(-logit)), rtol=1e-5, atol=1e-6)
    assert head(h.bfloat16()).dtype == torch.float32


def test_a_fresh_head_knows_nothing() -> None:
    assert ValueHead(4)(torch.randn(3, 4)).tolist() == [0.5] * 3


def test_saved_head_comes_back_with_its_metadata(tmp_path: Path) -> None:
    head = _random_head(curvature=0.3, value_target="success_rate")
    file = head.save_pretrained(tmp_path / "new" / "folder")
    for path in (file, file.parent, tmp_path / "new" / "folder"):
        again = ValueHead.from_pretrained(path)
        assert (again.hidden_size, again.curvature, again.value_target) == (6, 0.3, "success_rate")
        assert torch.equal(again.linear.weight, head.linear.weight)
        assert torch.equal(again.linear.bias, head.linear.bias)
    assert [entry.name for entry in file.parent.iterdir()] == ["value_head.safetensors"]


def test_files_that_are_no_value_head_are_refused_by_name(tmp_path: Path) -> None:
    good = _random_head().save_pretrained(tmp_path)
    content = good.read_bytes()
    for name, data in (("short", content[:-5]), ("empty", b""), ("text", b"hello" * 100)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"^path: .*{name}"):
            ValueHead.from_pretrained(tmp_path / name)
    foreign = tmp_path / "foreign.safetensors"
    save_file(load_file(good), foreign)
    with pytest.raises(ValueError, match=r"^path: expected a lapha.ValueHead file, got .*foreign"):
        ValueHead.from_pretrained(foreign)
    save_file(load_file(good), foreign, {"format": "lapha.ValueHead", "version": "99"})
    with pytest.raises(ValueError, match="version 99"):
        ValueHead.from_pretrained(foreign)
    save_file(load_file(good), foreign, {"format": "lapha.ValueHead", "version": "1", "hidden_size": "six"})
    with pytest.raises(ValueError, match=r"^path: .*foreign"):
        ValueHead.from_pretrained(foreign)
    metadata = {"hidden_size": "7", "pooling": "mean", "curvature": "1.0", "value_target": "potential"}
    save_file(load_file(good), foreign, {"format": "lapha.ValueHead", "version": "1", **metadata})
    with pytest.raises(ValueError, match=r"^path: expected a value head with tensors"):
        ValueHead.from_pretrained(foreign)
    with pytest.raises(ValueError, match=r"^path: expected a file that exists, got .*absent"):
        ValueHead.from_pretrained(tmp_path / "absent")


def test_loss_is_the_weighted_mean_of_squared_errors() -> None:
    pred = torch.tensor([0.1, 0.5, 0.9, 0.4], requires_grad=True)
    target = torch.tensor([0.0, 1.0, float("nan"), 0.2])
    mask = torch.tensor([True, True, False, True])
    assert value_loss(pred, target, mask).item() == pytest.approx((0.01 + 0.25 + 0.04) / 3, rel=1e-6)
    loss = value_loss(pred, target, mask, weights=torch.tensor([1.0, 2.0, float("nan"), 0.0]))
    assert loss.item() == pytest.approx((0.01 + 2 * 0.25) / 3, rel=1e-6)
    loss.backward()
    assert pred.grad is not None
    assert pred.grad.tolist() == pytest.approx([2 * 0.1 / 3, 2 * 2 * -0.5 / 3, 0.0, 0.0], rel=1e-5)


def test_loss_without_any_state_is_zero_and_can_go_backward() -> None:
    pred = torch.tensor([0.3, 0.4], requires_grad=True)
    loss = value_loss(pred, torch.full((2,), float("nan")), torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert pred.grad is not None
    assert pred.grad.tolist() == [0.0, 0.0]


def test_training_by_the_loss_fits_a_potential() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(256, 8, generator=generator)
    target = torch.sigmoid(h @ torch.randn(8, generator=generator))
    head = ValueHead(8)
    before = value_loss(head(h), target).item()
    for _ in range(60):
        loss = value_loss(head(h), target)
        gradients = torch.autograd.grad(loss, list(head.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(head.parameters(), gradients, strict=True):
                parameter -= 8.0 * gradient
    assert loss.item() < before / 20


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: ValueHead(0), "hidden_size"),
        (lambda: ValueHead(4, pooling="last"), "pooling"),
        (lambda: ValueHead(4, value_target="reward"), "value_target"),
        (lambda: ValueHead(4, curvature=-1.0), "curvature"),
        (lambda: ValueHead(4)(torch.ones(3, 5)), "h"),
        (lambda: ValueHead(4)(torch.ones(4, dtype=torch.int64)), "h"),
        (lambda: value_loss(torch.ones(3), torch.ones(2)), "target"),
        (lambda: value_loss(torch.ones(2), torch.tensor([0.5, 1.5])), "target"),
        (lambda: value_loss(torch.ones(2), torch.tensor([0.5, float("nan")])), "target"),
        (lambda: value_loss(torch.ones(2), torch.ones(2), torch.ones(3)), "mask"),
        (lambda: value_loss(torch.ones(2), torch.ones(2), weights=torch.tensor([1.0, -1.0])), "weights"),
    ],
)
def test_bad_input_is_named(call, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        call()
