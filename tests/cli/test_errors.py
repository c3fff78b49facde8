"""What a command says when it cannot go on: who raised what, how much of it is shown, and the exit code."""

import pytest

import lapha.cli
from lapha.cli import run

typer = pytest.importorskip("typer", reason="needs lapha[llm]")


def raise_bad_input():
    from lapha._checks import check

    check(False, "depth", "an integer >= 1", 0)


def raise_in_torch():
    import torch

    torch.optim.SGD([torch.zeros(1)], lr=-1.0)


def raise_engine():
    from lapha.engines.errors import ServerFailedError

    raise ServerFailedError("no server is left", request="question 3, node 0", server="http://x")


def raise_sandbox():
    from lapha.sandbox.protocol import SandboxError

    raise SandboxError("its process died")


def raise_verifier():
    pytest.importorskip("trl", reason="needs lapha[trl]")
    from lapha.integrations.trl import VerifierError

    raise VerifierError("the verifier raised 8 times")


def raise_bug():
    raise RuntimeError("a bug of lapha's own")


@pytest.fixture
def failing(monkeypatch):
    """Adds a command `lapha fail` that ends with an exception that real code raises."""

    def install(function):
        def command() -> int:
            function()
            return 0

        build = lapha.cli.build_app

        def build_with(wanted=None):
            app = build()
            app.command("fail")(command)
            return app

        monkeypatch.setattr(lapha.cli, "build_app", build_with)

    monkeypatch.delenv("LAPHA_DEBUG", raising=False)
    return install


@pytest.mark.parametrize(
    ("function", "code", "message", "traceback"),
    [
        (raise_bad_input, 2, "depth: expected an integer >= 1, got 0", False),
        (raise_in_torch, 1, "Invalid learning rate: -1.0", True),
        (raise_engine, 1, "request 'question 3, node 0' from http://x: no server is left", False),
        (raise_sandbox, 1, "its process died", False),
        (raise_verifier, 1, "the verifier raised 8 times", False),
    ],
)
def test_what_is_raised_decides_what_is_shown(function, code, message, traceback, failing, capsys, monkeypatch):
    failing(function)
    assert run(["fail"]) == code
    shown = capsys.readouterr().err
    assert shown.splitlines()[-1].startswith("lapha: ")
    assert message in shown.splitlines()[-1]
    assert ("Traceback" in shown) == traceback
    assert traceback or shown.count("\n") == 1
    monkeypatch.setenv("LAPHA_DEBUG", "1")
    assert run(["fail"]) == code
    shown = capsys.readouterr().err
    assert f"in {function.__name__}" in shown
    assert message in shown.splitlines()[-1]
    monkeypatch.setenv("LAPHA_DEBUG", "0")
    assert run(["fail"]) == code
    assert ("Traceback" in capsys.readouterr().err) == traceback


def test_a_bug_is_not_explained_away(failing):
    failing(raise_bug)
    with pytest.raises(RuntimeError, match="a bug of lapha's own"):
        run(["fail"])


def test_the_help_says_how_to_see_more(capsys):
    assert run(["--help"]) == 0
    assert "LAPHA_DEBUG=1 shows tracebacks" in " ".join(capsys.readouterr().out.split())
