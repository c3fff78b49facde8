"""Imports that wait: names of packages until they are touched, and optional dependencies, named with their extra."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from lapha.errors import MissingExtraError as MissingExtraError


def lazy_exports(
    package: str, exports: Mapping[str, str], submodules: Sequence[str] = ()
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names are imported when they are first touched.

    Args:
        package: its name.
        exports: name -> module that defines it.
        submodules: submodules that are attributes of the package without having been imported.
    """

    def load(name: str) -> object:
        if name in exports:
            value = getattr(importlib.import_module(exports[name]), name)
        elif name in submodules:
            value = importlib.import_module(f"{package}.{name}")
        else:
            near = difflib.get_close_matches(name, [*exports, *submodules], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted({*exports, *submodules, *getattr(sys.modules[package], "__all__", ())})


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra brings it.

    Args:
        module: dotted module name, such as ``"transformers"``.
        extra: the extra of `lapha` that installs it, such as ``"llm"``.

    Raises:
        MissingExtraError: the module, or something that it imports, is absent.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{module!r} is needed here and is not installed ({error}). Install it with: pip install 'lapha[{extra}]'"
        ) from error


def require_all(modules: Mapping[str, str], what: str) -> None:
    """Refuse to begin where something is missing, naming all that is, and one command that brings it.

    Args:
        modules: module -> extra that installs it.
        what: needs them, for the message.

    Raises:
        MissingExtraError: some are absent.
    """
    missing = {module: extra for module, extra in modules.items() if not _installed(module)}
    if missing:
        extras = ",".join(dict.fromkeys(missing.values()))
        raise MissingExtraError(
            f"{what} needs {', '.join(missing)}, not installed here. Install with: pip install 'lapha[{extras}]'"
        )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
