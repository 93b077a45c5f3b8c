r"""The laws a curve is fitted with, and their estimates: of the seeds' mean curve, and of every seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize_scalar

from featscale.fits.free_floor import free_floor, line
from featscale.fits.resample import Nodes
from featscale.fits.seed_intervals import Held, Interval, delta, influence, profile, student
from featscale.fits.two_terms import TwoTerms, jacobian, likelier_sign, log_curve, two_terms

Array = NDArray[np.float64]
FloorKind = Literal["zero", "given", "free"]
LawName = Literal["one", "two", "broken"]

# Largest spread of log loss that is rounding.
CONSTANT = 1e-14
# log E of a floor that is not there, relative to the smallest loss.
ABSENT = -60.0
# A term that falls less than this as fast as the other is a plateau.
PLATEAU = 0.25
# Which of (chi, log A, other exponent, log other amplitude) a law leaves free.
LINE, FLOOR, TWO = (0, 1), (0, 1, 3), (0, 1, 2, 3)


@dataclass(frozen=True)
class Estimate:
    """A law fitted to the mean over S seeds of log(loss − known floor).

    p = (chi, log A, other exponent, log other amplitude), kappa +1 for a sum, −1 for a series, of the term the exponent is quoted of and the
    other; a free floor is an other term of exponent 0, none has log amplitude −inf. free: which of p were fitted.
    known, the floor subtracted before. own: p of every seed, shape (S, 4). residual, shape (S, G), of the seeds about the curve. J,
    shape (G, P), derivatives in the free parameters. held: see :func:`featscale.fits.seed_intervals.profile`.
    """

    p: Array
    kappa: int
    free: tuple[int, ...]
    known: float
    own: Array
    residual: Array
    J: Array
    held: Held

    @property
    def exponent(self) -> float:
        return float(self.p[0])

    @property
    def floor(self) -> float:
        return float(np.exp(self.p[3])) if self.free == FLOOR else self.known

    @property
    def floors(self) -> Array:
        """Of every seed, shape (S,)."""
        return np.exp(self.own[:, 3]) if self.free == FLOOR else np.full(len(self.own), self.known)

    @property
    def linear(self) -> bool:
        return self.free == LINE

    @property
    def two(self) -> bool:
        return self.free == TWO

    @property
    def start(self) -> TwoTerms | None:
        """Where a fit of two terms to nearly the same curves starts."""
        if not self.two:
            return None
        late_first = (self.p[0] < self.p[2]) == (self.kappa == 1)
        return TwoTerms(self.p if late_first else self.p[[2, 3, 0, 1]], self.kappa, math.nan)

    @property
    def crossing(self) -> float:
        """t at which the two terms are equal; infinite or 0 where that is beyond numbers."""
        with np.errstate(over="ignore", under="ignore"):
            return float(np.exp(TwoTerms(self.p, self.kappa, math.nan).log_crossing))

    def student(self, level: float) -> Interval:
        """From every seed's own fit (its own linear step where the law has two terms)."""
        return student(self.own[:, 0], level, self.exponent)

    def delta(self, level: float) -> Interval:
        """Delta method, clustered by seed."""
        return self.student(level) if self.linear else delta(self.residual, self.J, self.exponent, level)

    def profile(self, level: float) -> Interval:
        """Inverted score test, clustered by seed."""
        lo, hi = self.delta(level)
        return (lo, hi) if self.linear else profile(self.held, self.exponent, (hi - lo) / 2, level)

    def condition(self) -> float:
        """Condition number of J with columns of unit length: how alike the effects of the parameters are."""
        norm = np.linalg.norm(self.J, axis=0)
        seen = norm > 1e-12 * norm.max()
        return float(np.linalg.cond(self.J[:, seen] / norm[seen]))


def estimate(nodes: Nodes, law: LawName, kind: FloorKind, E: float, start: TwoTerms | None = None) -> Estimate:
    """Fit `law` above a floor to the curves on `nodes`; `start`, a fit of two terms to nearly the same curves.

    Raises nothing: what the data do not determine shows in the interval and in :meth:`Estimate.condition`.
    """
    y = nodes.interpolate(np.log(nodes.row_loss - E))
    if np.ptp(y, axis=1).max() <= CONSTANT:
        return _one(nodes, y, np.zeros(len(y)), y.mean(axis=1), E)
    if law != "one":
        return _two(nodes, y, law, E, start)
    if kind == "free":
        return _above_free_floor(nodes, y)
    return _one(nodes, y, *line(nodes.log_t, y), E)


def two_laws(nodes: Nodes, E: float) -> TwoTerms:
    """Two terms for the mean curve: a sum or a series, as it bends."""
    y = nodes.interpolate(np.log(nodes.row_loss - E)).mean(axis=0)
    return two_terms(y, *rows(nodes), likelier_sign(y, *rows(nodes)))


def ruling(fit: TwoTerms, nodes: Nodes) -> LawName:
    """The term that rules the larger part of the window and is no plateau."""
    late, early = abs(fit.p[0]), abs(fit.p[2])
    if late < PLATEAU * early:
        return "broken"
    if early < PLATEAU * late:
        return "two"
    middle = (nodes.log_t[0] + nodes.log_t[-1]) / 2
    return "two" if fit.log_crossing < middle else "broken"


def rows(nodes: Nodes) -> tuple[Array, Array]:
    """Log times of the rows beside every node and their weights, of one seed where all have the same."""
    shared = bool((nodes.row_log_t == nodes.row_log_t[0]).all())
    curves = slice(1) if shared else slice(None)
    return nodes.row_log_t[curves], nodes.weight[curves]


def _one(nodes: Nodes, y: Array, chi: Array, log_A: Array, E: float) -> Estimate:
    p = np.array([chi.mean(), log_A.mean(), 0.0, -np.inf])
    J = np.stack([-nodes.log_t, np.ones(nodes.log_t.size)], axis=-1)

    def held(value: float) -> tuple[Array, Array]:
        r = y + value * nodes.log_t
        return r - r.mean(), J

    residual = y - log_A.mean() + chi.mean() * nodes.log_t
    own = np.stack([chi, log_A, np.zeros(len(y)), np.full(len(y), -np.inf)], axis=-1)
    return Estimate(p, 1, LINE, E, own, residual, J, held)


def _above_free_floor(nodes: Nodes, y: Array) -> Estimate:
    each = [free_floor(y[s], nodes.row_log_t[[s]], nodes.weight[[s]]) for s in range(len(y))]
    curve = free_floor(y.mean(axis=0), *rows(nodes)) if len(y) > 1 else each[0]
    p, own = _with_floor(curve), np.array([_with_floor(seed) for seed in each])
    f, J = _model(nodes, p, FLOOR, 1, y)
    return Estimate(p, 1, FLOOR, 0.0, own, y - f, J, lambda chi: _held_above_floor(nodes, y, chi))


def _with_floor(fit: tuple[float, float, float]) -> Array:
    chi, log_A, E = fit
    return np.array([chi, log_A, 0.0, math.log(E) if E > 0 else -math.inf])


def _two(nodes: Nodes, y: Array, law: LawName, E: float, start: TwoTerms | None) -> Estimate:
    fit = two_laws(nodes, E) if start is None else two_terms(y.mean(axis=0), *rows(nodes), start.kappa, start.p)
    p = fit.p if law == "two" else fit.p[[2, 3, 0, 1]]

    def held(value: float) -> tuple[Array, Array]:
        return _held_two_terms(nodes, y, p, fit.kappa, value)

    f, J = _model(nodes, p, TWO, fit.kappa, y)
    return Estimate(p, fit.kappa, TWO, E, p + influence(y - f, J), y - f, J, held)


def _model(nodes: Nodes, p: Array, free: tuple[int, ...], kappa: int, y: Array) -> tuple[Array, Array]:
    """The law through the interpolation of the rows, shape (G,), and its Jacobian in the free parameters."""
    row_log_t, weight = rows(nodes)
    present = p if math.isfinite(p[3]) else np.array([p[0], p[1], p[2], y.min() + ABSENT])
    f = (weight * log_curve(present, kappa, row_log_t)).sum(axis=-1).mean(axis=0)
    J = (weight[..., None] * jacobian(present, kappa, row_log_t)).sum(axis=-2).mean(axis=0)
    return f, J[:, free]


def _held_two_terms(nodes: Nodes, y: Array, p: Array, kappa: int, chi: float) -> tuple[Array, Array]:
    mean = y.mean(axis=0)

    def law(others: Array) -> tuple[Array, Array]:
        return _model(nodes, np.array([chi, *others]), TWO, kappa, y)

    def residual(others: Array) -> Array:
        return law(others)[0] - mean

    # Turned about the middle of the curve, the first term stays where it was.
    start = np.array([p[1] + (chi - p[0]) * nodes.log_t.mean(), p[2], p[3]])
    fit = least_squares(
        residual, start, lambda others: law(others)[1][:, 1:], method="lm", x_scale="jac", xtol=1e-8, max_nfev=50
    )
    f, J = law(fit.x)
    return y - f, J


def _held_above_floor(nodes: Nodes, y: Array, chi: float) -> tuple[Array, Array]:
    """Best amplitude and floor >= 0 for a given exponent: a search over log(E/A), amplitude in closed form."""
    row_log_t, weight = rows(nodes)
    mean = y.mean(axis=0)

    def remainder(q: Array) -> Array:
        f = (weight * np.logaddexp(q[:, None, None, None], -chi * row_log_t)).sum(axis=-1).mean(axis=1)
        return mean - f

    def cost(q: float) -> float:
        return float(np.var(remainder(np.array([q]))[0]))

    fall = -chi * row_log_t
    grid = np.concatenate([[fall.min() + ABSENT], np.linspace(fall.min() - 12, fall.max() + 4, 60)])
    best = int(np.argmin(np.var(remainder(grid), axis=1)))
    q = float(grid[best])
    if best > 0:
        edges = float(grid[max(best - 1, 1)]), float(grid[min(best + 1, grid.size - 1)])
        q = float(minimize_scalar(cost, bounds=edges, method="bounded", options={"xatol": 1e-7}).x)
    log_A = float(remainder(np.array([q]))[0].mean())
    p = np.array([chi, log_A, 0.0, q + log_A])
    f, J = _model(nodes, p, FLOOR, 1, y)
    return y - f, J
