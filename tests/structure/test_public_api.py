"""What users can call, and with what: a change has to be meant. And no module of lapha imports itself in a circle."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


def test_public_signatures_are_as_recorded():
    pytest.importorskip("transformers", reason="needs lapha[llm]")
    place = importlib.util.spec_from_file_location("public_api", ROOT / "scripts" / "public_api.py")
    page = importlib.util.module_from_spec(place)
    place.loader.exec_module(page)
    recorded, found = page.PAGE.read_text(encoding="utf-8").splitlines(), page.render().splitlines()
    gone, new = sorted(set(recorded) - set(found)), sorted(set(found) - set(recorded))
    changed = [f"- {line}" for line in gone] + [f"+ {line}" for line in new]
    assert not changed, "meant? then: python scripts/public_api.py, and a line in CHANGELOG\n" + "\n".join(changed)


def imports(path, module):
    """Modules of lapha that a module imports when it is imported: not under TYPE_CHECKING, not inside functions."""

    def visit(body):
        for node in body:
            if isinstance(node, ast.If):
                if "TYPE_CHECKING" not in ast.unparse(node.test):
                    yield from visit(node.body)
                yield from visit(node.orelse)
            elif isinstance(node, (ast.Try, ast.With)):
                yield from visit(node.body)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in MODULES else node.module

    return {name for name in visit(ast.parse(path.read_text()).body) if name in MODULES and name != module}


def module_name(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in (SOURCE / "lapha").rglob("*.py")}


def circles(graph):
    """Groups of modules that reach each other (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def walk(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                walk(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            walk(node)
    return found


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_no_module_is_imported_in_a_circle():
    assert circles({name: imports(path, name) for name, path in MODULES.items()}) == []
