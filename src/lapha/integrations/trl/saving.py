"""Every way in which a trainer writes and reads weights, with the value head beside the policy's (transformers 5)."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from transformers.trainer_utils import TrainOutput, get_last_checkpoint

from lapha.integrations.trl.checkpoint import load_value_head, save_value_head, split_state_dict
from lapha.latent.value_head import FOLDER

logger = logging.getLogger(__name__)


class SavingMixin:
    """Put before a trainer with a ``value_head``: its checkpoints hold the head in a file of its own.

    Saving (`save_model`, checkpoints, the hub) and loading (resuming, the best model at the end) are those of the
    trainer below; under DeepSpeed the head is part of what the engine itself saves and loads.
    """

    args: Any
    accelerator: Any
    model: Any
    value_head: Any

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> TrainOutput:
        """Train; a run that had reached its end is not trained further when it is started again."""
        found = resume_from_checkpoint
        checkpoint = get_last_checkpoint(self.args.output_dir) if found is True else found
        if checkpoint and (state := finished_state(checkpoint, self.args)) is not None:
            step, best = state["global_step"], state.get("best_model_checkpoint")
            logger.warning("%s is the end of the run (step %d): nothing is left to train", checkpoint, step)
            use_best = self.args.load_best_model_at_end and best and os.path.isdir(best)
            if not self.is_deepspeed_enabled:  # type: ignore[attr-defined]
                self._load_from_checkpoint(str(best if use_best else checkpoint))
            return TrainOutput(step, float("nan"), {})
        return super().train(resume_from_checkpoint=found, **options)  # type: ignore[misc,no-any-return]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the policy as transformers and vLLM load it, and the value head in a file of its own beside it."""
        if state_dict is None:
            state_dict = self.accelerator.unwrap_model(self.model).state_dict()
        policy, head = split_state_dict(state_dict)
        folder = str(output_dir if output_dir is not None else self.args.output_dir)
        super()._save(folder, state_dict=policy)  # type: ignore[misc]
        save_value_head(folder, head, value_target=self.args.value_target)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        self._load_head(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()  # type: ignore[misc]
        if not self.is_deepspeed_enabled:  # type: ignore[attr-defined]
            self._load_head(self.state.best_model_checkpoint)  # type: ignore[attr-defined]

    def _load_head(self, folder: str) -> None:
        head = load_value_head(folder, self.value_head.linear.in_features)
        if head is None:
            raise ValueError(f"resume_from_checkpoint: expected a value head in {folder}, found none")
        self.value_head.load_state_dict(head.state_dict())

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """What goes to the hub while training is copied from the checkpoint file by file; the head is one of them."""
        source = Path(checkpoint_folder) / FOLDER
        if self.is_world_process_zero() and source.is_dir():  # type: ignore[attr-defined]
            shutil.copytree(source, Path(self.args.output_dir) / FOLDER, dirs_exist_ok=True)
        super()._push_from_checkpoint(checkpoint_folder)  # type: ignore[misc]


def finished_state(checkpoint: str | Path, args: Any) -> dict[str, Any] | None:
    """The trainer's state in `checkpoint` if a run with `args` ends there; None if steps are left.

    transformers would take one more step where a run's end does not fall on an epoch's.
    """
    try:
        state: dict[str, Any] = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if args.max_steps > 0:
        return state if state["global_step"] >= args.max_steps else None
    same = state.get("num_train_epochs", 0) >= args.num_train_epochs
    return state if same and 0 < state.get("max_steps", 0) <= state["global_step"] else None
