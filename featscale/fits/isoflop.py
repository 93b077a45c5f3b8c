"""Loss curves of several widths on one grid of compute, and the optimum read off them without a law."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from featscale.errors import require
from featscale.fits.observations import Observations

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

PER_DECADE = 24
# A cubic needs four widths.
FEWEST = 4


@dataclass(frozen=True)
class Surface:
    """Log loss of R runs of W widths at equal compute C = N t.

    log_N, shape (W,), ascending. log_C, shape (G,), evenly spaced. y, shape (R, G), log loss, NaN where a run has no row on both sides.
    width, cluster, shape (R,): of each run.
    """

    log_N: Array
    log_C: Array
    y: Array
    width: Codes
    cluster: Codes

    def mean(self, weights: Array) -> Array:
        """Weighted mean of log loss over the runs of a width, weights (K, clusters) → (K, W, G); NaN where a run that counts has none."""
        w = weights[:, self.cluster]
        total = np.stack([w[:, self.width == i].sum(axis=1) for i in range(self.log_N.size)], axis=1)
        there = np.where(np.isnan(self.y), 0.0, self.y)
        missing = np.isnan(self.y).astype(np.float64)
        out = np.empty((len(weights), self.log_N.size, self.log_C.size))
        for i in range(self.log_N.size):
            own = self.width == i
            with np.errstate(divide="ignore", invalid="ignore"):
                out[:, i] = w[:, own] @ there[own] / total[:, i, None]
            out[:, i][w[:, own] @ missing[own] > 0] = math.nan
        return out


@dataclass(frozen=True)
class Optima:
    """Optimal widths and losses at some values of compute, in logarithms, shape (K, n) each; NaN where they are not bracketed."""

    log_C: Array
    log_N: Array
    log_L: Array

    def slopes(self) -> Array:
        """Least-squares exponents of L* ~ C^−loss and N* ~ C^width, shape (K, 2); NaN with fewer than three optima."""
        good = np.isfinite(self.log_C) & np.isfinite(self.log_N) & np.isfinite(self.log_L)
        n = np.maximum(good.sum(axis=1, keepdims=True), 1)
        c, N, L = (np.where(good, v, 0.0) for v in (self.log_C, self.log_N, self.log_L))
        c = np.where(good, c - c.sum(axis=1, keepdims=True) / n, 0.0)
        power = (c**2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            both = np.stack([-(c * L).sum(axis=1) / power, (c * N).sum(axis=1) / power], axis=1)
        return np.where((good.sum(axis=1) >= 3)[:, None], both, math.nan)


def surface(observed: Observations) -> Surface:
    """Interpolate every run's log loss in log t at t = C/N, on 24 values of C a decade.

    Raises: BadInput for fewer than four widths, or widths whose compute does not overlap.
    """
    widths, code = np.unique(observed.x["N"], return_inverse=True)
    require(widths.size >= FEWEST, "N", f"{widths.size} widths", f"at least {FEWEST} different N, for a frontier")
    run = code if observed.seed is None else code * (int(observed.seed.max()) + 1) + observed.seed
    log_C = np.log(observed.x["N"] * observed.x["t"])
    y = np.log(observed.loss)
    step = math.log(10) / PER_DECADE
    grid = step * np.arange(math.ceil(log_C.min() / step - 1e-9), math.floor(log_C.max() / step + 1e-9) + 1)
    require(grid.size >= 3, "t", f"compute spans {np.exp(np.ptp(log_C)):.3g}-fold", "rows at several times")
    labels, first = np.unique(run, return_index=True)
    curves = np.full((labels.size, grid.size), math.nan)
    for i, label in enumerate(labels):
        rows = np.flatnonzero(run == label)
        rows = rows[np.argsort(log_C[rows])]
        inside = (grid >= log_C[rows[0]] - 1e-9) & (grid <= log_C[rows[-1]] + 1e-9)
        curves[i, inside] = np.interp(grid[inside], log_C[rows], y[rows])
    return Surface(np.log(widths), grid, curves, code[first].astype(np.int64), observed.clusters.code[first])


def envelope(on: Surface, mean: Array) -> Optima:
    r"""Where each width hands the lead to the next: the compute C at which their losses are equal, N* = √(N_i N_{i+1}) there.

    Prefixes of runs at a constant rate are true shorter runs, so the lower envelope of the curves is the frontier. Of several
    crossings by noise the one taken minimises :math:`\int (\log L_i - \log L_{i+1})\, d\log C` up to it, so that on the whole width i is
    better before and worse after. With evenly spaced log N a frontier that is a power law is recovered exactly.
    Arguments: mean, shape (K, W, G). Returns: :class:`Optima` at the W − 1 hand-overs, NaN where none lies inside the common range.
    """
    W = on.log_N.size
    found = np.full((3, len(mean), W - 1), math.nan)
    rows = np.arange(len(mean))
    for i in range(W - 1):
        D = mean[:, i] - mean[:, i + 1]
        there = np.isfinite(D)
        total = np.cumsum(np.where(there, D, 0.0), axis=1)
        j = np.argmin(np.where(there, total, np.inf), axis=1)
        k = np.minimum(j + 1, D.shape[1] - 1)
        a, b = D[rows, j], D[rows, k]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = a / (a - b)
        good = (a <= 0) & (b > 0)
        at = mean[rows, i, j] + share * (mean[rows, i, k] - mean[rows, i, j])
        found[0, :, i] = np.where(good, on.log_C[j] + share * (on.log_C[k] - on.log_C[j]), math.nan)
        found[1, :, i] = np.where(good, (on.log_N[i] + on.log_N[i + 1]) / 2, math.nan)
        found[2, :, i] = np.where(good, at, math.nan)
    return Optima(*found)


def isoflop(on: Surface, mean: Array) -> Optima:
    """The minimum over N at each compute, of the cubic spline of log loss through all widths that reach it.

    A parabola assumes that loss rises alike on both sides; it rises as C/N to the χ on one and as N^−r falls on the other, which puts its
    optimum a factor 1.3 to 1.6 off where the spline is within 1.03 (widths a factor 2 apart; tests/fits/test_frontier_fit.py).
    Arguments: mean, shape (K, W, G). Returns: :class:`Optima` at the G values of compute, NaN where the best width has no wider or no
    narrower one, or fewer than four widths reach.
    """
    K, W, G = mean.shape
    flat = np.moveaxis(mean, 1, 2).reshape(K * G, W)
    there = np.isfinite(flat)
    first = np.argmax(there, axis=1)
    last = W - 1 - np.argmax(there[:, ::-1], axis=1)
    count = there.sum(axis=1)
    best = np.argmin(np.where(there, flat, np.inf), axis=1)
    good = (count == last - first + 1) & (count >= FEWEST) & (best > first) & (best < last)
    log_N, log_L = np.full((2, K * G), math.nan)
    for a, b in {(int(a), int(b)) for a, b in zip(first[good], last[good], strict=True)}:
        which = np.flatnonzero(good & (first == a) & (last == b))
        spline = CubicSpline(on.log_N[a : b + 1], flat[which, a : b + 1].T)
        log_N[which], log_L[which] = _minimum(spline, best[which] - a)
    return Optima(np.tile(on.log_C, (K, 1)), log_N.reshape(K, G), log_L.reshape(K, G))


def _minimum(spline: CubicSpline, best: Codes) -> tuple[Array, Array]:
    """Place and value of the least minimum in the two intervals beside the node `best`, of n splines, shape (n,)."""
    where, value = np.full((2, best.size), math.nan)
    columns = np.arange(best.size)
    for piece in (best - 1, best):
        c3, c2, c1, c0 = spline.c[:, piece, columns]
        inside = c2**2 - 3 * c1 * c3
        with np.errstate(invalid="ignore", divide="ignore"):
            # The root of the derivative where the second derivative is +2 √inside; the first form holds at c3 = 0 too.
            x = np.where(c2 > 0, -c1 / (c2 + np.sqrt(inside)), (np.sqrt(inside) - c2) / (3 * c3))
        y = c0 + x * (c1 + x * (c2 + x * c3))
        width = spline.x[piece + 1] - spline.x[piece]
        better = (x >= -1e-12) & (x <= width * (1 + 1e-12)) & ~(y >= value)
        where = np.where(better, spline.x[piece] + x, where)
        value = np.where(better, y, value)
    return where, value
