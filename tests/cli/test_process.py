"""What only a process of its own shows: exit codes, signals, missing extras."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest

from lapha.viz import read_page

pytest.importorskip("typer", reason="needs lapha[llm]")

BLOCK = """
import sys
sys.modules.update(dict.fromkeys({blocked!r}))  # None: not found by find_spec, and not to be imported
from lapha.cli import main
main({arguments!r})
"""


@pytest.mark.parametrize(
    ("blocked", "arguments", "extra"),
    [
        ({"trl"}, ["demo", "--out", "demo"], "lapha[trl]"),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_line(blocked, arguments, extra, tmp_path):
    code = BLOCK.format(blocked=blocked, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert f"pip install '{extra}'" in done.stderr
    assert done.stderr.count("\n") == 1


MODES = ("single", "react", "value", "majority", "best-of-n")


def lapha(*arguments, **options):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "lapha", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_eval_measures_all_modes_into_one_folder(tmp_path):
    out = tmp_path / "run"
    done = lapha(
        "eval", "--model", "tiny", "--data", "tiny", "--modes", "single,react,majority,best-of-n,value",
        "--limit", 3, "--simulations", 4, "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["mode"] for row in rows] == list(MODES)
    assert all(row["problems"] == "3" and row["failed"] == "0" for row in rows)
    assert all(0 <= float(row["accuracy"]) <= 1 and float(row["tokens"]) > 0 for row in rows)
    assert all(mode in done.stdout for mode in MODES)
    (run,) = read_page(out / "report.html")["manifest"]["runs"]
    assert run["modes"] == list(MODES)


def test_ctrl_c_in_the_demo_leaves_files_that_load(tmp_path):
    pytest.importorskip("trl", reason="needs lapha[trl]")
    out = tmp_path / "demo"
    command = [
        sys.executable,
        "-m",
        "lapha",
        "demo",
        "--out",
        str(out),
        "--problems",
        "2",
        "--steps",
        "500",
        "--trees",
        "4",
        "--simulations",
        "4",
    ]
    # a shell's background jobs ignore SIGINT, and so would the test's child
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 600
        while not trained(out / "metrics.jsonl") and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"phase": "interrupted"} in lines
    headings = [section["heading"] for section in read_page(out / "report.html")["manifest"]["sections"]]
    assert "Accuracy before and after training" in headings
    check = "from lapha.engines import TransformersEngine as T; T.from_pretrained({0!r}, value_head={0!r}).close()"
    subprocess.run([sys.executable, "-c", check.format(str(out / "checkpoint"))], check=True)


def trained(path):
    return path.is_file() and '"phase": "train"' in path.read_text()
