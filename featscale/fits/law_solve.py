"""The best parameters of a law: variable projection from many starts, then Newton on the summed Huber objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featscale.errors import require
from featscale.fits.laws import Design, Law, centred, curvature, design, evaluate, log_loss, vector
from featscale.fits.newton import Index, Local, Minimum, Problem, minimise
from featscale.fits.varpro import linear_part, projected

Array = NDArray[np.float64]

STARTS = 64
POLISHED = 8
EXPONENT_RANGE = (0.03, 3.0)
Q_STARTS = (1.0, 3.0, 12.0)
# Widths of the Huber loss on the way from least squares to the one asked for.
WIDTHS = (1.0, 0.03)
VANISHED = 1e-7


@dataclass(frozen=True)
class Solution:
    """p, shape (P,), in centred coordinates of `on`; the summed objective; the coefficients that are zero at the optimum; whether it converged."""

    on: Design
    p: Array
    objective: float
    zero: tuple[str, ...]
    converged: bool


def huber(r: Array, delta: float) -> Array:
    """r²/2 for |r| <= delta, else delta (|r| − delta/2)."""
    size = np.abs(r)
    return np.where(size <= delta, r**2 / 2, delta * (size - delta / 2))


def huber_integral(r: Array, delta: float) -> Array:
    """∫_0^r huber."""
    size = np.abs(r)
    return np.sign(r) * np.where(size <= delta, size**3 / 6, delta * size * (size - delta) / 2 + delta**3 / 6)


def smoothed(r: Array, delta: float, h: float) -> tuple[Array, Array, Array]:
    r"""The Huber loss averaged over r ± h, :math:`\frac{1}{2h}\int_{-h}^{h} \mathrm{huber}(r + s)\,ds`, and its two derivatives; h = 0 is the loss itself."""
    if h == 0:
        return huber(r, delta), np.clip(r, -delta, delta), (np.abs(r) <= delta).astype(np.float64)
    up, down = r + h, r - h
    value = (huber_integral(up, delta) - huber_integral(down, delta)) / (2 * h)
    pull = (huber(up, delta) - huber(down, delta)) / (2 * h)
    return value, pull, (np.clip(up, -delta, delta) - np.clip(down, -delta, delta)) / (2 * h)


def huber_problem(on: Design, y: Array, delta: float, weights: Array | None = None, h: float = 0.0) -> Problem:
    r"""K problems :math:`F_k(p) = \sum_n w_{kn}\,\rho(f_n(p) - y_n)` with f = log L, y = log loss; weights (K, n), None for ones.

    ρ is the Huber loss, averaged over ± h. The Hessian is exact where no |r| = delta; the scale of a step is that of iteratively
    reweighted least squares, which never vanishes.
    """

    def weight(which: Index) -> Array:
        return np.ones((which.size, 1)) if weights is None else weights[which]

    def value(p: Array, which: Index) -> Array:
        return (weight(which) * smoothed(log_loss(on, p) - y, delta, h)[0]).sum(axis=1)

    def local(p: Array, which: Index) -> Local:
        at, w = evaluate(on, p), weight(which)
        r = at.f - y
        _, pull, slope = smoothed(r, delta, h)
        pull, slope = w * pull, w * slope
        H = np.swapaxes(at.J, 1, 2) @ (slope[..., None] * at.J) + curvature(on, p, at, pull)
        irls = w * np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300))
        return Local(np.einsum("kn,knp->kp", pull, at.J), H, np.einsum("kn,knp->kp", irls, at.J**2))

    return Problem(value, local)


def solve(
    law: Law, x: Mapping[str, Array], loss: Array, delta: float, start: Mapping[str, float] | None = None
) -> Solution:
    """The lowest minimum found of Σ huber(log L − log loss) over the law's parameters, coefficients that vanish set to zero.

    Source: Hoffmann et al. 2022 for the objective; starts by variable projection of the relative residual L/loss − 1, the linearised
    log residual, from 64 quasi-random exponents. Checked: tests/fits/test_law_fit.py on the Chinchilla points.
    Arguments: start, name → value: where to start instead of the search, for one fit among many alike.
    Cost: 0.1 s for hundreds of rows, a tenth of that from a start.
    """
    on = design(law, x)
    y = np.log(loss)
    if start is not None:
        found = _polish(on, y, centred(law, on.centre, vector(law, start))[None], delta)
        warm = Solution(on, found.p[0], float(found.value[0]), (), bool(found.converged[0]))
        return _without_vanished(warm, x, y, delta)
    best: Solution | None = None
    for active, starts in _starts(on, loss).items():
        reduced = law
        for name, used in zip(law.coefficients, active, strict=True):
            reduced = reduced if used else reduced.without(name)
        here = on if reduced is law else design(reduced, x, on.centre)
        zero = tuple(name for name in law.coefficients if name not in reduced.coefficients)
        found = _polish(here, y, starts, delta)
        i = int(np.argmin(found.value))
        candidate = Solution(here, found.p[i], float(found.value[i]), zero, bool(found.converged[i]))
        if best is None or candidate.objective < best.objective:
            best = candidate
    require(best is not None, "loss", "no minimum found", "rows that determine the law")
    assert best is not None
    return _without_vanished(best, x, y, delta)


def _without_vanished(best: Solution, x: Mapping[str, Array], y: Array, delta: float) -> Solution:
    """Drop coefficients whose term is nothing of the loss in any row."""
    law = best.on.law
    for name, share in shares(best.on, best.p).items():
        reduced = law.without(name)
        if share < VANISHED and reduced.terms:
            here = design(reduced, x, best.on.centre)
            keep = [law.parameters.index(k) for k in reduced.parameters]
            found = _polish(here, y, best.p[keep][None], delta, widths=())
            if found.value[0] <= best.objective * (1 + 1e-6) + 1e-25:
                smaller = Solution(
                    here, found.p[0], float(found.value[0]), (*best.zero, name), bool(found.converged[0])
                )
                return _without_vanished(smaller, x, y, delta)
    return best


def shares(on: Design, p: Array) -> dict[str, float]:
    """The largest share of the loss, over the rows, that each coefficient's term has."""
    at = evaluate(on, p[None])
    terms = (at.above[..., None] * at.shares)[0].max(axis=0)
    floor = {on.law.floor: float((1 - at.above).max())} if on.law.floor else {}
    return floor | {term.coefficient: float(s) for term, s in zip(on.law.terms, terms, strict=True)}


def _polish(on: Design, y: Array, starts: Array, delta: float, widths: tuple[float, ...] = WIDTHS) -> Minimum:
    lower, upper = on.law.limits()
    p = starts
    for width in widths:
        if width > delta:
            p = minimise(huber_problem(on, y, width), p, lower, upper, steps=30).p
    return minimise(huber_problem(on, y, delta), p, lower, upper)


def _starts(on: Design, loss: Array) -> dict[tuple[bool, ...], Array]:
    """Starts of the polish by which coefficients are not zero, from variable projection of the sum of the terms."""
    law = on.law.summed()
    flat = Design(law, on.offset, _summed(on), on.outer, on.centre)
    m, k = len(law.coefficients), len(law.exponents)

    def basis(theta: Array) -> tuple[Array, Array]:
        p = np.concatenate([np.zeros(m), theta])
        with np.errstate(over="ignore"):
            terms = np.exp(flat.offset + flat.features @ p) / loss[:, None]
        d = terms[..., None] * flat.features[..., m:]
        if law.floor:
            terms = np.column_stack([1 / loss, terms])
            d = np.concatenate([np.zeros((loss.size, 1, k)), d], axis=1)
        return terms, d

    problem = projected(basis, np.ones(loss.size))
    lo, hi = np.log(EXPONENT_RANGE)
    grid = np.exp(lo + (hi - lo) * _spread(STARTS, k))
    screened = problem.value(grid, np.arange(STARTS))
    best = grid[np.argsort(screened)[:POLISHED]]
    low, high = law.limits()
    found = minimise(problem, best, low[m:], high[m:], steps=40)
    by_active: dict[tuple[bool, ...], list[Array]] = {}
    for theta in _different(found.p, found.value):
        c = linear_part(basis(theta)[0], np.ones(loss.size))
        active = tuple((c > 0).tolist())
        by_active.setdefault(active, []).append(np.concatenate([np.log(np.maximum(c, 1e-300)), theta]))
        if not all(active):
            # A zero of least squares need not be one of the Huber objective.
            by_active.setdefault((True,) * m, []).append(np.concatenate([np.log(np.maximum(c, 1e-3 * c.max())), theta]))
    return {active: _for_law(on.law, active, np.array(starts)) for active, starts in by_active.items()}


def _spread(n: int, d: int) -> Array:
    """n points spread evenly over the unit cube of d dimensions: multiples of powers of 1/φ modulo 1, φ^(d+1) = φ + 1 (Roberts' sequence)."""
    phi = 2.0
    for _ in range(60):
        phi = (1 + phi) ** (1 / (d + 1))
    return np.asarray((0.5 + np.outer(np.arange(1, n + 1), phi ** -np.arange(1.0, d + 1))) % 1, np.float64)


def _summed(on: Design) -> Array:
    return on.features[..., :-1] if isinstance(on.law.q, str) else on.features


def _different(p: Array, value: Array) -> Array:
    """Minima that differ, the best first."""
    kept: list[Array] = []
    for i in np.argsort(value):
        if all(np.abs(p[i] - other).max() > 1e-4 for other in kept):
            kept.append(p[i])
    return np.array(kept)


def _for_law(law: Law, active: tuple[bool, ...], starts: Array) -> Array:
    """Parameter vectors of the sum of all terms → of the law, reduced to its active coefficients, with starts for its q."""
    full, reduced = law.summed(), law
    for name, used in zip(law.coefficients, active, strict=True):
        reduced = reduced if used else reduced.without(name)
    keep = [full.parameters.index(name) for name in reduced.summed().parameters]
    p = starts[:, keep]
    if isinstance(law.q, str):
        p = np.concatenate([np.column_stack([p, np.full(len(p), np.log(q))]) for q in Q_STARTS])
    return p
