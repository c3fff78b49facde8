"""One policy, many doors: searched trees, records, arrays, chains and the bank give the same numbers.

The numbers themselves come from a plain Python reading of the formulas, with the ball's textbook distance.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lapha
from lapha.integrations import RolloutRecord, shape_rollouts
from lapha.latent import LatentBank, latent_points
from lapha.shaping import (
    ShapingConfig,
    chain_potential,
    chain_rewards,
    shape,
    shape_chains,
    shape_tree,
    sibling_advantages,
)
from lapha.tree import SearchTree
from lapha.types import Status

DOORS = settings(max_examples=60, deadline=None, derandomize=True)
DIM = 6


def random_tree(seed: int, size: int, kinds: str):
    """(parent, verdict of each leaf or None inside: 'right', 'wrong', 'none' or 'unknown', hidden (N, DIM))."""
    rng = np.random.default_rng(seed)
    parent = [-1] + [int(rng.integers(max(0, i - 4), i)) for i in range(1, size)]
    leaves = sorted(set(range(1, size)) - set(parent))
    names = {"r": "right", "w": "wrong", "n": "none", "u": "unknown"}
    verdict = [None] * size
    for leaf in leaves:
        if rng.random() < 0.85:  # the others stay open
            verdict[leaf] = names[kinds[int(rng.integers(len(kinds)))]]
    hidden = torch.from_numpy(rng.normal(size=(size, DIM)).cumsum(0) * rng.uniform(0.1, 1.5)).float()
    well_formed = [True] + [bool(rng.random() < 0.7) for _ in range(1, size)]
    return parent, verdict, hidden, well_formed


cases = st.tuples(
    st.integers(0, 10_000), st.integers(2, 30), st.sampled_from(["rw", "rwnu", "w", "wu", "r", "ru"])
).map(lambda case: random_tree(*case))
configs = st.builds(
    ShapingConfig,
    reward=st.sampled_from(["strict", "adaptive"]),
    gamma=st.sampled_from([1.0, 0.9]),
    failed_leaves=st.sampled_from(["zero", "geometry"]),
)


def distance(u, v) -> float:
    """Geodesic distance of two tangent vectors' images in the unit ball, by the textbook formula."""

    def ball(w):
        norm = math.sqrt(sum(a * a for a in w))
        return [a * math.tanh(norm) / norm for a in w] if norm else list(w)

    p, q = ball(u), ball(v)
    gap = sum((a - b) ** 2 for a, b in zip(p, q))
    free = (1 - sum(a * a for a in p)) * (1 - sum(a * a for a in q))
    return math.acosh(1 + 2 * gap / free)


def expected(case, config):
    """V, r, A of one tree, node by node."""
    parent, verdict, hidden, well_formed = case
    size = len(parent)
    v = ((hidden.double() - hidden[0].double()) / math.sqrt(DIM)).tolist()
    goals = [n for n in range(size) if verdict[n] == "right"]
    if not goals:
        return [0.0] * size, [math.nan] * size, [math.nan] * size
    V = []
    for n in range(size):
        near = min(distance(v[n], v[g]) for g in goals)
        far = distance(v[n], [0.0] * DIM)
        zero = config.failed_leaves == "zero" and verdict[n] in ("wrong", "none")
        V.append(1.0 if n in goals else 0.0 if zero else far / (far + near + 1e-8))
    delta = [0.0] + [config.gamma * V[n] - V[parent[n]] for n in range(1, size)]
    r = delta
    if config.reward == "adaptive":
        raw_f = 1 - sum(well_formed[1:]) / (size - 1)
        leaves = [n for n in range(1, size) if verdict[n] is not None]
        mean = sum(delta[1:]) / (size - 1)
        informative = sum((d - mean) ** 2 for d in delta[1:]) / (size - 1) > 1e-12 and sum(delta[1:]) > 1e-9
        raw_v = 1 - len(goals) / len(leaves) if informative else 0.0
        w_v, w_f = raw_v / (raw_f + raw_v + 1e-8), raw_f / (raw_f + raw_v + 1e-8)
        r = [0.0] + [min(max(w_v * max(0.0, delta[n]) + w_f * well_formed[n], 0.0), 1.0) for n in range(1, size)]
    A = [math.nan] * size
    for node in range(size):
        group = [n for n in range(size) if parent[n] == node]
        values = [r[n] for n in group]
        if len(group) < 2 or max(values) - min(values) < 1e-5:  # nearer than float32 can tell: not compared
            continue
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in values) / len(values))
        for n in group:
            A[n] = (r[n] - mean) / (deviation + 1e-4)
    return V, r, A


def by_arrays(case, config):
    parent, verdict, hidden, well_formed = case
    marks = {name: torch.tensor([v == name for v in verdict]) for name in ("right", "unknown")}
    return shape(
        latent_points(hidden, hidden[0]),
        torch.tensor(parent),
        torch.tensor([v is not None for v in verdict]),
        marks["right"],
        marks["unknown"],
        well_formed=torch.tensor(well_formed),
        config=config,
    )


def by_tree(case, config):
    parent, verdict, hidden, well_formed = case
    tree = SearchTree("q", (1,))
    for n in range(1, len(parent)):
        answer = None if verdict[n] in (None, "none") else f"{verdict[n]} {n}"
        ended = Status.OPEN if verdict[n] is None else Status.DEPTH_LIMIT if verdict[n] == "none" else Status.ANSWERED
        tree.add(parent[n], tokens=(n,), logprobs=(-1.0,), answer=answer, status=ended, well_formed=well_formed[n])
    grades = {"right": 1.0, "wrong": 0.0, "unknown": None}
    return shape_tree(tree, latent_points(hidden, hidden[0]), lambda q, a: grades[a.split()[0]], config)


def by_records(cases_, config):
    """All trees' records in one list, a record of each in turn."""
    records = []
    for n in range(max(len(case[0]) for case in cases_)):
        for name, (parent, verdict, hidden, well_formed) in enumerate(cases_):
            if n < len(parent):
                above = None if n == 0 else (name, parent[n])
                graded = {"right": True, "wrong": False, "none": False}.get(verdict[n])
                records.append(
                    RolloutRecord((name, n), above, hidden[n], graded, verdict[n] is not None, well_formed[n])
                )
    shaped = shape_rollouts(records, config=config)
    for name in range(len(cases_)):
        rows = [index for index, record in enumerate(records) if record.key[0] == name]
        yield shaped.potential[rows], shaped.reward[rows], shaped.advantage[rows]


def close(got, wanted, atol=2e-6):
    torch.testing.assert_close(
        torch.as_tensor(got).double(), torch.as_tensor(wanted).double(), atol=atol, rtol=1e-5, equal_nan=True
    )


@DOORS
@given(case=cases, other=cases, config=configs)
@example(case=random_tree(0, 5, "rw"), other=random_tree(1, 7, "w"), config=ShapingConfig())
def test_every_door_gives_the_formulas_numbers(case, other, config):
    V, r, A = expected(case, config)
    arrays, tree = by_arrays(case, config), by_tree(case, config)
    records, others = by_records([case, other], config)
    close(arrays.potential, V)
    close(arrays.reward, r)
    known = ~torch.tensor(A).isnan()
    close(
        arrays.advantage[known], torch.tensor(A)[known], atol=2e-2
    )  # differences of float32, divided by small spreads
    for got in ((tree.value, tree.reward, tree.advantage), records):
        for mine, theirs in zip(got, (arrays.potential, arrays.reward, arrays.advantage), strict=True):
            assert mine.dtype == theirs.dtype == torch.float32
            torch.testing.assert_close(mine, theirs, atol=0, rtol=0, equal_nan=True)
    alone = by_arrays(other, config)
    for mine, theirs in zip(others, (alone.potential, alone.reward, alone.advantage), strict=True):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0, equal_nan=True)


@DOORS
@given(case=cases, config=configs)
def test_the_parts_of_the_pipeline_are_the_pipeline(case, config):
    """README's functions one by one, and the bank's."""
    parent, verdict, hidden, _ = case
    points, right = latent_points(hidden, hidden[0]), torch.tensor([v == "right" for v in verdict])
    failed = torch.tensor([v in ("wrong", "none") for v in verdict])
    whole = by_arrays(case, config.replace(reward="strict"))
    V = lapha.potential(points, goal=right, failed=failed if config.failed_leaves == "zero" else None)
    assert torch.equal(V, whole.potential)
    if bool(right.any()):
        r = lapha.process_reward(V, torch.tensor(parent), config.gamma)
        assert torch.equal(r, whole.reward)
        A = sibling_advantages(r, torch.tensor(parent))
        torch.testing.assert_close(A, whole.advantage, atol=0, rtol=0, equal_nan=True)
    bank = LatentBank(DIM)
    ids = bank.append(points)
    by_bank = bank.potential(ids, ids[right])
    close(by_bank, by_arrays(case, config.replace(failed_leaves="geometry")).potential)
    stored = shape(bank[ids], torch.tensor(parent), torch.tensor([v is not None for v in verdict]), right)
    torch.testing.assert_close(
        stored.potential, by_arrays((*case[:1], ["wrong" if v == "unknown" else v for v in verdict], *case[2:]), ShapingConfig()).potential
    )  # fmt: skip


@DOORS
@given(seed=st.integers(0, 10_000), chains=st.integers(1, 5), config=configs)
def test_chains_are_trees_that_branch_at_the_prompt(seed, chains, config):
    config = config.replace(reward="strict")
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, chains)
    parent, verdict = [-1], [None]
    for count in counts:
        for step in range(count):
            parent.append(0 if step == 0 else len(parent) - 1)
            verdict.append(None)
        verdict[-1] = str(rng.choice(["right", "wrong", "unknown"]))
    hidden = torch.from_numpy(rng.normal(size=(len(parent), DIM)).cumsum(0)).float()
    tree = by_arrays((parent, verdict, hidden, [True] * len(parent)), config)

    steps = int(counts.max())
    points = latent_points(hidden, hidden[0])
    place = torch.zeros(chains, steps, dtype=torch.int64)
    boundaries = torch.full((chains, steps), -1)
    for row, count in enumerate(counts):
        place[row, :count] = 1 + int(counts[:row].sum()) + torch.arange(int(count))
        boundaries[row, :count] = torch.arange(int(count)) * 2 + 1
    real = boundaries >= 0
    ends = [verdict[1 + int(counts[: row + 1].sum()) - 1] for row in range(chains)]
    correct, unknown = (torch.tensor([end == name for end in ends]) for name in ("right", "unknown"))
    padded = lapha.PolarPoints(points.direction[place], torch.where(real, points.radius[place], torch.nan))
    group = torch.full((chains,), 7)
    V = chain_potential(padded, boundaries, correct, group, unknown=unknown, config=config)
    whole = shape_chains(padded, boundaries, correct, group, 2 * steps, unknown=unknown, config=config)
    assert torch.equal(V[real], tree.potential[1:])
    assert torch.equal(whole.potential, V)
    torch.testing.assert_close(whole.reward[real], tree.reward[1:], atol=0, rtol=0, equal_nan=True)
    if bool(correct.any()):
        assert torch.equal(chain_rewards(V, boundaries, config.gamma)[real], tree.reward[1:])
    assert bool(torch.isfinite(whole.advantage).all())


def test_the_defaults_of_all_doors_are_the_same():
    """A right leaf and a wrong one under one state: the step into the wrong one loses what its path had gained."""
    hidden = torch.tensor([[0.0, 0], [1, 0], [2, 0], [2, 0.5], [0, 3]])
    case = ([-1, 0, 1, 1, 0], [None, None, "right", "wrong", None], hidden.repeat(1, 3), [True] * 5)
    arrays, tree, (records,) = by_arrays(case, None), by_tree(case, ShapingConfig()), by_records([case], None)
    V1 = float(arrays.potential[1])
    assert arrays.potential.tolist()[2:4] == [1.0, 0.0]
    assert 0.3 < V1 < 0.7
    assert float(arrays.reward[3]) == pytest.approx(-V1)
    for value, reward in ((tree.value, tree.reward), records[:2]):
        assert torch.equal(value, arrays.potential)
        assert torch.equal(reward, arrays.reward)


def test_float64_latents_give_float64_numbers():
    parent, verdict, hidden, well_formed = random_tree(3, 12, "rw")
    case = (parent, verdict, hidden.double(), well_formed)
    V, r, _ = expected(case, ShapingConfig())
    shaped = by_arrays(case, ShapingConfig())
    assert shaped.potential.dtype == shaped.reward.dtype == shaped.advantage.dtype == torch.float64
    close(shaped.potential, V, atol=1e-8)
    close(shaped.reward, r, atol=1e-8)
    (records,) = by_records([case], None)
    assert torch.equal(records[1], shaped.reward)


def test_the_papers_form_is_one_option_away():
    paper = ShapingConfig.preset("paper", breadth=4)
    assert (paper.reward, paper.failed_leaves, paper.potential, paper.breadth) == (
        "adaptive", "geometry", "hyperbolic", 4,
    )  # fmt: skip
    assert ShapingConfig.preset("default") == ShapingConfig()
    with pytest.raises(ValueError, match="preset: expected one of 'default', 'paper', got 'papers'"):
        ShapingConfig.preset("papers")


LINE = lapha.PolarPoints(torch.eye(3)[[0, 0, 0]], torch.tensor([0.0, 0.5, 1.0]))
MASK = torch.tensor([False, False, True])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terminal": torch.tensor([False, True, True])}, "terminal: expected states without children, got one"),
        ({"correct": torch.tensor([False, True, False])}, "correct: expected terminal nodes only"),
        ({"unknown": torch.tensor([False, True, False])}, "unknown: expected terminal nodes only"),
        ({"unknown": MASK}, "unknown: expected states that are not correct"),
        ({"well_formed": torch.ones(2, dtype=torch.bool)}, r"well_formed: expected shape \(3,\)"),
        ({"parent": torch.tensor([-1, 0, 2])}, r"got parent\[2\] = 2"),
        ({"points": lapha.PolarPoints(LINE.direction, torch.tensor([0.0, -0.5, 1.0]))}, "radii >= 0, got -0.5, the first at index 1"),
        ({"points": lapha.PolarPoints(LINE.direction, torch.tensor([0.0, 0.5, math.inf]))}, "finite latents, got NaN or Inf, the first at index 2"),
        ({"config": ShapingConfig(potential=lambda tree: torch.zeros(2))}, "potential: expected a rule that returns shape"),
        ({"config": ShapingConfig(potential=lambda tree: torch.full((3,), 1.5))}, r"potential: expected a rule that returns numbers in \[0, 1\]"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, message):
    arguments = {"points": LINE, "parent": torch.tensor([-1, 0, 1]), "terminal": MASK, "correct": MASK} | change
    with pytest.raises(ValueError, match=message):
        shape(**arguments)


def test_latents_of_chains_are_looked_at_but_their_padding_is_not():
    radius = torch.tensor([[0.5, 1.0], [0.5, math.nan]])
    points = lapha.PolarPoints(torch.eye(3)[torch.zeros(2, 2, dtype=torch.int64)], radius)
    correct, group = torch.tensor([True, False]), torch.zeros(2, dtype=torch.int64)
    assert torch.isfinite(chain_potential(points, torch.tensor([[1, 2], [1, -1]]), correct, group)).all()
    with pytest.raises(ValueError, match="points: expected finite latents"):
        chain_potential(points, torch.tensor([[1, 2], [1, 2]]), correct, group)
    with pytest.raises(ValueError, match=r"config\.reward: expected 'strict' for chains, got 'adaptive'"):
        shape_chains(
            points, torch.tensor([[1, 2], [1, -1]]), correct, group, 3, config=ShapingConfig(reward="adaptive")
        )
