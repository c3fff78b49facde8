from __future__ import annotations

import subprocess
import sys

import pytest

from lapha.sandbox import BREACHES, OUTCOMES, Limits, RunResult, create_sandbox
from lapha.sandbox.protocol import breach_message, refuse


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wall_seconds", 0),
        ("wall_seconds", float("inf")),
        ("cpu_seconds", -1.0),
        ("cpu_seconds", float("nan")),
        ("memory_bytes", 1000),
        ("memory_bytes", 5e8),
        ("output_bytes", 0),
        ("code_bytes", 0),
        ("file_bytes", 10),
        ("wall_seconds", "10"),
    ],
)
def test_limits_are_checked(name, value):
    with pytest.raises(ValueError, match=f"limits.{name}: expected .*, got {value!r}"):
        Limits(**{name: value})


def test_a_message_holds_all_that_there_is_to_say():
    assert RunResult("ok", "a\nb\n", "3").message() == "a\nb\n3"
    assert RunResult("ok").message() == "(no output)"
    assert RunResult("error", "a\n", None, "ValueError: x\n").message() == "a\nValueError: x"


@pytest.mark.parametrize("outcome", BREACHES)
def test_every_breach_has_one_readable_line(outcome):
    line = breach_message(outcome, Limits())
    assert "\n" not in line
    assert line.startswith("Stopped: ")
    assert RunResult(outcome, error=line).breach


def test_only_breaches_are_breaches():
    assert {outcome for outcome in OUTCOMES if RunResult(outcome).breach} == set(BREACHES)
    assert [outcome for outcome in OUTCOMES if RunResult(outcome).ok] == ["ok"]


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (b"1", "code: expected text, got bytes"),
        (None, "code: expected text, got NoneType"),
        ("'\ud800'", "code: expected text that UTF-8 can hold, got a lone surrogate at 1"),
        ("é" * 60, "code: expected at most 100 bytes, got 120"),
        ("x = 1\n" * 2_000_000, "code: expected at most 100 bytes, got 12000000"),
    ],
)
def test_some_code_is_not_even_tried(code, complaint):
    result = refuse(code, Limits(code_bytes=100))
    assert (result.outcome, result.error) == ("refused", complaint)
    assert refuse("1", Limits(code_bytes=1)) is None


def test_unknown_back_ends_are_named():
    with pytest.raises(ValueError, match="backend: expected 'monty', 'bubblewrap' or a server's address, got 'docker'"):
        create_sandbox("docker")
    with pytest.raises(ValueError, match="limits: expected none beside a server's address"):
        create_sandbox("http://127.0.0.1:1", Limits())


def test_importing_the_sandbox_imports_no_back_end():
    code = "import sys, lapha.sandbox; print([m for m in ('torch', 'pydantic_monty', 'fastapi', 'httpx', 'aiohttp') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
