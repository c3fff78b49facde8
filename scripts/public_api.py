"""Write tests/structure/public_api.txt: every public name with its signature. Usage: python scripts/public_api.py

A change there is a change for users: CHANGELOG names it, and docs/stability.md says how long the old form stays.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "tests" / "structure" / "public_api.txt"
MODULES = (
    "lapha", "lapha.config", "lapha.errors", "lapha.geometry", "lapha.kernels", "lapha.latent", "lapha.pruning",
    "lapha.search", "lapha.shaping", "lapha.tree", "lapha.types", "lapha.engines", "lapha.agent", "lapha.sandbox",
    "lapha.evaluation", "lapha.integrations", "lapha.viz", "lapha.tiny",
)  # fmt: skip


def render() -> str:
    """One line per public name, sorted; methods below their class."""
    lines = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(getattr(module, "__all__", dir(module))):
            if name.startswith("_") or inspect.ismodule(value := getattr(module, name)):
                continue
            lines += _described(f"{module_name}.{name}", value)
    return "\n".join(lines) + "\n"


def _described(path: str, value: object) -> list[str]:
    if not inspect.isclass(value):
        return [f"{path}{_signature(value)}"] if callable(value) else [f"{path}: {type(value).__name__}"]
    lines = [f"class {path}{_signature(value)}"]
    for name, member in sorted(vars(value).items()):
        if name.startswith("_"):
            continue
        plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if inspect.isfunction(plain):
            lines.append(f"    {path}.{name}{_signature(plain)}")
        elif isinstance(plain, property):
            lines.append(f"    {path}.{name}: property")
    return lines


def _signature(value: object) -> str:
    """Parameters with their kinds and whether they have a default; annotations as they are written."""
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
    parts = []
    for parameter in signature.parameters.values():
        mark = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        kind = " [keyword]" if parameter.kind is parameter.KEYWORD_ONLY else ""
        default = "" if parameter.default is parameter.empty else " = …"
        annotation = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
        parts.append(f"{mark}{parameter.name}{annotation}{default}{kind}")
    result = signature.return_annotation
    return f"({', '.join(parts)})" + ("" if result is signature.empty else f" -> {_annotation(result)}")


def _annotation(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "__qualname__", str(value))


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(PAGE)
