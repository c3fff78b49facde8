"""LaPha on TRL's GRPO trainer (TRL 1.16).

* `TreeRollout` and `ProcessReward` plug into the stock `trl.GRPOTrainer`;
* `LaPhaTrainer` and `LaPhaConfig` add the joint value loss from the same forward pass;
* `SharedPrefixTrainer` computes each sibling group's prompt once.

Importing this package needs ``lapha[trl]``.
"""

from lapha._imports import require

require("trl", extra="trl")

from lapha.integrations.trl.config import LaPhaConfig  # noqa: E402
from lapha.integrations.trl.reward import ProcessReward  # noqa: E402
from lapha.integrations.trl.rollout import TreeRollout, VerifierError  # noqa: E402
from lapha.integrations.trl.shared_trainer import SharedPrefixTrainer  # noqa: E402
from lapha.integrations.trl.trainer import LaPhaTrainer  # noqa: E402

__all__ = ["LaPhaConfig", "LaPhaTrainer", "ProcessReward", "SharedPrefixTrainer", "TreeRollout", "VerifierError"]
