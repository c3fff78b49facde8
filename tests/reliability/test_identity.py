"""A journal hands back what it was asked for: whatever determines a tree is a part of its key."""

import functools
import inspect
import re
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from lapha._identity import differences, flat, identity_of
from lapha.agent import ChatEnvironment
from lapha.engines import ScriptedEngine, TransformersEngine, VLLMServerEngine
from lapha.evaluation.verifier import MathVerifier
from lapha.latent import ValueHead
from lapha.search import Journal, Search, SearchConfig, normalize_answer
from lapha.tiny import tiny_path

SMALL = SearchConfig(simulations=2, breadth=2)


class Worded:
    """A policy, evaluator and environment around the scripted ones, which answers with its own word."""

    def __init__(self, word, inner=None):
        self.word = word
        self.inner = inner or ScriptedEngine(answer_rate=1.0)
        self.environment = self

    async def sample(self, request):
        return await self.inner.sample(request)

    async def evaluate(self, states):
        return await self.inner.evaluate(states)

    def start(self, question):
        return self.inner.environment.start(question)

    async def step(self, turn, sample, depth):
        step = await self.inner.environment.step(turn, sample, depth)
        step.answer = self.word if step.answer is not None else None
        return step

    def close(self, turn):
        pass


class _Private(Worded):
    def __init__(self, word):
        super().__init__("same")
        self._word = word


class Listed(Worded):
    def __init__(self, words):
        super().__init__("same")
        self.words = words


def half(tree, node, evaluation):
    return 0.5


def quarter(tree, node, evaluation):
    return 0.25


def weighted(by, tree, node, evaluation):
    return by


def valued(by):
    return lambda tree, node, evaluation: by


def stop_after(count):
    return lambda tree: len(tree) > count


# constructor argument of Search -> two values that may give different trees or answers
ARGUMENTS = {
    "policy": (Worded("A"), Worded("B")),
    "evaluator": (ScriptedEngine(), ScriptedEngine(hidden_size=8)),
    "environment": (ScriptedEngine(depth_limit=5).environment, ScriptedEngine(depth_limit=4).environment),
    "config": (SMALL, SearchConfig(simulations=3, breadth=2)),
    "terminal_value": (half, quarter),
    "stop": (stop_after(3), stop_after(4)),
    "canonical": (str.lower, normalize_answer),
    "identity": ("weights of Monday", "weights of Tuesday"),
}
MORE = [
    ("policy", ScriptedEngine(), ScriptedEngine(answer_rate=0.5)),
    ("policy", ScriptedEngine(), ScriptedEngine(step_tokens=(3, 9))),
    ("policy", _Private("A"), _Private("B")),
    ("policy", Worded("A"), Worded("A", ScriptedEngine(answer_rate=0.9))),
    ("policy", Listed(["A"] * 20), Listed(["A"] * 19 + ["B"])),
    ("terminal_value", half, None),
    ("terminal_value", valued(0.5), valued(0.6)),
    ("terminal_value", functools.partial(weighted, 0.5), functools.partial(weighted, 0.6)),
    ("canonical", str.lower, str.upper),
    ("identity", None, "weights of Monday"),
    ("identity", {"policy": "m@1"}, {"policy": "m@2"}),
]


def search(**arguments):
    arguments.setdefault("policy", ScriptedEngine())
    return Search(**{"config": SMALL, **arguments})


def test_every_argument_of_search_is_compared():
    assert set(ARGUMENTS) == set(inspect.signature(Search).parameters)


@pytest.mark.parametrize(
    ("argument", "first", "second"),
    [(name, *pair) for name, pair in ARGUMENTS.items()] + MORE,
)
def test_a_journal_of_another_search_is_refused_by_name(argument, first, second, tmp_path):
    book = tmp_path / "journal"
    [before] = search(**{argument: first}).run(["q"], journal=book)
    [again] = search(**{argument: first}).run(["q"], journal=book)
    assert again.seconds == before.seconds, "the same search goes on with its journal"
    name = "simulations" if argument == "config" else "policy" if isinstance(first, dict) else argument
    with pytest.raises(ValueError, match=rf"journal: expected a journal of the same .*{name}.* was .* and is "):
        list(search(**{argument: second}).run(["q"], journal=book))
    assert len(Journal.open(book, search(**{argument: first}).config)) == 1


def test_two_engines_do_not_answer_for_each_other(tmp_path):
    [a] = search(policy=Worded("A")).run(["q"], journal=tmp_path / "journal")
    assert a.answer == "A"
    with pytest.raises(ValueError, match=r"policy\.word was 'A' and is 'B'"):
        list(search(policy=Worded("B")).run(["q"], journal=tmp_path / "journal"))
    [b] = search(policy=Worded("B")).run(["q"])
    assert b.answer == "B"


TOKENIZER = TransformersEngine.from_pretrained(tiny_path()).tokenizer


def tool_one(x: int) -> int:
    """A tool.

    Args:
        x: a number.
    """
    return x + 1


def _other_tool():
    def tool_one(x: int) -> int:
        """A tool.

        Args:
            x: a number.
        """
        return x + 2

    return tool_one


class _Sandbox:
    def __init__(self, limit):
        self.limit = limit

    def open(self):
        raise NotImplementedError


def model(scale=1.0):
    torch.manual_seed(0)
    engine = TransformersEngine.from_pretrained(tiny_path())
    if scale != 1.0:
        with torch.no_grad():
            next(iter(engine.model.parameters())).view(-1)[0] *= scale
    return engine.model


def head(bias=0.0):
    made = ValueHead(model().config.hidden_size)
    nn.init.constant_(made.linear.bias, bias)
    return made


def chat(**options):
    return ChatEnvironment(TOKENIZER, **options)


def engine(**options):
    return TransformersEngine(
        options.pop("model", None) or model(), TOKENIZER, options.pop("value_head", None), **options
    )


def server(**options):
    return VLLMServerEngine(
        options.pop("urls", ["http://a:1"]), tokenizer=options.pop("tokenizer", TOKENIZER), evaluator=ScriptedEngine(),
        **options,
    )  # fmt: skip


# what is made -> (function, argument -> two values, arguments that change no result)
PARTS = {
    "ScriptedEngine": (
        ScriptedEngine,
        {"answer_rate": (0.1, 0.2), "garbled_rate": (0.1, 0.2), "step_tokens": ((1, 2), (1, 3)), "hidden_size": (4, 8)},
        # the environment, a part of its own, has the depth limit
        {"latency", "capacity", "evaluate_latency", "jitter", "fail", "stats", "depth_limit"},
    ),
    "ChatEnvironment": (
        chat,
        {
            "tools": ((tool_one,), (_other_tool(),)), "depth_limit": (4, 5), "context_limit": (400, 500),
            "system_prompt": ("Be good.", "Be bad."), "sandbox": (_Sandbox(1), _Sandbox(2)), "echo_chars": (20, 30),
            "echo": (True, False), "answer_reader": (None, len), "template_options": ({"a": 1}, {"a": 2}),
        },
        {"tokenizer"},
    ),
    "TransformersEngine": (
        engine,
        {
            "model": (model(), model(1.001)), "value_head": (head(), head(0.1)), "stop_token_ids": ([1], [1, 2]),
            "autocast": (None, torch.bfloat16),
        },
        {"tokenizer", "environment", "max_batch", "max_prefill_tokens", "kv_budget_bytes", "lockstep"},
    ),
    "VLLMServerEngine": (
        server,
        {
            "urls": (["http://a:1"], ["http://b:1"]), "model": ("m", "n"), "stop_token_ids": ([1], [2]),
            "context_limit": (100, 200),
        },
        {"tokenizer", "pooling_urls", "value_head", "evaluator", "environment", "policy", "api_key"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_every_constructor_argument_of_a_part_counts_or_is_known_not_to(part):
    make, counts, others = PARTS[part]
    kind = {k.__name__: k for k in (ScriptedEngine, ChatEnvironment, TransformersEngine, VLLMServerEngine)}[part]
    unlisted = set(inspect.signature(kind).parameters) - set(counts) - others
    assert not unlisted, "say for each argument whether it changes results, and test it if it does"
    for name, (first, second) in counts.items():
        assert identity_of(make(**{name: first})) == identity_of(make(**{name: first})), name
        found = differences(identity_of(make(**{name: first})), identity_of(make(**{name: second})))
        assert found, f"{name} does not count"


def test_another_tokenizer_or_template_counts():
    import copy

    other = copy.deepcopy(TOKENIZER)
    other.chat_template = other.chat_template + " "
    assert differences(identity_of(ChatEnvironment(TOKENIZER)), identity_of(ChatEnvironment(other)))


def test_using_a_part_changes_nothing_of_what_it_is(tmp_path):
    """A second run of the same objects goes on with their journal."""
    environment = ChatEnvironment(TOKENIZER, context_limit=300, depth_limit=2)
    own = Search(engine(environment=environment), config=SMALL)
    before = own.identity()
    [first] = own.run(["Walk from 1 to 3"], journal=tmp_path / "journal")
    assert own.identity() == before
    [second] = own.run(["Walk from 1 to 3"], journal=tmp_path / "journal")
    assert first.seconds == second.seconds


def test_a_model_that_was_moved_is_the_same_and_one_that_was_trained_is_not():
    one, moved = engine(), engine()
    moved.model.config._name_or_path = "elsewhere"
    assert not differences(identity_of(one), identity_of(moved))
    other = engine(model=model(1.001))
    found = differences(identity_of(one), identity_of(other))
    assert [text for text in found if re.match(r"model\.weights was '[0-9a-f]{32}' and is '[0-9a-f]{32}'", text)]


Pair = namedtuple("Pair", "a b")


@dataclass
class Setting:
    value: object


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale


class Calling:
    def __init__(self, by):
        self.by = by

    def __call__(self, text):
        return text * self.by


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2), (0.1, 0.1 + 1e-16 * 2), ("a" * 300, "a" * 299 + "b"), (b"a", b"b"), ((1, 2), (2, 1)),
        ({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1}), ({1, 2}, {1, 3}), (Pair(1, 2), Pair(2, 1)),
        (Setting(1), Setting(2)), (Slotted(1), Slotted(2)), (Calling(1), Calling(2)), (Scaled(1), Scaled(2)),
        (torch.zeros(2), torch.ones(2)), (torch.zeros(2), torch.zeros(2, dtype=torch.float64)), (torch.zeros(2), torch.zeros(1, 2)),
        (re.compile("a"), re.compile("a", re.IGNORECASE)), (Path("a"), Path("b")), (float("nan"), float("inf")),
        (lambda x: x + 1, lambda x: x + 2), (lambda x: x.a, lambda x: x.b), (lambda x, y=1: y, lambda x, y=2: y),
        (lambda x, *, y=1: y, lambda x, *, y=2: y), (lambda: half, lambda: quarter), (Setting(Setting(1)), Setting(Setting(2))),
        (half, quarter), (len, abs), (str.lower, str.upper), ("x".join, "y".join),
        (MathVerifier({"q": "1"}), MathVerifier({"q": "2"})), (Calling(1).__call__, Calling(2).__call__),
    ],
)  # fmt: skip
def test_what_differs_is_described_differently(one, other):
    assert identity_of(one) != identity_of(other)
    assert identity_of(one) == identity_of(one)


def test_text_sets_and_functions_are_described_the_same_in_every_process():
    """Neither addresses nor the seed of hashes come in."""
    code = (
        "from lapha._identity import identity_of\n"
        "import json, threading\n"
        "class A:\n"
        "    def __init__(self): self.words = {'a', 'b', 'c', 'd'}; self.lock = threading.Lock(); self.me = self\n"
        "    def f(self, x): return x in {'p', 'q', 'r'}\n"
        "print(json.dumps(identity_of([A(), A().f, lambda x: x in {'s', 't', 'u'}])))"
    )
    told = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        told.add(done.stdout)
    assert len(told) == 1
    assert "0x" not in told.pop()


def test_an_object_may_say_itself_what_it_is():
    class Client(Worded):
        identity = "model m, revision 3"

        def __init__(self):
            super().__init__("A")
            self.calls = 0

    class Counting(Worded):
        identity_excludes = frozenset(("calls",))

        def __init__(self, calls):
            super().__init__("A")
            self.calls = calls

    one, two = Client(), Client()
    two.calls = 7
    assert identity_of(one) == identity_of(two)
    assert identity_of(Counting(1)) == identity_of(Counting(2))
    assert flat(identity_of(one))["identity"] == "model m, revision 3"


def test_what_cannot_be_looked_into_is_named_by_its_type():
    class Client(Worded):
        def __init__(self):
            super().__init__("A")
            self.lock, self.thread = threading.Lock(), threading.Thread()

    assert "lock" in str(identity_of(Client())["lock"])
    assert identity_of(Client()) == identity_of(Client())


@pytest.mark.parametrize("bad", [3, {"polcy": "x"}, {"policy": 3}, ["policy"]])
def test_a_bad_identity_is_named(bad):
    with pytest.raises(ValueError, match="identity: expected text, or a mapping to text of some of policy"):
        search(identity=bad)


def test_a_journal_of_an_older_version_is_refused_until_someone_vouches_for_it(tmp_path):
    import json

    book, own = tmp_path / "journal", search()
    [first] = own.run(["q"], journal=book)
    header = json.loads((book / "header.json").read_text())
    old = {"format": header["format"], "version": 1, "config": header["config"]}
    (book / "header.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match=r"one of an older version; .*Journal\.adopt\(folder, search\.config"):
        list(own.run(["q"], journal=book))
    Journal.adopt(book, own.config, own.identity())
    [again] = own.run(["q"], journal=book)
    assert again.seconds == first.seconds
