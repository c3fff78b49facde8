"""Values of options: checked against their type, read from text, written as plain YAML."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import importlib
import math
import numbers
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from lapha.errors import ArgumentError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of a number: at least `ge`, above `gt`, at most `le`, below `lt`; None for no limit."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def hold(self, value: float) -> bool:
        """Whether `value` is within them; NaN never is."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        low = self.ge if self.ge is not None else self.gt
        high = self.le if self.le is not None else self.lt
        if low is not None and high is not None:
            return f" in {'[' if self.ge is not None else '('}{low}, {high}{']' if self.le is not None else ')'}"
        if low is not None:
            return f" {'>=' if self.ge is not None else '>'} {low}"
        if high is not None:
            return f" {'<=' if self.le is not None else '<'} {high}"
        return ""


class _Unfit(Exception):
    """The value is not of the type."""


NO_BOUNDS = Bounds()


def convert(value: Any, hint: Any, name: str, bounds: Bounds = NO_BOUNDS) -> Any:
    """`value` as the type `hint`, which takes plain YAML values and the Python objects themselves.

    An integer passes where a number is expected, a list where a tuple is, a ``"package.module:function"`` where a
    function is. Nothing else is converted: ``"no"`` is not False, ``True`` is not 1, NaN is not a number.

    Raises:
        ValueError: "name: expected …, got …", with the nearest choice where there is one.
    """
    try:
        return _fit(value, hint, bounds)
    except _Unfit:
        raise _refusal(value, hint, name, bounds) from None


def from_text(text: str, hint: Any, name: str, bounds: Bounds = NO_BOUNDS) -> Any:
    """A value written as text on a command line, as the type `hint`.

    Raises:
        ValueError: as `convert`.
    """
    try:
        return _read(text.strip() if hint is not str else text, hint, bounds)
    except _Unfit:
        raise _refusal(_as_number(text, hint), hint, name, bounds) from None


def _as_number(text: str, hint: Any) -> Any:
    """What a message shows: a number out of range as a number, all else as the text that it is."""
    for kind in (int, float):
        if kind in _members(hint):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def to_plain(value: Any) -> Any:
    """A value as YAML and JSON have it; a function becomes ``"module:name"``."""
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(inner) for inner in value]
    if callable(value):
        return import_name(value)
    return str(value)


def import_name(function: Callable[..., object]) -> str:
    """``"module:name"`` of a function, or of a callable object's class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def suggestion(given: object, names: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest of `names`, or nothing."""
    near = difflib.get_close_matches(given, list(names), n=1) if isinstance(given, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""


def describe(hint: Any, bounds: Bounds = NO_BOUNDS) -> str:
    """The type in words, such as "an integer >= 1 or 'decay'"."""
    members = _members(hint)
    choices = [repr(value) for member in members if get_origin(member) is Literal for value in get_args(member)]
    words = [word for member in members if (word := _word(member, bounds))]
    if len(choices) == 1:
        words.append(choices[0])
    elif choices:
        words.insert(0, "one of " + ", ".join(sorted(choices)))
    return " or ".join(dict.fromkeys(words)) or "nothing"


def metavar(hint: Any) -> str:
    """What stands for the value in a command's help."""
    words = []
    for member in _members(hint):
        if get_origin(member) is Literal:
            words += [str(value) for value in get_args(member)]
        elif member is not type(None):
            words.append(
                _SHORT.get(member, "FUNCTION" if _is_function(member) else "LIST" if _is_list(member) else "VALUE")
            )
    return "|".join(dict.fromkeys(words))


_SHORT = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "BOOLEAN"}


def _refusal(value: Any, hint: Any, name: str, bounds: Bounds) -> ArgumentError:
    choices = [str(c) for member in _members(hint) if get_origin(member) is Literal for c in get_args(member)]
    return ArgumentError(f"{name}: expected {describe(hint, bounds)}, got {shown(value)}{suggestion(value, choices)}")


def shown(value: Any) -> str:
    """A value in a message: short, whatever it holds."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "...")
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    if isinstance(value, (list, tuple)) and len(value) <= 4 and all(isinstance(v, (int, float, str)) for v in value):
        return str(value)[:80]
    return f"a {type(value).__name__}"


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(inner for member in get_args(hint) for inner in _members(member))
    return (type(None) if hint is None else hint,)


def _is_function(hint: Any) -> bool:
    return (
        get_origin(hint) is Callable
        or hint is Callable
        or bool(getattr(hint, "_is_protocol", False))
        or (getattr(get_origin(hint), "__name__", "") == "Callable")
    )


def _is_list(hint: Any) -> bool:
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Sequence) and not issubclass(origin, (str, bytes))


def _word(hint: Any, bounds: Bounds) -> str:
    """One member of a union in words; nothing for None and for choices."""
    if hint is type(None) or get_origin(hint) is Literal:
        return ""
    if hint is bool:
        return "true or false"
    if hint in (int, float):
        return ("an integer" if hint is int else "a number") + str(bounds)
    if hint is str:
        return "text"
    if hint is Path:
        return "a path"
    if _is_function(hint):
        return "a function (package.module:name)"
    if _is_list(hint):
        inner = [argument for argument in get_args(hint) if argument is not ...]
        if inner and ... not in get_args(hint) and (get_origin(hint) or hint) is tuple:
            return f"{len(inner)} values"
        return "a list" + (f" of {describe(inner[0], bounds)}" if inner else "")
    origin = get_origin(hint) or hint
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(repr(member.value) for member in hint)
    return f"a {getattr(origin, '__name__', str(origin))}"


def _fit(value: Any, hint: Any, bounds: Bounds) -> Any:
    """`value` as `hint`, or `_Unfit`."""
    for member in _members(hint):
        try:
            return _fit_one(value, member, bounds)
        except _Unfit:
            continue
    raise _Unfit


def _fit_one(value: Any, hint: Any, bounds: Bounds) -> Any:
    origin = get_origin(hint) or hint
    if hint is Any:
        return value
    if hint is type(None):
        return _need(value is None, value)
    if origin is Literal:
        return _need(any(type(value) is type(choice) and value == choice for choice in get_args(hint)), value)
    if hint is bool:
        return _need(type(value) is bool, value)
    if hint is int:  # of any kind, numpy's too
        good = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return int(_need(good and bounds.hold(value), value))
    if hint is float:
        good = isinstance(value, numbers.Real) and not isinstance(value, bool)
        _need(good and math.isfinite(value) and bounds.hold(value), value)
        return value if isinstance(value, (int, float)) else float(value)
    if hint is str:
        return _need(isinstance(value, str), value)
    if hint is Path:
        return Path(_need(isinstance(value, (str, Path)), value))
    if _is_function(hint):
        return value if callable(value) else _imported(value)
    if _is_list(hint):
        return _fit_list(value, hint, bounds)
    if not isinstance(origin, type):
        raise _Unfit
    if issubclass(origin, Mapping):
        return _need(isinstance(value, Mapping), value)
    if issubclass(origin, enum.Enum):
        return _enumerated(value, origin)
    return _need(isinstance(value, origin), value)


def _need(good: bool, value: Any) -> Any:
    if not good:
        raise _Unfit
    return value


def _enumerated(value: Any, kind: type[enum.Enum]) -> Any:
    try:
        return value if isinstance(value, kind) else kind(value)
    except ValueError:
        raise _Unfit from None


def _fit_list(value: Any, hint: Any, bounds: Bounds) -> Any:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if not isinstance(value, (list, tuple)):
        raise _Unfit
    if kind is tuple and inner and ... not in inner:
        _need(len(value) == len(inner), value)
        return tuple(_fit(item, of, bounds) for item, of in zip(value, inner, strict=True))
    found = [_fit(item, inner[0] if inner else Any, bounds) for item in value]
    return tuple(found) if kind is tuple else found


def _imported(name: Any) -> Any:
    """The function that ``"package.module:name"`` names."""
    if not isinstance(name, str) or name.count(":") != 1:
        raise _Unfit
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for piece in attribute.split("."):
            found = getattr(found, piece)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArgumentError(
            f"{name}: expected a function that can be imported, got {type(error).__name__}: {error}"
        ) from error
    return _need(callable(found), found)


def _read(text: str, hint: Any, bounds: Bounds) -> Any:
    for member in _members(hint):
        try:
            return _fit_one(_literal(text, member, bounds), member, bounds)
        except _Unfit:
            continue
    raise _Unfit


def _literal(text: str, hint: Any, bounds: Bounds) -> Any:
    """`text` as a plain value for `hint`."""
    if hint is type(None):
        return None if text.lower() in ("none", "null") else text
    if hint is bool:
        return True if text.lower() in _TRUE else False if text.lower() in _FALSE else text
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise _Unfit from None
    if get_origin(hint) is Literal:
        return next((choice for choice in get_args(hint) if str(choice) == text), text)
    if _is_list(hint):
        inner = [argument for argument in get_args(hint) if argument is not ...]
        pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
        kinds = inner if len(inner) == len(pieces) else [inner[0] if inner else str] * len(pieces)
        return [_read(piece, kind, bounds) for piece, kind in zip(pieces, kinds, strict=True)]
    return text
