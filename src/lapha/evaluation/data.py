"""Problems from local files or, by name, from the Hugging Face hub. Questions and answers are read apart."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lapha._checks import check
from lapha._imports import require
from lapha.evaluation.data_files import read_records, text_field

QUESTION_FIELDS = ("question", "problem", "prompt")
ANSWER_FIELDS = ("answer", "final_answer", "expected_answer", "gold")


@dataclass(frozen=True)
class Problem:
    """A question with its gold answer. Grading and training alone may look at `answer`."""

    question: str
    answer: str


@dataclass(frozen=True)
class HubDataset:
    """Where a named benchmark lives on the Hugging Face hub."""

    path: str
    split: str
    config: str | None = None


REGISTRY = {
    "math-500": HubDataset("HuggingFaceH4/MATH-500", "test"),
    "aime-24": HubDataset("HuggingFaceH4/aime_2024", "train"),
    "aime-25": HubDataset("math-ai/aime25", "test"),
    "gaokao-23-en": HubDataset("MARIO-Math-Reasoning/Gaokao2023-Math-En", "train"),
    "olympiadbench": HubDataset("Hothan/OlympiadBench", "train", "OE_TO_maths_en_COMP"),
    "gsm8k": HubDataset("openai/gsm8k", "test", "main"),
    "amc": HubDataset("AI-MO/aimo-validation-amc", "train"),
}


@dataclass(frozen=True)
class Selection:
    """Which of a source's problems.

    Attributes:
        limit: at most so many, or None.
        shard: (i, n): every n-th problem from the i-th (from 1), after shuffling and limiting; None for all.
        shuffle_seed: shuffles before limiting; None keeps the source's order.

    Raises:
        ValueError: a value outside its range.
    """

    limit: int | None = None
    shard: tuple[int, int] | None = None
    shuffle_seed: int | None = None

    def __post_init__(self) -> None:
        check(self.limit is None or self.limit >= 1, "limit", "an integer >= 1", self.limit)
        if self.shard is not None:
            index, count = self.shard
            check(1 <= index <= count, "shard", "i/n with 1 <= i <= n", f"{index}/{count}")

    def indices(self, size: int) -> list[int]:
        """Indices into a source of `size` problems, in the order in which they are asked."""
        order = list(range(size))
        if self.shuffle_seed is not None:
            random.Random(self.shuffle_seed).shuffle(order)
        order = order[: self.limit]
        return order if self.shard is None else order[self.shard[0] - 1 :: self.shard[1]]


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """``"2/8"`` as (2, 8).

    Raises:
        ValueError: anything else.
    """
    if text is None:
        return None
    parts = text.split("/")
    good = len(parts) == 2 and all(part.isdecimal() for part in parts)
    check(good, "shard", "i/n, such as 1/8", repr(text))
    return int(parts[0]), int(parts[1])


def load_problems(source: str | Path, selection: Selection | None = None) -> list[Problem]:
    """Questions with their gold answers, for grading and for verifiers.

    Args:
        source: a ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file, or a name in `REGISTRY`.
        selection: which of them; None for all.

    Raises:
        ValueError: no such file or name, a record without a question or an answer (names file and record).
    """
    return _select([Problem(_question(row, at), _gold(row, at)) for row, at in _records(source)], source, selection)


def load_records(source: str | Path, selection: Selection | None = None) -> list[Mapping[str, Any]]:
    """Whole records, for verifiers that need more than a gold answer.

    Raises:
        ValueError: as for `load_problems`, save that answers may be absent.
    """
    return _select([row for row, at in _records(source) if _question(row, at)], source, selection)


def load_questions(source: str | Path, selection: Selection | None = None) -> list[str]:
    """Questions alone: what a search may know. Answers are dropped as the source is read.

    Raises:
        ValueError: as for `load_problems`, save that answers may be absent.
    """
    return _select([_question(row, at) for row, at in _records(source)], source, selection)


def fingerprint(questions: list[str]) -> str:
    """A hash of the questions in order: two runs with equal fingerprints asked the same things."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(question.encode("utf-8") + b"\0")
    return digest.hexdigest()[:16]


def _select(items: list[Any], source: str | Path, selection: Selection | None) -> list[Any]:
    chosen = [items[index] for index in (selection or Selection()).indices(len(items))]
    check(len(chosen) > 0, "data", "at least one problem", f"none in {source}")
    return chosen


def _records(source: str | Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    """(record, where it stands) of a source."""
    check(isinstance(source, (str, Path)), "data", "a file's path or a name", repr(source))
    path = Path(source)
    if path.is_file():
        yield from read_records(path)
        return
    name = str(source)
    if name not in REGISTRY:
        near = get_close_matches(name, [*REGISTRY, "tiny"], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"data: expected an existing file, tiny, or one of {', '.join(REGISTRY)}, got {name!r}{hint}")
    for number, row in enumerate(_from_hub(name), 1):
        yield row, f"{name} record {number}"


def _from_hub(name: str) -> Any:
    datasets = require("datasets", extra="eval")
    entry = REGISTRY[name]
    try:
        return datasets.load_dataset(entry.path, entry.config, split=entry.split)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"data: expected {name!r} ({entry.path}) on the Hugging Face hub or in its cache, got "
            f"{' '.join(str(error).split())[:200]}. Without a network, pass a local file."
        ) from error


def _gold(row: Mapping[str, Any], at: str) -> str:
    text = text_field(row, ANSWER_FIELDS, at)
    return text.rsplit("####", 1)[-1].strip() if "####" in text else text  # GSM8K keeps its reasoning before ####


def _question(row: Mapping[str, Any], at: str) -> str:
    text = text_field(row, QUESTION_FIELDS, at)
    check(bool(text.strip()), "data", f"a question in {at}", "an empty one")
    return text
