"""What a search returns for one question, and saving it."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha._store import FileProblem, read_document, write_document
from lapha.geometry import PolarPoints
from lapha.search.latents import load_latents, staged_latents
from lapha.tree import SearchTree
from lapha.tree.display import one_line, outline_html, rich_tree
from lapha.tree.storage import tree_from_dict, tree_to_dict

FORMAT = "lapha-search-result"
VERSION = 2


@dataclass(repr=False)
class SearchResult:
    """One question's finished search.

    Attributes:
        question: the question as asked.
        index: its place among the questions of the run.
        key: names question and occurrence whatever the run (see `QuestionKeys`).
        answer: the chosen answer's text, or None where no leaf answers.
        value: v̂ of the chosen leaf in [0, 1]; NaN without one.
        node: the chosen leaf, or None.
        tree: the tree, N nodes.
        latents: (N, H) root-centred latents on the CPU, node i ↔ latent i. If the search failed before the root was
            evaluated, the root alone at the origin of one dimension.
        stop_reason: ``"simulations"``, ``"exhausted"`` (nothing left to expand), ``"stopped"`` (by the caller's
            `stop`), ``"max_tokens"``, ``"deadline"``, ``"run_max_tokens"``, ``"run_deadline"`` or ``"error"``.
        error: what went wrong, where stop_reason is ``"error"``.
        seconds: from start to end of this tree.
        stats: counters: simulations, expansions, sampled_tokens, pruned, and the environment's own.
    """

    question: str
    index: int
    key: str
    answer: str | None
    value: float
    node: int | None
    tree: SearchTree
    latents: PolarPoints
    stop_reason: str
    error: str | None = None
    seconds: float = 0.0
    stats: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        question = one_line(self.question, 60)
        answer = None if self.answer is None else one_line(self.answer, 60)
        failed = "" if self.error is None else f", error={one_line(self.error, 80)!r}"
        return (
            f"SearchResult(question={question!r}, answer={answer!r}, value={self.value:.3f}, "
            f"{len(self.tree)} nodes, stop_reason={self.stop_reason!r}{failed})"
        )

    def _repr_html_(self) -> str:
        return f"<div><p>{html.escape(repr(self))}</p>{outline_html(self.tree, self.node)}</div>"

    def __rich__(self) -> Any:
        return rich_tree(self.tree, self.node)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the latents, as plain JSON values."""
        return {
            "index": self.index,
            "key": self.key,
            "answer": self.answer,
            "value": None if math.isnan(self.value) else self.value,
            "node": self.node,
            "stop_reason": self.stop_reason,
            "error": self.error,
            "seconds": self.seconds,
            "stats": self.stats,
            "tree": tree_to_dict(self.tree),
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any], latents: PolarPoints, source: str) -> SearchResult:
        """The result that `to_dict` wrote; `source` names the file in messages.

        Raises:
            ValueError: a field is missing or wrong.
        """
        try:
            tree = tree_from_dict(document["tree"], source)
            value = document["value"]
            result = cls(
                question=tree.question,
                index=int(document["index"]),
                key=str(document["key"]),
                answer=document["answer"],
                value=math.nan if value is None else float(value),
                node=document["node"],
                tree=tree,
                latents=latents,
                stop_reason=str(document["stop_reason"]),
                error=document["error"],
                seconds=float(document["seconds"]),
                stats=dict(document["stats"]),
            )
        except (KeyError, TypeError) as problem:
            raise FileProblem(source, f"a search result ({type(problem).__name__}: {problem})") from problem
        check(len(latents) == len(tree), source, f"one latent a node ({len(tree)})", len(latents))
        return result

    def save(self, path: str | Path, *, sweep: bool = True) -> None:
        """Write the result to `path` (JSON), and its latents beside it (same name, ``.safetensors``).

        Args:
            path: ends in something else than ``.safetensors``.
            sweep: remove what killed writers left of files of these names.

        Raises:
            ValueError: the folder does not exist or cannot be written.
            OSError: a full disk, for instance; names the file.
        """
        path = Path(path)
        check(path.suffix != ".safetensors", "path", "a name for JSON, beside which latents go", str(path))
        with staged_latents(path.with_suffix(".safetensors"), self.latents, self.key, sweep=sweep) as (
            checksum,
            commit,
        ):
            write_document(path, FORMAT, VERSION, {**self.to_dict(), "latents": checksum}, sweep=sweep)
            commit()  # a kill before this leaves the latents under a temporary name, where `load` finds them

    @classmethod
    def load(cls, path: str | Path) -> SearchResult:
        """Read what `save` wrote.

        Raises:
            ValueError: a file is missing, foreign, damaged, of a newer version, or of another result.
        """
        path = Path(path)
        document = read_document(path, FORMAT, VERSION)
        latents = load_latents(path.with_suffix(".safetensors"), document.get("key", ""), document.get("latents"))
        return cls.from_dict(document, latents, str(path))
