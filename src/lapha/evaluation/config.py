"""ModelConfig and EvalConfig: what is evaluated, on what, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from lapha._checks import check
from lapha._options import check_options, documented, flatten, option, part
from lapha.evaluation.data import Selection, parse_shard
from lapha.evaluation.modes import check_modes
from lapha.search import SearchConfig

Mode: TypeAlias = Literal["single", "react", "value", "majority", "best-of-n"]
AgentProtocol: TypeAlias = Literal["steps", "plain"]
Tools: TypeAlias = Literal["none", "python"]
TINY = "tiny"


class AnswerScore(Protocol):
    """How right an answer is: a number from 0 to 1 (right from 0.5 on), or None where nobody can tell.

    It gets the answer and the record that the problem was read from, with all its fields.
    """

    def __call__(self, answer: str, record: Mapping[str, Any], /) -> float | None: ...


@documented
@dataclass(frozen=True)
class ModelConfig:
    """A model as commands name it, with its tools.

    Raises:
        ValueError: a value of another type or outside its range.
    """

    model: str = option(TINY, "'tiny', a folder, or a model's name on the Hugging Face hub.")
    value_head: str | None = option(None, "Folder or file of a value head.", shown="the model's own")
    gguf_file: str | None = option(None, "Name of a GGUF file in the model's folder.")
    context_limit: int = option(4096, "Most tokens of a context.", ge=1)
    protocol: AgentProtocol = option(
        "steps",
        "'steps': numbered turns with thinking, tools and tags; 'plain': chain of thought as the model writes it.",
    )
    tools: Tools = option("none", "'python' runs code in the sandbox.")
    sandbox: str = option("monty", "'monty', 'bubblewrap' or a server's address, for tools 'python'.")
    server: tuple[str, ...] = option(
        (), "vLLM servers to sample from, with commas; the model is then the tokenizer.", runtime=True
    )
    pooling_server: tuple[str, ...] = option((), "vLLM pooling servers for h(s), with commas.", runtime=True)

    def __post_init__(self) -> None:
        check_options(self)


@documented
@dataclass(frozen=True)
class EvalConfig:
    """One evaluation: a model in several modes over problems.

    Raises:
        ValueError: a value of another type or outside its range, or a combination that cannot work.
    """

    model: ModelConfig = part(ModelConfig, "The model and its tools.")
    data: str = option(TINY, "'tiny', a .jsonl/.json/.csv/.parquet file, or a name such as math-500.")
    modes: tuple[Mode, ...] = option(("single", "value"), "Of single, react, value, majority, best-of-n, with commas.")
    samples: int | None = option(None, "Chains of majority and best-of-n.", ge=1, shown="as many tokens as value")
    limit: int | None = option(None, "At most so many problems.", ge=1)
    shard: str | None = option(None, "i/n: every n-th problem from the i-th.")
    shuffle_seed: int | None = option(None, "Shuffle the problems first.")
    search: SearchConfig = part(lambda: SearchConfig(simulations=32), "The search of mode value.")
    concurrency: int = option(32, "Trees and chains in flight at once.", ge=1, runtime=True)
    trees: bool = option(True, "Keep the searched trees.", runtime=True)
    graders: int = option(2, "Grader processes.", ge=1, runtime=True)
    strict: bool = option(False, "Refuse data with empty or broken gold answers.", runtime=True)
    verifier: AnswerScore | None = option(
        None, "package.module:function that scores (answer, record) from 0 to 1, for problems without a gold answer."
    )
    judge_url: str | None = option(None, "OpenAI-compatible server to grade what nothing else can.", runtime=True)
    judge_model: str = option("judge", "The judge's model.", runtime=True)

    def __post_init__(self) -> None:
        check_options(self)
        check(len(self.modes) > 0, "modes", "at least one mode", "none")
        check_modes(self.modes, self.samples)
        self.selection()
        scored = self.verifier is not None and self.data == TINY
        check(not scored, "verifier", "none with data 'tiny', which has its own", self.verifier)
        judged = self.judge_url is not None and self.data == TINY
        check(not judged, "judge_url", "none with data 'tiny', where every answer is verified", self.judge_url)

    def selection(self) -> Selection:
        """Which problems are asked."""
        return Selection(self.limit, parse_shard(self.shard), self.shuffle_seed)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the results, resolved, as plain values: what a run's ``config.yaml`` holds."""
        found = flatten(self, runtime=False)
        found["engine"] = "vllm" if self.model.server else "transformers"
        if self.judge_url is not None:
            found["judge"] = self.judge_model
        if self.judge_url is not None and (self.judge_model == self.model.model or self.judge_url in self.model.server):
            found["judge_is_policy"] = True
        return found
