"""Squared chords ‖u − t‖² between two sets of directions: a matrix product, and what repairs it where it cancels."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from lapha.geometry.numerics import accumulate_dtype
from lapha.kernels.precision import Precision

# Chords coordinate by coordinate: this many at a time.
_NUMBERS_PER_TILE = 1 << 17
# Differences of this many numbers at a time: they stay in the L2 cache.
_NUMBERS_PER_BATCH = 1 << 18


class HasRows(Protocol):
    """Anything with directions (N, D) as stored."""

    @property
    def stored(self) -> torch.Tensor: ...


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


def unit_rows(directions: torch.Tensor) -> Directions:
    """In float64: `centred` are unit vectors, about no centre; `length` is what was divided out."""
    wide = directions.double()
    length = torch.linalg.vector_norm(wide, dim=1)
    return Directions(wide, length, wide / length[:, None], length[:, None])


def refine_limit(directions: Directions, threshold: float) -> torch.Tensor:
    """(N,) such that a pair must be refined where its ‖u − t‖² is at most the sum of both limits.

    Beside the product's own error there is that of lengths that differ: below 2e6·(e_u² + e_t²), e = |length − 1|, the
    term (‖u‖ − ‖t‖)² would be more than 1e-6 of ‖u − t‖².
    """
    rounding = torch.finfo(directions.length.dtype).eps / 2
    off = (directions.length - 1).abs() + rounding
    return 0.5 * threshold * directions.square[:, 0] + 2e6 * off.square()


def select(directions: Directions, part: slice | torch.Tensor) -> Directions:
    """Some of the rows."""
    return Directions(*(field[part] for field in directions))


def chord_product_(out: torch.Tensor, x: Directions, y: Directions) -> torch.Tensor:
    """Write ‖A‖² + ‖B‖² − 2 A·B into `out` (N, M). Where it cancels it may be wrong, and slightly negative."""
    torch.add(x.square, y.square.T, out=out)
    return out.addmm_(x.centred, y.centred.T, alpha=-2)


def chord_by_coordinates_(out: torch.Tensor, x: HasRows, y: HasRows) -> torch.Tensor:
    """Write ‖u − t‖² of directions as stored into `out` (N, M), coordinate by coordinate, less what their lengths differ by.

    Its error is relative to itself: nothing cancels.
    """
    step = max(1, _NUMBERS_PER_TILE // max(1, out.shape[1]))
    difference = torch.empty(min(step, out.shape[0]), out.shape[1], dtype=out.dtype, device=out.device)
    wide = accumulate_dtype(out)
    off_x, off_y = ((torch.linalg.vector_norm(z.stored.to(wide), dim=1) - 1).to(out.dtype) for z in (x, y))
    columns = y.stored.T.contiguous()
    for first in range(0, out.shape[0], step):
        tile, rows = out[first : first + step], x.stored[first : first + step]
        spare = difference[: tile.shape[0]]
        for d in range(x.stored.shape[1]):
            torch.sub(rows[:, d, None], columns[d], out=spare)
            if d == 0:
                torch.mul(spare, spare, out=tile)
            else:
                tile.addcmul_(spare, spare)
        torch.sub(off_x[first : first + step, None], off_y, out=spare)
        tile.addcmul_(spare, spare, value=-1).clamp_min_(0)
    return out


def differences(
    x: torch.Tensor, y: torch.Tensor, x_length: torch.Tensor, y_length: torch.Tensor, i: torch.Tensor, j: torch.Tensor
) -> torch.Tensor:
    """‖u/‖u‖ − t/‖t‖‖² of listed rows of x (N, D) and y (M, D), by sums of squared differences.

    A batch at a time: bounded memory however many pairs there are. In the widest dtype there is. Where there are more pairs
    than rows, copies are told apart first: search trees hold many, and theirs are most of the near pairs.
    """
    if i.numel() > x.shape[0] + y.shape[0]:
        of_x, of_y = same_rows(x, y)
        chord = torch.zeros(i.numel(), dtype=accumulate_dtype(x), device=i.device)
        other = (of_x[i] != of_y[j]).nonzero()[:, 0]
        chord[other] = _differences(x, y, x_length, y_length, i[other], j[other])
        return chord
    return _differences(x, y, x_length, y_length, i, j)


def same_rows(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers (N,), (M,) int64 that are equal where rows are copies of each other, and nowhere else."""
    rows = torch.cat((x, y))
    bits = rows.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()]).long()
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(1 << 62), 1 << 62, (rows.shape[1],), generator=generator).to(rows.device)
    number = torch.unique((bits * factors).sum(1), return_inverse=True)[1]
    index = torch.arange(rows.shape[0], device=rows.device)
    first = torch.full_like(index, rows.shape[0]).scatter_reduce_(0, number, index, "amin")
    copies = (rows == rows[first[number]]).all(1)  # what a sum says is looked at
    number = torch.where(copies, number, -1 - index)
    return number[: x.shape[0]], number[x.shape[0] :]


def _differences(
    x: torch.Tensor, y: torch.Tensor, x_length: torch.Tensor, y_length: torch.Tensor, i: torch.Tensor, j: torch.Tensor
) -> torch.Tensor:
    chord = torch.empty(i.numel(), dtype=accumulate_dtype(x), device=i.device)
    batch = max(1, _NUMBERS_PER_BATCH // max(1, x.shape[1]))
    for first in range(0, i.numel(), batch):
        part = slice(first, first + batch)
        u, t = x.index_select(0, i[part]), y.index_select(0, j[part])
        lengths = x_length[i[part]], y_length[j[part]]
        difference = u - t
        square = torch.linalg.vector_norm(difference, dim=1).square_()
        # ‖u‖ − ‖t‖ = (u − t)·(u + t)/(‖u‖ + ‖t‖): what the lengths differ by is no angle
        radial = torch.linalg.vecdot(difference, u.add_(t)) / (lengths[0] + lengths[1])
        chord[part] = (square - radial.square_()).clamp_min_(0) / (lengths[0] * lengths[1])
    return chord
