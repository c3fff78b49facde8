"""Commands whose flags are derived from a configuration class."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lapha._options import Option, build, from_text, metavar, options_of, read_yaml, to_plain
from lapha.evaluation.run_folder import is_set

MODEL_DEFAULT = "the model's"
FILE = "config_file"


def with_options(
    config: type, *, shown: Mapping[str, str] | None = None, file: bool = True
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command one flag for each option of `config`, and ``--config FILE``.

    The decorated function gets what was given as ``given``: option name -> value, flags before the file. What was not
    given is absent, so that the command decides the defaults.

    Args:
        config: the configuration class.
        shown: option name -> default in words, for options whose default the command decides.
        file: whether ``--config`` is added; a function that reads its file itself says False.
    """
    options = options_of(config)

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        signature = inspect.signature(function, eval_str=True)
        own = [parameter for name, parameter in signature.parameters.items() if name != "given"]
        derived = [_parameter(option, (shown or {}).get(option.name)) for option in options]
        if file:
            derived.insert(0, _file_parameter())

        @functools.wraps(function)
        def command(**arguments: Any) -> int:
            path = arguments.pop(FILE, None)
            given = {} if path is None else read_flat(path, config)
            for option in options:
                value = arguments.pop(option.name)
                if value is not None:
                    given[option.name] = (
                        from_text(value, option.hint, option.name, option.bounds) if isinstance(value, str) else value
                    )
            return function(given=given, **arguments)

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *derived)]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def read_flat(path: Path, config: type) -> dict[str, Any]:
    """What a YAML file gives, or the ``settings`` of a run's ``config.yaml``; checked by name."""
    values = read_yaml(path)
    parts = {"format", "settings", "environment", "identity", "checksum"}  # of a run's
    if set(values) <= parts and isinstance(values.get("settings"), dict):
        known = {option.name for option in options_of(config)}
        values = {name: value for name, value in values["settings"].items() if name in known and is_set(value)}
    build(config, values, source=str(path))
    return values


def _parameter(option: Option, shown: str | None) -> inspect.Parameter:
    flag = "--" + option.name.replace("_", "-")
    default = shown or option.shown or _default_text(option.default)
    text = option.help + (f"  [default: {default}]" if default else "")
    about: dict[str, Any] = {"help": text, "show_default": False}
    if option.hint is bool:
        made = typer.Option(f"{flag}/--no-{flag[2:]}", **about)
        return _keyword(option.name, Annotated[bool | None, made])
    made = typer.Option(flag, *option.flags, metavar=metavar(option.hint), **about)
    return _keyword(option.name, Annotated[str | None, made])


def _file_parameter() -> inspect.Parameter:
    made = typer.Option("--config", help="YAML file with any of these options (dashes as underscores); flags win.")
    return _keyword(FILE, Annotated[Path | None, made])


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _default_text(default: Any) -> str:
    plain = to_plain(default)
    if plain is None or plain == []:
        return ""
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    if isinstance(plain, float):
        return f"{plain:.4g}"
    return ",".join(map(str, plain)) if isinstance(plain, list) else str(plain)
