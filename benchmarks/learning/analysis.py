"""From cells to findings: area under the curve against tokens, tokens to an accuracy, paired intervals, figures."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

Row = Mapping[str, Any]
Place = tuple[str, str, str]  # family, policy, arm


def curve(row: Row, metric: str = "sampled") -> tuple[np.ndarray, np.ndarray]:
    """Generated tokens and accuracy at each point of a cell's curve."""
    return np.array([p["generated"] for p in row["curve"]], float), np.array([p[metric] for p in row["curve"]], float)


def area(row: Row, budget: float, metric: str = "sampled") -> float:
    """Mean accuracy over the first `budget` generated tokens; beyond its end a curve stays where it ended."""
    tokens, accuracy = curve(row, metric)
    inside = tokens < budget
    x = np.append(tokens[inside], budget)
    y = np.append(accuracy[inside], np.interp(budget, tokens, accuracy))
    return float(np.trapezoid(y, x) / budget)


def tokens_to(row: Row, accuracy: float, metric: str = "sampled") -> float:
    """Generated tokens at which a cell's curve first reaches an accuracy, interpolated; Inf if it does not."""
    tokens, reached = curve(row, metric)
    above = np.flatnonzero(reached >= accuracy)
    if not len(above):
        return math.inf
    k = int(above[0])
    if k == 0:
        return float(tokens[0])
    share = (accuracy - reached[k - 1]) / (reached[k] - reached[k - 1])
    return float(tokens[k - 1] + share * (tokens[k] - tokens[k - 1]))


def common_budget(rows: Sequence[Row]) -> float:
    """The tokens that every cell has generated: areas are compared up to there."""
    return float(min(row["curve"][-1]["generated"] for row in rows))


def choose_rates(rows: Sequence[Row]) -> dict[Place, float]:
    """Each arm's learning rate: the largest mean area over its tuning seeds; among equals the smaller rate.

    Areas are taken up to the tokens that all of the place's tuning cells have generated.
    """
    places: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        places[row["family"], row["policy"]].append(row)
    chosen: dict[Place, float] = {}
    for (family, policy), members in places.items():
        budget = common_budget(members)
        areas: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in members:
            areas[row["arm"]][row["learning_rate"]].append(area(row, budget))
        for arm, by_rate in areas.items():
            best = max(by_rate, key=lambda rate: (float(np.mean(by_rate[rate])), -rate))
            chosen[family, policy, arm] = best
    return chosen


def paired(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of paired differences with Student's interval; the interval is infinite for one pair."""
    values = np.asarray(differences, float)
    if len(values) < 2:
        return float(values.mean()), -math.inf, math.inf
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def compare(rows: Sequence[Row], baseline: str = "grpo", metric: str = "sampled") -> list[dict[str, Any]]:
    """Every arm of every place against the baseline, paired over seeds.

    Returns:
        Per arm: mean area with the paired interval of its difference to the baseline's; the geometric mean ratio of
        tokens to the baseline's final accuracy (its mean over seeds), with an interval; seeds in which it was reached.
        Where a seed does not reach it the budget is counted, so that a ratio is then a lower bound (`censored`).
    """
    finals = [row for row in rows if row["phase"] == "final"]
    table = []
    for family, policy in sorted({(row["family"], row["policy"]) for row in finals}):
        here = [row for row in finals if (row["family"], row["policy"]) == (family, policy)]
        by_arm: dict[str, dict[int, Row]] = defaultdict(dict)
        for row in here:
            by_arm[row["arm"]][row["seed"]] = row
        if baseline not in by_arm:
            continue
        budget = common_budget(here)
        base = by_arm[baseline]
        final = float(np.mean([row["curve"][-1][metric] for row in base.values()]))
        for arm, cells in by_arm.items():
            seeds = sorted(set(cells) & set(base))
            gain = paired([area(cells[s], budget, metric) - area(base[s], budget, metric) for s in seeds])
            reached = [tokens_to(cells[s], final, metric) for s in seeds]
            capped = [min(t, float(cells[s]["generated"])) for t, s in zip(reached, seeds, strict=True)]
            capped_base = [min(tokens_to(base[s], final, metric), float(base[s]["generated"])) for s in seeds]
            ratio = paired([math.log(max(a, 1) / max(b, 1)) for a, b in zip(capped, capped_base, strict=True)])
            table.append(
                {
                    "family": family,
                    "policy": policy,
                    "arm": arm,
                    "learning_rate": cells[seeds[0]]["learning_rate"],
                    "seeds": len(seeds),
                    "area": float(np.mean([area(cells[s], budget, metric) for s in seeds])),
                    "gain": gain,
                    "final": float(np.mean([cells[s]["curve"][-1][metric] for s in seeds])),
                    "token_ratio": tuple(math.exp(value) if value < 700 else math.inf for value in ratio),
                    "censored": sum(math.isinf(t) for t in reached),
                    "radius": float(np.mean([row["log"][0]["radius"]["median"] for row in cells.values()])),
                }
            )
    return table


def detectable_ratio(
    rows: Sequence[Row], arm: str, baseline: str = "grpo", power: float = 0.8
) -> dict[tuple[str, str], float]:
    """Smallest ratio of tokens to accuracy that the final seeds would find with the given power at 5 %, by place.

    From the spread of the paired logarithms, by the noncentral t distribution's normal approximation. A study without a
    finding may say "no effect of 1.25" only where this is at most 1.25.
    """
    found = {}
    for entry in compare(rows, baseline):
        if entry["arm"] != arm or entry["seeds"] < 2:
            continue
        n = entry["seeds"]
        middle, low, _ = (math.log(value) for value in entry["token_ratio"])
        error = (middle - low) / stats.t.ppf(0.975, n - 1)
        found[entry["family"], entry["policy"]] = math.exp((stats.t.ppf(0.975, n - 1) + stats.norm.ppf(power)) * error)
    return found


def text_table(table: Sequence[Mapping[str, Any]]) -> str:
    """The comparison as Markdown, best area first in each place."""
    lines = [
        "| family | start | arm | lr | seeds | area | gain over GRPO (95 %) | final | tokens to GRPO's final (95 %) | radius |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(table, key=lambda row: (row["family"], row["policy"], -row["area"])):
        gain, ratio = row["gain"], row["token_ratio"]
        note = f", ≥ in {row['censored']}" if row["censored"] else ""
        lines.append(
            f"| {row['family']} | {row['policy']} | {row['arm']} | {row['learning_rate']:g} | {row['seeds']} "
            f"| {row['area']:.3f} | {gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}] | {row['final']:.3f} "
            f"| {ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]{note} | {row['radius']:.2f} |"
        )
    return "\n".join(lines)


def draw(rows: Sequence[Row], folder: Path, study: str, metric: str = "sampled") -> list[Path]:
    """One figure per place: accuracy against generated tokens, mean and standard error over the final seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    finals = [row for row in rows if row["phase"] == "final"]
    files = []
    for family, policy in sorted({(row["family"], row["policy"]) for row in finals}):
        here = [row for row in finals if (row["family"], row["policy"]) == (family, policy)]
        grid = np.linspace(0, common_budget(here), 40)
        figure, axes = pyplot.subplots(figsize=(6, 4))
        for arm in sorted({row["arm"] for row in here}):
            lines = np.stack([np.interp(grid, *curve(row, metric)) for row in here if row["arm"] == arm])
            error = lines.std(0, ddof=1) / math.sqrt(len(lines)) if len(lines) > 1 else np.zeros_like(grid)
            (line,) = axes.plot(grid / 1000, lines.mean(0), label=arm, linewidth=2 if arm == "grpo" else 1)
            axes.fill_between(
                grid / 1000, lines.mean(0) - error, lines.mean(0) + error, alpha=0.12, color=line.get_color()
            )
        axes.set(
            xlabel="generated tokens (thousands)", ylabel=f"{metric} accuracy, held out", title=f"{family}, {policy}"
        )
        axes.legend(fontsize=6, ncols=2)
        files.append(folder / f"learning-{study}-{family}-{policy.replace('@', '-')}.svg")
        figure.savefig(files[-1], bbox_inches="tight")
        pyplot.close(figure)
    return files
