"""The dense head against log_softmax in float64."""

import pytest
import torch

pytest.importorskip("trl")
from lapha.integrations.trl.dense_head import DenseLogProb, suits


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("count", [1, 128, 300])
def test_numbers_and_gradients(count, with_bias):
    generator = torch.Generator().manual_seed(count)
    hidden, weight = torch.randn(count, 8, generator=generator), torch.randn(40, 8, generator=generator)
    bias = torch.randn(40, generator=generator) if with_bias else None
    targets, upstream = torch.randint(0, 40, (count,), generator=generator), torch.randn(count, generator=generator)
    leaves = [tensor.requires_grad_() for tensor in (hidden, weight, bias) if tensor is not None]
    logprob, entropy = DenseLogProb.apply(hidden, weight, bias, targets, 0.7)
    logprob.backward(upstream)

    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    logits = exact[0] @ exact[1].T + (exact[2] if with_bias else 0)
    expected = (logits / 0.7).log_softmax(-1)
    chosen = expected.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(logprob.double(), chosen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), -(expected.exp() * expected).sum(1), rtol=1e-5, atol=5e-5)
    chosen.backward(upstream.double())
    for leaf, other in zip(leaves, exact, strict=True):
        torch.testing.assert_close(leaf.grad.double(), other.grad, rtol=1e-4, atol=1e-4)
    assert not entropy.requires_grad


def test_a_second_backward_pass_is_refused():
    hidden = torch.randn(3, 4, requires_grad=True)
    logprob, _ = DenseLogProb.apply(hidden, torch.randn(5, 4), None, torch.tensor([0, 1, 2]), 1.0)
    logprob.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        logprob.sum().backward()


def test_it_is_used_where_it_suits():
    hidden, weight = torch.zeros(4, 8), torch.zeros(16, 8)
    assert suits(hidden, weight)
    assert not suits(hidden.bfloat16(), weight.bfloat16())
    assert not suits(hidden, weight, limit=4 * 4 * 16 - 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not suits(hidden, weight)
