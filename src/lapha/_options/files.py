"""YAML files with settings: strictly read, so that nothing in them is silently something else."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

from lapha._checks import check
from lapha._options.fields import build
from lapha._options.values import shown
from lapha.errors import ArgumentError

T = TypeVar("T")

_EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+$")
_DATE, _INTEGER = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int"
_PLAIN_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$")


def read_options(path: Path, config: type[T], base: T | None = None) -> T:
    """A configuration from a YAML file.

    Raises:
        ValueError: no such file, no mapping, an unknown or repeated name, or a value that cannot work, by name.
    """
    return build(config, read_yaml(path), base, source=str(path))


def read_yaml(path: Path, name: str = "config") -> dict[str, Any]:
    """A YAML file's mapping. ``2e-4`` is a number in it and a date is text, as in YAML 1.2.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        ValueError: no such file, no YAML, no mapping, a name that is no text or is given twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        """PyYAML's, without dates, octal and base 60, and with repeated names refused."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                written = str(getattr(key, "value", key))
                if written != "<<" and written in seen:
                    at = f"{path}:{key.start_mark.line + 1}"
                    raise ArgumentError(f"{written}: expected one value in {path}, got a second one at {at}")
                seen.add(written)
            found: dict[Hashable, Any] = super().construct_mapping(node, deep)
            return found

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_DATE, _INTEGER)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(_INTEGER, _PLAIN_INTEGER, list("+-0123456789"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("+-0123456789"))
    check(path.is_file(), name, "a YAML file", path)
    try:
        document: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ArgumentError(f"{name}: expected YAML, got {path} ({error})") from error
    check(isinstance(document, dict), name, f"a mapping of settings in {path}", shown(document))
    for key in document:
        check(isinstance(key, str), name, f"names that are text in {path}", shown(key))
    return document
