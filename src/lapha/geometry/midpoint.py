"""Means of points: the weighted midpoint (closed form) and the Fréchet mean (iterative, differentiable)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lapha._checks import check, check_float_tensor
from lapha._typed import typed
from lapha.geometry.autograd import exact_matmul
from lapha.geometry.checks import check_broadcast
from lapha.geometry.distance import dist
from lapha.geometry.maps import expmap, logmap, spatial
from lapha.geometry.numerics import accumulate_dtype, floored, origin_radius
from lapha.geometry.points import PolarPoints
from lapha.geometry.translate import SpatialToPolar

# A full Newton step ends the search; shorter ones are for points so far apart that the full one overshoots.
_NEWTON_SHARES = (1.0, 0.3, 0.1, 0.03)


@typed
def weighted_midpoint(X: PolarPoints, weights: Tensor | None = None) -> PolarPoints:
    """Weighted midpoint along the last batch dimension: the gyromidpoint, which is the hyperboloid's centroid.

    Right at any radius, in time and memory proportional to the points (see `_log_norm`).

    Args:
        X: (…, N) points, N >= 1.
        weights: (…, N), >= 0 with a positive sum, need not sum to 1; equal if None. Their dtype is that of the radius.

    Returns:
        (…,) points. Invariant under isometries; for two equal weights it is the middle of the geodesic. NaN for a batch
        element that holds NaN or Inf, or a negative radius.

    Raises:
        ValueError: no points, or weights of another shape, dtype or device. That they are >= 0 is up to the caller.

    Source: Ungar, Barycentric calculus; Law et al., Lorentzian distance learning, ICML 2019, eq. 9.
    """
    X, weights = _weighted(X, weights)
    return _only_where(_usable(X, weights), _centroid(X, weights))


def _weighted(X: PolarPoints, weights: Tensor | None) -> tuple[PolarPoints, Tensor]:
    """Points and weights of one batch shape, weights summing to 1."""
    check(isinstance(X, PolarPoints), "X", "PolarPoints", type(X).__name__)
    check(len(X.shape) >= 1 and X.shape[-1] >= 1, "X", "points (…, N) with N >= 1", f"shape {tuple(X.shape)}")
    if weights is None:
        return X, torch.full_like(X.radius, 1 / X.shape[-1])
    check_float_tensor(weights, "weights")
    check(weights.dtype == X.radius.dtype, "weights", f"the dtype of X.radius, {X.radius.dtype}", weights.dtype)
    check(weights.device == X.device, "weights", f"the device of X, {X.device}", weights.device)
    good = weights.dim() >= 1 and weights.shape[-1] == X.shape[-1]
    check(good, "weights", f"shape (…, {X.shape[-1]})", f"shape {tuple(weights.shape)}")
    shape = check_broadcast(X.shape, weights.shape, "weights")
    return X.expand(shape), (weights / weights.sum(-1, keepdim=True)).expand(shape)


def _centroid(X: PolarPoints, weights: Tensor) -> PolarPoints:
    """Σ wᵢXᵢ on the hyperboloid, over its Lorentz norm; computed in float64 where the device has it."""
    wide = accumulate_dtype(X.radius)
    direction = X.direction.to(wide)
    direction = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    sqrt_c, weights = math.sqrt(X.curvature), weights.to(wide)
    a = X.radius.to(wide) * sqrt_c
    log_norm = _log_norm(direction, floored(X.radius).to(wide) * sqrt_c, weights)
    scale = log_norm.detach()  # carries the size; the gradient goes by way of the vector
    farthest = 2 * a.detach().amax(-1)
    floor = origin_radius(X.radius.dtype) * sqrt_c
    parts = spatial(direction, a, -farthest[..., None].expand(a.shape), floor)
    vector = _weighted_sum(weights * torch.exp(scale - log_norm)[..., None], parts)
    unit, radius = SpatialToPolar.apply(vector, farthest - scale, X.curvature)
    return PolarPoints(unit.to(X.dtype), radius.to(X.radius.dtype), X.curvature)


def _weighted_sum(weights: Tensor, vectors: Tensor) -> Tensor:
    """(…, D) sum of (…, N, D) vectors with (…, N) weights."""
    return exact_matmul(weights.unsqueeze(-2), vectors).squeeze(-2)


def _log_norm(u: Tensor, a: Tensor, weights: Tensor) -> Tensor:
    """Logarithm of the Lorentz norm of Σ wᵢXᵢ, (…,): unit directions u (…, N, D), radii a > 0 (`floored`) and weights (…, N).

    The norm's square is Σᵢⱼ wᵢwⱼ cosh dᵢⱼ, and cosh dᵢⱼ = cosh 2(aᵢ − aⱼ) + ½ sinh 2aᵢ sinh 2aⱼ ‖uᵢ − uⱼ‖². Both sums
    factor, into terms that are not negative, so that nothing cancels:

        Σ wᵢe^(2aᵢ) · Σ wᵢe^(−2aᵢ) + S · Σ sᵢ‖uᵢ − ū‖²,    sᵢ = wᵢ sinh 2aᵢ,  S = Σ sᵢ,  ū = Σ sᵢuᵢ/S
    """
    most, least = a.detach().amax(-1, keepdim=True), a.detach().amin(-1, keepdim=True)
    outward, inward = torch.exp(2 * (a - most)), torch.exp(2 * (least - a))
    log_radial = torch.log((weights * outward).sum(-1)) + torch.log((weights * inward).sum(-1))
    share = weights * (-0.5 * outward * torch.expm1(-4 * a))  # sᵢ, over e^(2·most)
    total = share.sum(-1, keepdim=True)
    off = u - _weighted_sum(share / total, u).unsqueeze(-2)
    spread = total.squeeze(-1) * (share * torch.linalg.vecdot(off, off)).sum(-1)
    most, least = most.squeeze(-1), least.squeeze(-1)
    # the first over e^(2·most − 2·least), the second over e^(4·most)
    log_radial = log_radial + 2 * (most - least)
    apart = spread != 0
    log_angular = torch.log(torch.where(apart, spread, torch.ones_like(spread))) + 4 * most
    return 0.5 * torch.where(apart, torch.logaddexp(log_radial, log_angular), log_radial)


@typed
def frechet_mean(
    X: PolarPoints, weights: Tensor | None = None, *, tolerance: float = 1e-10, max_iterations: int = 100
) -> PolarPoints:
    """Fréchet (Karcher) mean along the last batch dimension: the minimiser of Σ wᵢ d(m, xᵢ)².

    Each iteration takes the better of two steps: a Newton step, and the centroid with weights wᵢDᵢ/sinh Dᵢ
    (Dᵢ = √c·d(m, xᵢ)), which minimises an upper bound of the objective that touches it at m, so that the objective never
    rises. The gradient is that of the exact minimiser (implicit function theorem), whatever the iterations were.
    Works in float64 where the device has it, and waits for the device once an iteration.

    Args:
        X: (…, N) points, N >= 1.
        weights: (…, N), >= 0 with a positive sum; equal if None.
        tolerance: stop when ‖Σ wᵢ log_m(xᵢ)‖ <= tolerance · Σ wᵢ d(m, xᵢ)/2, or when the objective stops falling.
        max_iterations: >= 1.

    Returns:
        (…,) points, in the dtype of `X`. Beyond √c·radius of about 8 the resolution of a float32 direction, not this
        function, limits how close to the minimiser a point can be.

        NaN for a batch element that holds NaN or Inf, or a negative radius.

    Raises:
        ValueError: as `weighted_midpoint`, or a tolerance or max_iterations out of range.
        RuntimeError: not converged after `max_iterations`.

    Source: majorisation as in Lou et al., Differentiating through the Fréchet mean, ICML 2020, in the hyperboloid model.
    """
    check(tolerance > 0, "tolerance", "a number > 0", tolerance)
    check(max_iterations >= 1, "max_iterations", "an integer >= 1", max_iterations)
    X, weights = _weighted(X, weights)
    dtype = X.dtype
    wide = accumulate_dtype(X.radius)
    X, weights = X.to(dtype=wide), weights.to(wide)
    # what is not finite makes the mean of its own batch element NaN; the others must not wait for it to converge
    usable = _usable(X, weights)
    direction, radius = (
        torch.where(usable[..., None, None], X.direction, 1),
        torch.where(usable[..., None], X.radius, 0),
    )
    X = PolarPoints(direction, radius, X.curvature)
    weights = torch.where(usable[..., None], weights, 1 / X.shape[-1])
    with torch.no_grad():
        mean, inverse_hessian = _minimize(X, weights, tolerance, max_iterations)
    # One more Newton step from the minimiser: it does not move, but its derivative is that of the minimiser.
    step = inverse_hessian(_weighted_sum(weights, logmap(mean.unsqueeze(-1), X)))
    return _only_where(usable, expmap(mean, step).to(dtype=dtype))


def _only_where(usable: Tensor, mean: PolarPoints) -> PolarPoints:
    """NaN elsewhere."""
    direction = torch.where(usable[..., None], mean.direction, torch.nan)
    return PolarPoints(direction, torch.where(usable, mean.radius, torch.nan), mean.curvature)


def _usable(X: PolarPoints, weights: Tensor) -> Tensor:
    """(…,) bool: whether every point of a batch element is one, and its weights are finite."""
    length = torch.linalg.vector_norm(X.direction.detach(), dim=-1)
    points = (length > 0) & (length < math.inf) & (X.radius >= 0) & (X.radius < math.inf)
    return (points & weights.isfinite()).all(-1)


def _minimize(X: PolarPoints, weights: Tensor, tolerance: float, max_iterations: int) -> tuple[PolarPoints, _Inverse]:
    sqrt_c = math.sqrt(X.curvature)
    mean = _centroid(X, weights)
    distances = dist(mean.unsqueeze(-1), X)
    for _ in range(max_iterations):
        vectors = logmap(mean.unsqueeze(-1), X)
        gradient = _weighted_sum(weights, vectors)
        inverse = _Inverse(vectors, distances * sqrt_c, weights)
        small = torch.linalg.vector_norm(gradient, dim=-1) <= tolerance * 0.5 * (weights * distances).sum(-1)
        objective = (weights * distances.square()).sum(-1)
        newton = inverse(gradient)
        trials = [expmap(mean, share * newton) for share in _NEWTON_SHARES]
        pulled = weights * _over_sinh(distances * sqrt_c)
        bound = _centroid(X, pulled / pulled.sum(-1, keepdim=True))
        mean, distances, best = _best_of(X, weights, mean, distances, (*trials, bound))
        if bool((small | (best >= objective)).all()):
            return mean, _Inverse(logmap(mean.unsqueeze(-1), X), distances * sqrt_c, weights)
    off = float(torch.linalg.vector_norm(gradient, dim=-1).max())
    raise RuntimeError(f"frechet_mean: not converged after {max_iterations} iterations, gradient norm {off:.2e}")


def _best_of(
    X: PolarPoints, weights: Tensor, mean: PolarPoints, distances: Tensor, candidates: tuple[PolarPoints, ...]
) -> tuple[PolarPoints, Tensor, Tensor]:
    """Of the present mean and the candidates, each batch element's lowest Σ wᵢdᵢ²: point, distances, objective."""
    best = (weights * distances.square()).sum(-1)
    for candidate in candidates:
        trial = dist(candidate.unsqueeze(-1), X)
        objective = (weights * trial.square()).sum(-1)
        lower = objective < best
        mean = PolarPoints(
            torch.where(lower[..., None], candidate.direction, mean.direction),
            torch.where(lower, candidate.radius, mean.radius),
            X.curvature,
        )
        distances = torch.where(lower[..., None], trial, distances)
        best = torch.where(lower, objective, best)
    return mean, distances, best


class _Inverse:
    """The inverse Hessian of ½ Σ wᵢd(m, xᵢ)², as a function of (…, D) vectors in the frame at m.

    A term's Hessian is 1 along the geodesic to xᵢ and β = D coth D across, so the sum is β̄·I less N matrices of rank one,
    and its inverse needs a solve of size N alone.
    """

    def __init__(self, vectors: Tensor, lengths: Tensor, weights: Tensor) -> None:
        stretch = _over_tanh(lengths)
        norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        units = vectors / torch.where(norms > 0, norms, torch.ones_like(norms))
        self.mean_stretch = (weights * stretch).sum(-1)
        self.factor = units * torch.sqrt(weights * (stretch - 1).clamp_min(0))[..., None]  # (…, N, D)
        inner = exact_matmul(self.factor, self.factor.mT)
        identity = torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
        self.core = self.mean_stretch[..., None, None] * identity - inner

    def __call__(self, gradient: Tensor) -> Tensor:
        inner = torch.linalg.solve(self.core, exact_matmul(self.factor, gradient[..., None]))
        return (gradient + exact_matmul(self.factor.mT, inner).squeeze(-1)) / self.mean_stretch[..., None]


def _over_tanh(x: Tensor) -> Tensor:
    """x/tanh x, 1 at 0."""
    safe = torch.where(x > 0, x, torch.ones_like(x))
    return torch.where(x > 0, safe / torch.tanh(safe), 1)


def _over_sinh(x: Tensor) -> Tensor:
    """x/sinh x, up to a factor that makes the largest of the last dimension 1."""
    log = torch.where(x > 0, torch.log(x) - x - torch.log(-torch.expm1(-2 * x)), -math.log(2.0))
    return torch.exp(log - log.amax(-1, keepdim=True))
