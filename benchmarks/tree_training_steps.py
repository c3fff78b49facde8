"""One optimiser step over one searched tree, in every form in which it can go through the model."""

from __future__ import annotations

import dataclasses
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.training_data import FIVE_MILLION, SMOKE, make_model
from benchmarks.training_steps import Report, Turn, _no_verifier, _tokenizer_size
from lapha.integrations import ShapedTree, rows_of_group
from lapha.shaping import SiblingGroup
from lapha.tree import SearchTree

# name -> (packing, groups trained of a tree (None: all), whether all states are valued)
FORMS: dict[str, tuple[str, int | None, bool]] = {
    "tree": ("tree", None, True),
    "shared prompts": ("prompt", None, True),
    "rows": ("none", None, True),
    "tree, two groups": ("tree", 2, False),
    "shared prompts, two groups": ("prompt", 2, False),
}


@dataclass(frozen=True)
class TreeCase:
    """One tree, and the passes it is divided into.

    Attributes:
        depth, breadth, simulations: of the search; a simulation expands one open node.
        prompt, step: tokens of the root and of each step, of which `bridge` are the turn's opening.
        passes: micro-batches of the optimiser step.
        small: the benchmark's smallest model instead of the one of 4.9 M parameters.
        device, seed: as of `TrainingCase`.
    """

    depth: int = 6
    breadth: int = 6
    simulations: int = 24
    prompt: int = 300
    step: int = 200
    bridge: int = 8
    passes: int = 6
    small: bool = False
    device: str = "cpu"
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_tree(case: TreeCase, tokens: int) -> ShapedTree:
    """A tree as a search leaves it: every expansion takes the best of a random order that prefers deep nodes."""
    rng = random.Random(case.seed)

    def some(count: int) -> list[int]:
        return [rng.randrange(tokens) for _ in range(count)]

    tree = SearchTree("question", some(case.prompt))
    frontier = [0]
    groups = []
    for _ in range(case.simulations):
        node = frontier.pop(max(range(len(frontier)), key=lambda at: tree.depth[frontier[at]] + 3 * rng.random()))
        between = some(case.bridge)
        children = [
            tree.add(
                node,
                tokens=between + some(case.step - case.bridge),
                bridge_length=case.bridge,
                logprobs=[0.0] * (case.step - case.bridge),
            )
            for _ in range(case.breadth)
        ]
        groups.append(SiblingGroup(node, torch.tensor(children)))
        frontier += [child for child in children if tree.depth[child] < case.depth]
    count = len(tree)
    generator = torch.Generator().manual_seed(case.seed)
    reward = torch.randn(count, generator=generator, dtype=torch.float64)
    target = torch.rand(count, generator=generator, dtype=torch.float64)
    nothing = torch.zeros(count)
    return ShapedTree(tree, nothing.bool(), target, reward, nothing, target, groups, 0.5, 0)


def restricted(shaped: ShapedTree, groups: int | None, states: bool) -> ShapedTree:
    """The tree with fewer groups, and targets on the paths of those alone."""
    chosen = shaped.groups[:groups]
    target = shaped.value_target.clone()
    if not states:
        on_paths = {node for group in chosen for member in group.members for node in shaped.tree.path(int(member))}
        target[[node for node in range(len(target)) if node not in on_paths]] = torch.nan
    return dataclasses.replace(shaped, groups=chosen, value_target=target)


def run_tree_steps(form: str, case: TreeCase, turn: Turn, report: Report) -> None:
    """Take one step after another over the same tree, each when `turn` returns, until it returns False."""
    from datasets import Dataset
    from transformers import TrainerCallback

    from lapha.integrations.trl import LaPhaConfig, LaPhaTrainer, TreeRollout
    from lapha.latent import ValueHead
    from lapha.search import SearchConfig
    from lapha.tiny import load_tiny

    packing, groups, states = FORMS[form]
    shaped = restricted(make_tree(case, _tokenizer_size()), groups, states)
    rows = [row for group in shaped.groups for row in rows_of_group(shaped, group)]
    passes = min(case.passes, len(shaped.groups))

    class Recorded(TreeRollout):
        def __call__(self, prompts: list, trainer: Any) -> dict[str, Any]:
            self.rows, self.trees, self.statistics = rows, [shaped], {}
            return {
                "prompt_ids": [row.prompt_ids for row in rows],
                "completion_ids": [row.completion_ids for row in rows],
                "logprobs": None,
                "process_reward": [row.reward for row in rows],
            }

    class Turns(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.stop = not turn()
            self.began = _clock(case)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.stop:
                control.should_training_stop = True
            else:
                self.seconds = _clock(case) - self.began  # type: ignore[arg-type]
                control.should_log = True

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in (logs or {}) and not self.stop:
                report(self.seconds, float(logs["loss"]))

    base = SMOKE if case.small else FIVE_MILLION
    model = make_model(base)
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "output_dir": folder, "max_steps": 10**6, "per_device_train_batch_size": len(rows) // passes,
            "gradient_accumulation_steps": passes, "num_generations": case.breadth, "max_completion_length": case.step,
            "learning_rate": 1e-6, "lr_scheduler_type": "constant", "warmup_steps": 0, "loss_type": "grpo",
            "bf16": False, "use_cpu": case.device == "cpu", "gradient_checkpointing": False, "report_to": "none",
            "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no", "optim": "adamw_torch_fused",
            "packing": packing,
        }  # fmt: skip
        trainer = LaPhaTrainer(
            model, LaPhaConfig(**settings), rollout=Recorded(_no_verifier, search=SearchConfig(breadth=case.breadth)),
            value_head=ValueHead(base.hidden), processing_class=load_tiny()[1], callbacks=[Turns()],
            train_dataset=Dataset.from_dict({"prompt": [f"question {group}" for group in range(len(shaped.groups))]}),
        )  # fmt: skip
        trainer.train()


def counts(form: str, case: TreeCase) -> dict[str, int]:
    """Tokens that one step sends through the model, with padding, and what it trains."""
    from lapha.integrations.shared_prefix import pack_groups
    from lapha.integrations.tree_packing import pack_trees, split_trees

    packing, groups, states = FORMS[form]
    shaped = restricted(make_tree(case, 64), groups, states)
    rows = [row for group in shaped.groups for row in rows_of_group(shaped, group)]
    passes = min(case.passes, len(shaped.groups))
    own = sum(map(len, shaped.tree.tokens))
    found = {"tree_tokens": own, "rows": len(rows), "states": int((~shaped.value_target.isnan()).sum())}
    if packing == "tree":
        sent = sum(len(pack_trees(parts)) for parts in split_trees([shaped], passes) if parts)
        return {**found, "tokens": sent, "passes": passes}
    if packing == "none":
        size = len(rows) // passes
        sent = sum(
            len(batch) * (max(len(r.prompt_ids) for r in rows) + max(len(r.completion_ids) for r in rows))
            for batch in (rows[at : at + size] for at in range(0, len(rows), size))
        )
        return {**found, "tokens": sent, "passes": passes}
    sent = 0
    for group in shaped.groups:
        own_rows = rows_of_group(shaped, group)
        prompt = torch.tensor([row.prompt_ids for row in own_rows])
        completion = torch.tensor([row.completion_ids for row in own_rows])
        packed = pack_groups(prompt, torch.ones_like(prompt), completion, torch.ones_like(completion))
        sent += int((packed.branch >= 0).sum())
    return {**found, "tokens": sent, "passes": passes}


def _clock(case: TreeCase) -> float:
    """Processor time on a CPU; what the clock says on a GPU, once it is done."""
    if case.device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
