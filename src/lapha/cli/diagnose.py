"""``lapha diagnose``: whether a model's latents carry what shaping needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

# quantity, attribute (or attributes), how it is written, what it says
_ROWS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("trees; with a correct leaf; nodes", ("trees", "solved", "nodes"), "{:d}; {:d}; {:d}", "V needs a correct leaf"),
    (
        "radius, 5 / 50 / 95 %", ("radius_low", "radius", "radius_high"), "{:.3g} / {:.3g} / {:.3g}",
        "of latents about the prompt's; root left out",
    ),
    ("geodesic over flat distance", ("curvature_effect",), "{:.3f}", "1: these radii see no curvature"),
    ("ball coordinates used up", ("saturated",), "{:.1%}", "above 0: keep latents polar, not in the ball"),
    ("distance of siblings", ("sibling_distance",), "{:.3f}", "of the way over the prompt; 0: not told apart"),
    ("siblings that coincide", ("duplicates",), "{:.1%}", "many: prune, or sample more widely"),
    ("spread of V", ("potential_spread",), "{:.3f}", "standard deviation over open nodes; 0: no signal"),
    ("V and depth", ("depth_correlation",), "{:+.2f}", "rank correlation; near 1: V says little but depth"),
    ("V orders siblings", ("potential_order", "pairs"), "{:.1%} of {:d}", "pairs, by success rate below them; 50 %: chance"),
    ("… from goals elsewhere", ("order_elsewhere",), "{:.1%}", "the same without the family's own goals"),
    ("… and verdicts left out", ("audit_potential", "audit_pairs"), "{:.1%} of {:d}", "open siblings, V of half of the verdicts against the others"),
    ("… by verdicts alone", ("audit_verdicts",), "{:.1%}", "success rates of the same half: V must be above this"),
    ("pairs that curvature turns", ("bent_pairs",), "{:.1%}", "below 1 %: the ball is flat at these radii"),
    ("trees that train the policy", ("with_groups",), "{:.1%}", "of the solved ones: siblings with different rewards"),
    ("v̂ tells leaves apart", ("value_auc",), "{:.3f}", "AUC for correctness; 0.5: chance"),
    ("v̂ orders siblings", ("value_order",), "{:.1%}", "the same pairs; 50 %: chance"),
)  # fmt: skip


def diagnose(
    run: Annotated[Path, typer.Argument(help="Folder that `lapha eval` wrote, with the trees of mode 'value'.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
) -> None:
    """Say whether a model's latents carry what shaping needs, from the trees of an evaluation."""
    import json

    from lapha._checks import check
    from lapha._store import check_writable, replace_file
    from lapha.evaluation.diagnosis import diagnose as measure
    from lapha.evaluation.folders import plain
    from lapha.evaluation.results import read_graded

    if json_file is not None:
        check_writable(json_file)
    graded = read_graded(run)
    files = graded.search_files()
    check(len(files) > 0, "run", "trees of mode 'value' (without --no-trees)", f"none in {run}")
    found = measure((result, graded.goal(result)) for result in map(graded.load_search, files))
    _print(found)
    for finding in found.findings():
        typer.echo(finding)
    if json_file is not None:
        replace_file(json_file, (json.dumps(plain(found.to_dict()), indent=2) + "\n").encode())


def _print(found: Any) -> None:
    import math

    from rich.table import Table

    from lapha.cli._progress import console

    table = Table(box=None)
    for column in ("", "measured", "reading"):
        table.add_column(column)
    for name, attributes, form, reading in _ROWS:
        values = [getattr(found, attribute) for attribute in attributes]
        unknown = any(isinstance(value, float) and math.isnan(value) for value in values)
        table.add_row(name, "nothing to measure" if unknown else form.format(*values), reading)
    console(stderr=False, width=110).print(table)
