"""The build's report: everything that it measures on held-out problems, as one dictionary."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from lapha.tiny.encoding import Batch, Vocabulary, encode
from lapha.tiny.measure import guided_rate, order_siblings, states_of
from lapha.tiny.problems import question_text
from lapha.tiny.sampling import SampledWalks, sample_walks
from lapha.tiny.training import TARGETS, TinyModel, potential_targets
from lapha.tiny.walk import AVOIDED, MOVE_LIMIT, Demonstrator, Rollouts, Walks, generate_walks, roll_out, walked

TEMPERATURES = (1.0, 0.7, 0.5, 0.3)
_SEED = 20_000  # far from the seeds that training draws from; the split keeps the problems apart in any case


def held_out_metrics(
    model: TinyModel, tokenizer: Any, problems: int = 400, rollouts: int = 8, demonstrator: Demonstrator | None = None
) -> dict[str, Any]:
    """Solve rates, invalid steps, sibling order, errors and calibration of the heads, and guided walks.

    Args:
        model: the trained model with both heads.
        tokenizer: its tokenizer.
        problems: number of held-out problems.
        rollouts: episodes sampled of each at temperature 1; their states carry the heads' measurements.
        demonstrator: the one whose states stand in where fewer than half the problems have a valid episode
            (``states_from`` says which were used).
    """
    vocabulary = Vocabulary(tokenizer)
    walks = generate_walks(problems, np.random.default_rng([_SEED, 1]), "heldout")
    questions = [
        question_text(int(s), int(t), [int(n) for n in a]) for s, t, a in zip(walks.start, walks.target, walks.avoid)
    ]
    many = sample_walks(model.lm, tokenizer, vocabulary, walks, questions, rollouts, 1.0, _SEED)
    result: dict[str, Any] = {
        "problems": problems,
        "rollouts": rollouts,
        "distances": {str(d): int(c) for d, c in enumerate(_bins(walks)) if c},
        "single_shot": {"1.0": _rate(many)},
        "solved_by_any_of": {str(n): float(many.solved[:, :n].any(1).mean()) for n in (1, 2, 4, rollouts)},
        "invalid_steps": _invalid(many),
    }
    for temperature in TEMPERATURES[1:]:
        some = sample_walks(model.lm, tokenizer, vocabulary, walks, questions, 4, temperature, _SEED + 1)
        result["single_shot"][str(temperature)] = _rate(some)
    part, valid = _valid_part(walks, many)
    result["states_from"] = "policy"
    if len(part) < problems / 2:  # a policy that is hardly trained: measure on the demonstrator's states, and say so
        part, valid = (
            walks,
            roll_out(walks, rollouts, demonstrator or Demonstrator(), np.random.default_rng([_SEED, 2])),
        )
        result["states_from"] = "demonstrator"
    result["sibling_order"] = order_siblings(model, vocabulary, part, valid, _SEED)
    result["heads"] = _head_errors(model, vocabulary, part, valid)
    # the exact sampler draws legal moves only, so its unguided rate is the reference of the guided ones
    result["guided"] = {
        name or "none": guided_rate(model, vocabulary, walks, name, breadth=4, seed=_SEED) for name in (None, *TARGETS)
    }
    return result


def _bins(walks: Walks) -> np.ndarray:
    return np.bincount(walks.distance[np.arange(len(walks)), walks.start])


def _rate(sampled: SampledWalks) -> dict[str, float]:
    """Mean solve rate of one sample, the half-width of its 95 % interval over problems, the share of invalid steps."""
    by_problem = sampled.solved.mean(1)
    half_width = float(1.96 * by_problem.std() / math.sqrt(len(by_problem)))
    invalid = sum(sampled.problems_found.values()) / sampled.steps
    return {"rate": float(by_problem.mean()), "ci95": half_width, "invalid_steps": invalid}


def _invalid(sampled: SampledWalks) -> dict[str, float]:
    wrong = sum(sampled.problems_found.values())
    shares = {kind: count / sampled.steps for kind, count in sorted(sampled.problems_found.items())}
    return {"share": wrong / sampled.steps, "steps": sampled.steps, **shares}


def _valid_part(walks: Walks, sampled: SampledWalks) -> tuple[Walks, Rollouts]:
    """Problems with a valid first episode, with invalid episodes replaced by it (as wrong ones, if they are)."""
    chosen = sampled.valid.argmax(1)
    rows = np.arange(len(walks))
    kept = np.flatnonzero(sampled.valid.any(1))
    source = np.where(sampled.valid, np.arange(sampled.valid.shape[1]), chosen[:, None])
    raw = sampled.rollouts

    def pick(array: np.ndarray) -> np.ndarray:
        return array[rows[:, None], source][kept]

    rollouts = walked(pick(raw.moves), pick(raw.numbers), pick(raw.correct), pick(raw.tried))
    return walks.take(kept), rollouts


@torch.no_grad()
def _head_errors(model: TinyModel, vocabulary: Vocabulary, walks: Walks, rollouts: Rollouts) -> dict[str, Any]:
    """Error of each head on the policy's own states, against what it predicts; calibration of the success rate.

    The policy's success rate from a state is not known exactly: the outcome of the one episode that passes through it
    stands for it, so the floor of that error is the outcome's own variance (``brier``). The potential is exact given
    the episodes' correct leaves.
    """
    batch: Batch = encode(walks, rollouts, vocabulary, length=None)
    pooled = states_of(model, batch)
    potential, has_goal = potential_targets(pooled, batch)
    steps = torch.arange(MOVE_LIMIT + 1)
    inner = batch.state_real & (steps < batch.length[:, None])
    outcome = batch.correct.float()[:, None].expand_as(potential)
    success = torch.sigmoid(model.heads["success_rate"](pooled)[..., 0])
    value = torch.sigmoid(model.heads["potential"](pooled)[..., 0])
    real = batch.state_real & has_goal
    bins, error = _calibration(success[inner], outcome[inner])
    return {
        "success_rate": {
            "brier": float((success - outcome)[inner].square().mean()),
            "brier_of_mean": float(outcome[inner].var(unbiased=False)),
            "auc": _auc(success[inner], outcome[inner]),
            "calibration_error": error,
            "calibration": bins,
        },
        "potential": {
            "mse": float((value - potential)[real].square().mean()),
            "mse_of_mean": float(potential[real].var(unbiased=False)),
            "auc": _auc(value[inner], outcome[inner]),
        },
    }


def _calibration(predicted: torch.Tensor, outcome: torch.Tensor) -> tuple[list[dict[str, float]], float]:
    """Ten equal bins of the prediction: mean prediction, mean outcome, count; and the expected calibration error."""
    index = (predicted * 10).long().clamp(max=9)
    bins, error = [], 0.0
    for number in range(10):
        inside = index == number
        count = int(inside.sum())
        if count:
            said, came = float(predicted[inside].mean()), float(outcome[inside].mean())
            bins.append({"predicted": said, "solved": came, "states": count})
            error += abs(said - came) * count / len(predicted)
    return bins, error


def _auc(score: torch.Tensor, outcome: torch.Tensor) -> float:
    """Probability that a state of a solved episode scores above one of an unsolved episode."""
    from scipy.stats import rankdata

    positive = outcome.bool().numpy()
    ranks = rankdata(score.numpy())
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / max(count * (len(positive) - count), 1))


def format_metrics(metrics: dict[str, Any]) -> str:
    """The report as a person reads it."""
    invalid, order, heads = metrics["invalid_steps"], metrics["sibling_order"], metrics["heads"]
    lines = [f"held-out problems: {metrics['problems']} ({MOVE_LIMIT} moves, {AVOIDED} avoided numbers)"]
    for temperature, rate in metrics["single_shot"].items():
        lines.append(
            f"  single shot, temperature {temperature}: {rate['rate']:.1%} ± {rate['ci95']:.1%},"
            f" invalid steps {rate['invalid_steps']:.2%}"
        )
    kinds = ", ".join(f"{kind} {share:.2%}" for kind, share in invalid.items() if kind not in ("share", "steps"))
    lines.append(f"  invalid steps at temperature 1: {invalid['share']:.2%} of {invalid['steps']} ({kinds})")
    lines.append(f"  heads and V on states of the {metrics['states_from']}:")
    for name in ("potential", *(f"{target}_head" for target in TARGETS)):
        share = order[name]
        lines.append(
            f"  sibling pairs ordered by {'V' if name == 'potential' else name}: {share['all']:.1%} of {share['pairs']}"
            f" (both open: {share['open']:.1%} of {share['open_pairs']})"
        )
    success, potential = heads["success_rate"], heads["potential"]
    lines.append(
        f"  success_rate head: Brier {success['brier']:.4f} (mean alone {success['brier_of_mean']:.4f}),"
        f" AUC {success['auc']:.3f}, calibration error {success['calibration_error']:.3f}"
    )
    lines.append(
        f"  potential head: MSE {potential['mse']:.4f} (mean alone {potential['mse_of_mean']:.4f}), AUC {potential['auc']:.3f}"
    )
    guided = ", ".join(f"{name} {rate:.1%}" for name, rate in metrics["guided"].items())
    lines.append(f"  best of 4 moves a step, by head: {guided}")
    return "\n".join(lines)
