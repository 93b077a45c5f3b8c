r"""The compute-optimal frontier: the least loss L*(C) at a given compute, its width N* and time t*, and which two terms of the loss balance there.

.. math:: L^*(C) = \min_N L(N, t), \qquad \mathrm{cost}(N, t) = C, \qquad L(N, t) = L_{\mathrm{flow}}(N, t) + L_{\mathrm{batch}}(t)

L_flow is gradient flow on the deterministic measure of width N (:mod:`featscale.theory.finite_width`), L_batch the excess loss of batches of size B at
infinite width, which gradient flow lacks and without which a super-easy task has another frontier (:func:`phase` with batch_noise=False).
Source: arXiv:2409.17858 for the model and the hard exponents; derived otherwise, tests/theory/test_frontier.py compares measured exponents with the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from featscale.errors import require
from featscale.spectra import PowerLaw
from featscale.theory.exponents import MARGIN, chi, exponents
from featscale.theory.finite_width import WIDTH_MAX, finite_width
from featscale.theory.flow import gradient_flow
from featscale.theory.modes import binned_modes

Array = NDArray[np.float64]
Cost = Callable[[float, float], float]

RTOL = 1e-8
# Widths tried for a free width: 2^(j/2). The optimum lies on the polynomial through HALF_STENCIL of them on either side of the best.
OCTAVE, HALF_STENCIL = 2, 2
NOISE_BINS, NOISE_PER_DECADE = 400, 60
TIME_MAX = 1e30


@dataclass(frozen=True)
class Frontier:
    """The compute-optimal frontier at n values of compute.

    compute, as asked. loss, L*. width, N*, real if it was free. time, t*, flow time. All of shape (n,). status, "ok" or advice. residual, largest relative
    error of L* by the solvers' own estimates and by the interpolation in N. cost, number of widths whose loss curve was computed.
    """

    compute: Array
    loss: Array
    width: Array
    time: Array
    status: str
    residual: float
    cost: int


@dataclass(frozen=True)
class FrontierExponents:
    """Exponents of a frontier: L* ~ C^−loss, N* ~ C^width, t* ~ C^time. residual, largest |Δ ln L*| from the fitted line. status, "ok" or advice."""

    loss: float
    width: float
    time: float
    status: str
    residual: float


@dataclass(frozen=True)
class Term:
    """A term of the loss, t^−time N^−width."""

    name: str
    time: float
    width: float


@dataclass(frozen=True)
class Phase:
    """Which two terms balance on the frontier, the one that falls with time first, and the exponents L* ~ C^−loss, N* ~ C^width, t* ~ C^time at C = N t."""

    balance: tuple[str, str]
    loss: float
    width: float
    time: float


def loss_terms(alpha: float, beta: float, rich: bool, batch_noise: bool = True) -> tuple[Term, ...]:
    r"""The terms of L(N, t), with m = 1 if lazy and max(1, 2/(1+β)) if rich.

    Limiting flow t^−βm, bottleneck N^−α min(2, β), width transient N^−1 t^−(min(1, β) − 1/α)m: the relative correction of the learned modes is k*(t)/N, k* ~ t^{m/α},
    on a hard task, where the three meet in one point. Batch noise t^−(2−1/α)m.
    Derived: to first order in 1/N the transform of the measure changes by (1/N) Σ_k λ_k/(λ_k+z) Σ_k ρ_k λ_k/(λ_k+z)² ~ z^{min(1,β)−1−1/α}/N.
    """
    table, m = exponents(alpha, beta), chi(beta, rich) / beta
    terms = [
        Term("gradient flow", m * beta, 0.0),
        Term("width bottleneck", 0.0, table.width_exponent),
        Term("width transient", m * (min(1.0, beta) - 1 / alpha), 1.0),
    ]
    if batch_noise:
        terms.append(Term("batch noise", m * table.sgd_exponent, 0.0))
    return tuple(terms)


def phase(alpha: float, beta: float, rich: bool, batch_noise: bool = True) -> Phase:
    r"""The phase of a task at C = N t: N = C^a with the a that maximises the smallest of the terms' exponents, width a + time (1 − a).

    Arguments: alpha > 1, beta > 0. rich, gamma > 0. batch_noise, whether B is finite: in pure gradient flow super-easy tasks balance as easy ones do.
    Returns: :class:`Phase`. Raises: BadInput.

    >>> phase(1.5, 0.5, rich=True).balance, phase(3.0, 1.3, rich=True).balance
    (('gradient flow', 'width bottleneck'), ('gradient flow', 'width transient'))
    >>> phase(1.5, 2.5, rich=True).balance, phase(1.5, 2.5, rich=True, batch_noise=False).balance
    (('batch noise', 'width transient'), ('gradient flow', 'width transient'))
    """
    terms = loss_terms(alpha, beta, rich, batch_noise)

    def exponent(term: Term, a: float) -> float:
        return term.width * a + term.time * (1 - a)

    # The smallest exponent is concave and piecewise linear in a: its maximum is a crossing of two terms.
    crossings = [
        (one.time - other.time) / slope
        for one, other in combinations(terms, 2)
        if (slope := other.width - other.time - one.width + one.time) != 0
    ]
    a = max((a for a in crossings if 0 < a < 1), key=lambda a: min(exponent(term, a) for term in terms))
    loss = min(exponent(term, a) for term in terms)
    active = [term for term in terms if exponent(term, a) <= loss + MARGIN]
    falls = next(term.name for term in active if term.width < term.time)
    rises = next(term.name for term in active if term.width > term.time)
    return Phase((falls, rises), loss, a, 1 - a)


def frontier(
    task: PowerLaw,
    gamma: float,
    compute: ArrayLike,
    widths: Sequence[int] | None = None,
    cost: Cost | None = None,
    eta_over_B: float = 0.0,
) -> Frontier:
    """The compute-optimal frontier of a task from theory alone.

    Arguments: task. gamma >= 0, richness. compute > 0, shape (n,), any order. widths, the widths that may be chosen, integers from 1 to 10^7; None: any,
    with N* real, between those. cost(N, t), increasing in t; None: N t. eta_over_B >= 0, learning rate over batch size, below 2/Σλ; 0: no batch noise.
    Returns: :class:`Frontier`. Raises: BadInput that names the field; also where cost does not reach a compute.
    Accuracy: of L(N, t), O(1/N); of the minimum, 1e-4 relative (see residual). A task's M must stay far above N* and the modes learned by t*.
    Cost: one finite-width measure and one flow a width tried, about 0.5 s at N = 10^4, 3 s at 10^6; a free width tries about 7 and 7 a decade of N*.
    """
    C = np.atleast_1d(np.asarray(compute, np.float64))
    require(C.ndim == 1 and C.size > 0 and bool(np.all((C > 0) & (np.inf > C))), "compute", C, "finite numbers > 0")
    if widths is not None:
        integers = all(isinstance(N, (int, np.integer)) and 1 <= N <= WIDTH_MAX for N in widths)
        require(len(widths) > 0 and integers, "widths", list(widths), f"integers from 1 to {WIDTH_MAX}, at least one")
    candidates = _free_widths() if widths is None else np.unique(np.asarray(widths, np.int64))
    surface = _Surface(task, gamma, C, candidates, cost, eta_over_B)
    return _free(surface) if widths is None else _discrete(surface)


def frontier_exponents(frontier: Frontier) -> FrontierExponents:
    """Least-squares exponents of L*, N* and t* over all the frontier's points.

    Arguments: frontier, at least two different values of compute. Returns: :class:`FrontierExponents`; its status is the frontier's.
    """
    C = np.log(frontier.compute)
    require(bool(C.max() > C.min()), "compute", frontier.compute, "at least two different values")
    fits = [np.polyfit(C, np.log(values), 1) for values in (frontier.loss, frontier.width, frontier.time)]
    residual = float(np.abs(np.log(frontier.loss) - np.polyval(fits[0], C)).max())
    return FrontierExponents(-fits[0][0], fits[1][0], fits[2][0], frontier.status, residual)


def batch_noise(task: PowerLaw, gamma: float, eta_over_B: float, t: ArrayLike) -> Array:
    r"""Excess loss of batches of size B over gradient flow at infinite width, to first order in η at fixed η/B.

    .. math:: E(t) = \frac{\eta}{B} \int_0^t K(s)^2 \sum_k \lambda_k^2 e^{-2\lambda_k(\tau(t) - \tau(s))} \, [L_{flow}(s) + E(s)] \, ds, \qquad \tau = \int K

    Exact for γ = 0 as η → 0; for γ > 0 the noise acts on the modes through K(t) of the noiseless flow, which leaves out its own effect on K and the
    rank-one part of the kernel. Derived from the second-moment recursion; tests/theory/test_frontier.py compares with it.
    Arguments: eta_over_B >= 0, below 2/Σλ. t >= 0, shape (n,). Returns: shape (n,), units of loss. Accuracy: 1e-3 relative, from a grid in ln t.
    Cost: O(grid · bins), 0.1 s, and one flow.
    """
    t = np.atleast_1d(np.asarray(t, np.float64))
    require(bool(np.all((t >= 0) & (t < np.inf))), "times", t, "finite flow times >= 0")
    modes = binned_modes(task, NOISE_BINS)
    bound = 2 / float(modes.count @ modes.lam)
    require(0 <= eta_over_B < bound, "eta_over_B", eta_over_B, f"a number >= 0 and below 2/trace = {bound:.4g}")
    if eta_over_B == 0 or not t.any():
        return np.zeros_like(t)
    decades = np.log10(max(t.max(), 1.0)) + 3
    grid = np.concatenate([[0.0], np.geomspace(1e-3, max(t.max(), 1.0), int(NOISE_PER_DECADE * decades) + 1)])
    flow = gradient_flow(task.measure(NOISE_BINS), gamma, grid, rtol=RTOL)
    tau = np.concatenate([[0.0], np.cumsum(np.diff(grid) * (flow.K[1:] + flow.K[:-1]) / 2)])
    rate, weight = 2 * modes.lam, eta_over_B * modes.count * modes.lam**2
    excess, y, source = np.zeros_like(grid), np.zeros_like(rate), flow.K[0] * flow.loss[0]
    for i in range(1, grid.size):
        decay, old, new = _linear_source(rate, tau[i] - tau[i - 1])
        y = decay * y + old * source
        # The new source K (L + E) is on both sides.
        part = float(weight @ new) * flow.K[i]
        excess[i] = (float(weight @ y) + part * flow.loss[i]) / (1 - part)
        source = flow.K[i] * (flow.loss[i] + excess[i])
        y += new * source
    late = np.exp(np.interp(np.log(np.maximum(t, grid[1])), np.log(grid[1:]), np.log(excess[1:])))
    return np.where(t < grid[1], excess[1] * t / grid[1], late)


def _linear_source(rate: Array, h: float) -> tuple[Array, Array, Array]:
    """e^{−rate h} and the weights of the two ends of a source that is linear on a step h of y' = −rate y + source, each of shape (n,)."""
    q = rate * h
    decay, mean = np.exp(-q), -np.expm1(-q) / rate
    # (1 − (1 − e^−q)/q)/q, by its series where it cancels.
    with np.errstate(divide="ignore", invalid="ignore"):
        new = h * np.where(q > 1e-3, (1 + np.expm1(-q) / q) / q, 0.5 - q / 6)
    return decay, mean - new, new


class _Surface:
    """ln L at the computes asked, width by width, each solved once."""

    def __init__(
        self, task: PowerLaw, gamma: float, C: Array, widths: NDArray[np.int64], cost: Cost | None, eta_over_B: float
    ) -> None:
        self.task, self.gamma, self.C, self.widths, self.cost = task, gamma, C, widths, cost
        self.known: dict[int, tuple[Array, Array]] = {}
        self.residual, self.advice = 0.0, set[str]()
        self.noise: tuple[Array, Array] | None = None
        if eta_over_B:
            t = np.concatenate([[1e-3], np.geomspace(1e-2, max(1.0, np.nanmax(self.times(0))), 400)])
            self.noise = np.log(t), np.log(batch_noise(task, gamma, eta_over_B, t))

    def times(self, i: int) -> Array:
        """Flow time that each compute buys at width i, shape (n,); NaN where the cost exceeds it from the start."""
        N = int(self.widths[i])
        if self.cost is None:
            return self.C / N
        return np.array([time_at(self.cost, N, C) for C in self.C])

    def __call__(self, i: int) -> Array:
        """ln L at width i, shape (n,); inf where the width is not affordable."""
        return self.row(i)[1]

    def row(self, i: int) -> tuple[Array, Array]:
        """Times and ln L at width i."""
        if i not in self.known:
            t = self.times(i)
            within = np.isfinite(t)
            log_loss = np.full(t.size, np.inf)
            if within.any():
                log_loss[within] = np.log(np.maximum(self.loss(int(self.widths[i]), t[within]), 1e-300))
            self.known[i] = t, log_loss
        return self.known[i]

    def loss(self, N: int, t: Array) -> Array:
        """L(N, t), shape of t."""
        width = finite_width(self.task, N)
        flow = gradient_flow(width.measure, self.gamma, t, rtol=RTOL)
        self.residual = max(self.residual, width.residual, flow.residual)
        self.advice |= {f"width {N}: {status}" for status in (width.status, flow.status) if status != "ok"}
        if self.noise is None:
            return flow.loss
        log_t, log_noise = self.noise
        slope = np.minimum(np.log(np.maximum(t, 1e-300)) - log_t[0], 0.0)
        return flow.loss + np.exp(np.interp(np.log(np.maximum(t, 1e-300)), log_t, log_noise) + slope)


def time_at(cost: Cost, N: float, C: float) -> float:
    """The flow time t with cost(N, t) = C; NaN where cost(N, 0) >= C.

    Raises: BadInput where cost(N, t) stays below C up to t = 10^30.
    """
    if not cost(N, 0.0) < C:
        return float("nan")
    high = 1.0
    while not cost(N, high) >= C:
        high *= 10
        require(high <= TIME_MAX, "cost", f"cost({N}, {TIME_MAX:g}) < {C:g}", "a cost that grows with t without bound")
    low = high / 10
    while cost(N, low) > C and low > 1 / TIME_MAX:
        high, low = low, low / 10
    return float(np.exp(brentq(lambda s: cost(N, np.exp(s)) - C, np.log(low), np.log(high), xtol=1e-12)))


def _free_widths() -> NDArray[np.int64]:
    return np.unique(np.round(2.0 ** (np.arange(OCTAVE * np.log2(WIDTH_MAX)) / OCTAVE)).astype(np.int64))


def _discrete(surface: _Surface) -> Frontier:
    """The best of the given widths at each compute."""
    rows = [surface.row(i) for i in range(surface.widths.size)]
    t, log_loss = (np.array(part) for part in zip(*rows, strict=True))
    best, column = log_loss.argmin(axis=0), np.arange(surface.C.size)
    if surface.widths.size > 1:
        surface.advice |= _edge_advice(surface, best, "add widths there")
    loss, width, time = np.exp(log_loss[best, column]), surface.widths[best].astype(np.float64), t[best, column]
    return _result(surface, loss, width, time)


def _free(surface: _Surface) -> Frontier:
    """The minimum over all widths, by descent from the last compute's best and a polynomial in ln N."""
    n = surface.C.size
    best, log_loss, log_N = np.empty(n, np.int64), np.empty(n), np.empty(n)
    i = int(np.searchsorted(surface.widths, np.sqrt(surface.C.min())))
    i = min(i, surface.widths.size - 1)
    for c in np.argsort(surface.C, kind="stable"):
        best[c] = i = _descend(surface, int(c), i)
        log_loss[c], log_N[c] = _vertex(surface, int(c), i, HALF_STENCIL)
        surface.residual = max(surface.residual, abs(_vertex(surface, int(c), i, HALF_STENCIL - 1)[0] - log_loss[c]))
    surface.advice |= _edge_advice(surface, best, "no smaller or larger width is possible")
    width = np.exp(log_N)
    if surface.cost is None:
        time = surface.C / width
    else:
        time = np.array([time_at(surface.cost, N, C) for N, C in zip(width, surface.C, strict=True)])
    return _result(surface, np.exp(log_loss), width, time)


def _descend(surface: _Surface, c: int, i: int) -> int:
    """The index of a width that no neighbour beats at compute c, from i."""
    while True:
        around = [j for j in (i - 1, i, i + 1) if 0 <= j < surface.widths.size]
        # Unaffordable widths are inf on both sides: smaller is cheaper.
        best = min(around, key=lambda j: (surface(j)[c], surface.widths[j]))
        if best == i:
            return i
        i = best


def _vertex(surface: _Surface, c: int, i: int, half: int) -> tuple[float, float]:
    """Minimum of the polynomial of ln L in ln N through the widths around i: its value and place."""
    stencil = [j for j in range(i - half, i + half + 1) if 0 <= j < surface.widths.size and surface(j)[c] < np.inf]
    x = np.log(surface.widths[stencil])
    centre = float(np.log(surface.widths[i]))
    p = np.polynomial.Polynomial.fit(x - centre, [surface(j)[c] for j in stencil], len(stencil) - 1)
    roots = p.deriv().roots() if len(stencil) > 1 else np.empty(0)
    inside = roots[(np.abs(roots.imag) < 1e-12) & (roots.real > x[0] - centre) & (roots.real < x[-1] - centre)].real
    places = np.concatenate([[0.0], inside])
    values = p(places)
    k = int(values.argmin())
    return float(values[k]), centre + float(places[k])


def _edge_advice(surface: _Surface, best: NDArray[np.int64], advice: str) -> set[str]:
    """Advice where the best width is the first or last of those that could be chosen."""
    edges = {0: "smallest", surface.widths.size - 1: "largest"}
    return {
        f"the {name} width {surface.widths[i]} is best at compute {surface.C[best == i][0]:.3g}: {advice}"
        for i, name in edges.items()
        if (best == i).any()
    }


def _result(surface: _Surface, loss: Array, width: Array, time: Array) -> Frontier:
    status = "; ".join(sorted(surface.advice)) or "ok"
    return Frontier(surface.C, loss, width, time, status, surface.residual, len(surface.known))
