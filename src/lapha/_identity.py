"""What determines a value, as plain text: the key of journals, run folders and caches.

`identity_of` describes anything that takes part in a computation: settings by their values, tensors and models by a
digest of their bytes, functions by their code and what it refers to, objects by their class and attributes. Two parts
that would compute different things are described differently; where that cannot be told (a client of a server, say),
the description names the type alone, and the part may say itself what it is:

* an attribute or method ``identity``: text or JSON values that stand for the object;
* a class attribute ``identity_excludes``: names of attributes that change no result (counters, caches, limits of
  memory, clients).
"""

from __future__ import annotations

import builtins
import collections
import dataclasses
import datetime
import decimal
import dis
import enum
import fractions
import functools
import inspect
import json
import math
import random
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePath
from typing import Any

import torch

from lapha._digests import digest, json_digest, tensor_digest, weights_digest

_SHORT = 8  # entries of a list, and
_SHORT_TEXT = 200  # characters of a text, that are written out; longer ones are digests
_DEPTH = 24
_STDLIB = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib"))
_INSTALLED = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib"))
_PACKAGE = str(Path(__file__).parent)
# what their objects hold is how something is reached, not what it says
_TRANSPORTS = frozenset(
    ("aiohttp", "grpc", "httpcore", "httpx", "requests", "rich", "tenacity", "tokenizers", "tqdm", "urllib3", "vllm")
)
_AS_TEXT = (complex, decimal.Decimal, fractions.Fraction, datetime.date, datetime.time, datetime.timedelta, PurePath)


def identity_of(part: Any) -> Any:
    """A description of `part` in JSON values; equal for parts that compute the same, in any process.

    Attributes that Python cannot look into are described by their type.
    """
    return _Description().of(part)


def flat(identity: Any, name: str = "") -> dict[str, Any]:
    """An identity as one level of dotted names, for comparing and for messages."""
    if not isinstance(identity, Mapping):
        return {name: identity}
    entries = {f"{name}.{key}" if name else str(key): value for key, value in identity.items()}
    return {inner: leaf for key, value in entries.items() for inner, leaf in flat(value, key).items()}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One text for each entry in which two identities differ, such as ``"policy.word was 'A' and is 'B'"``.

    Names of models and tokenizers are told, but differ alone where a folder was moved: their contents decide.
    """
    old, new = flat(before), flat(now)
    changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    if all(_is_aside(name) for name in changed):
        return []
    # a part of another class has nothing to be compared with: its class says it all
    classes = {name.removesuffix(_CLASS) for name in changed if name.endswith(_CLASS)}
    told = [n for n in sorted(changed) if n.endswith(_CLASS) or not any(n.startswith(f"{c}.") for c in classes)]
    return [f"{name.replace(_CLASS, '')} was {old.get(name)!r} and is {new.get(name)!r}" for name in told]


_CLASS = ".(class)"


def _is_aside(name: str) -> bool:
    return name.endswith((".(name)", ".(revision)"))


class _Description:
    """One walk over a part. What has been seen on the way down is named, not entered again."""

    def __init__(self) -> None:
        self._open: list[Any] = []  # objects being described, outermost first
        self._known: dict[int, tuple[Any, Any]] = {}  # (object, its description) of what takes long

    def of(self, value: Any) -> Any:
        plain = _plain(value)
        if plain is not None:
            return plain[0]
        if any(value is seen for seen in self._open) or len(self._open) >= _DEPTH:
            return f"<{_name(type(value))} again>"
        self._open.append(value)
        try:
            return self._enter(value)
        finally:
            self._open.pop()

    def _enter(self, value: Any) -> Any:
        if isinstance(value, (type, types.ModuleType)):
            return self._class(value) if isinstance(value, type) else value.__name__
        told = _own_identity(value)
        if told is not None:
            return {"(class)": _name(type(value)), "identity": self.of(told[0])}
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            return self._callable(value)
        if isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType, types.MethodDescriptorType)):
            bound = getattr(value, "__self__", None)
            if bound is None or isinstance(bound, types.ModuleType):
                return f"{getattr(value, '__module__', None)}.{value.__qualname__}"
            return {"method": value.__qualname__, "of": self.of(bound)}
        if isinstance(value, torch.nn.Module):
            return self._once(value, self._module)
        if callable(getattr(value, "get_vocab", None)) and hasattr(value, "special_tokens_map"):
            return self._once(value, _tokenizer)
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, Set):
            return self._list(sorted((self.of(item) for item in value), key=_key))
        if isinstance(value, Sequence):
            return self._list([self.of(item) for item in value])
        return self._object(value)

    def _once(self, value: Any, describe: Callable[[Any], Any]) -> Any:
        if id(value) not in self._known:
            self._known[id(value)] = (value, describe(value))
        return self._known[id(value)][1]

    def _list(self, items: list[Any]) -> Any:
        short = len(items) <= _SHORT and all(
            item is None or isinstance(item, (bool, int, float, str)) for item in items
        )
        return items if short else {"length": len(items), "digest": json_digest(items)}

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        entries = [
            (key if isinstance(key, str) else _key(self.of(key)), self.of(inner)) for key, inner in value.items()
        ]
        if len(entries) <= _SHORT:
            return dict(entries)
        return {"length": len(entries), "digest": json_digest(sorted(entries, key=_key))}

    def _module(self, value: torch.nn.Module) -> Any:
        about: dict[str, Any] = {"(class)": _name(type(value)), "weights": weights_digest(value.state_dict())}
        config: Any = getattr(value, "config", None)
        if callable(getattr(config, "to_dict", None)):
            told = config.to_dict()
            about["(name)"] = str(told.pop("_name_or_path", None) or getattr(config, "_name_or_path", ""))
            about["(revision)"] = getattr(config, "_commit_hash", None)
            told.pop("transformers_version", None)
            about["config"] = json_digest(told)
        # layers without weights, and what users' own layers are set to
        own = [
            [
                name,
                self._class_code(type(layer)),
                sorted((k, _plain(v)) for k, v in vars(layer).items() if _is_setting(k, v)),
            ]
            for name, layer in value.named_modules()
            if _is_users(type(layer))
        ]
        return {**about, "layers": json_digest([repr(value), own])}

    def _object(self, value: Any) -> Any:
        described: dict[str, Any] = {"(class)": _name(type(value))}
        if _is_users(type(value)):
            described["(code)"] = self._class_code(type(value))
        for name, inner in _state(value):
            described[name] = self.of(inner)
        return described

    def _class(self, value: type) -> Any:
        return {"(class)": _name(value), "(code)": self._class_code(value)} if _is_users(value) else _name(value)

    def _class_code(self, kind: type) -> str:
        """A digest of the code of a user's class, and of those that it inherits from."""
        found = []
        for base in kind.__mro__:
            if not _is_users(base):
                continue
            for name, member in sorted(vars(base).items()):
                inner = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
                if isinstance(inner, types.FunctionType):
                    found.append([name, self._function(inner)])
                elif not name.startswith("__") and not isinstance(inner, types.MemberDescriptorType):
                    found.append([name, self.of(inner)])
        return json_digest(found)

    def _callable(self, value: Any) -> Any:
        if isinstance(value, functools.partial):
            arguments: dict[Any, Any] = {**dict(enumerate(value.args)), **value.keywords}
            return {"(class)": "functools.partial", "of": self.of(value.func), "arguments": self.of(arguments)}
        if isinstance(value, types.MethodType):
            return {"method": value.__func__.__qualname__, "of": self.of(value.__self__)}
        return self._function(value)

    def _function(self, function: types.FunctionType) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        if not _is_users(function) and function.__closure__ is None:
            return name
        described: dict[str, Any] = {"function": name, "(code)": json_digest(self._code(function.__code__))}
        if function.__closure__:
            cells = zip(function.__code__.co_freevars, function.__closure__)
            described["closure"] = {name: self.of(_content(cell)) for name, cell in cells}
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
        if defaults:
            described["defaults"] = self.of(defaults)
        if _is_users(function):
            used = {
                name: self.of(function.__globals__[name])
                for name in sorted(_names(function.__code__))
                if name in function.__globals__ and not hasattr(builtins, name)
            }
            if used:
                described["uses"] = json_digest(used)
        return described

    def _code(self, code: types.CodeType) -> list[Any]:
        constants = [self._code(c) if isinstance(c, types.CodeType) else self.of(c) for c in code.co_consts]
        return [code.co_code.hex(), constants, list(code.co_names), code.co_flags]


def _plain(value: Any) -> tuple[Any] | None:
    """The description of a value that is data, in a tuple, or None."""
    if value is None or isinstance(value, bool):
        return (value,)
    if isinstance(value, enum.Enum):
        return (f"{_name(type(value))}.{value.name}",)
    if isinstance(value, int):
        return (int(value) if abs(value) < 2**53 else str(int(value)),)
    if isinstance(value, float):
        return (float(value) if math.isfinite(value) else repr(float(value)),)
    if isinstance(value, str):
        return (str(value) if len(value) <= _SHORT_TEXT else f"text {digest(value.encode('utf-8', 'surrogatepass'))}",)
    if isinstance(value, (bytes, bytearray)):
        return (f"bytes {digest(bytes(value))}",)
    if isinstance(value, (*_AS_TEXT, torch.dtype, torch.device)):
        return (str(value),)
    if isinstance(value, re.Pattern):
        return (f"{value.pattern!r} {value.flags}",)
    if isinstance(value, random.Random):
        return (f"random {json_digest(value.getstate())}",)
    if isinstance(value, torch.Tensor):
        return (f"tensor {tensor_digest(value)}",)
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):  # numpy's arrays and numbers
        if value.dtype.hasobject:
            return None
        return (f"array {digest(str(value.dtype).encode(), str(value.shape).encode(), value.tobytes())}",)
    return None


def _own_identity(value: Any) -> tuple[Any] | None:
    """What an object says that it is, in a tuple, or None."""
    if inspect.getattr_static(value, "identity", None) is None:
        return None
    told = value.identity
    if not callable(told):
        return (told,)
    wanted = [
        p for p in inspect.signature(told).parameters.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL
    ]
    return None if wanted else (told(),)


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    """Attributes that determine what an object does: what it would be pickled as, its fields, or its attributes."""
    kind = type(value)
    if _is_opaque(kind):
        return
    excluded = frozenset(getattr(kind, "identity_excludes", ()))
    if kind.__getstate__ is not object.__getstate__:
        yield "state", value.__getstate__()
        return
    if dataclasses.is_dataclass(value):  # the rest follows from its fields
        names = [field.name for field in dataclasses.fields(value)]
    else:
        slots = [slot for base in kind.__mro__ for slot in _slots(base)]
        names = list(dict.fromkeys([*slots, *getattr(value, "__dict__", {})]))
    for name in names:
        if name not in excluded and name not in ("__dict__", "__weakref__") and hasattr(value, name):
            yield name, getattr(value, name)


def _is_opaque(kind: type) -> bool:
    """Whether objects of a class are described by it alone: clients, locks, threads, files."""
    module = kind.__module__ or ""
    if issubclass(kind, (types.SimpleNamespace, collections.UserDict, collections.UserList)):
        return False
    return module.partition(".")[0] in _TRANSPORTS or module == "builtins" or _lies_in(module, _STDLIB, _INSTALLED)


def _is_setting(name: str, value: Any) -> bool:
    return not name.startswith("_") and name != "training" and _plain(value) is not None


def _slots(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _tokenizer(value: Any) -> dict[str, Any]:
    """A transformers tokenizer: its vocabulary and rules, its template and special tokens."""
    backend = getattr(value, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        for passing in ("truncation", "padding"):  # set by the latest call
            rules.pop(passing, None)
    else:
        rules = [_name(type(value)), sorted(value.get_vocab().items())]
    own = [value.chat_template, {key: str(token) for key, token in value.special_tokens_map.items()}]
    return {
        "(class)": _name(type(value)),
        "(name)": str(getattr(value, "name_or_path", "")),
        "rules": json_digest(rules),
        "template": json_digest(own),
    }


def _name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _names(code: types.CodeType) -> set[str]:
    """Global names that code may refer to, its inner functions included."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(_names(inner) for inner in code.co_consts if isinstance(inner, types.CodeType)))


def _is_users(thing: Any) -> bool:
    """Whether code is the user's own: neither lapha's, Python's, nor an installed library's."""
    module = getattr(thing, "__module__", None) or ""
    return not _lies_in(module, (*_STDLIB, *_INSTALLED, _PACKAGE))


def _lies_in(module: str, folders: Sequence[str], beside: Sequence[str] = ()) -> bool:
    """Whether a module's file is in one of `folders`, and in none of `beside`."""
    found = sys.modules.get(module)
    if module == "__main__" or found is None:
        return False
    file = getattr(found, "__file__", None)
    if file is None:
        return module in sys.builtin_module_names
    path = _resolved(file)
    return path.startswith(tuple(folders)) and not path.startswith(tuple(beside) or "\0")


@functools.cache
def _resolved(file: str) -> str:
    return str(Path(file).resolve())
