"""Fields of configurations, flattened to one name each: the vocabulary of flags, files and trainer arguments."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from lapha._options.values import NO_BOUNDS, Bounds, convert, describe, suggestion, to_plain
from lapha.errors import ArgumentError

T = TypeVar("T")

_OPTIONS: dict[type, tuple[Option, ...]] = {}
_HINTS: dict[type, dict[str, Any]] = {}


def option(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    name: str | None = None,
    flags: tuple[str, ...] = (),
    runtime: bool = False,
    shown: str | None = None,
) -> Any:
    """A field of a configuration.

    Args:
        default: its default.
        help: one line: what it does.
        ge, gt, le, lt: the range of a number.
        name: its name in files and flags where the field's own would be ambiguous there.
        flags: further spellings on the command line, such as ``"--depth"``.
        runtime: it does not change results, so a run's record leaves it out.
        shown: the default in words, where it depends on something else.
    """
    info = {"help": help, "bounds": Bounds(ge, gt, le, lt), "name": name, "flags": flags, "runtime": runtime}
    return field(default=default, metadata={**info, "shown": shown, "option": True})


def part(kind: Callable[[], Any], help: str, *, prefix: str = "", rename: Mapping[str, str] | None = None) -> Any:
    """A field that is a configuration itself.

    Args:
        kind: its class, or a function that makes the default.
        help: one line.
        prefix: goes before the names of its options.
        rename: other names for some of its options, in place of the prefixed ones.
    """
    return field(
        default_factory=kind, metadata={"help": help, "prefix": prefix, "rename": dict(rename or {}), "part": True}
    )


@dataclass(frozen=True)
class Option:
    """One option of a configuration, however deep its field is.

    Attributes:
        name: in YAML; with dashes, on the command line.
        paths: of the fields that it sets (more than one where parts share it).
        hint: its type.
        default: of the configuration's default instance.
        help: one line.
        bounds: range of a number.
        flags: further spellings on the command line.
        runtime: whether it leaves results as they are.
        shown: the default in words.
        owner: the class that declares the field.
    """

    name: str
    paths: tuple[tuple[str, ...], ...]
    hint: Any
    default: Any
    help: str
    bounds: Bounds = NO_BOUNDS
    flags: tuple[str, ...] = ()
    runtime: bool = False
    shown: str | None = None
    owner: type = object

    @property
    def kind(self) -> str:
        """The type and range in words."""
        return describe(self.hint, self.bounds)


def options_of(config: type) -> tuple[Option, ...]:
    """All options of a configuration class, in the order of the fields."""
    if config not in _OPTIONS:
        _OPTIONS[config] = _flattened(config)
    return _OPTIONS[config]


def _flattened(config: type) -> tuple[Option, ...]:
    found: dict[str, Option] = {}
    for made in _walk(config, config()):
        first = found.get(made.name)
        found[made.name] = made if first is None else dataclasses.replace(first, paths=first.paths + made.paths)
    return tuple(found.values())


def _walk(config: type, default: Any) -> list[Option]:
    hints, found = _hints(config), []
    for one in dataclasses.fields(config):
        about, value = one.metadata, getattr(default, one.name)
        if about.get("part"):
            for inner in _walk(type(value), value):
                name = about["rename"].get(inner.name, about["prefix"] + inner.name)
                found.append(dataclasses.replace(inner, name=name, paths=((one.name, *inner.paths[0]),)))
        elif about.get("option"):
            rest = {key: about[key] for key in ("help", "bounds", "flags", "runtime", "shown")}
            name = about["name"] or one.name
            found.append(Option(name, ((one.name,),), hints[one.name], value, owner=config, **rest))
    return found


def _hints(config: type) -> dict[str, Any]:
    if config not in _HINTS:
        _HINTS[config] = get_type_hints(config)
    return _HINTS[config]


def check_options(config: Any) -> None:
    """Every option of `config` itself is of its type and in its range. For ``__post_init__``.

    Lists become tuples, numpy's integers Python's, and a mapping of settings the part that it describes.

    Raises:
        ValueError: one that is not, by name.
    """
    hints = _hints(type(config))
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if one.metadata.get("option"):
            fitting = convert(value, hints[one.name], one.name, one.metadata["bounds"])
            if fitting is not value:
                object.__setattr__(config, one.name, fitting)
        elif one.metadata.get("part"):
            if isinstance(value, Mapping):  # its settings, as a record of it has them
                object.__setattr__(config, one.name, _from_settings(value, hints[one.name], one.name))
            else:
                convert(value, hints[one.name], one.name)


def _from_settings(settings: Mapping[str, Any], kind: type, name: str) -> Any:
    known = [one.name for one in dataclasses.fields(kind)]
    for given in settings:
        if given not in known:
            raise ArgumentError(
                f"{name}: expected settings among {', '.join(known)}, got {given!r}{suggestion(given, known)}"
            )
    return kind(**settings)


def build(config: type[T], values: Mapping[str, Any], base: T | None = None, *, source: str = "") -> T:
    """A configuration from flat values; what they leave out is as in `base`.

    Args:
        config: the class.
        values: option name -> value, plain or as an object.
        base: default: ``config()``.
        source: where the values stand, for messages.

    Raises:
        ValueError: an unknown name (with the nearest one), or a value that cannot work, by name.
    """
    known = {option.name: option for option in options_of(config)}
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            at = f" in {source}" if source else ""
            raise ArgumentError(f"{name}: expected the name of an option{at}, got {name!r}{suggestion(name, known)}")
        fitting = convert(value, known[name].hint, name, known[name].bounds)
        for path in known[name].paths:
            place = nested
            for step in path[:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = fitting
    made: T = _replaced(config() if base is None else base, nested)
    return made


def _replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    parts = {one.name for one in dataclasses.fields(config) if one.metadata.get("part")}
    new = {
        name: _replaced(getattr(config, name), change) if name in parts else change for name, change in changes.items()
    }
    return dataclasses.replace(config, **new) if new else config


def flatten(config: Any, *, runtime: bool = True) -> dict[str, Any]:
    """Option name -> plain value, everything resolved; ``build(type(config), flatten(config)) == config``.

    Args:
        config: a configuration.
        runtime: include the options that leave results as they are.
    """
    found = {}
    for one in options_of(type(config)):
        if runtime or not one.runtime:
            found[one.name] = to_plain(functools.reduce(getattr, one.paths[0], config))
    return found


def documented(config: type[T]) -> type[T]:
    """Class decorator: the fields' help becomes the docstring's list of attributes."""
    lines = []
    for one in dataclasses.fields(config):  # type: ignore[arg-type]
        lines.append(f"        {one.name}: {one.metadata['help']}")
    config.__doc__ = f"{(config.__doc__ or '').rstrip()}\n\n    Attributes:\n" + "\n".join(lines) + "\n"
    return config
