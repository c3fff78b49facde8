"""Adapters that carry lapha's shaping into other people's trainers.

`lapha.integrations.records` is free of any trainer; `lapha.integrations.trl` needs ``lapha[train]``.
"""

from lapha.integrations.records import RolloutRecord, ShapedRollouts, shape_rollouts
from lapha.shaping import ShapedTree, ShapingConfig, TreeRow, rows_of_group, shape_tree

__all__ = [
    "RolloutRecord",
    "ShapedRollouts",
    "ShapedTree",
    "ShapingConfig",
    "TreeRow",
    "rows_of_group",
    "shape_rollouts",
    "shape_tree",
]
