"""One optimiser step, by three contestants: LaPha's trainer, the stock GRPO trainer, and the reference's form."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.training_data import TrainingCase, make_model, make_rows
from lapha.integrations import TreeRow
from lapha.latent import ValueHead

LEARNING_RATE, CLIP, TEMPERATURE, EPSILON, EPSILON_HIGH = 1e-6, 1.0, 0.7, 0.2, 0.28
KINDS = ("lapha", "shared", "shared, no value loss", "grpo", "reference")

# waits for the next step's start; then says how long it took and its loss; False ends the run
Turn = Callable[[], bool]
Report = Callable[[float, float], None]


def run_steps(kind: str, case: TrainingCase, turn: Turn, report: Report, micro_groups: int = 1) -> None:
    """Take one step after another, each when `turn` returns, until it returns False.

    Args:
        kind: ``"lapha"`` is `LaPhaTrainer` with the value loss; ``"shared"`` the same with every group's prompt computed
            once, with and without the value loss; ``"grpo"`` TRL's own trainer on the same rows, without
            one; ``"reference"`` the form of the paper's code.
        case: model and rows.
        turn, report: see above.
        micro_groups: sibling groups of one forward and backward pass of the trainers.
    """
    if kind == "reference":
        _reference(case, turn, report)
    else:
        _trainer(kind, case, turn, report, micro_groups)


def _reference(case: TrainingCase, turn: Turn, report: Report) -> None:
    """Sequence by sequence, all hidden states kept, the log-softmax over the whole vocabulary at every position.

    All sequences' graphs are alive until the one backward pass at the end, as in the paper's code.
    """
    tokens = _tokenizer_size()
    model, head = make_model(case), ValueHead(case.hidden).to(case.device)
    frozen = copy.deepcopy(model).requires_grad_(False) if case.beta else None
    rows = make_rows(case, tokens)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    model.train()
    while turn():
        began = _clock(case)
        anchors = [None] * len(rows)
        if frozen is not None:
            with torch.inference_mode(), _autocast(case):
                anchors = [_sequence(frozen, row, case, keep_hidden=False)[0] for row in rows]
        losses, errors = [], []
        for row, anchor in zip(rows, anchors):
            with _autocast(case):
                logprob, hidden = _sequence(model, row, case, keep_hidden=True)
            ratio = torch.exp(logprob - logprob.detach())
            clipped = ratio.clamp(1 - EPSILON, 1 + EPSILON_HIGH)
            token_loss = -torch.minimum(ratio * row.advantage, clipped * row.advantage)
            if anchor is not None:
                gap = anchor.clone() - logprob
                token_loss = token_loss + case.beta * (torch.exp(gap) - gap - 1)
            losses.append(token_loss.mean())
            errors.append((head(hidden.float().mean(0)) - row.value_targets[-1]).square())
        loss = torch.stack(losses).mean() + torch.stack(errors).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        value = float(loss.detach())
        del losses, errors, loss, logprob, hidden, ratio, clipped, token_loss
        report(_clock(case) - began, value)


def _sequence(model: Any, row: TreeRow, case: TrainingCase, keep_hidden: bool) -> tuple[torch.Tensor, Any]:
    """(completion's log-probabilities (C,), last hidden states (L, H) or None) of one sequence."""
    ids = torch.tensor([row.prompt_ids + row.completion_ids], device=case.device)
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, output_hidden_states=keep_hidden)
    logprobs = F.log_softmax(out.logits[:, :-1].float() / TEMPERATURE, dim=-1)
    chosen = logprobs.gather(-1, ids[:, 1:, None])[0, :, 0]
    return chosen[len(row.prompt_ids) - 1 :], out.hidden_states[-1][0] if keep_hidden else None


def _trainer(kind: str, case: TrainingCase, turn: Turn, report: Report, micro_groups: int) -> None:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from lapha.integrations.trl import LaPhaConfig, LaPhaTrainer, ProcessReward, SharedPrefixTrainer, TreeRollout
    from lapha.search import SearchConfig
    from lapha.tiny import load_tiny

    rows = make_rows(case, _tokenizer_size())

    class Recorded(TreeRollout):
        """Hands out rows that exist already: what is measured is the training step."""

        def __call__(self, prompts: list, trainer: Any) -> dict[str, Any]:
            self.rows, self.trees, self.statistics = rows, [], {}
            return {
                "prompt_ids": [row.prompt_ids for row in rows],
                "completion_ids": [row.completion_ids for row in rows],
                "logprobs": None,
                "process_reward": [row.reward for row in rows],
                "question": [row.question for row in rows],
            }

    class Turns(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.stop = not turn()
            self.began = _clock(case)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.stop:
                control.should_training_stop = True
            else:
                self.seconds = _clock(case) - self.began
                control.should_log = True

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in (logs or {}) and not self.stop:
                report(self.seconds, float(logs["loss"]))

    model = make_model(case)
    _, tokenizer, _ = load_tiny()
    with tempfile.TemporaryDirectory() as folder:
        if case.beta:  # TRL loads the KL term's reference model by name
            model.save_pretrained(folder)
            model = type(model).from_pretrained(folder).to(case.device)
        settings: dict[str, Any] = {
            "output_dir": folder,
            "max_steps": 10**6,
            "per_device_train_batch_size": micro_groups * case.breadth,
            "gradient_accumulation_steps": case.groups // micro_groups,
            "num_generations": case.breadth,
            "max_completion_length": case.completion[1],
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "max_grad_norm": CLIP,
            "loss_type": "grpo",
            "temperature": TEMPERATURE,
            "epsilon": EPSILON,
            "epsilon_high": EPSILON_HIGH,
            "beta": case.beta,
            "bf16": case.bf16,
            "use_cpu": case.device == "cpu",
            "gradient_checkpointing": False,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "logging_strategy": "no",
            "optim": "adamw_torch_fused",
        }
        search = SearchConfig(breadth=case.breadth)
        shared: dict[str, Any] = {
            "processing_class": tokenizer,
            "train_dataset": Dataset.from_dict({"prompt": [f"question {group}" for group in range(case.groups)]}),
            "callbacks": [Turns()],
        }
        rollout = Recorded(_no_verifier, search=search)
        trainer: Any
        if kind != "grpo":
            head = ValueHead(case.hidden)
            trainer_class = SharedPrefixTrainer if kind.startswith("shared") else LaPhaTrainer
            settings["packing"] = "none"
            settings["value_weight"] = 0.0 if "no value loss" in kind else 1.0
            trainer = trainer_class(model, LaPhaConfig(**settings), rollout=rollout, value_head=head, **shared)
        else:
            arguments = GRPOConfig(**settings)
            trainer = GRPOTrainer(model, reward_funcs=ProcessReward(), args=arguments, rollout_func=rollout, **shared)
        trainer.train()


def _no_verifier(question: str, answer: str) -> float | None:
    raise RuntimeError("no tree is searched in this benchmark")


def _tokenizer_size() -> int:
    from lapha.tiny import load_tiny

    return len(load_tiny()[1])


def _autocast(case: TrainingCase) -> Any:
    return torch.autocast(case.device, dtype=torch.bfloat16) if case.bf16 else nullcontext()


def _clock(case: TrainingCase) -> float:
    if case.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def turns(count: int) -> Iterator[bool]:
    """`count` times True, then False: for running some steps in this process."""
    yield from [True] * count
    while True:
        yield False
