"""Chords that a product could not tell, again: groups of near latents by float64 products, what is left by differences.

Near pairs come in groups: the members of a cluster, the nodes of a subtree. A group of rows and columns is recomputed as a
whole, centred on a member, which costs a few ns a pair; a list of pairs costs a hundred times as much, and is for strays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lapha.geometry.numerics import accumulate_dtype
from lapha.kernels.chords import Directions, differences

# A float64 product is trusted where ‖u − t‖² exceeds this multiple of the centred squares: its error there is < 1e-6.
_DOUBLE_TRUST = 1e-9
# A group is recomputed as a whole if near pairs are at least this part of it, and at least this many.
_DENSE_PART = 1 / 32
_FEW_PAIRS = 64
_COLUMNS_PER_PRODUCT = 512
# Below this a chord² does not show in float32 beside what radii round to: such pairs take the exact formula.
TINY = 1e-14


class Groups:
    """Near pairs of a block, (N, M) bool, sorted into dense groups and strays.

    Attributes:
        dense: (rows, columns) of each group, index tensors.
        stray: (row, column) of the pairs in no group.
        count: how many pairs there are in all.
    """

    def __init__(self, near: Tensor) -> None:
        row, column = near.nonzero(as_tuple=True)
        self.count = row.numel()
        self.dense: list[tuple[Tensor, Tensor]] = []
        in_group = torch.zeros(near.shape[0], dtype=torch.bool, device=near.device)
        if self.count >= _FEW_PAIRS:
            label = _labels(row, column, *near.shape)
            pairs = torch.bincount(row, minlength=near.shape[0])
            members, order = label.sort(stable=True)
            sizes = torch.unique_consecutive(members, return_counts=True)[1]
            ends = sizes.cumsum(0)
            inside = pairs[order].cumsum(0)[ends - 1].diff(prepend=ends.new_zeros(1))
            for group in (inside >= _FEW_PAIRS).nonzero()[:, 0].tolist():
                last = int(ends[group])
                rows = order[last - int(sizes[group]) : last]
                columns = near[rows].any(0).nonzero()[:, 0]
                if int(inside[group]) >= _DENSE_PART * rows.numel() * columns.numel():
                    self.dense.append((rows, columns))
                    in_group[rows] = True
        stray = ~in_group[row]
        self.stray = (row[stray], column[stray]) if self.dense else (row, column)


def _labels(row: Tensor, column: Tensor, rows: int, columns: int) -> Tensor:
    """(N,) such that rows which share near columns share a label, mostly: two rounds of taking the least on both sides."""
    last = torch.iinfo(torch.int64).max
    of_row = torch.full((rows,), last, dtype=torch.int64, device=row.device)
    of_row.scatter_reduce_(0, row, column, "amin")
    for _ in range(2):
        of_column = torch.full((columns,), last, dtype=torch.int64, device=row.device)
        of_column.scatter_reduce_(0, column, of_row[row], "amin")
        of_row = torch.full_like(of_row, last).scatter_reduce_(0, row, of_column[column], "amin")
    return of_row


def refine_(chord: Tensor, x: Directions, y: Directions, groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
    """Overwrite what is near in `chord` (N, M), ‖u − t‖² of rows as stored, with what is exact relative to itself.

    Returns:
        Row, column and chord² of the pairs below `TINY`.
    """
    strays, tiny = [groups.stray], []
    for rows, columns in groups.dense:
        if accumulate_dtype(x.stored) == torch.float64:
            again, zero = _group_product_(chord, x, y, rows, columns)
            tiny.append((*zero, torch.zeros(zero[0].numel(), dtype=torch.float64, device=chord.device)))
        else:  # no wider dtype to multiply in
            grid = torch.meshgrid(rows, columns, indexing="ij")
            again = grid[0].reshape(-1), grid[1].reshape(-1)
        strays.append(again)
    row, column = (torch.cat(part) for part in zip(*strays))
    found = differences(x.stored, y.stored, x.length, y.length, row, column)
    chord[row, column] = (found * (x.length[row] * y.length[column])).to(chord.dtype)
    below = (found < TINY).nonzero()[:, 0]
    tiny.append((row[below], column[below], found[below]))
    rows, columns, chords = (torch.cat(part) for part in zip(*tiny))
    return rows, columns, chords


Pairs = tuple[Tensor, Tensor]


def _group_product_(chord: Tensor, x: Directions, y: Directions, rows: Tensor, columns: Tensor) -> tuple[Pairs, Pairs]:
    """Overwrite a group by a float64 product; returns the pairs that it could not tell either, and those at 0."""
    # centred on a member, not on the mean: a set of equal directions then becomes zeros, and needs no second look
    origin = y.stored[columns[0]].double()
    a, a_square, a_length = _wide_rows(x.stored, rows, origin)
    again, zero = [], []
    for first in range(0, columns.numel(), _COLUMNS_PER_PRODUCT):
        part = columns[first : first + _COLUMNS_PER_PRODUCT]
        b, b_square, b_length = _wide_rows(y.stored, part, origin)
        squares = a_square[:, None] + b_square
        product = torch.addmm(squares, a, b.T, alpha=-2)
        doubtful = (product < squares.mul_(_DOUBLE_TRUST)).nonzero()
        alike = torch.meshgrid(rows[a_square == 0], part[b_square == 0], indexing="ij")  # equal to the origin, both
        # what the lengths differ by is no angle
        product.sub_((a_length[:, None] - b_length).square_()).clamp_min_(0)
        chord[rows[:, None], part] = product.to(chord.dtype)
        again.append((rows[doubtful[:, 0]], part[doubtful[:, 1]]))
        zero.append((alike[0].reshape(-1), alike[1].reshape(-1)))
    (again_row, again_column), (zero_row, zero_column) = (
        [torch.cat(part) for part in zip(*pairs)] for pairs in (again, zero)
    )
    return (again_row, again_column), (zero_row, zero_column)


def _wide_rows(stored: Tensor, index: Tensor, origin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows less `origin`, their squares, and the lengths before, in float64."""
    rows = stored.index_select(0, index).double()
    length = torch.linalg.vector_norm(rows, dim=1)
    rows -= origin
    return rows, torch.linalg.vector_norm(rows, dim=1).square_(), length


def near_copies(x: Tensor, y: Tensor, x_length: Tensor, y_length: Tensor, near: Tensor) -> tuple[Pairs, Tensor]:
    """Rows, columns and exact chord² of the pairs in `near` (N, M) bool, most of which are copies up to rounding.

    What a model says twice comes out alike up to rounding, so search trees hold groups of such latents. Each is written as the
    first latent that it is near, and a remainder: pairs with the same first are told by one float64 product of remainders.
    """
    row, column = near.nonzero(as_tuple=True)
    if row.numel() <= 2 * (x.shape[0] + y.shape[0]):
        return (row, column), differences(x, y, x_length, y_length, row, column)
    first = near.to(torch.uint8).argmax(1)  # of a row without any it is not used
    first_row = near.to(torch.uint8).argmax(0)
    of_column = first[first_row]
    a, b = x - y[first], y - y[of_column]
    squares = a.square().sum(1)[:, None] + b.square().sum(1)
    product = torch.addmm(squares, a, b.T, alpha=-2)
    off = x_length[:, None] - y_length
    chord = product.sub_(off * off).div_(x_length[:, None] * y_length)[row, column]
    doubtful = (chord < _DOUBLE_TRUST * squares[row, column]) | (first[row] != of_column[column])
    again = doubtful.nonzero()[:, 0]
    chord[again] = differences(x, y, x_length, y_length, row[again], column[again])
    return (row, column), chord
