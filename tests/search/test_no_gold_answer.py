"""A search at inference must have no parameter through which a gold answer could enter."""

import contextlib
import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import types

import pytest

import lapha.engines
import lapha.search
import lapha.types
from lapha._imports import MissingExtraError

FORBIDDEN = re.compile(
    r"gold|truth|label|target|verif|refer|solution|correct|expected|answer_?key|right_answer|grade|reward|judge_answer",
    re.IGNORECASE,
)
# the caller's own callables, which training closes over what it knows; and what an environment says a step has earned
ALLOWED_HOOKS = {"terminal_value", "stop"}
ALLOWED = {("lapha.types.Step", "reward"), ("lapha.types.Step.__init__", "reward")}


def modules(package):
    yield package
    for found in pkgutil.walk_packages(getattr(package, "__path__", []), f"{package.__name__}."):
        with contextlib.suppress(MissingExtraError):  # an engine whose library is absent cannot be called either
            yield importlib.import_module(found.name)


def parameters(module):
    """(where, name) of every parameter and field of everything defined in a module, private or not."""
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield from ((f"{module.__name__}.{name}", p) for p in inspect.signature(thing).parameters)
        elif inspect.isclass(thing):
            yield from class_parameters(module, thing)


def class_parameters(module, cls):
    where = f"{module.__name__}.{cls.__name__}"
    if dataclasses.is_dataclass(cls):
        yield from ((where, field.name) for field in dataclasses.fields(cls))
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
        if inspect.isfunction(function):
            yield from ((f"{where}.{name}", p) for p in inspect.signature(function).parameters)
    yield from ((where, name) for name in getattr(cls, "__annotations__", {}))


def leaks(found):
    return sorted(
        {(where, name) for where, name in found if FORBIDDEN.search(name) and name not in ALLOWED_HOOKS} - ALLOWED
    )


@pytest.mark.parametrize("package", [lapha.search, lapha.types, lapha.engines], ids=lambda p: p.__name__)
def test_no_parameter_could_carry_a_gold_answer(package):
    found = [parameter for module in modules(package) for parameter in parameters(module)]
    assert len(found) > 30, "the inspection must really see the package"
    if package is lapha.engines:  # an engine's inner workings move tensors; what can be called from outside counts
        found = [(where, name) for where, name in found if not re.search(r"\._(?!_init__)", where)]
        found = [(where, name) for where, name in found if ".slots." not in where]  # of row numbers
    assert leaks(found) == []


def test_the_hooks_are_the_only_callables_of_a_search():
    taken = set(inspect.signature(lapha.search.Search.__init__).parameters) - {"self"}
    assert taken == {"policy", "evaluator", "environment", "config", "terminal_value", "stop", "canonical", "identity"}
    with pytest.raises(ValueError, match="identity: expected text"):  # which names a journal's trees and reaches none
        lapha.search.Search(lapha.engines.ScriptedEngine(), identity=lambda tree: "a gold answer")
    run = set(inspect.signature(lapha.search.Search.arun).parameters) - {"self"}
    assert run == {"questions", "concurrency", "journal", "max_tokens", "deadline_s", "on_error"}


def test_hooks_are_handed_nothing_but_the_tree():
    from lapha.search.hooks import Stop, TerminalValue

    seen = ["lapha.tree.search_tree.SearchTree", "int", "lapha.types.Evaluation", "lapha.types.Step"]
    for form, count in zip(TerminalValue.__args__, (3, 4), strict=True):
        assert [str(a) for a in form.__args__[:-1]] == [f"<class '{name}'>" for name in seen[:count]]
    assert [str(a) for a in Stop.__args__[:-1]] == ["<class 'lapha.tree.search_tree.SearchTree'>"]


@pytest.mark.parametrize(
    "source",
    [
        "def search(question, ground_truth): ...",
        "class Thing:\n    def run(self, *, gold=None): ...",
        "from dataclasses import dataclass\n@dataclass\nclass Request:\n    text: str\n    target: str",
        "class Thing:\n    @classmethod\n    def make(cls, verifier): ...",
    ],
)
def test_the_inspection_finds_what_it_looks_for(source):
    module = types.ModuleType("leaky")
    sys.modules["leaky"] = module  # dataclasses look their module up
    exec(compile(source, "leaky", "exec"), vars(module))
    assert {name for _, name in leaks(parameters(module))} <= {"ground_truth", "gold", "target", "verifier"}
    assert leaks(parameters(module))
