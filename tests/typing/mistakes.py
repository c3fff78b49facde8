"""Mistakes that a type checker has to see: each line marked with `# error` is one, and no other line is."""

import lapha
from lapha.search import (
    Search,
    SearchConfig,
)

SearchConfig(selection="best")  # error
SearchConfig(backup="sometimes")  # error
lapha.ShapingConfig(value_target="nothing")  # error
lapha.PruneConfig(linkage="ward")  # error
lapha.serch()  # error


def typo(search: Search) -> None:
    search.run(["q"], jornal="x")  # error
    search.run(["q"], on_error="ignore")  # error
    search.run(["q"], concurrency="32")  # error
