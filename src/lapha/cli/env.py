"""``lapha env``: versions, for bug reports and for a run's record."""

from __future__ import annotations


def env() -> None:
    """Print versions of lapha, Python, torch and the optional packages, and what hardware there is."""
    from rich.table import Table

    from lapha.cli._progress import console
    from lapha.evaluation.provenance import environment_record

    record = environment_record()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in record.items():
        table.add_row(name, str(value) if value is not None else "not installed")
    console(stderr=False).print(table)
