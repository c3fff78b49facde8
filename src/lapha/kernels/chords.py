"""Squared chords ‖u − t‖² between two sets of directions: a matrix product, and what repairs it where it cancels."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lapha.geometry.numerics import accumulate_dtype
from lapha.kernels.precision import Precision

# A float64 product is trusted where ‖u − t‖² exceeds this multiple of the centred squares: its error there is < 1e-6.
_DOUBLE_TRUST = 1e-9
# Flagged pairs are recomputed by one float64 product when they fill at least this part of their rows and columns.
_DENSE_PART = 1 / 32
_FEW_PAIRS = 64
_COLUMNS_PER_PRODUCT = 512
# Differences of this many numbers at a time: they stay in the L2 cache.
_NUMBERS_PER_BATCH = 1 << 18


class Directions(NamedTuple):
    """A set of directions made ready for products.

    Attributes:
        stored: (N, D) in the computing dtype, not centred.
        length: (N,) ‖stored‖, which is 1 to rounding.
        centred: (N, D) stored less the common centre.
        square: (N, 1) ‖centred‖².
    """

    stored: torch.Tensor
    length: torch.Tensor
    centred: torch.Tensor
    square: torch.Tensor


def centre_of(directions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(D,) mean of (N, D) directions: distances do not depend on it, rounding errors do."""
    return directions.mean(0, dtype=dtype)


def make_ready(directions: torch.Tensor, centre: torch.Tensor, precision: Precision) -> Directions:
    """Subtract `centre`, and round as `precision` says, so that the squares belong to what the product sees."""
    stored = directions.to(centre.dtype)
    length = torch.linalg.vector_norm(stored, dim=1)
    if directions.dtype in (torch.float16, torch.bfloat16):  # unit only to their own, coarse rounding
        stored = stored / length[:, None]
        length = torch.linalg.vector_norm(stored, dim=1)
    centred = stored - centre
    if precision.name == "bf16":
        centred = centred.to(torch.bfloat16).to(centre.dtype)
    return Directions(stored, length, centred, torch.linalg.vector_norm(centred, dim=1, keepdim=True).square_())


def refine_limit(directions: Directions, threshold: float) -> torch.Tensor:
    """(N,) such that a pair must be refined where its ‖u − t‖² is at most the sum of both limits.

    Beside the product's own error there is that of lengths that differ: below 2e6·(e_u² + e_t²), e = |length − 1|, the
    term (‖u‖ − ‖t‖)² would be more than 1e-6 of ‖u − t‖².
    """
    rounding = torch.finfo(directions.length.dtype).eps / 2
    off = (directions.length - 1).abs() + rounding
    return 0.5 * threshold * directions.square[:, 0] + 2e6 * off.square()


def chord_product_(out: torch.Tensor, x: Directions, y: Directions) -> torch.Tensor:
    """Write ‖A‖² + ‖B‖² − 2 A·B into `out` (N, M). Where it cancels it may be wrong, and slightly negative."""
    torch.add(x.square, y.square.T, out=out)
    return out.addmm_(x.centred, y.centred.T, alpha=-2)


def flagged_pairs(
    chord: torch.Tensor, scratch: torch.Tensor, x_limit: torch.Tensor, y_limit: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Rows and columns where `chord` <= x_limit (N, 1) + y_limit (1, M); None where there are none."""
    torch.sub(chord, x_limit, out=scratch).sub_(y_limit)
    # look at the rows that hold one only: comparing and listing cost more than everything else here
    rows = (scratch.amin(1) <= 0).nonzero()[:, 0]
    if rows.numel() == 0:
        return None
    found = (scratch.index_select(0, rows) <= 0).nonzero()
    return rows[found[:, 0]], found[:, 1]


def refined_chords(x: Directions, y: Directions, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """‖u/‖u‖ − t/‖t‖‖² of listed pairs with an error relative to itself; 0 exactly for equal directions.

    Args:
        x, y: the two sets.
        i, j: (K,) row and column of each pair.
    Returns: (K,) float64 (float32 on devices that have no float64).
    """
    rows, row_of = torch.unique(i, return_inverse=True)
    columns, column_of = torch.unique(j, return_inverse=True)
    wide = accumulate_dtype(x.stored)
    dense = i.numel() >= max(_FEW_PAIRS, _DENSE_PART * rows.numel() * columns.numel())
    if wide != torch.float64 or not dense:
        return _by_differences(x, y, i, j)
    chord = torch.empty(i.numel(), dtype=wide, device=i.device)
    doubtful = torch.zeros(i.numel(), dtype=torch.bool, device=i.device)
    # centred on a member, not on the mean: a set of equal directions then becomes zeros, and needs no second look
    origin = y.stored[columns[0]].to(wide)
    a, a_square, a_length = _wide_rows(x.stored, rows, origin)
    for first in range(0, columns.numel(), _COLUMNS_PER_PRODUCT):
        b, b_square, b_length = _wide_rows(y.stored, columns[first : first + _COLUMNS_PER_PRODUCT], origin)
        squares = a_square[:, None] + b_square
        product = torch.addmm(squares, a, b.T, alpha=-2)
        mine = ((column_of >= first) & (column_of < first + b.shape[0])).nonzero()[:, 0]
        where = row_of[mine], column_of[mine] - first
        doubtful[mine] = product[where] < _DOUBLE_TRUST * squares[where]
        product.sub_((a_length[:, None] - b_length).square_()).div_(a_length[:, None] * b_length)
        chord[mine] = product[where].clamp_min_(0)
    again = doubtful.nonzero()[:, 0]
    chord[again] = _by_differences(x, y, i[again], j[again])
    return chord


def _wide_rows(
    stored: torch.Tensor, index: torch.Tensor, origin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows less `origin`, their squares, and the lengths before, in the dtype of `origin`."""
    rows = stored.index_select(0, index).to(origin.dtype)
    length = torch.linalg.vector_norm(rows, dim=1)
    rows -= origin
    return rows, rows.square().sum(1), length


def _by_differences(x: Directions, y: Directions, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Sums of squared differences of listed pairs, a batch at a time: bounded memory however many pairs there are."""
    chord = torch.empty(i.numel(), dtype=accumulate_dtype(x.stored), device=i.device)
    batch = max(1, _NUMBERS_PER_BATCH // max(1, x.stored.shape[1]))
    for first in range(0, i.numel(), batch):
        part = slice(first, first + batch)
        u, t = x.stored.index_select(0, i[part]), y.stored.index_select(0, j[part])
        lengths = x.length[i[part]], y.length[j[part]]
        difference = u - t
        square = torch.linalg.vecdot(difference, difference)
        # ‖u‖ − ‖t‖ = (u − t)·(u + t)/(‖u‖ + ‖t‖): what the lengths differ by is no angle
        radial = torch.linalg.vecdot(difference, u.add_(t)) / (lengths[0] + lengths[1])
        chord[part] = (square - radial.square()).clamp_min_(0) / (lengths[0] * lengths[1])
    return chord
