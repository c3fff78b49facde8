"""Distances straight on a bank's ids, through `lapha.kernels`.

Rows that lie together on the device are used where they lie. Others are gathered; candidates that are offloaded are
fetched in blocks, so that a query never needs the whole bank on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from lapha._checks import check
from lapha.geometry import PolarPoints, dist0
from lapha.latent._bank_checks import ids_to_array

if TYPE_CHECKING:
    from lapha.latent.bank import Ids, LatentBank

# Rows of one fetched block: large enough to keep a device busy, 400 MB at D = 1536 in float32.
BLOCK_ROWS = 65536


def gather(bank: LatentBank, ids: np.ndarray) -> PolarPoints:
    """Copies of the rows of known ids (n,), on the bank's device."""
    places = bank._table[ids]
    segments, rows = places[:, 0], places[:, 1]
    if len(ids) and (segments == segments[0]).all():
        return _gather_one(bank, int(segments[0]), rows)
    direction = torch.empty(len(ids), bank.dim, dtype=bank.dtype, device=bank.device)
    radius = torch.empty(len(ids), dtype=torch.float32, device=bank.device)
    order = np.argsort(segments, kind="stable")
    for where in np.split(order, np.flatnonzero(np.diff(segments[order])) + 1) if len(ids) else ():
        part = _gather_one(bank, int(segments[where[0]]), rows[where])
        index = torch.from_numpy(where).to(bank.device)
        direction[index] = part.direction
        radius[index] = part.radius
    return PolarPoints(direction, radius, bank.curvature)


def _gather_one(bank: LatentBank, segment: int, rows: np.ndarray) -> PolarPoints:
    shown = bank._segments[segment].rows
    bank._store.order.before_read(shown.direction, shown.radius)
    index = torch.from_numpy(rows).to(shown.direction.device)
    return bank._points(shown.direction.index_select(0, index), shown.radius.index_select(0, index))


def _view(bank: LatentBank, ids: np.ndarray) -> PolarPoints | None:
    """The rows without a copy, if they follow each other in one segment that needs no fetching."""
    if len(ids) == 0:
        return None
    places = bank._table[ids]
    segment, first = int(places[0, 0]), int(places[0, 1])
    expected = np.arange(first, first + len(ids))
    if (places[:, 0] != segment).any() or (places[:, 1] != expected).any():
        return None
    shown = bank._segments[segment].rows
    if shown.direction.device != bank.device:
        return None
    rows = slice(first, first + len(ids))
    return bank._points(shown.direction[rows], shown.radius[rows])


def points_of(bank: LatentBank, ids: np.ndarray) -> PolarPoints:
    """The rows of known ids: a view where that is possible."""
    view = _view(bank, ids)
    return gather(bank, ids) if view is None else view


def _blocks(bank: LatentBank, ids: np.ndarray) -> Iterator[tuple[int, PolarPoints]]:
    """(position of the first row, rows) of candidates: one view, or gathered blocks."""
    view = _view(bank, ids)
    if view is not None:
        yield 0, view
        return
    for start in range(0, len(ids), BLOCK_ROWS):
        yield start, gather(bank, ids[start : start + BLOCK_ROWS])


def _read(bank: LatentBank, ids: Ids, name: str) -> np.ndarray:
    return ids_to_array(ids, len(bank), name).reshape(-1)


def pairwise(bank: LatentBank, ids: Ids, other: Ids | None) -> torch.Tensor:
    """See `LatentBank.pairwise`."""
    from lapha.kernels import pairwise_dist

    rows = _read(bank, ids, "ids")
    points = points_of(bank, rows)
    if other is None:
        return pairwise_dist(points)
    columns = _read(bank, other, "other")
    if len(columns) == 0:
        return torch.empty(len(rows), 0, dtype=torch.float32, device=bank.device)
    return torch.cat([pairwise_dist(points, block) for _, block in _blocks(bank, columns)], dim=1)


def knn(
    bank: LatentBank, ids: Ids, among: Ids, k: int, *, exclude_self: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `LatentBank.knn`."""
    rows, candidates = _read(bank, ids, "ids"), _read(bank, among, "among")
    most = len(np.unique(candidates)) - 1 if exclude_self else len(candidates)
    check(isinstance(k, int) and 1 <= k <= most, "k", f"an integer in [1, {most}]", k)
    if not exclude_self:
        distance, position = _knn_positions(bank, rows, candidates, k)
        return distance, _to_ids(bank, candidates, position)
    candidates = np.unique(candidates)
    distance, position = _knn_positions(bank, rows, candidates, k + 1)
    found = _to_ids(bank, candidates, position)
    own = found == torch.from_numpy(rows).to(found.device).unsqueeze(1)
    # Where an id is not among its own neighbours (no candidate, or a tie at zero), the farthest of k + 1 goes.
    own[:, -1] |= ~own.any(dim=1)
    keep = ~own
    return distance[keep].reshape(-1, k), found[keep].reshape(-1, k)


def _knn_positions(
    bank: LatentBank, rows: np.ndarray, candidates: np.ndarray, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest candidates by position, merged over blocks. The earlier candidate wins a tie between blocks."""
    from lapha.kernels import knn as knn_points

    points = points_of(bank, rows)
    best: tuple[torch.Tensor, torch.Tensor] | None = None
    for start, block in _blocks(bank, candidates):
        distance, index = knn_points(points, block, min(k, len(block)))
        index = index + start
        if best is not None:
            distance, index = torch.cat([best[0], distance], dim=1), torch.cat([best[1], index], dim=1)
            distance, order = torch.sort(distance, dim=1, stable=True)
            index = index.gather(1, order)
        best = distance[:, :k], index[:, :k]
    assert best is not None  # k ≥ 1 was checked against the number of candidates
    return best


def nearest(bank: LatentBank, ids: Ids, among: Ids, *, exclude_self: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """See `LatentBank.nearest`."""
    from lapha.kernels import nearest as nearest_point

    if exclude_self:
        distance, found = knn(bank, ids, among, 1, exclude_self=True)
        return distance[:, 0], found[:, 0]
    rows, candidates = _read(bank, ids, "ids"), _read(bank, among, "among")
    check(len(candidates) > 0, "among", "at least one id", "none")
    points = points_of(bank, rows)
    best, position = None, None
    for start, block in _blocks(bank, candidates):
        distance, index = nearest_point(points, block)
        index = index + start
        if best is None or position is None:
            best, position = distance, index
        else:
            closer = distance < best
            best, position = torch.where(closer, distance, best), torch.where(closer, index, position)
    assert best is not None
    assert position is not None  # there is at least one candidate, hence one block
    return best, _to_ids(bank, candidates, position)


def _to_ids(bank: LatentBank, candidates: np.ndarray, position: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(candidates).to(position.device)[position]


def potential(bank: LatentBank, ids: Ids, goal_ids: Ids, eps: float) -> torch.Tensor:
    """See `LatentBank.potential`."""
    from lapha.geometry.potential import potential_ratio

    check(eps > 0, "eps", "a number > 0", eps)
    rows, goals = _read(bank, ids, "ids"), _read(bank, goal_ids, "goal_ids")
    if len(goals) == 0 or len(rows) == 0:
        return torch.zeros(len(rows), dtype=torch.float32, device=bank.device)
    distance, _ = nearest(bank, rows, goals)  # exactly 0 for a goal's distance to itself
    return potential_ratio(dist0(points_of(bank, rows)), distance, eps)
