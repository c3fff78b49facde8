"""The whole corpus once more, as an ordinary user: the suite's own may be root, and a jail must not need that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import lapha
from sandbox.as_nobody import CANNOT
from sandbox.availability import need_bubblewrap

SCRIPT = Path(__file__).parents[1] / "sandbox" / "as_nobody.py"
PATHS = [str(Path(lapha.__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1])]

PROGRAM = """
import json, os, sys, tempfile
from dataclasses import replace
from pathlib import Path
from lapha.sandbox import BubblewrapSandbox
from security import test_escapes as singles, test_pairs as pairs

limits = replace(singles.LIMITS, wall_seconds=1.5)
wrong = []
with tempfile.TemporaryDirectory() as folder:
    attacked = singles.Attacked(lambda: BubblewrapSandbox(limits, concurrency=8), Path(folder))
for name, (result, sibling) in attacked.found.items():
    said = f"{result.output}{result.value}"
    good = result.outcome in singles.PROGRAMS[name].ends and "ESCAPED" not in said and attacked.canaries.secret not in str(result)
    if not good or result.seconds > limits.wall_seconds + 1 or sibling.value != "42":
        wrong.append([name, str(result)[:500], str(sibling)[:200]])
with tempfile.TemporaryDirectory() as folder:
    tried = pairs.Tried(Path(folder))
for name, results in tried.found.items():
    if any("ESCAPED" in result.output for result in results) or not pairs.overlap(*results):
        wrong.append([name, *(str(result)[:500] for result in results)])
counts = [len(attacked.found), len(tried.found)]
print(json.dumps({"uid": os.getuid(), "wrong": wrong, "harm": attacked.harm + tried.harm, "counts": counts}))
"""


@pytest.mark.slow
def test_the_corpus_holds_as_an_ordinary_user():
    need_bubblewrap()
    command = [sys.executable, str(SCRIPT), PROGRAM, *PATHS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode == CANNOT:
        pytest.skip(f"the interpreter cannot be shown to another user here ({done.stderr.strip()})")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["uid"] != 0
    assert found["wrong"] == []
    assert found["harm"] == []
    assert found["counts"][0] >= 180
    assert found["counts"][1] >= 60
