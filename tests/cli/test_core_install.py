"""`pip install lapha` alone: the command line works, and says what a command needs beyond it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
EXTRAS = (
    "transformers", "trl", "vllm", "deepspeed", "matplotlib", "datasets", "accelerate", "fastapi", "uvicorn",
    "pydantic_monty", "math_verify", "jinja2", "httpx", "aiohttp", "tenacity", "peft", "gguf", "benchmarks",
)  # fmt: skip

CODE = """
import sys
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {blocked!r} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from lapha.cli import run
for arguments in {commands!r}:
    print("exit", run(arguments), flush=True)
    print("===", file=sys.stderr, flush=True)
"""

COMMANDS = [
    ["--help"],
    ["--version"],
    ["env"],
    ["bench", "--rows", "8", "--columns", "8", "--width", "4", "--seconds", "0.01", "--json"],
    ["demo", "--out", "nowhere"],
    ["search", "a question"],
    ["eval", "--data", "math-500"],
    ["report", "nowhere"],
    ["evaluate"],
    ["search", "--simulation", "3", "q"],
    ["bench", "--width", "0"],
    ["bench", "--dtype", "float8"],
    ["eval", "--data", "math500"],
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """(standard output, standard error) and the exit code of each command."""
    code = CODE.format(blocked=EXTRAS, commands=COMMANDS)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin", "COLUMNS": "100", "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.stderr.count("===") == len(COMMANDS), done.stderr
    errors = done.stderr.split("===\n")
    outputs, lines = [], []
    for line in done.stdout.splitlines():
        if line.startswith("exit "):
            outputs.append(("\n".join(lines), int(line[5:])))
            lines = []
        else:
            lines.append(line)
    return {" ".join(c): (out, error, code) for c, (out, code), error in zip(COMMANDS, outputs, errors)}


def of(answers, *words):
    """The answer to the command that has these words."""
    (found,) = [answer for command, answer in answers.items() if all(word in command for word in words)]
    return found


def test_what_works(answers):
    out, _, code = of(answers, "--help")
    assert code == 0
    assert "bench" in out
    assert of(answers, "--version")[0]
    out, _, code = of(answers, "env")
    assert code == 0
    assert "torch" in out
    assert "not installed" in out
    out, _, code = of(answers, "--json")
    assert code == 0
    timings = [json.loads(line) for line in out.splitlines()]
    assert [timing["kernel"] for timing in timings] == ["pairwise_dist", "nearest", "knn"]
    assert all(timing["seconds"] > 0 and timing["calls"] >= 3 for timing in timings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("demo",),
            "the demo needs transformers, trl, accelerate, jinja2, not installed here. Install with: pip install 'lapha[trl]'",
        ),
        (("a question",), "pip install 'lapha[llm]'"),
        (("math-500",), "pip install 'lapha[eval]'"),
        (("nowhere", "report"), "run: expected the folder of a run (with config.yaml), got nowhere"),
        (("evaluate",), "No such command 'evaluate'"),
        (("--simulation 3",), "--simulations"),
        (("--width 0",), "width: expected an integer >= 1, got 0"),
        (("float8",), "dtype: expected one of"),
        (("math500",), "tiny, or one of math-500"),
        (("math500",), "got 'math500'; did you mean 'math-500'?"),
    ],
)
def test_what_does_not_work_is_said_in_one_line(words, message, answers):
    _, error, code = of(answers, *words)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_extra_leaves_no_folder(tmp_path, monkeypatch):
    from lapha._imports import MissingExtraError, require_all

    with pytest.raises(MissingExtraError, match=r"^x needs no_such_a, no_such_b, .*lapha\[viz,llm\]'$"):
        require_all({"json": "viz", "no_such_a": "viz", "no_such_b": "llm"}, "x")
    require_all({"json": "viz"}, "x")


def test_the_benchmark_measures_what_it_says():
    import torch

    from lapha.geometry import PolarPoints
    from lapha.kernels import pairwise_dist
    from lapha.kernels.benchmark import plain_distance, run_benchmarks

    generator = torch.Generator().manual_seed(0)
    x, y = (PolarPoints.from_tangent(torch.randn(n, 6, generator=generator), curvature=0.7) for n in (5, 7))
    torch.testing.assert_close(plain_distance(x, y), pairwise_dist(x, y), rtol=2e-4, atol=2e-4)
    (timing,) = run_benchmarks(rows=4, columns=4, width=3, seconds=0.01, kernels=["knn"], memory_bytes=1)
    assert (timing.kernel, timing.plain_seconds, timing.speedup) == ("knn", None, None)
    with pytest.raises(ValueError, match=r"kernel: expected one of .*; did you mean 'nearest'"):
        run_benchmarks(kernels=["neares"])
