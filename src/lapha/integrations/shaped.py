"""The former place of `lapha.shaping.trees`, kept for imports."""

from lapha.shaping.config import ShapingConfig
from lapha.shaping.trees import ShapedTree, TreeRow, rows_of_group, shape_tree

__all__ = ["ShapedTree", "ShapingConfig", "TreeRow", "rows_of_group", "shape_tree"]
