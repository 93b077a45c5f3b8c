"""How far the parameters of a law may be off: clustered bootstrap, sandwich, profile; and what the rows can tell at all."""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from featscale.fits.clusters import Clusters, Resamples
from featscale.fits.law_solve import huber_problem, smoothed
from featscale.fits.laws import Design, evaluate
from featscale.fits.newton import minimise

Array = NDArray[np.float64]

# Elements of the largest array of a batch of resampled fits.
BATCH = 4_000_000
GRID = 25
# A resampled or a profiled fit is stopped when its next step promises less than this share of the objective:
# about a hundredth of a standard error.
RESAMPLED = 1e-6
# A floor this small, as a share of the smallest loss, is none; derivatives by it are still those of floating point.
NO_FLOOR = 1e-6


def replicates(on: Design, y: Array, delta: float, start: Array, clusters: Clusters, resamples: Resamples) -> Array:
    """The fit of every resample, from `start`, in centred coordinates, shape (K, P); NaN where one did not converge.

    The Huber loss is averaged over ± :func:`bandwidth`. Where it is narrower than the scatter its minimum jumps from kink to kink as weights
    change, and the variance of the jumps is too large for few rows; smoothing leaves the first-order variance as it is (Fernandes, Guerre &
    Horta 2021, for quantile regression) and makes Newton's steps few.
    Cost: K warm starts of about five steps, run together in batches.
    """
    lower, upper = on.law.limits()
    K = len(resamples.weights)
    size = max(1, BATCH // on.features.size)
    h = bandwidth(evaluate(on, start[None]).f[0] - y, delta)
    found = []
    for first in range(0, K, size):
        weights = resamples.weights[first : first + size][:, clusters.code]
        problem = huber_problem(on, y, delta, weights, h)
        best = minimise(problem, np.tile(start, (len(weights), 1)), lower, upper, relative=RESAMPLED)
        found.append(np.where(best.converged[:, None], best.p, np.nan))
    return np.concatenate(found)


def bandwidth(r: Array, delta: float) -> float:
    """1.6 standard deviations n^{-1/5}, from the median of |r|, or delta."""
    return max(delta, 2.4 * float(np.median(np.abs(r))) * r.size**-0.2)


def natural_jacobian(on: Design, p: Array) -> tuple[Array, Array]:
    """Log loss, shape (n,), and its derivatives, shape (n, P), by log coefficients and exponents, but by E itself for the floor."""
    at = evaluate(on, p[None])
    J = at.J[0]
    if on.law.floor:
        J[:, 0] /= np.exp(p[0])
    return at.f[0], J


def sandwich(J: Array, r: Array, delta: float, clusters: Clusters) -> tuple[Array, Array]:
    r"""Clustered covariance of an M-estimate and the inverse of its Hessian, each of shape (P, P).

    .. math:: V = H^{-1} \Bigl(\sum_h \tfrac{S_h}{S_h - 1} \sum_{g \in h} (s_g - \bar s_h)(s_g - \bar s_h)^T\Bigr) H^{-1},\qquad
              s_g = \sum_{n \in g} \psi(r_n) J_n

    Source: Huber 1967, Liang & Zeger 1986; with the slope of ψ averaged over ± :func:`bandwidth` for H, for the slope itself is
    1 for the few residuals below δ and 0 for all others, which is no estimate of a density.
    """
    slope = smoothed(r, delta, bandwidth(r, delta))[2]
    H = J.T @ (slope[:, None] * J)
    inverse = np.asarray(np.linalg.pinv(H, hermitian=True, rcond=1e-13), np.float64)
    return inverse @ scatter(J * np.clip(r, -delta, delta)[:, None], clusters) @ inverse, inverse


def scatter(rows: Array, clusters: Clusters) -> Array:
    """Covariance, shape (P, P), of the sum of `rows`, shape (n, P), whose clusters are independent."""
    G = clusters.stratum.size
    s = np.zeros((G, rows.shape[1]))
    np.add.at(s, clusters.code, rows)
    total = np.zeros((rows.shape[1],) * 2)
    for h in np.unique(clusters.stratum):
        inside = s[clusters.stratum == h]
        if len(inside) > 1:
            off = inside - inside.mean(axis=0)
            total += len(inside) / (len(inside) - 1) * off.T @ off
    return total


def profile(on: Design, y: Array, delta: float, start: Array, i: int, grid: Array) -> Array:
    """The objective minimised over all parameters but the i-th, which is held at the values of `grid`, shape (k,) → (k,)."""
    lower, upper = (np.tile(bound, (grid.size, 1)) for bound in on.law.limits())
    lower[:, i] = upper[:, i] = grid
    p = np.tile(start, (grid.size, 1))
    p[:, i] = grid
    return minimise(huber_problem(on, y, delta), p, lower, upper, relative=RESAMPLED).value


def crossings(grid: Array, height: Array, level: float) -> tuple[float, float]:
    """Where √height, which is 0 at the estimate, passes √level on either side; the ends of `grid` where it does not."""
    root = np.sqrt(np.maximum(height, 0.0))
    goal, k = math.sqrt(level), int(np.argmin(root))
    above = np.flatnonzero(root > goal)
    left, right = above[above < k], above[above > k]
    lo, hi = float(grid[0]), float(grid[-1])
    if left.size:
        i = int(left[-1])
        lo = float(np.interp(goal, [root[i + 1], root[i]], [grid[i + 1], grid[i]]))
    if right.size:
        i = int(right[0])
        hi = float(np.interp(goal, [root[i - 1], root[i]], [grid[i - 1], grid[i]]))
    return lo, hi


def condition(J: Array) -> float:
    """Condition number of the Jacobian with columns of unit length (Belsley's index): 1 for parameters that do not mix, above 100 for trouble."""
    length = np.sqrt((J**2).sum(axis=0))
    if not (length > 0).all():
        return math.inf
    singular = np.linalg.svd(J / length, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf


def lack_of_fit(J: Array, r: Array, logs: Array, clusters: Clusters) -> float:
    """Probability, if the law holds, of residuals that bend as much as these with the products of the logarithms of the variables.

    Each product, less its part along the Jacobian, is a contrast of the residuals whose sum is tested against its scatter between clusters
    by Student's t; Bonferroni over the products. Correlation along a trajectory is inside the clusters.
    Source: Ramsey 1969 (RESET), clustered; derived; tests/fits/test_law_fit.py (size and power).
    Arguments: J, shape (n, P); r, shape (n,); logs, centred, shape (n, V).
    Returns: the p-value, NaN without replicates; 1 where the residuals are rounding.
    """
    if clusters.df < 1:
        return math.nan
    if np.abs(r).max() < 1e-7:
        return 1.0
    pairs = combinations_with_replacement(range(logs.shape[1]), 2)
    z = np.stack([logs[:, a] * logs[:, b] for a, b in pairs], axis=1)
    z = z - z.mean(axis=0)
    Q, _ = np.linalg.qr(J / np.maximum(np.sqrt((J**2).sum(axis=0)), 1e-300))
    z = z - Q @ (Q.T @ z)
    spread = np.sqrt(np.diag(scatter(z * r[:, None], clusters)))
    total = np.abs(z.T @ r)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(total > 0, total / spread, 0.0)
    return float(min(1.0, z.shape[1] * 2 * (1 - stdtr(clusters.df, t)).min()))
