r"""Intervals of an exponent from independent seeds: one seed, one observation, however many rows it has.

Few clusters call for Student's t with S − 1 degrees of freedom on one estimate a cluster (Ibragimov and Müller 2010), or a wild cluster bootstrap-t with
the null imposed and Webb's six weights (Cameron, Gelbach and Miller 2008; Webb 2013). Normal quantiles and bootstraps that redraw S seeds, or rows of
one seed, are too narrow: tests/fits/test_coverage.py measures by how much.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

Array = NDArray[np.float64]
Interval = tuple[float, float]

NOTHING: Interval = (math.nan, math.nan)
WEBB = np.array([-math.sqrt(1.5), -1.0, -math.sqrt(0.5), math.sqrt(0.5), 1.0, math.sqrt(1.5)])
# All 6^S sign patterns up to this many are used, that many random ones beyond.
DRAWS = 9999
# A bound farther than this many delta-method half widths from the estimate is none.
REACH = 64.0


# Of a fitted law with its exponent held at a value: the seeds' residuals at its best, shape (S, G), and the Jacobian, shape (G, P), exponent first.
Held = Callable[[float], tuple[Array, Array]]


def quantile(level: float, S: int) -> float:
    """Student's t with S − 1 degrees of freedom; NaN for one seed."""
    return float(stdtrit(S - 1, (1 + level) / 2)) if S > 1 else math.nan


def standard_error(values: Array) -> Array:
    """Standard error of the mean over the first axis, the seeds; NaN for one seed."""
    S = len(values)
    return values.std(axis=0, ddof=1) / math.sqrt(S) if S > 1 else np.full(values.shape[1:], np.nan)


def student(values: Array, level: float, centre: float | None = None) -> Interval:
    r""":math:`\bar v \pm t_{S-1}\,\mathrm{sd}(v)/\sqrt S` of one estimate a seed, shape (S,), about `centre` where that is another; NaN for one seed."""
    middle = float(values.mean()) if centre is None else centre
    half = quantile(level, len(values)) * float(standard_error(values))
    return middle - half, middle + half


def influence(residual: Array, J: Array) -> Array:
    """What each seed's residuals, shape (S, G), move the parameters of the fit to their mean: one Gauss–Newton step, shape (S, P)."""
    return residual @ np.linalg.pinv(J, rcond=1e-10).T


def delta(residual: Array, J: Array, chi: float, level: float) -> Interval:
    """Delta method, clustered by seed: Student's t on each seed's linear :func:`influence` on chi."""
    return student(influence(residual, J)[:, 0], level, chi)


def profile(law: Held, chi: float, half: float, level: float) -> Interval:
    r"""Every exponent that a clustered score test does not reject, the other parameters at their best for it and within their bounds.

    .. math:: \left|\frac{\sqrt S\, \bar g}{\mathrm{sd}(g)}\right| \le t_{S-1}, \qquad g_s = J_\perp^\top r_s(\chi_0)

    J⊥ is the derivative in χ less its projection on those of the other parameters. For a straight line the score of a seed is its own slope
    and the interval Student's; near a bound, or where parameters trade off, it bends with the curve and may be open on a side.
    Source: derived (score test inversion; Rao 1948, clustered); tests/fits/test_seed_intervals.py, coverage in test_coverage.py.
    Arguments: law, gives residuals and Jacobian with chi held. chi, the estimate. half, a first guess of the half width.
    Returns: (lo, hi); infinite where no exponent within 64 half widths is rejected; NaN for one seed.
    Cost: about 20 fits with chi held.
    """
    limit = quantile(level, len(law(chi)[0]))
    if not (math.isfinite(limit) and math.isfinite(half)) or half <= 0:
        return (math.nan, math.nan) if math.isnan(limit) or math.isnan(half) else (chi, chi)
    return _crossing(law, chi, -half, limit), _crossing(law, chi, half, limit)


def _score(law: Held, chi: float) -> float:
    """t statistic over seeds of the efficient score at chi, falling in chi."""
    residual, J = law(chi)
    others = J[:, 1:]
    direction = J[:, 0] - others @ np.linalg.lstsq(others, J[:, 0], rcond=1e-10)[0]
    g = residual @ direction
    spread = float(standard_error(g))
    return float(g.mean()) / spread if spread > 0 else math.inf * np.sign(g.mean() or 1.0)


def _crossing(law: Held, chi: float, step: float, limit: float) -> float:
    """Where the score leaves ±limit, looking from chi in the direction of `step`."""
    sign = math.copysign(1.0, step)

    def beyond(c: float) -> float:
        return -sign * _score(law, c) - limit

    inner, outer = 0.0, 1.0
    while beyond(chi + outer * step) < 0:
        inner, outer = outer, 2 * outer
        if outer > REACH:
            return sign * math.inf
    if inner == 0.0 and beyond(chi) >= 0:
        return chi
    return float(brentq(beyond, chi + inner * step, chi + outer * step, xtol=1e-4 * abs(step)))


def wild_bootstrap(values: Array, level: float, seed: int = 0) -> Interval:
    r"""Wild cluster bootstrap-t interval of the mean of one estimate a seed, by inversion of the test with the null imposed.

    .. math:: p(\mu) = \frac1R \#\{r : |T_r^*| \ge |T(\mu)|\}, \quad v_s^* - \mu = w_{rs} (v_s - \mu)

    The interval is every μ with p(μ) > 1 − level.

    Source: Cameron, Gelbach and Miller 2008; weights of Webb 2013. Checked: tests/fits/test_seed_intervals.py, coverage in test_coverage.py.
    Arguments: values, shape (S,). seed, of the random weights beyond five seeds.
    Returns: (lo, hi); infinite where the weights are too few to reject anything (two seeds at 95 %); NaN for one seed.
    Cost: about 60 R S operations, R = min(6^S, 9999).
    """
    S = len(values)
    centre, error = float(values.mean()), float(standard_error(values)) if S > 1 else math.nan
    if not error > 0:
        return (centre, centre) if error == 0 else NOTHING
    w = _weights(S, seed)

    def excess(mu: float) -> float:
        drawn = w * (values - mu)
        T = np.abs(drawn.mean(axis=1)) / np.maximum(drawn.std(axis=1, ddof=1), 1e-300)
        own = abs(centre - mu) / values.std(ddof=1)
        return float(np.mean(T >= own * (1 - 1e-9))) - (1 - level)

    return _last_kept(excess, centre, -error), _last_kept(excess, centre, error)


def _weights(S: int, seed: int) -> Array:
    if len(WEBB) ** S <= DRAWS:
        return np.array(list(itertools.product(WEBB, repeat=S)))
    return np.random.default_rng(seed).choice(WEBB, (DRAWS, S))


def _last_kept(excess: Callable[[float], float], centre: float, step: float) -> float:
    """Bisection for the edge of {mu : excess(mu) > 0}; p is a step function, so there is no root to find."""
    inner, outer = 0.0, 1.0
    while excess(centre + outer * step) > 0:
        inner, outer = outer, 2 * outer
        if outer > 1e4:
            return math.copysign(math.inf, step)
    for _ in range(20):
        middle = (inner + outer) / 2
        if excess(centre + middle * step) > 0:
            inner = middle
        else:
            outer = middle
    return centre + outer * step
