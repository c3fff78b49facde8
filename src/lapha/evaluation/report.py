"""Tables and charts of one run, or of several side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lapha.evaluation.comparison import mode_differences
from lapha.evaluation.intervals import Interval, mean_interval
from lapha.evaluation.paired import between_runs
from lapha.evaluation.results import RESULT_COLUMNS, GradedRun, result_rows
from lapha.evaluation.run_folder import read_config
from lapha.search import SearchResult
from lapha.shaping import potential
from lapha.viz import (
    Curve,
    Section,
    Table,
    accuracy_curve,
    reliability_diagram,
    scatter,
)

_SAMPLED_TREES = 24  # trees whose latents are read for V against v̂


def overview(runs: dict[str, GradedRun]) -> list[Section]:
    """The page's tables and charts. The first run is the one that the others are compared with."""
    first = next(iter(runs.values()))
    return [
        _results(runs),
        *_comparison(runs),
        *_costs(runs),
        _trust(runs),
        *_potentials(first, _sampled_trees(first)),
        *_pruning(runs),
        _settings(runs),
    ]


def _results(runs: dict[str, GradedRun]) -> Section:
    columns = (["run"] if len(runs) > 1 else []) + list(RESULT_COLUMNS)
    rows = [([name] if len(runs) > 1 else []) + row for name, run in runs.items() for row in result_rows(run)]
    caption = (
        "Accuracy is of the one answer that a mode gives, with its 95 % interval over problems (Wilson); pass@1 and avg@k are over all "
        "answers that it produced. Ungradable answers count as neither right nor wrong. Tokens and seconds are per problem."
    )
    notes = " ".join(dict.fromkeys(note for run in runs.values() for note in run.notes()))
    return Section("Results", notes, [Table(columns, rows, caption)])


def _comparison(runs: dict[str, GradedRun]) -> list[Section]:
    """Paired differences: of the modes within each run, and of each run from the first."""
    columns = ["problems", "difference, points [95 %]", "p", ""]
    found = []
    within = [
        [name, what, *_cells(d)] for name, run in runs.items() for what, d in mode_differences(run.outcomes, run.scores)
    ]
    if within:
        text = "Accuracy of the modes of one run, on the same problems. p is McNemar's, exact."
        table = Table(["run", "modes", *columns], within)
        if len(runs) == 1:
            table = Table(["modes", *columns], [row[1:] for row in within])
        found.append(Section("Is the search better than what the same tokens buy?", text, [table]))
    (base_name, base), *others = runs.items()
    rows = [[f"{name} − {base_name}", mode, *_cells(d)] for name, run in others for mode, d in between_runs(base, run)]
    if rows:
        text = "Accuracy on the problems that both runs asked. p is McNemar's, exact."
        found.append(Section("Paired differences", text, [Table(["runs", "mode", *columns], rows)]))
    return found


def _cells(difference: Interval) -> list[str]:
    if not difference.count:
        return ["no common problems", "", "", ""]
    return [f"{difference.count}", difference.points(), f"{difference.p:.3f}", difference.verdict()]


def _costs(runs: dict[str, GradedRun]) -> list[Section]:
    by_simulations, by_tokens = {}, {}
    for name, run in runs.items():
        label = "" if len(runs) == 1 else f", {name}"
        curve = _simulation_curve(run)
        if curve is not None:
            counts, intervals, tokens = curve
            means, low, high = ([getattr(i, end) for i in intervals] for end in ("mean", "low", "high"))
            by_simulations[f"search{label}"] = Curve(counts, means, low, high)
            by_tokens[f"search{label}"] = Curve(tokens, means)
        for mode, score in run.scores.items():
            if mode != "value" and score.tokens > 0 and math.isfinite(score.accuracy.mean):
                accuracy = score.accuracy
                by_tokens[f"{mode}{label}"] = Curve([score.tokens], [accuracy.mean], [accuracy.low], [accuracy.high])
    charts = []
    if by_simulations:
        caption = "From one search per problem, read after fewer simulations; bands are 95 % intervals."
        charts.append(accuracy_curve(by_simulations, caption=caption))
    if by_tokens:
        caption = "Every mode at the tokens that it sampled."
        charts.append(accuracy_curve(by_tokens, xlabel="tokens per problem", caption=caption))
    return [Section("Accuracy against cost", "", charts)] if charts else []


def _simulation_curve(run: GradedRun) -> tuple[list[int], list[Interval], list[float]] | None:
    """(simulations, accuracy, mean tokens) of value mode, from what the run recorded."""
    records = [record for record in run.records if record["mode"] == "value" and record.get("simulations")]
    if not records:
        return None
    counts = records[0]["simulations"]
    intervals = []
    for column in range(len(counts)):
        answers = [(record["index"], record["answers_by_simulation"][column]) for record in records]
        found = [False if answer is None else run.verdicts[index, answer].correct for index, answer in answers]
        intervals.append(mean_interval([math.nan if correct is None else float(correct) for correct in found]))
    tokens = np.mean([record["tokens_by_simulation"] for record in records], axis=0)
    return counts, intervals, tokens.tolist()


def _trust(runs: dict[str, GradedRun]) -> Section:
    rows, charts = [], []
    for name, run in runs.items():
        for mode in ("value", "best-of-n"):
            score = run.scores.get(mode)
            if score is None or not len(score.predicted):
                continue
            found = score.calibration
            auc = f"{found.auc:.3f}" if math.isfinite(found.auc) else "–"
            rows.append([name, mode, str(found.count), f"{found.ece:.3f}", f"{found.brier:.3f}", auc])
            charts.append(reliability_diagram(score.predicted, score.outcome, caption=f"{name}, answers of {mode}"))
    if not rows:
        return Section("How far v̂ can be trusted", "No graded answer of these runs has a value.")
    table = Table(
        ["run", "answers of", "answers", "ECE", "Brier", "AUC"], rows, "AUC 0.5 is chance; ECE and Brier are best at 0."
    )
    return Section("How far v̂ can be trusted", "", [table, *charts])


def _sampled_trees(run: GradedRun) -> list[SearchResult]:
    """Searches of value mode that were kept, evenly picked."""
    paths = run.search_files()
    stride = max(1, -(-len(paths) // _SAMPLED_TREES))
    return [run.load_search(path) for path in paths[::stride]]


def measured_potential(run: GradedRun, result: SearchResult) -> tuple[np.ndarray, np.ndarray] | None:
    """(goal, V), each (N,), or None where a tree has no right leaf or no latents."""
    import torch

    goal = run.goal(result)
    if result.latents is None or not goal.any():
        return None
    return goal, potential(result.latents, torch.from_numpy(goal)).numpy()


def _potentials(run: GradedRun, trees: Sequence[SearchResult]) -> list[Section]:
    pairs = []
    for result in trees:
        measured = measured_potential(run, result)
        if measured is not None:
            known = np.isfinite(result.tree.value)
            pairs.append(np.stack([measured[1][known], result.tree.value[known]]))
    if not pairs:
        return []
    true, guessed = np.concatenate(pairs, axis=1)
    error = float(np.mean((true - guessed) ** 2))
    text = (
        f"{true.size} states of {len(pairs)} trees that hold a right answer: mean squared error {error:.4f}, "
        f"correlation {_correlation(true, guessed)}. V is known only after grading."
    )
    chart = scatter(true.tolist(), guessed.tolist(), xlabel="potential V", ylabel="value head v̂")
    return [Section("V against v̂", text, [chart])]


def _correlation(a: np.ndarray, b: np.ndarray) -> str:
    return f"{np.corrcoef(a, b)[0, 1]:.3f}" if a.std() > 0 and b.std() > 0 else "undefined"


def _pruning(runs: dict[str, GradedRun]) -> list[Section]:
    rows = []
    for name, run in runs.items():
        records = [record for record in run.records if record["mode"] == "value" and record.get("nodes")]
        every = read_config(run.folder)["settings"].get("prune_every", 0)
        if not records:
            continue
        nodes, pruned = (np.array([record[key] for record in records], float) for key in ("nodes", "pruned"))
        score = run.scores["value"]
        share = f"{100 * pruned.sum() / nodes.sum():.1f} %"
        rows.append(
            [
                name,
                f"every {every}" if every else "never",
                f"{nodes.mean():.0f}",
                share,
                score.accuracy.percent(),
                f"{score.tokens:.0f}",
            ]
        )
    if not any(row[1] != "never" for row in rows):
        return []
    columns = ["run", "pruned", "nodes per tree", "share disabled", "accuracy", "tokens per problem"]
    return [Section("Pruning", "", [Table(columns, rows)])]


def _settings(runs: dict[str, GradedRun]) -> Section:
    documents = {name: read_config(run.folder) for name, run in runs.items()}
    keys = list(
        dict.fromkeys(key for d in documents.values() for part in ("settings", "environment") for key in d[part])
    )
    rows = []
    for key in keys:
        values = [str({**d["environment"], **d["settings"]}.get(key)) for d in documents.values()]
        if any(value != "None" for value in values):
            rows.append([key, *values])
    return Section("Settings and versions", "", [Table(["", *runs], rows)])
