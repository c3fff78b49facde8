"""The audit against trees in which it is known by construction whether the geometry says more than verdicts."""

import math

import pytest
import torch

from lapha.geometry import PolarPoints
from lapha.shaping import Auditor, ShapingConfig, TreeStates, audit_potential, shape
from lapha.shaping.audit import pair_scores, summarize
from lapha.shaping.trees import shape_trees
from lapha.tree import SearchTree
from lapha.types import Status


def family(seed: int, informed: bool, siblings: int = 4, leaves: int = 6) -> TreeStates:
    """Open siblings with true success chances, a few leaves below each; latents tell the chances, or nothing."""
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(siblings, generator=generator)
    parent, right, terminal, position = [-1], [False], [False], [0.0]
    for n in range(siblings):
        parent.append(0)
        right.append(False)
        terminal.append(False)
        position.append(float(chance[n]) if informed else float(torch.rand((), generator=generator)))
    for n in range(siblings):
        for _ in range(leaves):
            parent.append(1 + n)
            terminal.append(True)
            right.append(bool(torch.rand((), generator=generator) < chance[n]))
            position.append(1.0)
    tangent = torch.zeros(len(parent), 3, dtype=torch.float64)
    tangent[:, 0] = torch.tensor(position, dtype=torch.float64)
    mask = torch.tensor(terminal)
    return TreeStates(
        PolarPoints.from_tangent(tangent), torch.tensor(parent), mask, torch.tensor(right), torch.zeros_like(mask)
    )


def test_geometry_that_knows_is_found_out_and_geometry_that_does_not_is_not_trusted():
    knows = audit_potential([family(seed, informed=True) for seed in range(60)])
    blind = audit_potential([family(seed, informed=False) for seed in range(60)])
    assert knows.pairs > 150
    assert knows.potential_order > 0.8
    assert knows.margin > 0.05
    assert knows.helps
    assert knows.reward == "potential"
    assert abs(blind.potential_order - 0.5) < 0.1
    assert blind.verdict_order > 0.6  # verdicts of the other half do tell
    assert not blind.helps
    assert blind.reward == "verdicts"


def test_few_pairs_are_not_enough():
    few = audit_potential([family(seed, informed=True) for seed in range(2)])
    assert few.pairs < 30
    assert not few.helps
    nothing = audit_potential([family(0, True, siblings=1)])
    assert (nothing.pairs, nothing.helps) == (0, False)
    assert math.isnan(nothing.margin)
    with pytest.raises(ValueError, match="trees: expected at least one, got none"):
        audit_potential([])


def test_what_is_left_out_is_not_looked_at():
    """V and rates do not change when verdicts of the left-out half do; only what they are compared with does."""
    tree = family(3, informed=True)
    seen = []

    def spy(half: TreeStates) -> torch.Tensor:
        seen.append(half)
        return half.correct.to(torch.float64)

    pair_scores(tree, ShapingConfig(potential=spy), seed=5)
    (half,) = seen
    graded = tree.terminal
    assert bool((half.unknown | ~graded | (half.correct == tree.correct)).all())
    kept = graded & ~half.unknown
    assert 0 < int(kept.sum()) < int(graded.sum())
    assert not bool((half.correct & half.unknown).any())


def test_scores_by_hand():
    """Two open siblings; every leaf below the first is right, below the second wrong: one pair, ordered by rates."""
    parent = torch.tensor([-1, 0, 0, *[1] * 8, *[2] * 8])
    terminal = torch.arange(19) > 2
    correct = terminal & (torch.arange(19) < 11)
    points = PolarPoints.from_tangent(torch.eye(19, dtype=torch.float64) * 0.3)
    tree = TreeStates(points, parent, terminal, correct, torch.zeros(19, dtype=torch.bool))

    def backwards(half: TreeStates) -> torch.Tensor:
        V = torch.zeros(19, dtype=torch.float64)
        V[2] = 0.5
        return V

    by_v, by_rate = pair_scores(tree, ShapingConfig(potential=backwards), seed=0)
    assert by_v.tolist() == [0.0]
    assert by_rate.tolist() == [1.0]


def test_summary_by_hand():
    trees = [
        (torch.tensor([1.0, 1.0]), torch.tensor([0.5, 1.0])),
        (torch.tensor([0.0]), torch.tensor([1.0])),
        (torch.tensor([]), torch.tensor([])),
    ]
    found = summarize(trees)
    assert (found.pairs, found.potential_order, found.verdict_order) == (3, pytest.approx(2 / 3), pytest.approx(5 / 6))
    margin = -1 / 6
    residuals = (0.5 - 2 * margin, -1.0 - margin)
    assert found.margin == pytest.approx(margin)
    assert found.error == pytest.approx(math.sqrt(2 * sum(r * r for r in residuals)) / 3)


def arrays(trees: list[TreeStates]):
    starts = [0]
    for tree in trees:
        starts.append(starts[-1] + len(tree.parent))
    parent = torch.cat([torch.where(t.parent < 0, -1, t.parent + s) for t, s in zip(trees, starts)])
    columns = [torch.cat([getattr(t, name) for t in trees]) for name in ("terminal", "correct")]
    return PolarPoints.cat([t.points for t in trees]), parent, *columns


def test_auto_is_one_of_the_two():
    for informed, name in ((True, "hyperbolic"), (False, "success_rate")):
        batch = arrays([family(seed, informed) for seed in range(60)])
        auto = shape(*batch, config=ShapingConfig(reward="auto"))
        wanted = shape(*batch, config=ShapingConfig(potential=name))
        torch.testing.assert_close(auto.reward, wanted.reward, equal_nan=True)


def test_an_auditor_remembers_earlier_trees():
    auditor = Auditor(ShapingConfig(reward="auto"), window=60)
    assert not auditor.update([family(0, informed=True)]).helps
    auditor.update([family(seed, informed=True) for seed in range(1, 60)])
    assert auditor.audit.helps
    assert (auditor.resolved.potential, auditor.resolved.reward) == ("hyperbolic", "strict")
    auditor.update([family(seed, informed=False) for seed in range(60)])  # pushes all of the others out
    assert not auditor.audit.helps
    assert auditor.resolved.potential == "success_rate"


def searched(states: TreeStates) -> SearchTree:
    tree = SearchTree("q", (1,))
    for n in range(1, len(states.parent)):
        ended = bool(states.terminal[n])
        answer = ("right" if bool(states.correct[n]) else "wrong") if ended else None
        status = Status.ANSWERED if ended else Status.OPEN
        tree.add(int(states.parent[n]), tokens=(n,), logprobs=(-1.0,), answer=answer, status=status)
    return tree


def test_batches_of_searched_trees_are_audited_together():
    states = [family(seed, informed=True) for seed in range(60)]
    trees, latents = [searched(s) for s in states], [s.points for s in states]

    def verifier(question: str, answer: str) -> float:
        return float(answer == "right")

    auditor = Auditor(ShapingConfig(reward="auto", breadth=2))
    auto = shape_trees(trees, latents, verifier, auditor.config, auditor)
    plain = shape_trees(trees, latents, verifier, ShapingConfig(breadth=2))
    assert auditor.audit.helps
    assert all(torch.equal(a.value, b.value) for a, b in zip(auto, plain, strict=True))
    alone = shape_trees(trees[:1], latents[:1], verifier, auditor.config)[0]
    assert float(alone.value[0]) > 0  # one tree is not enough to trust the geometry: success rates, not 0 at the prompt
    with pytest.raises(ValueError, match=r"latents: expected one a tree \(60\), got 1"):
        shape_trees(trees, latents[:1], verifier, ShapingConfig())


def test_trees_that_contradict_themselves_are_named():
    good = family(0, informed=True)
    with pytest.raises(ValueError, match="correct, unknown: expected terminal nodes only"):
        audit_potential([TreeStates(good.points, good.parent, good.terminal, ~good.terminal, good.unknown)])
    with pytest.raises(ValueError, match=r"terminal: expected shape \(29,\), got shape \(3,\)"):
        TreeStates(good.points, good.parent, good.terminal[:3], good.correct, good.unknown)
    with pytest.raises(ValueError, match=r"parent: expected an int64 tensor, got torch\.int32"):
        TreeStates(good.points, good.parent.int(), good.terminal, good.correct, good.unknown)
    parent = good.parent.clone()
    parent[1] = 5
    with pytest.raises(ValueError, match=r"got parent\[1\] = 5"):
        audit_potential([TreeStates(good.points, parent, good.terminal, good.correct, good.unknown)])
