"""Optional dependencies: imported when first needed, and named with their extra when missing."""

from __future__ import annotations

import importlib
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
