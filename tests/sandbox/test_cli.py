from __future__ import annotations

import pytest
from typer.testing import CliRunner

from lapha.cli.sandbox import app
from lapha.sandbox.factory import TOKEN_VARIABLE


def run(*arguments, **environment):
    return CliRunner().invoke(app, list(arguments), env={TOKEN_VARIABLE: None, **environment})


def test_check_says_what_this_machine_can_do():
    result = run("check")
    assert result.exit_code == 0
    assert "monty: yes" in result.output
    assert "bubblewrap: " in result.output


def test_check_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "pydantic_monty", None)
    result = run("check")
    assert result.exit_code == 1
    assert "pip install 'lapha[sandbox]'" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--host", "0.0.0.0"], "token: expected one, to serve on '0.0.0.0' (only loopback goes without), got None"),
        (["--backend", "docker"], "--backend: expected one of monty, bubblewrap, got 'docker'"),
        (["--backend", "monty", "--wall-seconds", "0"], "limits.wall_seconds: expected a finite number > 0, got 0.0"),
        (["--queue", "0"], "queue: expected an integer >= 1, got 0"),
    ],
)
def test_serving_badly_is_refused_before_anything_starts(arguments, complaint):
    result = run("serve", *arguments)
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == complaint


def test_a_short_token_is_refused():
    result = run("serve", "--host", "0.0.0.0", **{TOKEN_VARIABLE: "short"})
    assert "token: expected at least 16 characters" in str(result.exception)
    assert "short" not in str(result.exception).replace("a shorter one", "")
