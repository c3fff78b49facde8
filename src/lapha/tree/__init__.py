"""Search trees: nodes as a struct of arrays, traversal, saving and loading."""

from lapha.tree.search_tree import NO_PARENT, SearchTree

__all__ = ["NO_PARENT", "SearchTree"]
