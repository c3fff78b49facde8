"""Latents as they come: clusters, and search trees of the embedded policy, made here and the same every time."""

from __future__ import annotations

import functools

import torch

from lapha.geometry import PolarPoints

# Enough for two problems of the embedded policy to grow a tree of some 250 nodes.
_SIMULATIONS = 48


def clustered(count: int, groups: int, cosine: float, dim: int, seed: int = 0) -> PolarPoints:
    """`groups` clusters in no order, members at about this cosine from each other, tangent norms 0.5 to 1.5."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.Generator().manual_seed(999)
    centres = torch.nn.functional.normalize(torch.randn(groups, dim, generator=shared), dim=1)
    own = torch.nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=1)
    member = torch.randint(groups, (count,), generator=generator)
    u = cosine**0.5 * centres[member] + (1 - cosine) ** 0.5 * own
    norms = 0.5 + torch.rand(count, 1, generator=generator)
    return PolarPoints.from_tangent(torch.nn.functional.normalize(u, dim=1) * norms)


@functools.cache
def policy_trees(count: int) -> list[PolarPoints]:
    """Latents (N, 128) of search trees that the embedded policy grows on generated problems."""
    from lapha.engines import TransformersEngine
    from lapha.search import Search, SearchConfig
    from lapha.tiny import BREADTH, C_PUCT, DEPTH_LIMIT, MAX_EXPANDS, problems, tiny_path

    engine = TransformersEngine.from_pretrained(tiny_path(), value_head=tiny_path())
    config = SearchConfig(
        simulations=_SIMULATIONS,
        breadth=BREADTH,
        depth_limit=DEPTH_LIMIT,
        c_puct=C_PUCT,
        max_expands=MAX_EXPANDS,
        seed=1,
    )
    questions = [problem.question for problem in problems.generate(count, seed=5)]
    results = Search(engine, config=config).run(questions, concurrency=count)
    return [result.latents for result in results]
