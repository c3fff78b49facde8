"""The nearest latent of a set in torch: one product ranks the columns, and only what it cannot tell is looked at again.

With G = ½ sinh 2a and H = ½ sinh 2b, sinh²(√c·d/2) = sinh²(a − b) + GH‖u − t‖² orders the columns of a row. A product's
error e bounds it from both sides. The column that ranks first is refined by direct differences where the error would show in
its distance, together with those whose lower bound is no more than its upper bound: a few, even among near-duplicates.
Small problems take a product in float64 instead, which leaves nothing to refine but near-duplicates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lapha.kernels.chords import chord_by_coordinates_, differences
from lapha.kernels.pairwise_torch import FEW_COORDINATES, pairwise_forward, spans
from lapha.kernels.precision import PRECISIONS, Precision, full_float32, refine_threshold
from lapha.kernels.valid import Latents, keep_points, lengths, restored

# √c·(a + b) up to which hyperbolic functions and their products stay inside the dtype.
_REACH = {torch.float32: 38.0, torch.float64: 300.0}
# Up to this many multiplications a float64 product costs less than looking twice.
_SMALL = 1 << 21
# Chord² from a float64 product of unit vectors is good to 1e-8 from here on.
_DOUBLE_TRUST = 1e-7
# Lengths that differ from 1 by more than this are divided out beforehand.
_UNIT = 1e-5
# Beyond this mean cosine, taking the common part away makes the product better by more than it costs.
_COMMON = 0.5
_ROWS = 1024
_COLUMNS = 1024
_GROUP = 64


class Side(NamedTuple):
    """One of the two sets. Vectors are (N, D), the rest (N,), in the computing dtype.

    Attributes:
        stored: directions, not centred; of length 1 to 1e-5.
        length: theirs.
        centred: what the product takes: stored, less the common centre where there is one, rounded for ``"bf16"``.
        square: ‖centred‖².
        radius: as stored, not scaled by √c: differences of near-equal radii are exact.
        gain: ½ sinh(2√c·radius) / length.
    """

    stored: Tensor
    length: Tensor
    centred: Tensor
    square: Tensor
    radius: Tensor
    gain: Tensor

    def take(self, part: slice) -> Side:
        return Side(*(field[part] for field in self))


def nearest_forward(latents: Latents, precision: Precision) -> tuple[Tensor, Tensor]:
    """Distance (N,) and index (N,) int64 of the latent of (t, b) that is nearest to each of (u, a); M >= 1.

    NaN and −1 for a row that is no point (see `valid`), or where no column is one.
    """
    work = latents.u.shape[0] * latents.t.numel()
    small = 0 < work <= _SMALL and precision.name == "ieee" and latents.in_float32_on_cpu
    found = _nearest_small(latents) if small else _nearest(latents, precision)
    if found is not None:
        return found
    kept = keep_points(latents)
    n, m = kept.latents.u.shape[0], kept.latents.t.shape[0]
    if n and m:
        found = nearest_forward(kept.latents, precision)
    else:
        distance = torch.full((n,), math.nan, dtype=latents.dtype, device=latents.u.device)
        found = distance, torch.full_like(distance, -1, dtype=torch.int64)
    return restored(kept, latents, *found)


class Extent(NamedTuple):
    """Lengths of a set's directions (N,), the largest difference of one from 1, and the largest radius."""

    length: Tensor
    off: float
    reach: float


def _extent(direction: Tensor, radius: Tensor) -> Extent | None:
    """None if one of the set is no point, or there is none."""
    if radius.numel() == 0:
        return None
    length = lengths(direction)
    ends = torch.stack([*torch.aminmax(length), *torch.aminmax(radius.to(length.dtype))]).tolist()
    shortest, longest, lowest, highest = ends
    if not (shortest > 0 and longest < math.inf and lowest >= 0 and highest < math.inf):  # also for NaN
        return None
    return Extent(length, max(longest - 1, 1 - shortest), highest)


def _nearest_small(latents: Latents) -> tuple[Tensor, Tensor] | None:
    """By one float64 product; None if something is no point."""
    u, a, t, b, curvature = latents
    wide, root = torch.float64, math.sqrt(curvature)
    u, t, a, b = u.to(wide), t.to(wide), a.to(wide), b.to(wide)
    lowest, highest = torch.aminmax(torch.cat((a, b)))
    reach = 2 * root * float(highest)
    if not (float(lowest) >= 0 and reach < math.inf):  # NaN fails every comparison
        return None
    x_length, y_length = torch.linalg.vector_norm(u, dim=1), torch.linalg.vector_norm(t, dim=1)
    chord = torch.mm(u, t.T).mul_(-2).div_(x_length[:, None]).div_(y_length).add_(2)
    least = float(chord.amin())  # NaN where a direction is none: of length 0, NaN or Inf
    if math.isnan(least):
        return None
    if reach > _REACH[wide]:
        with full_float32(u.device):
            return _nearest_far(latents, PRECISIONS["ieee"])
    if least < _DOUBLE_TRUST:
        i, j = (chord < _DOUBLE_TRUST).nonzero(as_tuple=True)
        chord[i, j] = differences(u, t, x_length, y_length, i, j)
    if curvature != 1:
        a, b = a * root, b * root
    square = (a[:, None] - b).sinh_().square_()
    square.addcmul_(chord.mul_(torch.sinh(2 * a)[:, None]), torch.sinh(2 * b), value=0.25)
    smallest, index = square.min(1)
    return torch.asinh_(smallest.sqrt_()).mul_(2 / root).to(latents.dtype), index


def _nearest(latents: Latents, precision: Precision) -> tuple[Tensor, Tensor] | None:
    """By products that rank; None if something is no point."""
    u, a, t, b, curvature = latents
    x, y = _extent(u, a), _extent(t, b)
    if x is None or y is None:
        return None
    with full_float32(u.device):
        if math.sqrt(curvature) * (x.reach + y.reach) > _REACH[latents.dtype]:
            return _nearest_far(latents, precision)
        return _nearest_ranked(latents, x, y, precision)


def _nearest_ranked(latents: Latents, x: Extent, y: Extent, precision: Precision) -> tuple[Tensor, Tensor]:
    u, _, t, _, _ = latents
    n, m, dtype = u.shape[0], t.shape[0], latents.dtype
    mean = t.mean(0, dtype=dtype)
    centre = mean if float(mean @ mean) >= _COMMON else None
    distance = torch.full((n,), math.inf, dtype=torch.float64, device=u.device)
    index = torch.zeros(n, dtype=torch.int64, device=u.device)
    for columns in spans(m, _COLUMNS):
        y_side = _side(latents, columns, y, centre, precision, of_rows=False)
        for rows in spans(n, _ROWS):
            x_side = _side(latents, rows, x, centre, precision, of_rows=True)
            here, where = _block_nearest(x_side, y_side, latents.curvature, precision)
            closer = here < distance[rows]
            distance[rows] = torch.where(closer, here, distance[rows])
            index[rows] = torch.where(closer, where + columns.start, index[rows])
    return distance.to(dtype), index


def _nearest_far(latents: Latents, precision: Precision) -> tuple[Tensor, Tensor]:
    """By all distances, a block at a time: at any radius."""
    u, a, t, b, curvature = latents
    distance = torch.full((u.shape[0],), math.inf, dtype=latents.dtype, device=u.device)
    index = torch.zeros(u.shape[0], dtype=torch.int64, device=u.device)
    for columns in spans(t.shape[0], _COLUMNS):
        for rows in spans(u.shape[0], _ROWS):
            block = pairwise_forward(Latents(u[rows], a[rows], t[columns], b[columns], curvature), precision)
            here, where = row_minimum(block)
            closer = here < distance[rows]
            distance[rows] = torch.where(closer, here, distance[rows])
            index[rows] = torch.where(closer, where + columns.start, index[rows])
    return distance, index


def _side(
    latents: Latents, part: slice, extent: Extent, centre: Tensor | None, precision: Precision, of_rows: bool
) -> Side:
    dtype = latents.dtype
    direction, radius = (latents.u, latents.a) if of_rows else (latents.t, latents.b)
    stored, length = direction[part].to(dtype), extent.length[part].to(dtype)
    if extent.off > _UNIT:
        stored = stored / length[:, None]
        length = torch.linalg.vector_norm(stored, dim=1)
    centred = stored if centre is None else stored - centre
    if precision.name == "bf16":
        centred = centred.to(torch.bfloat16).to(dtype)
    square = length if centred is stored else torch.linalg.vector_norm(centred, dim=1)
    radius = radius[part].to(dtype)
    gain = torch.sinh((2 * math.sqrt(latents.curvature)) * radius) / (2 * length)
    return Side(stored, length, centred, square.square(), radius, gain)


def _block_nearest(x: Side, y: Side, curvature: float, precision: Precision) -> tuple[Tensor, Tensor]:
    """Distance, float64, and column of the nearest of each row."""
    few = x.stored.shape[1] <= FEW_COORDINATES and precision.name == "ieee"
    if few:
        chord = torch.empty(x.length.numel(), y.length.numel(), dtype=x.stored.dtype, device=x.stored.device)
        chord_by_coordinates_(chord, x, y)
    else:
        chord = x.square[:, None] + y.square
        chord.addmm_(x.centred, y.centred.T, alpha=-2)
    value = torch.sub(x.radius[:, None], y.radius).mul_(math.sqrt(curvature)).sinh_().square_()
    value.addcmul_(chord * y.gain, x.gain[:, None])
    least, column = row_minimum(value)
    dim = x.stored.shape[1]
    threshold = refine_threshold(precision, value.dtype, dim)
    relative = precision.tolerance * threshold if value.dtype == torch.float32 else 1e-15
    error = relative * (x.square + y.square.amax()) * x.gain
    if few:  # the rounding of each chord is relative to itself
        error = torch.zeros_like(error)
    bound = least + error * y.gain[column] + least.abs() * 1e-6
    lower = value.addr_(error, y.gain, alpha=-1)
    lower.scatter_(1, column[:, None], math.inf)
    several = (lower.amin(1) <= bound).nonzero()[:, 0]

    best = chord.gather(1, column[:, None])[:, 0]
    close = best < (1e-6 if few else 0.5 * threshold * (x.square + y.square[column]))
    close[several] = True
    again = close.nonzero()[:, 0]
    best = best.to(torch.float64)
    best /= (x.length * y.length[column]).to(best.dtype)
    best[again] = differences(x.stored, y.stored, x.length, y.length, again, column[again])
    distance = _distance(best.clamp_(0, 4), x.radius, y.radius[column], curvature)
    if several.numel():
        row, other = _rivals(lower, several, bound, error, y.gain)
        chord = differences(x.stored, y.stored, x.length, y.length, row, other)
        rival = _distance(chord, x.radius[row], y.radius[other], curvature)
        distance, column = nearer(distance, column, *_least_of(rival, row, other, x.length.numel()))
    return distance, column


def _rivals(lower: Tensor, rows: Tensor, bound: Tensor, error: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of what could still be nearer than each row's first."""
    some = lower[rows]
    upper = torch.addr(some, error[rows], gain, alpha=2).amin(1)
    found = (some <= torch.minimum(bound[rows], upper)[:, None]).nonzero()
    return rows[found[:, 0]], found[:, 1]


def _least_of(distance: Tensor, row: Tensor, column: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Each row's least of listed distances, and its first column; Inf where a row is not listed."""
    best = torch.full((rows,), math.inf, dtype=distance.dtype, device=distance.device)
    best.scatter_reduce_(0, row, distance, "amin")
    winner = distance == best[row]
    first = torch.full((rows,), torch.iinfo(torch.int64).max, dtype=torch.int64, device=distance.device)
    first.scatter_reduce_(0, row[winner], column[winner], "amin")
    return best, first


def _distance(chord: Tensor, a: Tensor, b: Tensor, curvature: float) -> Tensor:
    """Distances from chord² and radii, float64."""
    root = math.sqrt(curvature)
    a, b = a.to(torch.float64) * root, b.to(torch.float64) * root
    square = torch.sinh(a - b).square_().addcmul_(0.25 * torch.sinh(2 * a) * chord, torch.sinh(2 * b))
    return torch.asinh_(square.sqrt_()).mul_(2 / root)


def nearer(distance: Tensor, index: Tensor, other: Tensor, other_index: Tensor) -> tuple[Tensor, Tensor]:
    """The nearer of two candidates of each row, the first of them where they are equally near."""
    other = other.to(distance.dtype)
    take = (other < distance) | ((other == distance) & (other_index < index))
    return torch.where(take, other, distance), torch.where(take, other_index, index)


def row_minimum(values: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest entry of each row of (N, M) and the first column that holds it.

    Halving groups of columns onto themselves is a vectorised pass over memory; on the CPU torch's own argmin takes as
    long as a fifth of the matrix product.
    """
    n, m = values.shape
    if values.device.type != "cpu" or m % _GROUP:
        return values.min(dim=1)
    groups = values.view(n, m // _GROUP, _GROUP)
    width = _GROUP // 2
    folded = torch.minimum(groups[:, :, :width], groups[:, :, width:])
    while width > 1:
        width //= 2
        folded = torch.minimum(folded[:, :, :width], folded[:, :, width:])
    least, group = folded[:, :, 0].min(dim=1)
    members = groups[torch.arange(n), group]
    return least, members.argmin(dim=1) + group * _GROUP
