"""The files with which a server is run keep to what they promise, and to the command line that there is."""

from __future__ import annotations

import configparser
import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lapha.cli.sandbox import app

DEPLOY = Path(__file__).parents[2] / "deploy"


def unit():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(DEPLOY / "lapha-sandbox.service")
    return parser["Service"]


def container():
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines if line and not line.startswith(("#", " "))}


@pytest.mark.parametrize(
    "command",
    [
        shlex.split(unit()["ExecStart"])[1:],
        [*json.loads(container()["ENTRYPOINT"])[1:], *json.loads(container()["CMD"])],
    ],
)
def test_they_call_the_command_line_that_there_is(command):
    assert command[:2] == ["sandbox", "serve"]
    known = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    assert all(word in known for word in command if word.startswith("--"))


def test_neither_runs_as_root():
    assert unit()["DynamicUser"] == "yes"
    assert unit()["NoNewPrivileges"] == "yes"
    assert unit()["CapabilityBoundingSet"] == ""
    assert container()["USER"] not in ("root", "0")


def test_neither_holds_a_token():
    for file in DEPLOY.iterdir():
        assert "LAPHA_SANDBOX_TOKEN=" not in file.read_text().replace("LAPHA_SANDBOX_TOKEN=$(openssl", "").replace(
            "LAPHA_SANDBOX_TOKEN=...", ""
        )
