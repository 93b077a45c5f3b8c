"""The fit above a free floor of :mod:`featscale.fits.free_floor`, for many curves in step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featscale.fits.free_floor import STARTS, line

Array = NDArray[np.float64]

ITERATIONS = 60
# Steps below this, in chi and log E/A, end the search.
STEP = 1e-12


@dataclass(frozen=True)
class FreeFloors:
    """chi, log A, E of the mean over seeds of each of C curves, shape (C,), and the linear influence of every seed on chi, shape (C, S)."""

    chi: Array
    log_A: Array
    E: Array
    influence: Array


def free_floors(y: Array, row_log_t: Array, weight: Array) -> FreeFloors:
    r"""Least squares of :func:`featscale.fits.free_floor.free_floor` for C curves at once, by Levenberg–Marquardt on (χ, log E/A).

    Source: derived; equal to the slow fit in tests/fits/test_batch.py.
    Arguments: y, log loss at the nodes, shape (C, S, G). row_log_t, weight, shape (G, 2), common to all.
    Returns: :class:`FreeFloors`.
    Cost: some 20 evaluations of C G logarithms.
    """
    end = float(row_log_t.max())
    model = _Model(row_log_t - end, weight)
    mean = y.mean(axis=1)
    chi0, height0 = line(model.x, mean)
    centred = mean - mean.mean(axis=1, keepdims=True)
    r0 = mean - height0[:, None] + chi0[:, None] * model.x
    cost0 = (r0**2).sum(axis=1)
    chi, q = _starts(model, mean)
    chi, q, cost = _search(model, centred, chi, q)
    above = cost < cost0 * (1 - 1e-9) - model.x.size * 1e-28
    chi, q = np.where(above, chi, chi0), np.where(above, q, -np.inf)
    f, J = model(chi, q)
    log_A = (mean - f).mean(axis=1)
    residual = y - (f + log_A[:, None])[:, None, :]
    full = np.concatenate([J, np.ones((*f.shape, 1))], axis=-1)
    influence = np.einsum("cg,csg->cs", np.linalg.pinv(full, rcond=1e-10)[:, 0], residual)
    return FreeFloors(chi, log_A + chi * end, np.where(above, np.exp(q + log_A), 0.0), influence)


@dataclass(frozen=True)
class _Model:
    """f = log(e^q + e^(−χ u)) at the rows, through their weights to the nodes; u, weight, shape (G, 2)."""

    u: Array
    weight: Array

    @property
    def x(self) -> Array:
        return (self.weight * self.u).sum(axis=-1)

    def __call__(self, chi: Array, q: Array) -> tuple[Array, Array]:
        """Values, shape (C, G), and derivatives in chi and q, shape (C, G, 2)."""
        power = -chi[:, None, None] * self.u
        f = np.logaddexp(q[:, None, None], power)
        share = np.exp(power - f)
        J = np.stack([-self.u * share, 1 - share], axis=-1)
        return (self.weight * f).sum(axis=-1), (self.weight[..., None] * J).sum(axis=-2)


def _starts(model: _Model, y: Array) -> tuple[Array, Array]:
    """The best of the starts of the slow fit, chi and q, shape (C,)."""
    best = np.full(len(y), np.inf)
    chi, q = np.zeros((2, len(y)))
    for fraction in STARTS:
        log_E = np.log(fraction) + y.min(axis=1)
        share = -np.expm1(log_E[:, None] - y)
        c, height = _weighted_line(model.x, y + np.log(share), share**2)
        f, _ = model(c, log_E - height)
        cost = np.var(y - f, axis=1)
        better = cost < best
        best, chi, q = np.where(better, cost, best), np.where(better, c, chi), np.where(better, log_E - height, q)
    return chi, q


def _weighted_line(x: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    w = weight / weight.sum(axis=1, keepdims=True)
    centre = w @ x
    xc = x - centre[:, None]
    chi = -(w * xc * y).sum(axis=1) / (w * xc**2).sum(axis=1)
    return chi, (w * y).sum(axis=1) + chi * centre


def _search(model: _Model, y: Array, chi: Array, q: Array) -> tuple[Array, Array, Array]:
    """Levenberg–Marquardt for all curves in step, those that have arrived left out; y, shape (C, G), less its mean."""
    chi, q = chi.copy(), q.copy()
    f, J = model(chi, q)
    r = _centred(y - f)
    cost, damping = (r**2).sum(axis=1), np.full(len(y), 1e-3)
    active = np.arange(len(y))
    J = J - J.mean(axis=1, keepdims=True)
    for _ in range(ITERATIONS):
        step = _step(J[active], r[active], damping[active])
        f, new_J = model(chi[active] + step[:, 0], q[active] + step[:, 1])
        new_r = _centred(y[active] - f)
        new_cost = (new_r**2).sum(axis=1)
        took = new_cost <= cost[active]
        moved = active[took]
        chi[moved] += step[took, 0]
        q[moved] += step[took, 1]
        r[moved], cost[moved] = new_r[took], new_cost[took]
        J[moved] = new_J[took] - new_J[took].mean(axis=1, keepdims=True)
        damping[active] *= np.where(took, 0.1, 10.0)
        active = active[(np.abs(step).max(axis=1) > STEP) & (damping[active] < 1e12)]
        if active.size == 0:
            break
    return chi, q, cost


def _centred(r: Array) -> Array:
    return r - r.mean(axis=1, keepdims=True)


def _step(J: Array, r: Array, damping: Array) -> Array:
    """Damped Gauss–Newton step, shape (C, 2), with the damping in units of each parameter."""
    a = (J[..., 0] ** 2).sum(axis=1) * (1 + damping)
    b = (J[..., 0] * J[..., 1]).sum(axis=1)
    c = (J[..., 1] ** 2).sum(axis=1) * (1 + damping)
    g, h = (J[..., 0] * r).sum(axis=1), (J[..., 1] * r).sum(axis=1)
    det = np.maximum(a * c - b**2, 1e-300)
    return np.clip(np.stack([(c * g - b * h) / det, (a * h - b * g) / det], axis=-1), -5, 5)
