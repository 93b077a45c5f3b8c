"""Damped Newton's method for many small problems at once, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# A step that promises less than this share of the value ends the iteration.
RELATIVE = 1e-13
DAMPING = (1e-14, 1e10)


@dataclass(frozen=True)
class Local:
    """Second-order model of K problems: gradient (K, P), Hessian (K, P, P), and positive curvatures (K, P) that set the scale of a step."""

    gradient: Array
    hessian: Array
    scale: Array


@dataclass(frozen=True)
class Problem:
    """K functions of P parameters. value(p, which) → (k,) and local(p, which) → :class:`Local`, for p of shape (k, P) and problems `which`."""

    value: Callable[[Array, Index], Array]
    local: Callable[[Array, Index], Local]


@dataclass(frozen=True)
class Minimum:
    """Solution p, shape (K, P), its value, shape (K,), the step's last promised decrease, steps taken, and whether each converged."""

    p: Array
    value: Array
    promised: Array
    steps: int
    converged: NDArray[np.bool_]


def minimise(
    problem: Problem, start: Array, lower: Array, upper: Array, *, steps: int = 200, relative: float = RELATIVE
) -> Minimum:
    r"""Minimise K problems together by Newton steps on the modulus of the Hessian, damped as Levenberg's.

    .. math:: \delta = -D^{-1/2} Q\,(|\Lambda| + \mu)^{-1} Q^T D^{-1/2} g, \qquad D^{-1/2} H D^{-1/2} = Q \Lambda Q^T

    The modulus turns saddles into descent; near a minimum μ falls to zero and convergence is quadratic. Parameters at a bound that the
    gradient presses on are held there (projected Newton, Bertsekas 1982); equal bounds hold a parameter always.
    Source: derived; tests/fits/test_newton.py, NIST's certified problems among them.
    Arguments: start, shape (K, P), or (P,) for one. lower, upper, shape (P,) or (K, P).
    relative: a problem is converged when its next step promises less than this share of its value, or no step lowers it any more.
    Returns: :class:`Minimum`.
    Cost: about ten evaluations from a near start; only unfinished problems are evaluated.
    """
    p = np.clip(np.atleast_2d(start).astype(np.float64), lower, upper)
    K, P = p.shape
    low, high = np.broadcast_to(lower, (K, P)), np.broadcast_to(upper, (K, P))
    value = problem.value(p, np.arange(K))
    damping, promised = np.full(K, 0.1), np.full(K, np.inf)
    growth = np.full(K, 4.0)
    open_ = np.isfinite(value)
    converged = np.zeros(K, dtype=bool)
    stale = np.ones(K, dtype=bool)
    g, H, D = np.zeros((K, P)), np.zeros((K, P, P)), np.zeros((K, P))
    taken = 0
    while open_.any() and taken < steps:
        taken += 1
        fresh = np.flatnonzero(open_ & stale)
        if fresh.size:
            local = problem.local(p[fresh], fresh)
            g[fresh], H[fresh], D[fresh] = local.gradient, local.hessian, np.maximum(D[fresh], local.scale)
        which = np.flatnonzero(open_)
        delta = _step(p[which], g[which], H[which], D[which], damping[which], (low[which], high[which]))
        moved = np.clip(p[which] + delta, low[which], high[which])
        delta = moved - p[which]
        quadratic = np.einsum("kp,kpq,kq->k", delta, H[which], delta)
        promise = -(g[which] * delta).sum(axis=1) - quadratic / 2
        promised[which] = promise
        tried = problem.value(moved, which)
        better = tried < value[which]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.where(better, (value[which] - tried) / promise, -1.0)
        small = np.abs(promise) <= relative * np.abs(value[which]) + 1e-300
        _damp(damping, growth, which, ratio)
        p[which[better]], value[which[better]] = moved[better], tried[better]
        stale[which] = better
        done = small | (~better & (damping[which] > DAMPING[1]))
        converged[which[done]] = True
        open_[which[done]] = False
    return Minimum(p, value, promised, taken, converged)


def _damp(damping: Array, growth: Array, which: Index, ratio: Array) -> None:
    """Less damping after a step that kept its promise, ever more after failures."""
    good, bad = ratio > 0.5, ratio < 0.1
    factor = np.where(good, np.where(ratio > 0.9, 0.03, 0.2), np.where(bad, growth[which], 1.0))
    damping[which] = np.maximum(damping[which] * factor, DAMPING[0])
    growth[which] = np.where(bad, np.minimum(growth[which] * 2, 1e3), 4.0)
    restart = bad & (damping[which] < 1e-4)
    damping[which[restart]] = np.maximum(damping[which[restart]], 1e-6)


def _step(p: Array, g: Array, H: Array, D: Array, damping: Array, bounds: tuple[Array, Array]) -> Array:
    low, high = bounds
    held = ((p <= low) & (g > 0)) | ((p >= high) & (g < 0)) | (low == high)
    unit = 1 / np.sqrt(np.maximum(D, 1e-300))
    gs = np.where(held, 0.0, g * unit)
    Hs = H * unit[:, :, None] * unit[:, None, :]
    free = ~held
    Hs = np.where(free[:, :, None] & free[:, None, :], Hs, 0.0) + held[:, :, None] * np.eye(p.shape[1])
    Hs = np.where(np.isfinite(Hs), Hs, 0.0)
    ev, Q = np.linalg.eigh(Hs)
    along = np.einsum("kpq,kp->kq", Q, gs) / (np.abs(ev) + damping[:, None] + 1e-14)
    return -np.where(held, 0.0, unit * np.einsum("kpq,kq->kp", Q, along))
