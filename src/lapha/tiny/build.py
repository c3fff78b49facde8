"""Build the embedded policy's checkpoint on the CPU: ``python -m lapha.tiny.build --out DIR --minutes 55 --seed 0``.

The seed and the number of steps decide the run; ``--minutes`` only cuts one short on a slow machine, and the metrics
then say so. ``--probe`` is a run of seconds that trains, checks and writes the same files in small.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lapha._checks import check
from lapha.tiny.checkpoint import METRICS, load_tiny, round_to_half, save_checkpoint
from lapha.tiny.evaluation import format_metrics, held_out_metrics
from lapha.tiny.tokenizer import build_tokenizer
from lapha.tiny.training import TARGETS, TinyModel, TrainingConfig, train
from lapha.tiny.walk import Demonstrator

PROBE = TrainingConfig(steps=40, problems=4, rollouts=4, warmup=5)


def build(
    out: str | Path,
    config: TrainingConfig | None = None,
    *,
    minutes: float = 55.0,
    value_target: str = "best",
    compiled: bool = False,
    problems: int = 400,
    rollouts: int = 8,
    report_every: int = 20,
) -> dict[str, Any]:
    """Train, measure on held-out problems, write the checkpoint and `metrics.json`.

    Args:
        out: folder to write; found unwritable before training starts.
        config: the run; None for the one that made the packaged checkpoint.
        minutes: cuts training short; a run that it cut ends away from its schedule's end. Ctrl-C does the same.
        value_target: ``"success_rate"``, ``"potential"``, or ``"best"`` for the one whose head solves more held-out
            problems when it picks the best of four moves at each step.
        compiled: compile the model with torch.compile (needs a C++ compiler; twice as fast).
        problems: held-out problems that are measured.
        rollouts: episodes sampled of each.
        report_every: steps between lines of progress.

    Returns:
        The metrics.

    Raises:
        ValueError: an argument outside its range, or an unwritable folder.
    """
    check(minutes > 0, "minutes", "a number > 0", minutes)
    check(
        value_target in ("best", *TARGETS), "value_target", "'best', 'success_rate' or 'potential'", repr(value_target)
    )
    folder = _writable(Path(out))
    config = TrainingConfig() if config is None else config
    tokenizer = build_tokenizer()
    began = time.monotonic()

    def report(step: int, parts: dict[str, float], model: TinyModel) -> None:
        if (step + 1) % report_every == 0 or step + 1 == config.steps:
            text = "  ".join(f"{name} {value:.4f}" for name, value in parts.items())
            print(f"step {step + 1}/{config.steps}  {time.monotonic() - began:.0f} s  {text}", flush=True)

    model, history = train(config, tokenizer, minutes=minutes, compiled=compiled, report=report)
    seconds = time.monotonic() - began
    metrics = finish(folder, model, tokenizer, value_target, problems, rollouts, config)
    metrics["training"] = asdict(config) | {
        "steps_done": len(history),
        "complete": len(history) == config.steps,
        "seconds": round(seconds, 1),
        "first_loss": history[0]["loss"],
        "last_loss": sum(row["loss"] for row in history[-20:]) / len(history[-20:]),
    }
    (folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def finish(
    folder: Path,
    model: TinyModel,
    tokenizer: Any,
    value_target: str,
    problems: int,
    rollouts: int,
    config: TrainingConfig,
) -> dict[str, Any]:
    """Measure the model as it will be stored, write the checkpoint, and prove that it loads."""
    model.eval()
    round_to_half(model.lm)
    metrics = held_out_metrics(model, tokenizer, problems, rollouts, Demonstrator(config.skill, config.habit))
    shipped = max(TARGETS, key=lambda name: metrics["guided"][name]) if value_target == "best" else value_target
    metrics = {"value_target": shipped, **metrics}
    heads = {name: model.heads[name] for name in TARGETS}
    save_checkpoint(folder, model.lm, tokenizer, heads, shipped)
    (folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n")
    loaded, _, head = load_tiny(folder)
    for name, tensor in model.lm.state_dict().items():
        check(torch.equal(loaded.state_dict()[name], tensor), name, "the trained weights after loading", "others")
    check(head.value_target == shipped, "value_head", shipped, head.value_target)
    print(format_metrics(metrics))
    print(f"value head shipped: {shipped}; written to {folder}")
    return metrics


def _writable(folder: Path) -> Path:
    """The folder, made and tried."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / ".writable"
        trial.write_text("")
        trial.unlink()
    except OSError as error:
        raise ValueError(f"out: expected a folder that can be written, got {folder} ({error})") from error
    return folder


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m lapha.tiny.build", description=__doc__)
    parser.add_argument("--out", required=True, help="folder for the checkpoint")
    parser.add_argument("--minutes", type=float, default=55.0, help="cut training short after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="optimiser steps (changes the run)")
    parser.add_argument("--value-target", default="best", choices=("best", *TARGETS), help="which head is shipped")
    parser.add_argument("--threads", type=int, help="torch threads")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model: faster, needs a C++ compiler")
    parser.add_argument("--probe", action="store_true", help="a run of seconds, to see that everything works")
    options = parser.parse_args(arguments)
    config = PROBE if options.probe else TrainingConfig()
    config = replace(config, seed=options.seed, steps=options.steps or config.steps)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        metrics = build(
            options.out,
            config,
            minutes=options.minutes,
            value_target=options.value_target,
            compiled=options.compile,
            problems=12 if options.probe else 400,
            rollouts=4 if options.probe else 8,
        )
    except ValueError as error:
        print(f"lapha.tiny.build: {error}", file=sys.stderr)
        return 2
    training = metrics["training"]
    if not (math.isfinite(training["last_loss"]) and training["last_loss"] < training["first_loss"]):
        print("lapha.tiny.build: the loss did not fall", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
