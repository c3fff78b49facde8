"""Every shipped configuration: the paper's build and take a step in miniature, accelerate's parse as accelerate reads them."""

from pathlib import Path

import pytest

pytest.importorskip("trl")
from accelerate.commands import launch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env

from lapha.cli import run
from lapha.cli._training_run import TrainingRun, read_settings

CONFIGS = Path(__file__).parents[2] / "configs"
PAPER = sorted(CONFIGS.glob("paper/*.yaml"))
ACCELERATE = sorted(CONFIGS.glob("accelerate/*.yaml"))


def test_the_configurations_are_there():
    assert {path.stem for path in PAPER} == {"qwen2.5-math-1.5b", "qwen2.5-math-7b"}
    assert len(ACCELERATE) >= 7


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_paper_configurations_take_a_step_in_miniature(path, tmp_path, monkeypatch, capsys):
    built = []

    class Kept(TrainingRun):
        def __init__(self, settings):
            super().__init__(settings)
            built.append(self)

    monkeypatch.setattr("lapha.cli._training_run.TrainingRun", Kept)
    assert run(["train", "--config", str(path), "--dry-run", "--out", str(tmp_path)]) == 0
    (trained,) = built
    trainer = trained.trainer
    assert trainer.state.global_step == 1
    assert trainer.model.config.model_type == "qwen2"
    assert trainer.ref_model is not None  # the KL term's reference model is part of the paper's constants
    assert trainer.args.process_reward == "adaptive"
    assert trainer.value_head.linear.in_features == trainer.model.config.hidden_size


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_paper_constants(path):
    arguments = read_settings(path).arguments
    expected = {
        "num_generations": 6,
        "simulations": 24,
        "depth_limit": 6,
        "prune_every": 8,
        "max_completion_length": 1024,
        "learning_rate": 1e-6,
        "beta": 1e-8,
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "value_weight": 1.0,
        "easy_accuracy": 0.8,
        # where the defaults depart from the paper
        "failed_leaves": "geometry",
        "value_states": "tree",
    }
    assert {name: arguments[name] for name in expected} == expected


def test_numbers_as_people_write_them(tmp_path):
    path = tmp_path / "training.yaml"
    path.write_text(
        "model: tiny\ndata: tiny\nlearning_rate: 2e-4\nbeta: -1E+2\noutput_dir: 2e-4x\nseed: 7\nepsilon_high: 3e-1\n"
    )
    expected = {"learning_rate": 2e-4, "beta": -100.0, "output_dir": "2e-4x", "seed": 7, "epsilon_high": 0.3}
    assert read_settings(path).arguments == expected
    for name in ("learning_rate", "max_steps", "epsilon_high"):
        path.write_text(f"model: tiny\ndata: tiny\n{name}: many\n")
        with pytest.raises(ValueError, match=f"^{name}: expected (a number|an integer), got 'many'"):
            read_settings(path)


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_configurations_parse(path):
    config = load_config_from_file(str(path))
    stage = int(path.stem[len("zero")])
    processes, machines = {
        "1gpu": (1, 1), "8gpu": (8, 1), "2x8gpu": (16, 2), "2cpu": (2, 1),
    }[path.stem.split("_")[1]]  # fmt: skip
    assert (config.num_processes, config.num_machines) == (processes, machines)
    assert config.use_cpu == ("cpu" in path.stem)
    assert config.mixed_precision == ("no" if config.use_cpu else "bf16")
    assert config.deepspeed_config["zero_stage"] == stage


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_deepspeed_gets_what_the_file_says(path, monkeypatch):
    """Everything that `accelerate launch` does but starting processes; then what each process would read from it."""
    pytest.importorskip("deepspeed")
    arguments = ["--config_file", str(path), "--machine_rank", "1", "--main_process_ip", "10.0.0.1"]
    parsed = launch.launch_command_parser().parse_args([*arguments, "-m", "lapha", "train"])
    parsed, defaults, _ = launch._validate_launch_command(parsed)
    parsed.deepspeed_fields_from_accelerate_config = ",".join([*defaults.deepspeed_config, "mixed_precision"])
    assert parsed.use_deepspeed
    command, environment = prepare_deepspeed_cmd_env(parsed)
    assert command is None  # torchrun on every machine; no deepspeed launcher with pdsh and a hostfile
    assert (int(parsed.nproc_per_node), parsed.num_machines) == (
        parsed.num_processes // parsed.num_machines,
        parsed.num_machines,
    )
    for name, value in environment.items():
        if name.startswith("ACCELERATE_"):
            monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    document = plugin.hf_ds_config.config
    assert document["zero_optimization"]["stage"] == int(path.stem[len("zero")])
    assert document["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
    # the trainer fills these in
    assert document["gradient_accumulation_steps"] == "auto"
    assert plugin.gradient_clipping == "auto"
