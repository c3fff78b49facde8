"""Adapters that carry lapha's shaping into other people's trainers.

`lapha.integrations.shaped` is free of any trainer; `lapha.integrations.trl` needs ``lapha[train]``.
"""

from lapha.integrations.shaped import ShapedTree, ShapingConfig, TreeRow, rows_of_group, shape_tree

__all__ = ["ShapedTree", "ShapingConfig", "TreeRow", "rows_of_group", "shape_tree"]
