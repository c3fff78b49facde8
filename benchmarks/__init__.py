"""Benchmarks of lapha: ``python -m benchmarks --help``.

A suite is a module ``bench_<name>.py`` of this package; it is found by its name and needs to be listed nowhere. It has

* a docstring, whose first line is the suite's one-line help and whose rest its long help,
* ``add_arguments(parser)``, for options beyond those that all suites share,
* ``run(args, session)``, which builds `harness.Case`s and hands each to ``session.measure(case)``.
"""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path

PREFIX = "bench_"


def suite_names() -> list[str]:
    """Names of all suites, sorted."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(name[len(PREFIX) :] for name in names if name.startswith(PREFIX))


def suite_docstring(name: str) -> str:
    """A suite's docstring, read without importing it."""
    source = (Path(__file__).parent / f"{PREFIX}{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or name
