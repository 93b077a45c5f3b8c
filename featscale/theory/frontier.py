r"""The compute-optimal frontier: the least loss L*(C) at a given compute, its width N* and time t*, and which two terms of the loss balance there.

.. math:: L^*(C) = \min_N L(N, t), \qquad \mathrm{cost}(N, t) = C

Without batch noise L(N, t) is gradient flow on the deterministic measure of width N (:mod:`featscale.theory.finite_width`); with it, that flow with the noise
of batches at the same width (:mod:`featscale.theory.sgd_flow`). Gradient flow has no super-easy phase: there noise is one of the two terms that balance.
Source: arXiv:2409.17858 for the model and the hard exponents; derived otherwise, tests/theory/test_frontier.py compares measured exponents with the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from featscale.errors import require
from featscale.spectra import PowerLaw
from featscale.theory.exponents import MARGIN, chi, exponents
from featscale.theory.finite_width import WIDTH_MAX, finite_width
from featscale.theory.flow import gradient_flow
from featscale.theory.modes import binned_modes, modes_at_width
from featscale.theory.sgd_flow import noisy_flow

Array = NDArray[np.float64]
Cost = Callable[[float, float], float]

RTOL = 1e-8
# Widths tried for a free width: 2^(j/2). The optimum lies on the polynomial through HALF_STENCIL of them on either side of the best.
OCTAVE, HALF_STENCIL = 2, 2
# Noise is taken to first order in η at fixed η/B: η itself this small.
NOISE_BINS, ETA = 100, 1e-9
TIME_MAX = 1e30


@dataclass(frozen=True)
class Frontier:
    """The compute-optimal frontier at n values of compute.

    compute, as asked. loss, L*, inf where compute buys no run. width, N*, real if it was free. time, t*, flow time, 0 without a run. All of shape (n,).
    status, "ok" or advice. residual, largest relative error of L* by the solvers' own estimates and by the interpolation in N. cost, number of widths whose
    loss curve was computed.
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

    Limiting flow t^−βm, bottleneck N^−α min(1, β), width transient N^−1 t^−(min(1, β) − 1/α)m, batch noise t^−(2 − 1/α)m. On a hard task the transient
    is the loss of the flow times k*(t)/N, k* ~ t^{m/α} modes learned: the three meet in one point and the table's (1 − 1/α)m holds for β > 1 only.
    Batch noise also multiplies the loss of a hard or easy flow by 1 + ηKΣλ/(2B) while that is small; a rich hard run, whose K grows, leaves the rich
    phase where it is not, see :mod:`featscale.theory.sgd_flow`.
    Derived: to first order in 1/N the transform of the measure changes by (1/N) Σ λ/(λ + z) Σ ρλ/(λ + z)² ~ z^{min(1,β) − 1 − 1/α}/N.
    """
    table, m = exponents(alpha, beta), chi(beta, rich) / beta
    terms = [
        Term("gradient flow", m * beta, 0.0),
        Term("width bottleneck", 0.0, alpha * min(1.0, beta)),
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
    modes = binned_modes(task, NOISE_BINS)
    bound = 2 / float(modes.count @ modes.lam)
    require(0 <= eta_over_B < bound, "eta_over_B", eta_over_B, f"a number >= 0 and below 2/trace = {bound:.4g}")
    candidates = _free_widths() if widths is None else np.unique(np.asarray(widths, np.int64))
    surface = _Surface(task, gamma, C, candidates, cost, eta_over_B)
    return _free(surface) if widths is None else _discrete(surface)


def frontier_exponents(frontier: Frontier) -> FrontierExponents:
    """Least-squares exponents of L*, N* and t* over the frontier's points with a loss.

    Arguments: frontier, a loss at two different values of compute or more. Returns: :class:`FrontierExponents`; its status is the frontier's.
    Raises: BadInput if there are fewer.
    """
    kept = (frontier.loss > 0) & (frontier.loss < np.inf)
    require(np.unique(frontier.compute[kept]).size > 1, "compute", frontier.compute, "at least two with a finite loss")
    C = np.log(frontier.compute[kept])
    fits = [np.polyfit(C, np.log(values[kept]), 1) for values in (frontier.loss, frontier.width, frontier.time)]
    residual = float(np.abs(np.log(frontier.loss[kept]) - np.polyval(fits[0], C)).max())
    return FrontierExponents(-fits[0][0], fits[1][0], fits[2][0], frontier.status, residual)


class _Surface:
    """ln L at the computes asked, width by width, each solved once."""

    def __init__(
        self, task: PowerLaw, gamma: float, C: Array, widths: NDArray[np.int64], cost: Cost | None, eta_over_B: float
    ) -> None:
        self.task, self.gamma, self.eta_over_B = task, gamma, eta_over_B
        self.C, self.widths, self.cost = C, widths, cost
        self.known: dict[int, tuple[Array, Array]] = {}
        self.residual, self.advice = 0.0, set[str]()

    def times(self, N: Array | int) -> Array:
        """Flow time that each compute buys at width N, one or one a compute, shape (n,); NaN where the cost exceeds it from the start."""
        if self.cost is None:
            return self.C / N
        widths = np.broadcast_to(N, self.C.shape)
        return np.array([time_at(self.cost, n, C) for n, C in zip(widths, self.C, strict=True)])

    def __call__(self, i: int) -> Array:
        """ln L at width i, shape (n,); inf where the width is not affordable."""
        return self.row(i)[1]

    def row(self, i: int) -> tuple[Array, Array]:
        """Times and ln L at width i."""
        if i not in self.known:
            t = self.times(int(self.widths[i]))
            within = np.isfinite(t)
            log_loss = np.full(t.size, np.inf)
            if within.any():
                log_loss[within] = np.log(np.maximum(self.loss(int(self.widths[i]), t[within]), 1e-300))
            self.known[i] = t, log_loss
        return self.known[i]

    def loss(self, N: int, t: Array) -> Array:
        """L(N, t), shape of t; inf where noise has ended the run."""
        if self.eta_over_B:
            return self.noisy_loss(N, t)
        width = finite_width(self.task, N)
        flow = gradient_flow(width.measure, self.gamma, t, rtol=RTOL)
        self.residual = max(self.residual, width.residual, flow.residual)
        self.advice |= {f"width {N}: {status}" for status in (width.status, flow.status) if status != "ok"}
        return np.where(np.isfinite(flow.loss), flow.loss, np.inf)

    def noisy_loss(self, N: int, t: Array) -> Array:
        modes, atom = modes_at_width(self.task, N, NOISE_BINS)
        flow = noisy_flow(modes, atom, self.gamma, ETA, ETA / self.eta_over_B, 0.0, float(t.max()))
        self.residual = max(self.residual, flow.residual)
        if flow.t.size < 4:
            return np.full(t.size, np.inf)
        loss = np.interp(t, flow.t[:2], flow.loss[:2])
        late = t > flow.t[1]
        curve = PchipInterpolator(np.log(flow.t[1:]), np.log(flow.loss[1:]))
        loss[late] = np.exp(curve(np.log(np.minimum(t[late], flow.t[-1]))))
        return np.where(t <= flow.t[-1] * (1 + 1e-12), loss, np.inf)


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
    return _result(surface, best, loss, width, time)


def _free(surface: _Surface) -> Frontier:
    """The minimum over all widths, by descent from the last compute's best and a polynomial in ln N."""
    n = surface.C.size
    best, log_loss, log_N = np.empty(n, np.int64), np.empty(n), np.empty(n)
    i = int(np.searchsorted(surface.widths, np.sqrt(surface.C.min())))
    i = min(i, surface.widths.size - 1)
    for c in np.argsort(surface.C, kind="stable"):
        best[c] = i = _descend(surface, int(c), i)
        log_loss[c], log_N[c] = _vertex(surface, int(c), i, HALF_STENCIL)
        if log_loss[c] < np.inf:
            rough = _vertex(surface, int(c), i, HALF_STENCIL - 1)[0]
            surface.residual = max(surface.residual, abs(rough - log_loss[c]))
    surface.advice |= _edge_advice(surface, best, "no smaller or larger width is possible")
    width = np.exp(log_N)
    return _result(surface, best, np.exp(log_loss), width, surface.times(width))


def _descend(surface: _Surface, c: int, i: int) -> int:
    """The index of a width that no neighbour beats at compute c, from i."""
    while True:
        around = [j for j in (i - 1, i, i + 1) if 0 <= j < surface.widths.size]
        best = min(around, key=lambda j: _rank(surface, c, j))
        if best == i:
            return i
        i = best


def _rank(surface: _Surface, c: int, j: int) -> tuple[float, int]:
    """Order of width j at compute c: by loss; of those without, cheaper before dearer where compute is short, wider first where noise ended the run."""
    t, log_loss = surface.row(j)
    ended = np.isfinite(t[c]) and not log_loss[c] < np.inf
    return float(log_loss[c]), -j if ended else j


def _vertex(surface: _Surface, c: int, i: int, half: int) -> tuple[float, float]:
    """Minimum of the polynomial of ln L in ln N through the widths around i: its value and place."""
    stencil = [j for j in range(i - half, i + half + 1) if 0 <= j < surface.widths.size and surface(j)[c] < np.inf]
    if i not in stencil:
        return np.inf, float(np.log(surface.widths[i]))
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


def _result(surface: _Surface, best: NDArray[np.int64], loss: Array, width: Array, time: Array) -> Frontier:
    advice = set(surface.advice)
    for c, i in enumerate(best):
        if not loss[c] < np.inf:
            advice.add(f"no width has a loss at compute {surface.C[c]:.3g}: it buys none, or noise ends every run")
        elif i > 0 and not surface(i - 1)[c] < np.inf:
            narrower = surface.widths[i - 1]
            advice.add(
                f"noise ends the run of width {narrower} before compute {surface.C[c]:.3g}: a smaller eta_over_B goes on"
            )
    time = np.where(np.isfinite(time), time, 0.0)
    status = "; ".join(sorted(advice)) or "ok"
    return Frontier(surface.C, loss, width, time, status, surface.residual, len(surface.known))
