r"""Two power laws, added (an early transient, a late plateau) or in series (a late steepening), fitted in log space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from featscale.fits.free_floor import line

Array = NDArray[np.float64]

# Grid that the nonlinear fit starts from: where the terms cross, in units of the window from its middle, and how much the exponents differ.
CROSSINGS = np.linspace(-1.0, 1.0, 21)
DIFFERENCES = np.array([0.15, 0.3, 0.6, 1.2, 2.4])
STARTS = 2
TOLERANCE = 1e-14
EVALUATIONS = 300
# No exponent and no log amplitude is as large.
BEYOND = 1e4


@dataclass(frozen=True)
class TwoTerms:
    """p = (a, log A, b, log B): the term that rules late, then the one that rules early; kappa +1 added, −1 in series. cost: sum of squares."""

    p: Array
    kappa: int
    cost: float

    @property
    def log_crossing(self) -> float:
        """log t at which the two terms are equal."""
        a, log_A, b, log_B = self.p
        return float((log_B - log_A) / (b - a)) if b != a else float("inf")


def log_curve(p: Array, kappa: int, x: Array) -> Array:
    r"""The model at x = log t, :math:`\kappa \log(e^{\kappa (\log A - a x)} + e^{\kappa (\log B - b x)})`."""
    a, log_A, b, log_B = p
    return kappa * np.logaddexp(kappa * (log_A - a * x), kappa * (log_B - b * x))


def jacobian(p: Array, kappa: int, x: Array) -> Array:
    """Derivatives of :func:`log_curve` in p, shape (..., 4)."""
    a, log_A, b, log_B = p
    share = np.exp(kappa * (log_A - a * x) - np.logaddexp(kappa * (log_A - a * x), kappa * (log_B - b * x)))
    return np.stack([-x * share, share, -x * (1 - share), 1 - share], axis=-1)


def two_terms(y: Array, row_log_t: Array, weight: Array, kappa: int, start: Array | None = None) -> TwoTerms:
    r"""Least-squares two-term law of one curve.

    .. math:: L = A t^{-a} + B t^{-b} \ (\kappa = 1), \qquad 1/L = t^a/A + t^b/B \ (\kappa = -1)

    The sum bends upwards: b > a rules early, a late. The series bends downwards: a smaller exponent rules early. Either way the term that
    rules late comes first in p. Starts come from a grid of crossings and differences, where the rest is a straight line (variable projection).
    Source: derived; tests/fits/test_two_terms.py.
    Arguments: y, log loss at the nodes, shape (G,). row_log_t, weight, shape (R, G, 2), as :func:`featscale.fits.free_floor.free_floor`'s.
    Cost: 105 lines on the grid, two fits of four parameters, some 20 evaluations each.
    """

    def through(f: Array) -> Array:
        return (weight * f).sum(axis=-1).mean(axis=0)

    middle = float(row_log_t.mean())
    u = row_log_t - middle
    x = through(u)

    def residual(p: Array) -> Array:
        # A step into the void is refused.
        return through(log_curve(p, kappa, u)) - y if np.abs(p).max() < BEYOND else np.full(y.size, BEYOND)

    def slope(p: Array) -> Array:
        return (weight[..., None] * jacobian(p, kappa, u)).sum(axis=-2).mean(axis=0)

    tolerances = {"ftol": TOLERANCE, "xtol": TOLERANCE, "gtol": TOLERANCE, "max_nfev": EVALUATIONS}
    starts = _starts(x, y, kappa) if start is None else [start - [0, start[0] * middle, 0, start[2] * middle]]
    found = [least_squares(residual, p, slope, method="lm", x_scale="jac", **tolerances) for p in starts]
    best = min(found, key=lambda fit: fit.cost)
    a, log_A, b, log_B = best.x
    p = np.array([a, log_A + a * middle, b, log_B + b * middle])
    late_first = (a < b) == (kappa == 1)
    return TwoTerms(p if late_first else p[[2, 3, 0, 1]], kappa, 2 * float(best.cost))


def likelier_sign(y: Array, row_log_t: Array, weight: Array) -> int:
    """kappa of the better point of the grid: +1 for a curve that bends upwards, −1 for one that bends downwards."""
    x = (weight * row_log_t).sum(axis=-1).mean(axis=0)
    return min((1, -1), key=lambda kappa: float(_grid(x, y, kappa)[0].min()))


def _starts(x: Array, y: Array, kappa: int) -> Array:
    """The best points of the grid, shape (STARTS, 4), late term first."""
    cost, points = _grid(x, y, kappa)
    return points[np.argsort(cost)[:STARTS]]


def _grid(x: Array, y: Array, kappa: int) -> tuple[Array, Array]:
    """Sum of squares, shape (105,), and p, shape (105, 4), with the best line at every point of the grid."""
    centre, span = (x[0] + x[-1]) / 2, x[-1] - x[0]
    crossing, difference = (g.ravel() for g in np.meshgrid(centre + span * CROSSINGS, DIFFERENCES, indexing="ij"))
    # The early term over the late one falls as exp(-κ d (x − crossing)) relative to it.
    bend = kappa * np.logaddexp(0, -difference[:, None] * (x - crossing[:, None]))
    chi, height = line(x, y - bend)
    rest = y - bend - height[:, None] + chi[:, None] * x
    points = np.stack([chi, height, chi + kappa * difference, height + kappa * difference * crossing], axis=-1)
    return (rest**2).sum(axis=1), points
