"""Search trees: nodes as a struct of arrays, traversal, saving, loading and rewinding."""

from lapha.tree.rewind import rewind
from lapha.tree.search_tree import NO_PARENT, SearchTree
from lapha.tree.storage import load_tree, save_tree

__all__ = ["NO_PARENT", "SearchTree", "load_tree", "rewind", "save_tree"]
