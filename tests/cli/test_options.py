"""One declaration per option: reachable from flags, YAML and Python, and the same in all three."""

import ast
import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import yaml

from lapha._options import build, flatten, metavar, options_of, read_yaml
from lapha._options.values import _is_function, _members
from lapha.cli import run
from lapha.cli._flags import with_options
from lapha.config import (
    EvalConfig,
    ModelConfig,
    PruneConfig,
    SamplingParams,
    SearchConfig,
    ShapingConfig,
    TrainConfig,
    TrainerOptions,
    dump,
    load,
)

typer = pytest.importorskip("typer")

ROOT = Path(__file__).parents[2]
CONFIGS = (
    SearchConfig,
    PruneConfig,
    ShapingConfig,
    EvalConfig,
    TrainConfig,
    SamplingParams,
    ModelConfig,
    TrainerOptions,
)
# options that work only beside others
COMPANIONS = {
    "prune_distance": {"prune_cut": "distance"},
    "prune_number": {"prune_cut": "number"},
    "prune_cut": {"prune_distance": 0.5},
    "judge_url": {"data": "problems.jsonl"},
    "verifier": {"data": "problems.jsonl"},
}
WRITTEN = {  # by hand: what the generic sample would not be
    "shard": "2/8", "modes": "react,single", "prune_cut": "distance", "widening": "1.5,0.25", "server": "http://a,http://b",
    "pooling_server": "http://c", "verifier": "math:isfinite",
}  # fmt: skip


def sample(option):
    """A value of the option's type, in its range, that is not its default, as text."""
    if option.name in WRITTEN and get_origin(option.hint) is not Literal:  # two commands have a verifier
        return WRITTEN[option.name]
    for member in _members(option.hint):
        if get_origin(member) is Literal:
            return next(str(choice) for choice in get_args(member) if choice != option.default)
        if member is bool:
            return str(not option.default).lower()
        if member in (int, float):
            bounds, default = option.bounds, option.default if isinstance(option.default, (int, float)) else 1
            for step in (1, 0.25, -0.25, 0.5):
                value = default + step
                if bounds.hold(value) and (member is float or value == int(value)):
                    return str(value)
        if member is str:
            return "text"
    raise AssertionError(f"no sample for {option.name}: {option.hint}")


def plain_sample(option):
    """The sample as a YAML file has it."""
    text = sample(option)
    if option.name in ("modes", "server", "pooling_server", "widening"):
        return [yaml.safe_load(piece) for piece in text.split(",")]
    return text if str in _members(option.hint) else yaml.safe_load(text)


def given_by(command_line, config):
    """What `with_options` hands on for a command line."""
    caught = []

    def command(given: dict):
        caught.append(given)
        return 0

    app = typer.Typer(add_completion=False)
    app.command()(with_options(config)(command))
    app(args=command_line, standalone_mode=False)
    return caught[0]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_option_has_help_and_a_name_of_its_own(config):
    options = options_of(config)
    assert len({one.name for one in options}) == len(options)
    for one in options:
        assert one.help.endswith("."), one.name
        assert "\n" not in one.help
        assert one.kind != "nothing"
        assert metavar(one.hint)
    for field in dataclasses.fields(config):
        assert field.metadata.get("option") or field.metadata.get("part"), f"{config.__name__}.{field.name}"
        assert f"{field.name}: " in config.__doc__
    assert config.__dataclass_params__.frozen


@pytest.mark.parametrize("config", [EvalConfig, TrainConfig], ids=lambda config: config.__name__)
def test_every_option_is_reached_from_flags_yaml_and_python(config, tmp_path):
    for one in options_of(config):
        more = COMPANIONS.get(one.name, {})
        flag, text = "--" + one.name.replace("_", "-"), sample(one)
        words = [flag if text == "true" else f"--no-{flag[2:]}"] if one.hint is bool else [flag, text]
        by_flag = build(config, {**more, **given_by(words, config)})
        file = tmp_path / "options.yaml"
        file.write_text(yaml.safe_dump({**more, one.name: plain_sample(one)}))
        by_file = load(config, file)
        by_hand = build(config, {**more, one.name: plain_sample(one)})
        assert by_flag == by_file == by_hand, one.name
        assert flatten(by_flag)[one.name] == plain_sample(one), one.name
        changed = {name for name, value in flatten(by_flag).items() if value != flatten(config())[name]}
        assert changed == {one.name, *more}, one.name


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_written_and_read_back(config, tmp_path):
    values = {}
    for one in options_of(config):
        if one.name not in ("prune_number", "number", "judge_url", "prune_linkage", "linkage"):
            values |= {one.name: plain_sample(one)}
    if "prune_cut" in values:
        values["prune_distance"] = 0.5
    if "cut" in values:
        values |= {"cut": "distance", "distance": 0.5}
    made = build(config, values)
    dump(made, tmp_path / "made.yaml")
    assert load(config, tmp_path / "made.yaml") == made
    assert build(config, flatten(made)) == made


def rule(frontier):
    """A selection rule of somebody's own."""


def test_rules_take_a_name_or_a_function(tmp_path):
    name = "lapha.search:puct_descent"
    (tmp_path / "c.yaml").write_text(f"selection: {name}\n")
    from lapha.search import puct_descent

    assert load(SearchConfig, tmp_path / "c.yaml").selection is puct_descent
    assert given_by(["--selection", name], EvalConfig)["selection"] is puct_descent
    assert SearchConfig(selection=rule).to_dict()["selection"] == f"{__name__}:rule"
    rules = [(one.name, one.owner) for one in options_of(EvalConfig) if any(map(_is_function, _members(one.hint)))]
    assert {"selection", "answer", "prune_cut"} <= {name for name, _ in rules}
    with pytest.raises(ValueError, match=r"lapha.search:nowhere: expected a function that can be imported, got Attr"):
        SearchConfig(selection="lapha.search:nowhere")


def test_a_cut_of_ones_own_is_used():
    import numpy as np

    from lapha.pruning._cuts import find_cut

    heights = np.array([0.1, 0.2, 0.9, 4.0])
    assert find_cut(heights, PruneConfig(cut=lambda height: height[1])).merges == 2
    assert find_cut(heights, PruneConfig(cut=lambda height: 0.0)).merges == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simulations: true", "simulations: expected an integer >= 1, got True"),
        ("simulations: 2.0", "simulations: expected an integer >= 1, got 2.0"),
        ("simulations: '5'", "simulations: expected an integer >= 1, got '5'"),
        ("simulations: null", "simulations: expected an integer >= 1, got None"),
        ("c_puct: .nan", "c_puct: expected a number >= 0, got nan"),
        ("c_puct: .inf", "c_puct: expected a number >= 0, got inf"),
        ("c_puct: [1]", "c_puct: expected a number >= 0, got [1]"),
        ("revisit_leaves: 'no'", "revisit_leaves: expected true or false, got 'no'"),
        ("selection: puckt", "got 'puckt'; did you mean 'puct'?"),
        ("simulatons: 3", "simulatons: expected the name of an option in"),
        ("simulatons: 3", "did you mean 'simulations'?"),
        ("seed: 1\nseed: 2", "seed: expected one value in"),
        ("model: null", "model: expected text, got None"),
        ("model: [a]", "model: expected text, got ['a']"),
        ("model: yes", "model: expected text, got True"),
        ("modes: [guess]", "modes: expected a list of one of"),
        ("modes: []", "modes: expected at least one mode, got none"),
        ("3: 4", "config: expected names that are text"),
        ("null: 4", "config: expected names that are text"),
        ("- 1", "config: expected a mapping of settings"),
        ("a: [", "config: expected YAML"),
        ("a: !!python/object/apply:os.system [ls]", "config: expected YAML"),
        ("widening: [1, 2, 3]", "widening: expected 2 values, got [1, 2, 3]"),
        ("prune_distance: 0.5", "distance: expected nothing, unless cut is 'distance', got 0.5"),
        ("shard: 9/8", "shard: expected i/n with 1 <= i <= n"),
    ],
)
def test_what_a_file_may_not_say(text, message, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(text + "\n")
    assert run(["eval", "--config", str(path), "--out", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_bomb_of_anchors_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "c.yaml").write_text("\n".join([*lines, "model: *a8"]))
    document = {"model": read_yaml(tmp_path / "c.yaml")["model"]}
    with pytest.raises(ValueError, match=r"^model: expected text, got a list$"):
        build(EvalConfig, document)


def test_yaml_numbers_dates_and_text(tmp_path):
    (tmp_path / "c.yaml").write_text("a: 2e-4\nb: 2024-01-01\nc: 010\nd: 1:30\ne: 0x10\nf: -3\ng: 1_000\n")
    assert read_yaml(tmp_path / "c.yaml") == {
        "a": 2e-4, "b": "2024-01-01", "c": "010", "d": "1:30", "e": 16, "f": -3, "g": 1000,
    }  # fmt: skip


def test_flags_win_over_the_file_and_the_model_decides_the_rest(tmp_path):
    from lapha.cli._models import resolve
    from lapha.tiny import C_PUCT, DEPTH_LIMIT

    (tmp_path / "c.yaml").write_text("simulations: 7\nbreadth: 3\n")
    given = given_by(["--config", str(tmp_path / "c.yaml"), "--breadth", "2"], EvalConfig)
    search = resolve(EvalConfig, given).search
    assert (search.simulations, search.breadth, search.c_puct, search.depth_limit) == (7, 2, C_PUCT, DEPTH_LIMIT)
    assert resolve(EvalConfig, {"model": "/somewhere/else"}).search.answer == "vote"


def test_trainer_arguments_are_derived_and_their_values_checked(tmp_path):
    pytest.importorskip("trl", reason="needs lapha[trl]")
    from lapha.integrations.trl import LaPhaConfig

    fields = {field.name: field for field in dataclasses.fields(LaPhaConfig)}
    for one in options_of(TrainerOptions):
        assert one.name in fields
        if one.name != "seed":
            assert fields[one.name].default == one.default, one.name
    common = {"output_dir": str(tmp_path), "bf16": False, "report_to": "none", "per_device_train_batch_size": 6}
    values = {one.name: plain_sample(one) for one in options_of(TrainerOptions) if one.name != "prune_number"}
    values |= {"prune_linkage": "single", "per_device_train_batch_size": values["num_generations"]}
    found = flatten(LaPhaConfig(**{**common, **values}).trainer_options())
    assert [name for name, value in found.items() if values.get(name) != value] == []
    with pytest.raises(ValueError, match=r"^prune_linkage: expected one of .* got 'hdscan'; did you mean 'hdbscan'"):
        LaPhaConfig(**common, prune_linkage="hdscan")
    with pytest.raises(ValueError, match=r"^value_weight: expected a number >= 0, got nan"):
        LaPhaConfig(**common, value_weight=math.nan)


def test_transformers_own_parser_reads_the_derived_arguments(tmp_path):
    pytest.importorskip("trl", reason="needs lapha[trl]")
    from transformers import HfArgumentParser

    from lapha.integrations.trl import LaPhaConfig

    words = "--per_device_train_batch_size 6 --simulations 9 --prune_linkage hdbscan --widening 1.5 0.5 --tree_max_tokens 100 --bf16 no --report_to none"
    (made,) = HfArgumentParser(LaPhaConfig).parse_args_into_dataclasses(["--output_dir", str(tmp_path), *words.split()])
    search = made.search_config()
    assert (search.simulations, search.widening, search.max_tokens) == (9, (1.5, 0.5), 100)
    assert search.prune.linkage == "hdbscan"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bf16: 'no'", "bf16: expected true or false"),
        ("learning_rate: .nan", "learning_rate: expected a number, got nan"),
        ("problems: '5'", "problems: expected an integer >= 1, got '5'"),
        ("lora_rank: null", "lora_rank: expected an integer >= 0, got None"),
        ("context_limit: 1.5", "context_limit: expected an integer >= 1, got 1.5"),
        ("output_dir: [a]", "output_dir: expected text"),
        ("num_generation: 3", "unknown num_generation in"),
        ("num_generation: 3", "did you mean 'num_generations'?"),
        ("max_steps: 1\nmax_steps: 2", "max_steps: expected one value"),
    ],
)
def test_what_a_training_file_may_not_say(text, message, tmp_path, capsys):
    pytest.importorskip("trl", reason="needs lapha[trl]")
    path = tmp_path / "t.yaml"
    path.write_text(f"model: tiny\ndata: tiny\n{text}\n")
    assert run(["train", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_training_flags_win_over_the_file(tmp_path):
    pytest.importorskip("trl", reason="needs lapha[trl]")
    from lapha.cli._training_run import read_settings

    path = tmp_path / "t.yaml"
    path.write_text("model: tiny\ndata: tiny\nsimulations: 9\nmax_steps: 3\nlearning_rate: 1e-3\n")
    found = read_settings(path, given={"simulations": 5}, trainer=["learning_rate=2e-4", "bf16=no"])
    assert found.arguments["simulations"] == 5
    assert found.arguments["learning_rate"] == 2e-4
    assert found.arguments["bf16"] is False
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        read_settings(path, trainer=["learning_rat=1"])


def test_an_option_is_declared_in_one_file():
    """As a dataclass field, or as a parameter with a default, in all that the options are derived for."""
    names = {field.name for config in (SearchConfig, PruneConfig) for field in dataclasses.fields(config)}
    names -= {
        "seed",
        "answer",
        "number",
        "distance",
        "scope",
        "prune",
        "max_tokens",
        "deadline_s",
        "breadth",
        "selection",
    }
    homes = {"search/config.py", "pruning/config.py"}
    source = ROOT / "src" / "lapha"
    for folder in ("cli", "integrations", "evaluation"):
        for path in sorted((source / folder).rglob("*.py")):
            if str(path.relative_to(source)) in {*homes, "cli/demo.py"}:  # the demo has a size of its own
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    declared = [s.target.id for s in node.body if isinstance(s, ast.AnnAssign) and s.value is not None]
                    assert not names & set(declared), path
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    arguments = node.args
                    positional = arguments.posonlyargs + arguments.args
                    declared = [a.arg for a in positional[len(positional) - len(arguments.defaults) :]]
                    declared += [a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults) if d is not None]
                    assert not names & set(declared), (path, node.name)


def test_the_page_of_options_is_current():
    place = importlib.util.spec_from_file_location("write_options", ROOT / "scripts" / "write_options.py")
    page = importlib.util.module_from_spec(place)
    place.loader.exec_module(page)
    assert page.PAGE.read_text(encoding="utf-8") == page.render(), "run: python scripts/write_options.py"
