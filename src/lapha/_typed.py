"""Arguments checked against a function's own annotations, so that one of a wrong kind is named."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
import torch

Function = TypeVar("Function", bound=Callable[..., Any])
_Test = tuple[Callable[[Any], bool], str]  # whether a value will do, and what is expected
_LARGEST = 2**63
_UNNAMED = (TypeError, ValueError, AttributeError, LookupError, RuntimeError, ArithmeticError)
_FIELDS: dict[type, dict[str, _Test]] = {}


def typed(function: Function) -> Function:
    """Name the argument that is of another kind than its annotation says, where a call of `function` fails on it.

    What the function checks itself keeps its own message, and a call that succeeds costs nothing more. A number is an
    int, a float or a numpy number: neither a bool nor NaN. An integer fits into 64 bits.

    Raises:
        ValueError: on a call, ``"name: expected a number, got 'x'"``.
    """
    tests: dict[str, _Test] | None = None
    signature = inspect.signature(function)
    positional = list(signature.parameters)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        nonlocal tests
        try:
            return function(*args, **kwargs)
        except _UNNAMED as error:
            if isinstance(error, ValueError) and ": expected " in str(error):
                raise
            if tests is None:
                tests = _tests(function, signature)
            for name, value in (*zip(positional, args), *kwargs.items()):
                test = tests.get(name)
                if test is not None and not test[0](value):
                    raise ValueError(f"{name}: expected {test[1]}, got {shown(value)}") from error
            raise

    return typing.cast(Function, checked)


def check_fields(record: Any) -> None:
    """`typed` for the fields of a dataclass, in its ``__post_init__``."""
    kind = type(record)
    if kind not in _FIELDS:
        _FIELDS[kind] = _tests(kind, inspect.signature(kind))
    for name, (good, expected) in _FIELDS[kind].items():
        if not good(getattr(record, name)):
            raise ValueError(f"{name}: expected {expected}, got {shown(getattr(record, name))}")


def shown(value: Any) -> str:
    """A value in few words: its text where that is short, else its type."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and {value.dtype}"
    if value is None or isinstance(value, (bool, int, float, str, bytes, list, tuple, dict, set)):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}..."
    return f"{type(value).__name__}"


def _tests(function: Any, signature: inspect.Signature) -> dict[str, _Test]:
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # a name that only type checkers see
        hints = {}
    found = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in ("self", "cls"):
            continue
        test = _test(hints[name]) if name in hints else None
        if test is not None:
            found[name] = test
    return found


def _test(hint: Any) -> _Test | None:
    """How values of an annotation are told, or None where they cannot be."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        tests = [_test(part) for part in inner]
        if any(test is None for test in tests):
            return None
        known = [test for test in tests if test is not None]
        return (lambda value: any(test(value) for test, _ in known)), " or ".join(dict.fromkeys(w for _, w in known))
    if origin is Literal:
        return (lambda value: isinstance(value, (str, int)) and value in inner), "one of " + ", ".join(map(repr, inner))
    if origin in (collections.abc.Sequence, list, tuple, collections.abc.Iterable):
        return _sequence(origin, inner)
    if origin in (collections.abc.Callable,):
        return callable, "a function"
    if origin in (collections.abc.Mapping, dict):
        return (lambda value: isinstance(value, collections.abc.Mapping)), "a mapping"
    if isinstance(hint, type) and not getattr(hint, "_is_protocol", False) and origin is None and hint is not object:
        return (lambda value: isinstance(value, hint)), f"{_article(hint.__name__)} {hint.__name__}"
    return _call_protocol(hint)


def _call_protocol(hint: Any) -> _Test | None:
    """The test of a protocol whose only method is a call."""
    if getattr(hint, "_is_protocol", False) and "__call__" in vars(hint):
        return callable, "a function"
    return None


def _sequence(origin: Any, inner: tuple[Any, ...]) -> _Test | None:
    if origin is collections.abc.Iterable:
        return None
    ends = len(inner) == 2 and inner[1] is Ellipsis
    fixed = origin is tuple and not ends and bool(inner)
    item = None if fixed or not inner else _test(inner[0])
    parts = [_test(part) for part in inner] if fixed else []

    def good(value: Any) -> bool:
        if isinstance(value, (str, bytes)) or not isinstance(value, collections.abc.Sequence):
            return False
        if fixed:
            return len(value) == len(parts) and all(t is None or t[0](v) for t, v in zip(parts, value))
        return item is None or all(item[0](part) for part in value)

    of = f", each {item[1]}" if item is not None else ""
    return good, f"{len(parts)} values" if fixed else f"a sequence{of}"


def _is_number(value: Any) -> bool:
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return bool(real and not math.isnan(value) and (isinstance(value, float) or abs(value) < _LARGEST))


def _is_integer(value: Any) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return bool(whole and -_LARGEST <= value < _LARGEST)


def _article(name: str) -> str:
    return "an" if name[:1] in "AEIOUaeiou" else "a"


_PLAIN: dict[Any, _Test | None] = {
    Any: None,
    float: (_is_number, "a number"),
    int: (_is_integer, "an integer of 64 bits"),
    bool: (lambda value: isinstance(value, (bool, np.bool_)), "True or False"),
    str: (lambda value: isinstance(value, str), "text"),
    type(None): (lambda value: value is None, "None"),
    torch.Tensor: (lambda value: isinstance(value, torch.Tensor), "a torch.Tensor"),
    np.ndarray: (lambda value: isinstance(value, np.ndarray), "a numpy array"),
    torch.dtype: (lambda value: isinstance(value, torch.dtype), "a torch.dtype"),
    torch.device: (lambda value: isinstance(value, torch.device), "a torch.device"),
    os.PathLike: (lambda value: isinstance(value, os.PathLike), "a path"),
}
