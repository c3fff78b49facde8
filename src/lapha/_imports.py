"""Optional dependencies: imported when first needed, and named with their extra when missing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from types import ModuleType


class MissingExtraError(ImportError, ValueError):
    """An optional dependency is not installed.

    It is a `ValueError` too, so that callers who validate input catch it with the rest.
    """


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
