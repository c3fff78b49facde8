"""The study runner: families against search by brute force, arithmetic by hand, and runs that are cut and resumed."""

import dataclasses
import itertools
import json
import math
import sys

import numpy as np
import pytest
import torch

from benchmarks.learning import analysis, policies, runner
from benchmarks.learning.arms import ARMS, GradedTree, advantages
from benchmarks.learning.growing import environment_for, grow, merge_chains
from benchmarks.learning.studies import STUDIES, Study, extended
from benchmarks.learning.tasks import FAMILIES, Jugs
from benchmarks.learning.training import Cell, losses, rows_of, run_cell, update
from lapha.engines import TransformersEngine
from lapha.geometry import PolarPoints
from lapha.shaping import credit
from lapha.tiny import load_tiny
from lapha.tree import SearchTree
from lapha.types import Status


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_families_grade_what_they_demonstrate(name):
    family, rng = FAMILIES[name], np.random.default_rng(0)
    train, heldout = family.questions(40, 0, "train"), family.questions(40, 0, "heldout")
    assert not set(train) & set(heldout)
    assert family.questions(40, 0, "train") == train != family.questions(40, 1, "train")
    for question in train[:8]:
        steps = family.demonstration(question, 1.0, rng)
        answer = steps[-1].split("<answer>")[1].removesuffix("</answer>")
        assert family.verify(question, answer) == 1.0
        left = [family.remaining(question, steps[:k]) for k in range(len(steps) + 1)]
        assert left == list(range(len(steps), -1, -1))  # a shortest way, one move at a time
        assert len(steps) <= family.depth_limit
        assert family.verify(question, "nothing") == 0.0
        assert family.remaining(question, ["nonsense"]) == math.inf
    lucky = [family.demonstration(question, 0.0, rng)[-1] for question in train]
    right = [family.verify(q, step.split("<answer>")[1][:-9]) for q, step in zip(train, lucky, strict=True)]
    assert np.mean(right) < 0.7  # moves at random are no solution


def test_countdown_against_all_expressions():
    family = FAMILIES["countdown"]
    for question in family.questions(3, 5, "train"):
        target, numbers = int(question.split()[1]), [int(n) for n in question.split()[3:]]

        def reach(values, target=target):
            if len(values) == 1:
                return values[0] == target
            return any(
                reach([v for k, v in enumerate(values) if k not in (i, j)] + [value])
                for i, j in itertools.permutations(range(len(values)), 2)
                for value in (values[i] + values[j], values[i] - values[j], values[i] * values[j])
                if 0 <= value < 100
            )

        assert reach(numbers)
        assert family.remaining(question, []) == len(numbers) - 1


def test_jugs_by_hand():
    family = Jugs("jugs", 3, 6)
    assert family.verify("Jugs 3 5 to 4", "fb ba ea ba fb ba") == 1.0
    assert family.verify("Jugs 3 5 to 4", "fb ba ea ba fb") == 0.0
    assert family.verify("Jugs 3 5 to 4", "ea fb ba ea ba fb ba") == 0.0  # an empty jug cannot be emptied
    assert family.remaining("Jugs 3 5 to 4", ["fb = 0 5", "ba = 3 2"]) == 4
    assert family.remaining("Jugs 3 5 to 4", ["fb = 0 4"]) == math.inf
    with pytest.raises(ValueError, match="question: expected 'Jugs A B to C'"):
        family.verify("Jars 3 5", "fa")


def row(arm, rate, seed, phase, accuracies, tokens=None, place=("f", "p")):
    points = [
        {"generated": g, "sampled": a, "greedy": a}
        for g, a in zip(tokens or range(0, 100 * len(accuracies), 100), accuracies, strict=True)
    ]
    return {
        "cell": f"{phase}{arm}{rate}{seed}", "family": place[0], "policy": place[1], "arm": arm, "learning_rate": rate,
        "seed": seed, "phase": phase, "curve": points, "generated": points[-1]["generated"],
        "log": [{"radius": {"median": 0.3}}],
    }  # fmt: skip


def test_areas_and_tokens_by_hand():
    one = row("a", 1e-3, 0, "tune", [0.0, 0.5, 1.0])
    assert analysis.area(one, 200) == pytest.approx(0.5)
    assert analysis.area(one, 150) == pytest.approx((0.25 * 100 + 0.625 * 50) / 150)
    assert analysis.area(one, 400) == pytest.approx((0.5 * 200 + 1.0 * 200) / 400)  # stays where it ended
    assert analysis.tokens_to(one, 0.75) == pytest.approx(150)
    assert analysis.tokens_to(one, 0.0) == 0
    assert analysis.tokens_to(one, 1.1) == math.inf


def test_the_learning_rate_with_the_largest_mean_area_is_chosen():
    rows = [
        row("a", 1e-3, 0, "tune", [0, 1.0]), row("a", 1e-3, 1, "tune", [0, 0.0]),
        row("a", 1e-4, 0, "tune", [0, 0.6]), row("a", 1e-4, 1, "tune", [0, 0.6]),
        row("b", 1e-3, 0, "tune", [0, 0.5]), row("b", 1e-4, 0, "tune", [0, 0.5]),
    ]  # fmt: skip
    assert analysis.choose_rates(rows) == {("f", "p", "a"): 1e-4, ("f", "p", "b"): 1e-4}  # a tie: the smaller


def test_comparison_is_paired_over_seeds():
    base = [row("grpo", 1e-3, s, "final", [0.0, 0.2 + s / 10, 0.4 + s / 10]) for s in range(3)]
    fast = [row("dv", 1e-3, s, "final", [0.0, 0.4 + s / 10, 0.5 + s / 10]) for s in range(3)]
    table = {entry["arm"]: entry for entry in analysis.compare(base + fast)}
    gain = table["dv"]["gain"]
    assert gain[0] == pytest.approx((0.2 / 2 * 100 + (0.2 + 0.1) / 2 * 100) / 200)  # the same in every seed:
    assert gain[1] == pytest.approx(gain[2])  # so the paired interval has no width, whatever the seeds' own levels
    assert table["grpo"]["token_ratio"] == pytest.approx((1, 1, 1))
    assert table["dv"]["token_ratio"][0] < 1
    assert table["grpo"]["censored"] == 1  # seed 0 ends below the mean of the finals, 0.5
    mean, low, high = analysis.paired([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2.0, pytest.approx(4.302653 / math.sqrt(3), rel=1e-6))
    assert low == pytest.approx(4 - high)
    assert "| dv |" in analysis.text_table(list(table.values()))


def test_figures_are_drawn(tmp_path):
    rows = [row(arm, 1e-3, s, "final", [0, 0.5, 0.6 + s / 10]) for arm in ("grpo", "dv") for s in range(2)]
    (file,) = analysis.draw(rows, tmp_path, "s")
    assert file.stat().st_size > 5000


STUDY = Study("s", [("walk-easy", "tiny")], ["grpo", "dv-hyperbolic"], [1e-4, 1e-3], [7], [1, 2])
RATES_RUN = 4  # the two of the study, and two above them: the fake cells are the better the larger the rate


def fake_launch(started, fail=()):
    """Real processes that write a row: better with the larger rate."""

    def launch(cell, folder):
        import subprocess

        started.append(cell.name)
        own = {
            "cell": cell.name, **dataclasses.asdict(cell),
            "curve": [{"generated": g, "sampled": cell.learning_rate * g, "greedy": 0.0} for g in (0, 100)],
        }  # fmt: skip
        (folder / "given.json").write_text(json.dumps(own))
        code = f"import sys, pathlib, shutil; p = pathlib.Path({str(folder)!r}); shutil.copy(p / 'given.json', p / 'row.json')"
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)" if cell.name in fail else code])

    return launch


def run(path, work, started, fail=()):
    return runner.run_study(
        STUDY, workers=2, path=path, work=work, launch=fake_launch(started, fail), prepare=lambda s: None,
        say=lambda text: None,
    )  # fmt: skip


def test_a_study_resumes_where_it_was_cut(tmp_path):
    path, started = tmp_path / "r.jsonl", []
    rows = run(path, tmp_path / "work", started)
    assert len(rows) == len(started) == 2 * RATES_RUN + 4
    finals = [row for row in rows if row["phase"] == "final"]
    assert {row["learning_rate"] for row in finals} == {1e-2}
    assert {(row["arm"], row["seed"]) for row in finals} == {(a, s) for a in STUDY.arms for s in (1, 2)}
    again: list[str] = []
    assert run(path, tmp_path / "work", again) == rows
    assert again == []
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])  # killed while the last line was written
    assert len(run(path, tmp_path / "work", again)) == 12
    assert len(again) == 1


def test_the_grid_grows_where_a_best_rate_lies_at_its_end():
    inside = {("f", "p", "a"): 3e-4, ("f", "p", "b"): 3e-4}
    study = Study("s", [("walk-easy", "tiny")], ["grpo"], [1e-4, 3e-4, 1e-3], [7], [1])
    assert extended(study, inside) is study
    assert extended(study, inside | {("f", "p", "c"): 1e-4}).learning_rates == (3e-5, 1e-4, 3e-4, 1e-3)
    assert extended(study, inside | {("f", "p", "c"): 1e-3}).learning_rates == (1e-4, 3e-4, 1e-3, 3e-3)


def test_failed_cells_are_named_and_run_again(tmp_path):
    path, started = tmp_path / "r.jsonl", []
    bad = "tune/walk-easy/tiny/grpo/lr0.0001/seed7"
    with pytest.raises(RuntimeError, match=f"1 cells failed: {bad} .status 3, log"):
        run(path, tmp_path / "work", started, fail={bad})
    assert len(started) == 4  # the others of the phase were run
    assert len(run(path, tmp_path / "work", started)) == 12
    assert started.count(bad) == 2


def test_results_of_other_options_are_refused(tmp_path):
    path, started = tmp_path / "r.jsonl", []
    run(path, tmp_path / "work", started)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["questions"] = 5
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(ValueError, match="expected questions = 24, got 5 in the result file"):
        run(path, tmp_path / "work", started)
    path.write_text((json.dumps(rows[1]) + "\n") * 2)
    with pytest.raises(ValueError, match="expected every cell once, got 1 again"):
        runner.read_rows(path)


def test_the_studies_are_sound():
    for study in STUDIES.values():
        names = [cell.name for cell in study.tuning()]
        assert len(set(names)) == len(names)
        assert len(study.learning_rates) >= 4 or study.name == "smoke"
        assert "grpo" in study.arms


def hand_tree() -> GradedTree:
    """Two chains of one question as a tree that branches at its root: right in 2 steps, wrong in 1."""
    tree = SearchTree("q", (1,))
    first = tree.add(0, tokens=(2,), logprobs=(-1.0,))
    tree.add(first, tokens=(3,), logprobs=(-1.0,), answer="a", status=Status.ANSWERED)
    tree.add(0, tokens=(4,), logprobs=(-1.0,), answer="b", status=Status.ANSWERED)
    tangent = torch.tensor([[0.0, 0.0], [0.25, 0.0], [0.5, 0.0], [0.0, 0.3]])
    score = torch.tensor([math.nan, math.nan, 1.0, 0.0])
    return GradedTree(tree, PolarPoints.from_tangent(tangent), score, torch.tensor([2.0, 1.0, 0.0, 2.0]))


def test_arms_give_their_rules_numbers():
    tree = hand_tree()

    def of(name):
        (numbers,), _ = advantages(ARMS[name], [tree])
        return numbers.tolist()

    assert of("grpo") == pytest.approx([math.nan, 1, 1, -1], nan_ok=True, rel=1e-3)
    assert of("tree-success") == pytest.approx([math.nan, 0.5, 0, -0.5], nan_ok=True)
    # siblings 1 and 3: ΔV 1/2 and 0 (a failed leaf); node 2 has no sibling
    assert of("dv-hyperbolic") == pytest.approx([math.nan, 1, math.nan, -1], nan_ok=True, rel=1e-2)
    assert of("dv-oracle") == pytest.approx([math.nan, 1, math.nan, -1], nan_ok=True, rel=1e-2)
    # returns 1 and 0, b = 1/2, u(v) = 1/2 + v/2: to go 1 − u(0), 1 − u(1/2), 0 − u(0), over deviation 1/2
    assert of("chain-dv") == pytest.approx([math.nan, 1, 0.5, -1], nan_ok=True, rel=1e-2)


@pytest.fixture(scope="module")
def tiny():
    return load_tiny()


def test_chains_merge_at_the_prompt_and_keep_their_tokens(tiny):
    model, tokenizer, head = tiny
    family = FAMILIES["walk-easy"]
    environment, engine = environment_for(tokenizer, family), TransformersEngine(model, tokenizer, head)
    (question,) = family.questions(1, 0, "train")
    options = {"chains": 3, "simulations": 3, "breadth": 4}
    (merged,) = grow(ARMS["grpo"], engine, environment, family, [question], 0, **options)
    assert len(merged.tree.children[0]) == 3
    assert all(len(below) <= 1 for below in merged.tree.children[1:])
    assert merged.rollouts.graded.sum() == 3
    assert merged.latents.radius[0] == 0
    chains = [(merged.tree, merged.latents)]
    tree, latents = merge_chains(chains)
    assert [tree.context_ids(n) for n in range(len(tree))] == [merged.tree.context_ids(n) for n in range(len(tree))]
    assert torch.equal(latents.radius, merged.latents.radius)
    engine.close()


def test_the_policy_gradient_is_the_advantage_times_the_score(tiny):
    """At the policy that sampled, against log-probabilities of one full forward pass a row."""
    model, tokenizer, head = tiny
    family = FAMILIES["walk-easy"]
    environment, engine = environment_for(tokenizer, family), TransformersEngine(model, tokenizer, head)
    trees = grow(
        ARMS["grpo"], engine, environment, family, family.questions(4, 0, "train"), 0,
        chains=4, simulations=4, breadth=3,
    )  # fmt: skip
    engine.close()
    per_tree, _ = advantages(ARMS["grpo"], trees)
    rows = list(rows_of(trees, per_tree, with_values=False))
    assert len(rows) > 4
    model.zero_grad()
    policy, _ = losses(model, head, tokenizer.pad_token_id, ARMS["grpo"], rows)
    policy.backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total = torch.zeros(())
    for row_ in rows:
        ids = torch.tensor([row_.context])
        logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        total = total - row_.advantage * logprobs[-row_.sampled :].sum()
    total.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(got[name], p.grad, atol=2e-3, rtol=2e-3, msg=name)
    model.zero_grad()
    # a step along it makes good steps likelier than bad ones
    trained, _, own = load_tiny()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
    tokens = update(trained, own, optimizer, tokenizer, ARMS["grpo"], trees, per_tree)
    assert tokens == sum(r.sampled for r in rows)
    after, _ = losses(trained, own, tokenizer.pad_token_id, ARMS["grpo"], rows)
    assert float(after.detach()) < float(policy.detach())


CELL = Cell(
    "s", "final", "walk-easy", "tiny", "dv-auto", 1e-3, 3, steps=2, questions=2, chains=2, simulations=3, breadth=3,
    evaluate_every=1, evaluated=3,
)  # fmt: skip


def test_a_cell_that_was_cut_goes_on_as_it_would_have(tmp_path, monkeypatch):
    whole = run_cell(CELL, tmp_path / "whole")
    assert [point["step"] for point in whole["curve"]] == [0, 1, 2]
    assert whole["curve"][-1]["generated"] == whole["generated"] > 0
    assert whole["log"][0]["radius"]["median"] > 0
    assert whole["log"][0]["audit"]["reward"] == "verdicts"
    real = update

    def cut(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.learning.training.update", lambda *a, **k: (setattr_cut(), real(*a, **k))[1])

    def setattr_cut():
        monkeypatch.setattr("benchmarks.learning.training.update", cut)

    with pytest.raises(KeyboardInterrupt):
        run_cell(CELL, tmp_path / "cut")
    monkeypatch.setattr("benchmarks.learning.training.update", real)
    resumed = run_cell(CELL, tmp_path / "cut")
    for name in ("curve", "generated", "trained"):
        assert resumed[name] == whole[name], name


def test_demonstrations_are_what_the_environment_reads(tiny):
    """Token for token the context that a search would have after the same steps."""
    import asyncio

    from lapha.types import Sample, State

    _, tokenizer, _ = tiny
    family = FAMILIES["jugs"]
    environment = environment_for(tokenizer, family)
    (question,) = family.questions(1, 2, "train")
    steps = family.demonstration(question, 1.0, np.random.default_rng(0))
    ids, labels = policies.demonstration_row(environment, family, question, 1.0, np.random.default_rng(0))
    state, turn = environment.start(question)
    context = list(state.token_ids)
    answer = None
    for depth, step in enumerate(steps, 1):
        own = tokenizer.encode(step, add_special_tokens=False) + [tokenizer.eos_token_id]
        context += [*turn.bridge_ids, *own]
        sample = Sample(own, [0.0] * len(own), step, "stop", State(tuple(context)))
        result = asyncio.run(environment.step(turn, sample, depth))
        turn, answer = result.turn, result.answer
        assert result.well_formed
    assert ids == context
    assert family.verify(question, answer) == 1.0
    learned = [i for i, label in zip(ids, labels, strict=True) if label != policies.IGNORED]
    assert learned == [
        t for s in steps for t in [*tokenizer.encode(s, add_special_tokens=False), tokenizer.eos_token_id]
    ]


def test_a_start_policy_is_tuned_until_it_is_as_good_as_its_name_says(tmp_path, monkeypatch):
    monkeypatch.setattr(policies, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="policy: expected one that was built"):
        policies.load_policy("tiny@0.1", "walk-easy")
    shares = iter([0.4, 0.2, 0.08])
    monkeypatch.setattr(policies, "accuracy", lambda *a, **k: [next(shares)])
    tuning = policies.Tuning(batch=2, measure_every=1, measured=2)
    facts = policies.build_policy("tiny@0.1", "walk-easy", tuning)
    assert (facts["accuracy"], facts["steps"]) == (0.08, 2)
    assert policies.build_policy("tiny@0.1", "walk-easy") == facts  # built once
    model, _, head = policies.load_policy("tiny@0.1", "walk-easy")
    packaged = load_tiny()[0].state_dict()
    assert any(not torch.equal(packaged[name], value) for name, value in model.state_dict().items())
    assert not any(parameter.any() for parameter in head.parameters())


def test_credit_of_every_arm_is_known():
    for arm in ARMS.values():
        assert arm.credit in {*credit.RULES, "chain_delta_v", "auto"}
        assert arm.rollouts in ("chains", "tree")
