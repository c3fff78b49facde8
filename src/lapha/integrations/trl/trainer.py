"""`LaPhaTrainer`: TRL's GRPO trainer with tree rollouts and the joint value loss, over packed trees where it can."""

from __future__ import annotations

import dataclasses
import logging

from lapha.integrations.train_config import ALL_GROUPS
from lapha.integrations.trl.row_trainer import RowTrainer
from lapha.integrations.trl.shared_pass import SharedPrefixMixin, add_compact_head, check_adapters, takes_packed_rows
from lapha.integrations.trl.tree_pass import TreePackingMixin, use_tree_attention, why_no_trees
from lapha.integrations.trl.value_tap import causal_lm

logger = logging.getLogger(__name__)

_GROUPS_AS_ROWS = 2  # of a tree, where every further one costs its whole context again


class LaPhaTrainer(TreePackingMixin, SharedPrefixMixin, RowTrainer):  # type: ignore[misc]
    """Trains a policy and its value head on searched trees (LaPha, arXiv 2602.09375).

    Each question grows a tree with the current policy; the verifier's verdicts on its leaves give potentials and process
    rewards. Sibling groups are TRL's groups, and the value head learns from the trees' states, in one forward pass with the
    policy loss. ``args.packing`` says in which form the trees go through the model; attribute `packing`, which one it is:

    * ``"tree"``: whole trees, every token once: all sibling groups, and the values of all states;
    * ``"prompt"``: sibling groups, the prompt of each once: one group a question, and the states on its rows' paths;
    * ``"none"``: TRL's rows: the same as with ``"prompt"``.

    Args:
        model: a causal LM, or its name: loaded as TRL does, in float32 unless ``args.model_init_kwargs`` name another
            dtype. A `ValueHead` is attached to it (under the adapters, where there are any) and trains in full.
        args: a `LaPhaConfig`.
        verifier: ``(question, answer) -> reward in [0, 1]``, or None where it cannot grade. Not needed with
            `rollout`.
        value_head: the head to start from; default: the one beside the model's weights, else a fresh one.
        rollout: a `TreeRollout` to use instead of the one that `args` describes.
        kwargs: passed on to `trl.GRPOTrainer` (``train_dataset`` with a ``prompt`` column, ``processing_class``,
            ``callbacks`` …).

    Raises:
        ValueError: no verifier, prompts that no tree can grow from, a form of packing that this model does not take, or
            arguments that cannot work together.
    """

    def _patch_forwards(self) -> None:
        self.packing = self._choose_packing()
        shaping = self.rollout.shaping
        if self.packing != "tree" and shaping.max_groups == ALL_GROUPS:
            self.rollout.shaping = dataclasses.replace(shaping, max_groups=_GROUPS_AS_ROWS)
        models = [causal_lm(self.accelerator.unwrap_model(m)) for m in (self.model, self.ref_model) if m is not None]
        for model in models if self.packing != "none" else []:
            add_compact_head(model, self.temperature, dense=not self._entropy_bonus_enabled)
            if self.packing == "tree":
                use_tree_attention(model)
        super()._patch_forwards()

    def _choose_packing(self) -> str:
        asked = self.args.packing
        found = self._obstacles()
        order = ("tree", "prompt", "none") if asked == "auto" else (asked,)
        form = next((form for form in order if found[form] is None), None)
        if form is None:
            raise ValueError(f"packing: expected 'auto' or another form, got {asked!r} with {found[asked]}")
        why = "".join(f"; no packing={form!r}: {found[form]}" for form in order if found[form] is not None)
        logger.info("packing=%r%s", form, why)
        return form

    def _obstacles(self) -> dict[str, str | None]:
        """What stands in the way of each form, None where nothing does."""
        common: str | None = None
        if self.aux_loss_enabled:
            common = "an auxiliary loss of experts"
        elif self._is_vlm:
            common = "images"
        elif self.args.cast_lm_head_to_fp32:
            common = "cast_lm_head_to_fp32"
        try:
            check_adapters(self.model)
        except ValueError as error:
            common = str(error)
        config = causal_lm(self.accelerator.unwrap_model(self.model)).config
        rows = None if takes_packed_rows(config) else f"attention or head of {type(config).__name__}"
        trees = "DeepSpeed, which packed trees have not been run under" if self.is_deepspeed_enabled else None
        return {"tree": common or trees or why_no_trees(config), "prompt": common or rows, "none": None}
