"""Packed trees against each path on its own: the mask by its definition, hidden states, gradients, and both kernels."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lapha.integrations import rows_of_group
from lapha.integrations.shaped import ShapedTree
from lapha.integrations.tree_attention import (
    NAME,
    SegmentAttention,
    flex_tree_attention,
    register,
    tree_attention_forward,
)
from lapha.integrations.tree_packing import TreePart, pack_trees, split_trees, taught_nodes
from lapha.shaping import SiblingGroup
from lapha.tree import SearchTree
from lapha.types import Status

SIZE = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
NAN = float("nan")


def a_tree(seed=0):
    """Root, three children with one bridge and one with another, grandchildren without; two groups, one state unknown."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count):
        return torch.randint(1, 50, (count,), generator=generator).tolist()

    tree = SearchTree("q", tokens(5))
    between = tokens(2)
    first = [tree.add(0, tokens=[*between, *tokens(n)], bridge_length=2, logprobs=[-1.0] * n) for n in (3, 1, 4)]
    tree.add(0, tokens=[7, *tokens(2)], bridge_length=1, logprobs=[-1.0] * 2, status=Status.DEPTH_LIMIT)
    for count in (2, 5, 1):
        tree.add(first[1], tokens=tokens(count), logprobs=[-0.5] * count, status=Status.ANSWERED, answer="a")
    tree.add(first[0], tokens=[9, *tokens(3)], bridge_length=1, logprobs=[-0.5] * 3, status=Status.DEPTH_LIMIT)
    size = len(tree)
    reward = torch.randn(size, generator=generator, dtype=torch.float64)
    target = torch.rand(size, generator=generator, dtype=torch.float64)
    target[first[2]] = NAN
    groups = [SiblingGroup(0, torch.tensor(first)), SiblingGroup(first[1], torch.tensor([5, 6, 7]))]
    nothing = torch.zeros(size)
    return ShapedTree(tree, nothing.bool(), target, reward, nothing, target, groups, 0.5, 0)


def whole(shaped):
    return TreePart(shaped, taught_nodes(shaped))


def model_of(kind):
    torch.manual_seed(0)
    register()
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind](**SIZE, num_key_value_heads=2)
    config._attn_implementation = NAME
    return {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM}[kind](config).double()


def test_every_token_is_there_once_and_siblings_share_their_bridge():
    shaped = a_tree()
    packed = pack_trees([whole(shaped)])
    tree = shaped.tree
    shared = 2 * 2  # the bridge of three siblings, once
    assert len(packed) == sum(map(len, tree.tokens)) - shared
    lengths = {row: int((packed.index[row] >= 0).sum()) for row in range(len(packed.index))}
    assert sorted(lengths.values()) == sorted(
        len(tree.sampled_ids(int(m))) for group in shaped.groups for m in group.members
    )
    assert len(packed.value_targets) == len(tree) - 1


def test_the_mask_is_that_of_ancestors():
    packed = pack_trees([whole(a_tree()), whole(a_tree(1))])
    mask = packed.attention_mask()
    owner = torch.cat([torch.full((stop - start,), n) for n, (start, stop, _) in enumerate(packed.segments)])
    above = {
        n: {m for m, (b, _, r) in enumerate(packed.segments) if b <= s < r}
        for n, (s, _, _) in enumerate(packed.segments)
    }
    for q in range(len(packed)):
        for k in range(len(packed)):
            assert bool(mask[q, k]) == (k <= q and int(owner[k]) in above[int(owner[q])])
    for row in range(len(packed)):  # as many as the token's position says
        assert int(mask[row].sum()) == int(packed.position_ids[0, row]) + 1


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_states_log_probabilities_and_gradients_are_those_of_the_paths(kind):
    """The branching token included: every child's first token is predicted from what it continues."""
    model = model_of(kind)
    trees = [a_tree(), a_tree(1)]
    packed = pack_trees([whole(shaped) for shaped in trees])
    hidden = model.base_model(
        input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=torch.zeros(1, 1, 1, 1),
        tree=packed, use_cache=False,
    ).last_hidden_state[0]  # fmt: skip
    logprobs = model.lm_head(hidden[packed.positions]).log_softmax(-1)
    scores = packed.rows(logprobs.gather(1, packed.targets[:, None])[:, 0])
    direction = torch.linspace(-1, 1, hidden.shape[1], dtype=torch.float64)
    logits = packed.state_logits(hidden @ direction)
    (scores.sum() + logits.sum()).backward()
    got = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    expected, states, total, at = [], [], 0.0, 0
    for shaped in trees:
        for group in shaped.groups:
            for row in rows_of_group(shaped, group):
                output = model(input_ids=torch.tensor([row.prompt_ids + row.completion_ids]), use_cache=False)
                own = output.logits[0, len(row.prompt_ids) - 1 : -1].log_softmax(-1)
                own = own.gather(1, torch.tensor(row.completion_ids)[:, None])[:, 0]
                expected.append((tuple(row.completion_ids), row.advantage, own))
                total = total + own.sum()
        for node in range(len(shaped.tree)):
            if not shaped.value_target[node].isnan():
                context = torch.tensor([shaped.tree.context_ids(node)])
                alone = model.base_model(input_ids=context, use_cache=False).last_hidden_state[0]
                value = (alone @ direction).mean()
                states.append((float(shaped.value_target[node]), value))
                total = total + value
    total.backward()
    rows = [
        (tuple(packed.targets[index[index >= 0]].tolist()), advantage, row[index >= 0])
        for index, advantage, row in zip(packed.index, packed.advantages.tolist(), scores, strict=True)
    ]
    assert len(rows) == len(expected) == 12
    for completion, advantage, row in rows:
        same = [own for tokens, a, own in expected if tokens == completion and a == pytest.approx(advantage, abs=1e-6)]
        assert any(torch.allclose(row, own, rtol=1e-9, atol=1e-10) for own in same), completion
        at += len(row)
    assert at == len(packed.targets)
    found = sorted(zip(packed.value_targets.tolist(), logits.tolist(), strict=True))
    for (target, value), (wanted, alone) in zip(found, sorted((t, float(v)) for t, v in states), strict=True):
        assert target == pytest.approx(wanted, rel=1e-6)
        assert value == pytest.approx(alone, rel=1e-5, abs=1e-6)
    for gradient, parameter in zip(got, model.parameters(), strict=True):
        # the models' norms and the pooled sums compute in float32 whatever the weights' dtype
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_both_kernels_are_attention_under_the_mask(dtype):
    packed = pack_trees([whole(a_tree()), whole(a_tree(1))])
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 4, len(packed), 8, generator=generator, dtype=torch.float64) for _ in range(4)]
    q, k, v, outer = given

    def gradients(function, kind):
        tensors = [tensor.to(kind, copy=True).requires_grad_(True) for tensor in (q, k, v)]
        out = function(*tensors)
        (out.double() * outer).sum().backward()
        return [out.double(), *(tensor.grad.double() for tensor in tensors)]

    def dense(q, k, v):
        mask = packed.attention_mask()
        weights = (q @ k.transpose(-1, -2) * 0.3).masked_fill(~mask, -torch.inf).softmax(-1)
        return weights @ v

    expected = gradients(dense, torch.float64)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.06}[dtype]
    for got, want in zip(
        gradients(lambda q, k, v: SegmentAttention.apply(q, k, v, packed.segments, 0.3), dtype), expected, strict=True
    ):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    if dtype == torch.float32:
        flexible = flex_tree_attention(q.float(), k.float(), v.float(), packed, 0.3).double()
        torch.testing.assert_close(flexible, expected[0].detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batches", [1, 2, 3, 8])
def test_trees_are_divided_without_loss_and_about_equally(batches):
    trees = [a_tree(seed) for seed in range(5)]
    lists = split_trees(trees, batches)
    assert len(lists) == batches
    seen = [(id(part.shaped), node) for parts in lists for part in parts for node in part.nodes]
    assert len(seen) == len(set(seen))
    assert set(seen) == {(id(shaped), node) for shaped in trees for node in taught_nodes(shaped)}
    packs = [pack_trees(parts) for parts in lists if parts]
    assert sum(len(pack.targets) for pack in packs) == len(pack_trees([whole(shaped) for shaped in trees]).targets)
    if batches == 1:
        assert len(lists[0]) == 5  # whole trees
    elif batches < 5:
        sizes = [len(pack) for pack in packs]
        assert max(sizes) < 1.5 * sum(sizes) / batches


def test_trees_that_teach_nothing_take_no_tokens():
    shaped = a_tree()
    shaped.groups, shaped.value_target = [], torch.full_like(shaped.value_target, NAN)
    assert split_trees([shaped], 2) == [[], []]
    with pytest.raises(ValueError, match="parts"):
        pack_trees([])


def test_under_autocast_it_is_what_sdpa_is_under_autocast():
    """Rotated queries and keys are float32 there and values are not; the gradients are those of float32 to bfloat16."""
    packed = pack_trees([whole(a_tree())])
    generator = torch.Generator().manual_seed(3)
    start = [torch.randn(1, heads, len(packed), 8, generator=generator) for heads in (4, 2, 2)]
    weight = torch.randn(1, len(packed), 4, 8, generator=generator)
    mask = packed.attention_mask()

    def run(attention, mixed):
        leaves = [tensor.clone().requires_grad_() for tensor in start]
        q, k, v = leaves
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            out = attention(q, k, v.bfloat16() if mixed else v)
        (out.float() * weight).sum().backward()
        assert out.dtype == (torch.bfloat16 if mixed else torch.float32)
        return [out.detach().float(), *(leaf.grad for leaf in leaves)]

    def sdpa(q, k, v):
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return found.transpose(1, 2)

    def tree(q, k, v):
        return tree_attention_forward(SimpleNamespace(num_key_value_groups=2), q, k, v, None, tree=packed)[0]

    for ours, theirs, exact in zip(run(tree, True), run(sdpa, True), run(sdpa, False), strict=True):
        assert (ours - exact).norm() <= 1.5 * (theirs - exact).norm()
        assert (theirs - exact).norm() <= 0.01 * exact.norm()
