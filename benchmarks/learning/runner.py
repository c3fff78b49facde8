"""Runs a study: one process per cell, several at a time, resumable, one JSON line per cell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.learning.analysis import choose_rates
from benchmarks.learning.studies import Study, extended
from benchmarks.learning.training import Cell

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
WORK = Path("runs/learning")
EXTENSIONS = 2  # how often the grid of learning rates may grow
Launch = Callable[[Cell, Path], "subprocess.Popen[bytes]"]


def result_file(study: str) -> Path:
    return RESULTS / f"learning-{study}.jsonl"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All finished cells. A line that a kill cut short at the end of the file is dropped from it.

    Raises:
        ValueError: a damaged line that is not the last, or a cell that is there twice.
    """
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        path.write_bytes(whole)
    rows = [json.loads(line) for line in whole.decode().splitlines()]
    names = [row["cell"] for row in rows]
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: expected every cell once, got {len(names) - len(set(names))} again")
    return rows


def run_study(
    study: Study,
    *,
    workers: int = 1,
    path: Path | None = None,
    work: Path = WORK,
    launch: Launch | None = None,
    prepare: Callable[[Study], None] | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Policies, then tuning, then the choice of learning rates, then the final seeds. Finished cells are not run again.

    Args:
        study: the grid.
        workers: processes at a time.
        path: the result file; default in benchmarks/results.
        work: folder for what cells keep while they run, and for logs of those that failed.
        launch: starts a cell's process, which writes its row to the given file; for tests.
        prepare: builds the start policies; for tests.
        say: where progress goes.

    Returns:
        The rows of all cells.

    Raises:
        RuntimeError: cells failed; the others were run. The message names them and their logs.
    """
    path = result_file(study.name) if path is None else path
    (prepare or build_policies)(study)
    for extension in range(EXTENSIONS + 1):
        run_cells(list(study.tuning()), path, workers=workers, work=work, launch=launch or launch_cell, say=say)
        chosen = choose_rates([row for row in read_rows(path) if row["phase"] == "tune"])
        wider = extended(study, chosen)
        if wider is study or extension == EXTENSIONS:
            break
        say(f"a best rate lies at an end of the grid: {', '.join(f'{rate:g}' for rate in wider.learning_rates)}")
        study = wider
    say("learning rates: " + ", ".join(f"{'/'.join(place)} {rate:g}" for place, rate in chosen.items()))
    run_cells(list(study.final(chosen)), path, workers=workers, work=work, launch=launch or launch_cell, say=say)
    return read_rows(path)


def run_cells(
    cells: Sequence[Cell], path: Path, *, workers: int, work: Path, launch: Launch, say: Callable[[str], None]
) -> None:
    """Run those cells that the file does not have yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {row["cell"]: row for row in read_rows(path)}
    for cell in cells:
        if cell.name in rows:
            check_same(rows[cell.name], cell)
    waiting = [cell for cell in cells if cell.name not in rows]
    say(f"{len(cells) - len(waiting)} of {len(cells)} cells are there, {len(waiting)} to run")
    running: list[tuple[Cell, Path, subprocess.Popen[bytes]]] = []
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                cell = waiting.pop(0)
                folder = work / cell.study / cell.name.replace("/", "-")
                folder.mkdir(parents=True, exist_ok=True)
                running.append((cell, folder, launch(cell, folder)))
            ended = [entry for entry in running if entry[2].poll() is not None]
            running = [entry for entry in running if entry not in ended]
            for cell, folder, process in ended:
                row = folder / "row.json"
                if process.returncode == 0 and row.is_file():
                    with path.open("ab") as file:
                        file.write(row.read_bytes().strip() + b"\n")
                    shutil.rmtree(folder)
                    say(f"done: {cell.name} ({len(waiting) + len(running)} left)")
                else:
                    failed.append(f"{cell.name} (status {process.returncode}, log {folder / 'log.txt'})")
                    say(f"failed: {failed[-1]}")
            if not ended:
                time.sleep(0.2)
    finally:
        for *_, process in running:
            process.terminate()
    if failed:
        raise RuntimeError(f"{len(failed)} cells failed: " + "; ".join(failed))


def check_same(row: dict[str, Any], cell: Cell) -> None:
    """A finished cell must have been run with the options that the study has now.

    Raises:
        ValueError: it was not.
    """
    for name, value in asdict(cell).items():
        if row[name] != value:
            raise ValueError(f"{cell.name}: expected {name} = {value!r}, got {row[name]!r} in the result file")


def launch_cell(cell: Cell, folder: Path) -> subprocess.Popen[bytes]:
    """One process of one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    command = [sys.executable, "-m", "benchmarks.learning", "cell", json.dumps(asdict(cell)), str(folder.resolve())]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)


def write_row(row: dict[str, Any], folder: Path) -> None:
    """Atomically, so that a killed cell leaves no half row."""
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        file.write(json.dumps(row, separators=(",", ":")) + "\n")
    Path(file.name).replace(folder / "row.json")


def build_policies(study: Study) -> None:
    """Tune the start policies that are missing, one process each would not be worth it: they are few."""
    from benchmarks.learning.policies import build_policy

    for family, policy in _unique(study.places):
        if policy.startswith("tiny@"):
            facts = build_policy(policy, family)
            print(f"{policy} on {family}: {facts['accuracy']:.1%} after {facts['steps']} steps", flush=True)


def _unique(places: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(places))
