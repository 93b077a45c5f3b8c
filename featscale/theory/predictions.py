r"""What a user asks of the theory before a run: when does it turn rich, when does it go unstable, how wide must it be, what does richness gain.

Each answer is a frozen dataclass of value, status, residual and cost; no answer ("never", "no width") is a value of inf with a status that says why.
Derived from the flow of :mod:`featscale.theory.flow`; tests/theory/test_predictions.py compares with closed forms, exponents and simulated runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from featscale.errors import require
from featscale.numerics.sample_covariance import bottleneck_kappa
from featscale.spectra import PowerLaw, SpectralMeasure
from featscale.theory.exponents import exponents
from featscale.theory.finite_width import WIDTH_MAX, finite_width, power_law_modes
from featscale.theory.flow import Flow, _Solver, _State, gradient_flow
from featscale.theory.frontier import frontier

Array = NDArray[np.float64]
Curve = Callable[[Array], tuple[Array, Flow]]

RTOL = 1e-9
# Points of a log grid that brackets a time, and degree of the interpolant inside the bracket.
GRID, CHEBYSHEV, TIME_MAX = 25, 10, 1e25
# A lazy run of more than this many times the compute is called out of reach.
REACH_MAX = 1e8
# Nodes of the infinite-width measure: 1e-8 relative at M = 10^9.
LIMIT_BINS = 1000


@dataclass(frozen=True)
class Prediction:
    """value, in the units its function names; inf where there is none. status, "ok" or why not. residual, relative error. cost, solver steps or flows."""

    value: float
    status: str
    residual: float
    cost: int


@dataclass(frozen=True)
class Gain:
    """Gain of rich over lazy at n values of compute.

    compute, as asked. loss_ratio, L*_lazy(C)/L*_rich(C). compute_ratio, the factor more compute with which lazy reaches L*_rich(C); inf where none up
    to 10^8 does. Each of shape (n,). status, "ok" or advice. residual, largest relative error of a frontier's loss. cost, loss curves computed.
    """

    compute: Array
    loss_ratio: Array
    compute_ratio: Array
    status: str
    residual: float
    cost: int


def crossover_time(measure: SpectralMeasure, gamma: float) -> Prediction:
    r"""Flow time t× at which a run turns rich: K(t×) = 2, the change of the kernel equals the kernel.

    On a hard power law t× ~ γ^{−1/(1−β)}; on an easy one K ends at (1 + √(1 + 4γ Σρ/x))/2 and there may be no such time.
    Arguments: measure, of infinite width, of width N or of a data set. gamma >= 0.
    Returns: :class:`Prediction`, value in flow time. Raises: BadInput. Cost: a flow for every three decades, and two.
    """
    require(0 <= gamma < math.inf, "gamma", gamma, "a number >= 0")
    final = (1 + math.sqrt(1 + 4 * gamma * float((measure.rho / measure.x).sum()))) / 2
    if not final > 2:
        return Prediction(math.inf, f"never: K ends at {final:.4g}, below 2", 0.0, 0)

    def growth(t: Array) -> tuple[Array, Flow]:
        flow = gradient_flow(measure, gamma, t, rtol=RTOL)
        return flow.K, flow

    return _first_time(growth, 2.0, 1 / float(measure.x.max()))


def sharpness(measure: SpectralMeasure, gamma: float, t: ArrayLike) -> Flow:
    r"""Largest curvature s(t) of ½L along gradient flow, which the learning rate meets: the top eigenvalue of the kernel in the loss's metric,

    .. math:: \Lambda^{1/2} \Big[ K I + \frac{\gamma}{K} p p^\top \Big] \Lambda^{1/2}, \qquad 1 = \frac{\gamma}{K} \int \frac{\rho\, a^2}{s - K x}

    It exceeds K λ_max by the rank-one part, by up to a factor of 2 where the target lies in few modes, little on a hard task late.
    Arguments: as gradient_flow's. Returns: :class:`featscale.theory.flow.Flow` with s in the place of loss. Raises: BadInput.
    """
    times = np.atleast_1d(np.asarray(t, np.float64))
    require(0 <= gamma < math.inf, "gamma", gamma, "a number >= 0")
    require(bool(np.all((times >= 0) & (times < np.inf))), "times", t, "finite flow times >= 0")
    order = np.argsort(times, kind="stable")
    rows, unsorted = np.empty((2, times.size, 2))
    solver = _Sharpness(measure, gamma, RTOL)
    status = solver.run(times[order], rows)
    unsorted[order] = rows
    return Flow(times, unsorted[:, 0], unsorted[:, 1], status, solver.residual, solver.steps)


def stability_time(measure: SpectralMeasure, gamma: float, eta: float, bound: float | None = None) -> Prediction:
    r"""Flow time at which a learning rate becomes unstable: η s(t) passes λ_max · bound, s the :func:`sharpness`.

    The linearised step then grows along the sharpest direction; simulated runs leave the flow soon after, and drop back to a smaller K or diverge.
    Arguments: measure. gamma >= 0. eta > 0. bound, the largest stable learning rate of the lazy model: None, 2/λ_max, for B = inf; the mean-square bound
    featscale.simulate.problem.stability_bound(task, B) for batches.
    Returns: :class:`Prediction`, value in flow time (divide by eta for steps); inf if the rate stays stable, 0 if it never is. Raises: BadInput.
    """
    top = float(measure.x.max())
    bound = 2 / top if bound is None else bound
    require(0 < eta < math.inf, "eta", eta, "a number > 0")
    require(0 <= gamma < math.inf, "gamma", gamma, "a number >= 0")
    require(0 < bound < math.inf, "bound", bound, "a learning rate > 0")
    level = bound * top / eta
    if level <= top:
        return Prediction(0.0, f"unstable from the start: eta is not below {bound:.4g}", 0.0, 0)
    final = _final_sharpness(measure, gamma)
    if not final > level:
        return Prediction(math.inf, f"stable: eta times the curvature ends at {final / level:.4g} of its bound", 0.0, 0)

    def curve(t: Array) -> tuple[Array, Flow]:
        flow = sharpness(measure, gamma, t)
        return flow.loss, flow

    return _first_time(curve, level, 1 / top)


def width_for_loss(task: PowerLaw, gamma: float, loss: float, t: float = math.inf) -> Prediction:
    r"""Smallest width N with L(N, t) <= loss under gradient flow; at t = inf, the smallest whose bottleneck lies below it.

    Arguments: task. gamma >= 0. loss > 0, the target. t > 0, flow time.
    Returns: :class:`Prediction`, value an integer width; inf where no width up to 10^7 gets there. Its residual is the relative uncertainty of N that is left.
    Raises: BadInput. Cost: about 10 finite-width measures and flows.
    """
    require(0 <= gamma < math.inf, "gamma", gamma, "a number >= 0")
    require(0 < loss < math.inf, "loss", loss, "a number > 0")
    require(t > 0, "times", t, "a flow time > 0, or inf")
    evaluations, advice = 0, set[str]()

    def at(N: int) -> float:
        nonlocal evaluations
        evaluations += 1
        if math.isinf(t):
            return bottleneck(task, N)
        width = finite_width(task, N)
        flow = gradient_flow(width.measure, gamma, t)
        advice.update({width.status, flow.status} - {"ok"})
        return float(flow.loss[0])

    if not math.isinf(t):
        limit = float(gradient_flow(task.measure(LIMIT_BINS), gamma, t).loss[0])
        if not limit <= loss:
            return Prediction(math.inf, f"no width: at this time even infinite width has loss {limit:.4g}", 0.0, 1)
    N, residual = _smallest(at, loss)
    if math.isinf(N):
        return Prediction(math.inf, f"no width up to {WIDTH_MAX:.0e} reaches this loss", 0.0, evaluations)
    return Prediction(N, "; ".join(sorted(advice)) or "ok", residual, evaluations)


def bottleneck(task: PowerLaw, N: int) -> float:
    """The loss that width N leaves at t = inf, N^−α min(1, β): the atom of its measure, shape (); 0 for N >= M."""
    if task.M <= N:
        return 0.0
    modes = power_law_modes(task, N)
    kappa0 = bottleneck_kappa(modes, N)
    return float(modes.rho @ (kappa0 / (modes.lam + kappa0)))


def gain_over_lazy(
    task: PowerLaw, gamma: float, compute: ArrayLike, widths: Sequence[int] | None = None, eta_over_B: float = 0.0
) -> Gain:
    """Gain of richness gamma over the lazy model at given compute, each at its own best width.

    Arguments: as :func:`featscale.theory.frontier.frontier`'s.
    Returns: :class:`Gain`. Raises: BadInput. Cost: two frontiers, the lazy one as far as its loss must fall.
    """
    rich = frontier(task, gamma, compute, widths, eta_over_B=eta_over_B)
    lazy = frontier(task, 0.0, compute, widths, eta_over_B=eta_over_B)
    ratio = lazy.loss / rich.loss
    # Lazy compute that surely suffices while its exponent holds; six points a decade on the way.
    reach = 10 * float(ratio.max()) ** (1.5 / exponents(task.alpha, task.beta).compute_exponent_lazy)
    low, high = float(rich.compute.min()), float(rich.compute.max()) * min(reach, REACH_MAX)
    grid = np.geomspace(low, high, int(6 * np.log10(high / low)) + 2)
    far = frontier(task, 0.0, np.unique(np.concatenate([rich.compute, grid])), widths, eta_over_B=eta_over_B)
    falling = np.concatenate([[True], far.loss[1:] < np.minimum.accumulate(far.loss)[:-1]])
    inverse = PchipInterpolator(-np.log(far.loss[falling]), np.log(far.compute[falling]), extrapolate=False)
    needed = np.exp(inverse(-np.log(np.minimum(rich.loss, far.loss[0]))))
    compute_ratio = np.where(np.isfinite(needed), needed / rich.compute, math.inf)
    advice = sorted({f.status for f in (rich, lazy, far)} - {"ok"})
    residual = max(f.residual for f in (rich, lazy, far))
    cost = rich.cost + lazy.cost + far.cost
    return Gain(rich.compute, ratio, compute_ratio, "; ".join(advice) or "ok", residual, cost)


class _Sharpness(_Solver):
    """The flow with the sharpness observed in place of the loss."""

    def observe(self, state: _State) -> tuple[float, float]:
        K = float(1 + self.weight @ state.z**2)
        return _top(K * self.x, self.gamma / K * self.rho * (state.z / state.u) ** 2), K


def _final_sharpness(measure: SpectralMeasure, gamma: float) -> float:
    """Sharpness at t = inf, where a = 1."""
    K = (1 + math.sqrt(1 + 4 * gamma * float((measure.rho / measure.x).sum()))) / 2
    return _top(K * measure.x, gamma / K * measure.rho)


def _top(diagonal: Array, weight: Array) -> float:
    """Top eigenvalue of diag(diagonal) + r rᵀ with r² = weight >= 0, by Newton's method for its secular equation from above."""
    largest = float(diagonal.max())
    power = float(weight.sum())
    if not power > 1e-15 * largest:
        return largest
    s = largest + power
    for _ in range(200):
        gap = s - diagonal
        total, slope = float((weight / gap).sum()), float((weight / gap**2).sum())
        # 1/total is concave and increasing beyond the largest pole, so Newton's method for it falls to the root from above.
        new = max(s - (1 - total) * total / slope, largest * (1 + 1e-15))
        if abs(new - s) <= 1e-14 * s or new <= largest * (1 + 1e-14):
            return new
        s = new
    return s


def _first_time(curve: Curve, level: float, start: float) -> Prediction:
    """The first time a growing curve reaches `level`, or the time it was followed to without and a status that says so.

    A log grid brackets it, three decades a flow; inside the bracket the curve is its Chebyshev interpolant, checked by one more flow.
    """
    cost, grid = 0, np.concatenate([[0.0], start * np.geomspace(1e-6, 1, GRID)])
    while True:
        values, flow = curve(grid)
        cost += flow.steps
        reached = values >= level
        if reached.any():
            break
        if flow.status != "ok" or grid[-1] > TIME_MAX:
            return Prediction(float(grid[-1]), f"later than this: {flow.status}", flow.residual, cost)
        grid = grid[-1] * np.geomspace(1, 1e3, GRID)
    i = max(1, int(np.argmax(reached)))
    low, high = float(grid[i - 1]), float(grid[i])
    nodes = (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * np.arange(CHEBYSHEV + 1) / CHEBYSHEV)
    values, flow = curve(nodes)
    interpolant = Chebyshev.fit(nodes, values, CHEBYSHEV, domain=[low, high])
    if (interpolant(low) - level) * (interpolant(high) - level) >= 0:
        return Prediction(high, flow.status, (high - low) / high, cost + flow.steps)
    value = float(brentq(lambda t: interpolant(t) - level, low, high, xtol=1e-14 * high))
    check, last = curve(np.array([value]))
    residual = max(flow.residual, abs(float(check[0]) / level - 1))
    return Prediction(value, last.status, residual, cost + flow.steps + last.steps)


def _smallest(at: Callable[[int], float], target: float) -> tuple[float, float]:
    """The smallest N in 1 … WIDTH_MAX with at(N) <= target, at falling, and the relative width of its last bracket; inf if none."""
    low, high = 0, 1
    above, below = math.inf, at(1)
    while below > target:
        if high == WIDTH_MAX:
            return math.inf, 0.0
        low, above = high, below
        high = min(4 * high, WIDTH_MAX)
        below = at(high)
    turn = 0
    while high - low > max(1, int(1e-5 * high)):
        turn += 1
        middle = (low + high) // 2
        if turn % 3 and below > 0 and math.isfinite(above) and above > below:
            share = math.log(above / target) / math.log(above / below)
            middle = round(low * (high / low) ** share)
        middle = min(max(middle, low + 1), high - 1)
        value = at(middle)
        if value <= target:
            high, below = middle, value
        else:
            low, above = middle, value
    return float(high), (high - low - 1) / high
