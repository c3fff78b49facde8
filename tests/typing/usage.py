"""Code as users write it, for mypy --strict and pyright; it is checked, not run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

import torch

import lapha
from lapha.config import EvalConfig, PruneConfig, SearchConfig, ShapingConfig, build, load
from lapha.engines import TransformersEngine
from lapha.errors import ArgumentError, EngineError, LaphaError
from lapha.search import AnswerChoice, Frontier, Search, SearchResult


def shaping(hidden: torch.Tensor, parent: torch.Tensor, correct: torch.Tensor) -> torch.Tensor:
    points = lapha.PolarPoints.from_tangent(hidden - hidden[0])
    assert_type(points, lapha.geometry.PolarPoints)
    value = lapha.potential(points, goal=correct)
    assert_type(value, torch.Tensor)
    reward = lapha.process_reward(value, parent)
    assert_type(lapha.pairwise_dist(points), torch.Tensor)
    distance, index = lapha.kernels.nearest(points, points)
    assert_type(index, torch.Tensor)
    assert_type(distance, torch.Tensor)
    return lapha.sibling_advantages(reward, parent)


def first(frontier: Frontier, /) -> int | None:
    return 0 if frontier.tree.children[0] else None


def searching(path: str, questions: list[str]) -> Iterator[SearchResult]:
    engine = TransformersEngine.from_pretrained(path)
    config = SearchConfig(simulations=4, selection=first, prune=PruneConfig(cut="distance", distance=0.5))
    search = Search(engine, config=config)
    results = search.run(questions, concurrency=4, on_error="record")
    assert_type(results, Iterator[SearchResult])
    for result in results:
        assert_type(result.answer, str | None)
        yield result


def configuring() -> EvalConfig:
    given = load(EvalConfig, "eval.yaml")
    assert_type(given, EvalConfig)
    assert_type(build(ShapingConfig, {"gamma": 0.9}), ShapingConfig)
    assert_type(given.search.prune.fraction, float)
    return given


def failing() -> str:
    try:
        SearchConfig(simulations=0)
    except ArgumentError as error:
        assert_type(error, ArgumentError)
    try:
        return str(lapha.Search)
    except EngineError as error:
        return error.server
    except (ValueError, LaphaError) as error:
        return str(error)


def chosen(choice: AnswerChoice) -> str:
    return choice.answer
