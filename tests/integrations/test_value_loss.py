"""The joint value loss against the definition: pool every prefix, then apply the head."""

import pytest
import torch

pytest.importorskip("trl")
from lapha.integrations.shaped import ShapedTree, TreeRow
from lapha.integrations.trl.value_loss import prefix_logits, prefix_squared_errors, tree_columns, value_columns
from lapha.latent import ValueHead
from lapha.tree import SearchTree
from lapha.types import Status


def padded_batch():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 9, 6, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 0, 0, 0]])
    ends = torch.tensor([[2, 3, 5], [1, 9, 0], [5, 0, 0]])
    targets = torch.tensor([[0.0, 0.3, 1.0], [0.2, float("nan"), float("nan")], [0.9, float("nan"), float("nan")]])
    head = ValueHead(6).double()
    torch.nn.init.normal_(head.linear.weight, generator=generator)
    torch.nn.init.constant_(head.linear.bias, 0.3)
    return head, hidden, mask, ends, targets


def test_prefix_logits_equal_the_head_on_pooled_prefixes():
    head, hidden, mask, ends, _ = padded_batch()
    logits = prefix_logits(head.logits(hidden), mask, ends)
    for row in range(3):
        tokens = hidden[row][mask[row].bool()]
        for column, end in enumerate(ends[row].tolist()):
            expected = float(head.logits(tokens[:end].mean(0)).detach()) if end else 0.0
            assert float(logits[row, column].detach()) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_total_is_the_sum_of_squared_errors_over_known_targets():
    head, hidden, mask, ends, targets = padded_batch()
    loss, count = prefix_squared_errors(head, hidden, mask, ends, targets)
    predicted = prefix_logits(head.logits(hidden), mask, ends).sigmoid()
    known = ~targets.isnan()
    assert int(count) == 5
    assert float(loss.detach()) == pytest.approx(
        float((predicted[known] - targets[known]).square().sum().detach()), rel=1e-6
    )


@pytest.mark.parametrize("to_backbone", [True, False])
def test_gradient_reaches_the_backbone_only_if_asked(to_backbone):
    head, hidden, mask, ends, targets = padded_batch()
    hidden.requires_grad_(True)
    loss, _ = prefix_squared_errors(head, hidden, mask, ends, targets, grad_to_backbone=to_backbone)
    loss.backward()
    assert head.linear.weight.grad.abs().sum() > 0
    assert (hidden.grad is not None) == to_backbone
    if to_backbone:
        assert hidden.grad.isfinite().all()
        assert hidden.grad[mask == 0].eq(0).all()


def test_without_targets_the_loss_is_zero_and_still_in_the_graph():
    head, hidden, mask, ends, targets = padded_batch()
    loss, count = prefix_squared_errors(head, hidden, mask, ends, torch.full_like(targets, float("nan")))
    loss.backward()
    assert int(count) == 0
    assert float(loss.detach()) == 0
    assert head.linear.weight.grad.eq(0).all()


def test_every_target_stands_beside_its_own_state():
    rows = [
        TreeRow([1], [2], [0.0], 0.0, 0.0, [1, 2], [0.0, 0.5], "q"),
        TreeRow([1, 2], [3], [0.0], 0.0, 0.0, [1, 2, 3], [0.125, 0.5, 1.0], "q"),
    ]
    columns = value_columns(rows, torch.device("cpu"))
    assert columns["value_ends"].tolist() == [[1, 2, 0], [1, 2, 3]]
    assert columns["value_targets"][0, :2].tolist() == [0.0, 0.5]
    assert columns["value_targets"][0, 2].isnan()
    assert columns["value_targets"][1].tolist() == [0.125, 0.5, 1.0]


def test_a_state_on_several_paths_counts_once():
    tree = SearchTree("q", [1, 2])
    first = tree.add(0, tokens=[3])
    leaves = [tree.add(first, tokens=[token], status=Status.ANSWERED) for token in (4, 5, 6)]
    target = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    nothing = torch.zeros(5)
    shaped = ShapedTree(tree, nothing.bool(), target, nothing, nothing, target, [], 1.0, 0)
    columns = tree_columns([shaped], 4, 0, torch.Generator().manual_seed(0), torch.device("cpu"))
    known = ~columns["tree_targets"].isnan()
    found = sorted(zip(columns["tree_ends"][known].tolist(), columns["tree_targets"][known].tolist(), strict=True))
    assert found == [(2, 0.0), (3, 0.25), (4, 0.5), (4, 0.75), (4, 1.0)]  # five states, five targets
    # each beside the end of its own path
    for ids, ends, targets in zip(columns["tree_ids"], columns["tree_ends"], columns["tree_targets"], strict=True):
        for end, value in zip(ends.tolist(), targets.tolist(), strict=True):
            if value >= 0.5:
                assert ids[end - 1] == {0.5: 4, 0.75: 5, 1.0: 6}[value]
    assert len(leaves) == 3
