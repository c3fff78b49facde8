"""The command line: one file a command.

Bad input is one line on standard error and exit code 2; an engine, a verifier or a sandbox that gives up is one line and
exit code 1. What a library raises by itself comes with its traceback, and with ``LAPHA_DEBUG=1`` everything does.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lapha.errors import LaphaError

# command -> (module with the function, name of the function)
COMMANDS = {
    "demo": ("lapha.cli.demo", "demo"),
    "train": ("lapha.cli.train", "train"),
    "search": ("lapha.cli.search", "search"),
    "eval": ("lapha.cli.eval", "evaluate"),
    "grade": ("lapha.cli.grade", "grade"),
    "show": ("lapha.cli.show", "show"),
    "merge": ("lapha.cli.merge", "merge"),
    "report": ("lapha.cli.report", "report"),
    "diagnose": ("lapha.cli.diagnose", "diagnose"),
    "view": ("lapha.cli.view", "view"),
    "plot": ("lapha.cli.plot", "plot"),
    "checkpoint": ("lapha.cli.checkpoint", "checkpoint"),
    "sandbox": ("lapha.cli.sandbox", "app"),
    "bench": ("lapha.cli.bench", "bench"),
    "env": ("lapha.cli.env", "env"),
}

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

__all__ = ["COMMANDS", "main"]


def build_app(wanted: str | None = None) -> typer.Typer:
    """The typer application with all commands.

    Args:
        wanted: the only command that is going to run: no other one's modules are imported; None for all.
    """
    app = typer.Typer(
        name="lapha",
        help="Latent Poincaré shaping: train agents with tree rollouts, search with a value head, see what they do.",
        epilog="Exit codes: 0 done, 1 could not finish, 2 bad input, 130 interrupted. LAPHA_DEBUG=1 shows tracebacks.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_top)  # so that a single command still is one
    for name in COMMANDS if wanted not in COMMANDS else (wanted,):
        module, function = COMMANDS[name]
        command = getattr(importlib.import_module(module), function)
        if isinstance(command, typer.Typer):  # a command with commands of its own
            app.add_typer(command, name=name)
        else:
            app.command(name, context_settings=_PASS_ON if name == "bench" else None)(command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        import lapha

        print(lapha.__version__)
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 it could not finish, 2 bad input, 130 interrupted."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app = build_app(given[0] if given else None)
        code = app(args=given or ["--help"], standalone_mode=False, prog_name="lapha")
    except typer.TyperException as error:
        return _explain(error, 2, error.format_message())
    except ValueError as error:
        return _explain(error, 2) if _is_ours(error) else _explain(error, 1, show=True)
    except OSError as error:
        return _explain(error, 2, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except RuntimeError as error:
        if not isinstance(error, LaphaError):
            raise
        return _explain(error, 1)
    except (typer.Abort, KeyboardInterrupt):
        print("lapha: interrupted", file=sys.stderr)
        return 130
    except typer.Exit as exit_:
        return exit_.exit_code
    return code if isinstance(code, int) else 0


def _explain(error: Exception, code: int, message: str | None = None, *, show: bool = False) -> int:
    """One line on standard error, below a traceback if that is wanted; the exit code."""
    if show or os.environ.get("LAPHA_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    print("lapha: " + " ".join((str(error) if message is None else message).split()), file=sys.stderr)
    return code


def _is_ours(error: Exception) -> bool:
    """Whether lapha itself raised `error`, to say what is wrong with its input."""
    if isinstance(error, LaphaError):
        return True
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(Path(__file__).parents[1])
