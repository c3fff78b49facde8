"""One call that compares credit rules on one's own rollouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lapha._checks import check, check_choice
from lapha.shaping import credit
from lapha.shaping.rollouts import Rollouts
from lapha.shaping.segments import families, node_depth


@dataclass(frozen=True)
class RuleReport:
    """What one rule does to some rollouts; NaN where there was nothing to measure.

    Attributes:
        scored: share of steps that get an advantage, in [0, 1].
        order: share of sibling pairs with different truths that the rule orders as the truth does (ties count half).
        pairs: how many such pairs there are, for all rules; a pair that a rule does not score is a tie.
        sign: share of scored steps on which it agrees in sign with truth(state) − truth(parent), where that is not 0.
        kept: share of scored steps of correct trajectories that are not pushed down (advantage ≥ 0).
        length: mean change of a correct trajectory's mean advantage with one step more; 0: length does not matter.
        advantage: (N,) float64, the rule's numbers.
    """

    scored: float
    order: float
    pairs: int
    sign: float
    kept: float
    length: float
    advantage: Tensor


@dataclass(frozen=True)
class Comparison:
    """Rules by name. `str` gives a table.

    Attributes:
        rules: a report a rule.
        correlation: (R, R) Pearson correlations of the rules' advantages over steps that both score; NaN where none.
    """

    rules: Mapping[str, RuleReport]
    correlation: Tensor

    def __str__(self) -> str:
        head = f"{'rule':<18}{'scored':>8}{'order':>8}{'sign':>8}{'kept':>8}{'length':>9}"
        lines = [
            f"{name:<18}{r.scored:>8.1%}{r.order:>8.1%}{r.sign:>8.1%}{r.kept:>8.1%}{r.length:>+9.3f}"
            for name, r in self.rules.items()
        ]
        return "\n".join([head, *lines])


def compare_credit(
    rollouts: Rollouts,
    rules: Sequence[str] | Mapping[str, Callable[[Rollouts], Tensor]] | None = None,
    *,
    truth: Tensor | None = None,
) -> Comparison:
    """Apply credit rules to the same rollouts and say how they differ.

    Args:
        rollouts: see `Rollouts`.
        rules: names of `credit.RULES`, or functions by name. Default: all, `delta_v` only where there are latents.
        truth: (N,) how good each state really is (an oracle's, or success rates of many more rollouts), NaN where not
            known. Default: the success rate of the rollouts' own trajectories, which flatters rules made of it.

    Raises:
        ValueError: an unknown rule, a truth of another length, a rule that returns another shape.
    """
    if rules is None:
        rules = [name for name in credit.RULES if name != "delta_v" or rollouts.points is not None]
    if not isinstance(rules, Mapping):
        for name in rules:
            check_choice(name, "rules", credit.RULES)
        rules = {name: credit.RULES[name] for name in rules}
    value = credit.success(rollouts) if truth is None else truth.to(torch.float64)
    check(tuple(value.shape) == (len(rollouts),), "truth", f"shape ({len(rollouts)},)", tuple(value.shape))
    reports = {name: _report(rule(rollouts), rollouts, value) for name, rule in rules.items()}
    return Comparison(reports, _correlations([report.advantage for report in reports.values()]))


def sibling_order(values: Tensor, truth: Tensor, parent: Tensor) -> tuple[float, int]:
    """(share of sibling pairs with different truths that values order alike, number of pairs). NaN values are ties."""
    right, pairs = 0.0, 0
    for siblings in families(parent):
        known = siblings[~truth[siblings].isnan()]
        wanted = torch.sign(truth[known][:, None] - truth[known][None])
        got = torch.sign(values[known][:, None] - values[known][None]).nan_to_num(0.0)
        chosen = torch.triu(wanted != 0, 1)
        pairs += int(chosen.sum())
        right += float((0.5 + 0.5 * wanted * got)[chosen].sum())
    return (right / pairs if pairs else math.nan), pairs


def _report(advantage: Tensor, rollouts: Rollouts, truth: Tensor) -> RuleReport:
    good = tuple(advantage.shape) == (len(rollouts),)
    check(good, "rules", f"a rule that returns shape ({len(rollouts)},)", tuple(advantage.shape))
    advantage = advantage.to(torch.float64)
    step, known = rollouts.parent >= 0, ~advantage.isnan()
    order, pairs = sibling_order(advantage, truth, rollouts.parent)
    gain = torch.where(step, truth - truth[rollouts.parent.clamp_min(0).to(torch.int64)], torch.nan)
    compared = known & ~gain.isnan() & (gain != 0)
    sign = torch.sign(advantage[compared]) == torch.sign(gain[compared])
    correct = rollouts.graded & (rollouts.score >= 0.5)
    path = torch.zeros_like(correct)
    means, lengths, questions = [], [], []
    depth = node_depth(rollouts.parent)
    for end in correct.nonzero()[:, 0].tolist():
        steps = _path(rollouts.parent, end)
        path[steps] = True
        numbers = advantage[steps]
        numbers = numbers[~numbers.isnan()]
        if len(numbers):
            means.append(float(numbers.mean()))
            lengths.append(float(depth[end]))
            questions.append(int(rollouts.group[end]))
    return RuleReport(
        scored=_mean(known[step]),
        order=order,
        pairs=pairs,
        sign=_mean(sign),
        kept=_mean(advantage[path & known] >= 0),
        length=_slope_within(means, lengths, questions),
        advantage=advantage,
    )


def _path(parent: Tensor, end: int) -> list[int]:
    steps = []
    while int(parent[end]) >= 0:
        steps.append(end)
        end = int(parent[end])
    return steps


def _mean(values: Tensor) -> float:
    return float(values.to(torch.float64).mean()) if len(values) else math.nan


def _slope_within(y: list[float], x: list[float], group: list[int]) -> float:
    """Least-squares slope of y on x with a level a group; NaN where x does not vary in any."""
    if not y:
        return math.nan
    ids = torch.unique(torch.tensor(group), return_inverse=True)[1]
    columns = torch.tensor([x, y], dtype=torch.float64)
    count = torch.bincount(ids).to(torch.float64)
    mean = torch.stack([torch.bincount(ids, column) for column in columns]) / count
    dx, dy = columns - mean[:, ids]
    return float((dx * dy).sum() / (dx * dx).sum()) if bool((dx != 0).any()) else math.nan


def _correlations(advantages: list[Tensor]) -> Tensor:
    size = len(advantages)
    matrix = torch.full((size, size), math.nan, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            both = ~advantages[i].isnan() & ~advantages[j].isnan()
            pair = torch.stack([advantages[i][both], advantages[j][both]])
            if pair.shape[1] > 1 and bool((pair.std(1) > 0).all()):
                matrix[i, j] = torch.corrcoef(pair)[0, 1]
    return matrix
