r"""Gradient flow of the solvable model for any discrete spectral measure: L(t) and K(t), lazy and rich.

.. math::
    \dot a = K x (1 - a) + (\gamma c / K)\, a, \quad \dot K = 2 \gamma c, \quad c = \int \rho\, a (1 - a), \quad L = \int \rho\, (1 - a)^2

In the slow clock τ = ∫K dt and the gauge u = K^{-1/2}, z = u a, r = u − z, this is linear in each mode given the one function u(τ),

.. math:: r' = u' - x r, \qquad z' = x (u - z), \qquad K = u^{-2} = 1 + \gamma \int (\rho / x)\, z^2 ,\qquad dt = u^2 d\tau

so a step solves every mode exactly for a polynomial u and finds the polynomial's s coefficients from the last equation: implicit in K, unconditionally
stable in the modes, and no Jacobian larger than s × s. Source: arXiv:2409.17858 for the model; the reduction is derived (the algebraic K equation
follows from d/dτ of both sides) and tested by tests/theory/test_flow.py against direct integration, gradient descent and reference values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from featscale.errors import require
from featscale.numerics.exponential_weights import ExponentialWeights
from featscale.spectra import SpectralMeasure

Array = NDArray[np.float64]

DEGREE = 5
NODES = tuple(float(c) for c in (1 - np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)) / 2)
# The defect of the polynomial u is measured between its nodes.
CHECK = 0.8
COLLOCATION = ExponentialWeights(NODES, points=(*NODES[1:], CHECK))
END = DEGREE - 1
OUTPUT = ExponentialWeights(NODES, points=(1.0,))
CHUNK = 16_384
STEPS_MAX = 20_000


@dataclass(frozen=True)
class Flow:
    """Loss curve of gradient flow.

    t, flow times as asked, shape (n,). loss, L(t) in the units of the powers. K, growth of the kernel, K(0) = 1. status, "ok" or advice.
    residual, largest defect of ln K met on accepted steps. steps, how many steps were taken.
    """

    t: Array
    loss: Array
    K: Array
    status: str
    residual: float
    steps: int


@dataclass(frozen=True)
class _State:
    """State of all modes at slow time τ: z, r of shape (n,), u = K^{-1/2}, flow time t."""

    z: Array
    r: Array
    u: float
    t: float


def gradient_flow(measure: SpectralMeasure, gamma: float, t: ArrayLike, rtol: float = 1e-9) -> Flow:
    """Loss and kernel growth at flow times `t` from a = 0, K = 1.

    Arguments: gamma >= 0, richness (0 is lazy, in closed form). t >= 0, shape (n,), any order. rtol, bound on the defect of ln K in a step,
    1e-13 <= rtol <= 1e-2.
    Returns: :class:`Flow`; where the solver stops early the remaining rows are NaN and the status says why.
    Raises: BadInput for a negative or non-finite gamma or t.
    Accuracy: relative error of L and K about ten times rtol. Cost: O(modes) a step, about 15 steps a decade of time.
    """
    t = np.atleast_1d(np.asarray(t, np.float64))
    require(0 <= gamma < np.inf, "gamma", gamma, "a number >= 0")
    require(bool(np.all((t >= 0) & (t < np.inf))), "times", t, "finite flow times >= 0")
    require(1e-13 <= rtol <= 1e-2, "rtol", rtol, "a number from 1e-13 to 1e-2")
    if gamma == 0:
        return Flow(t, lazy_loss(measure, t), np.ones_like(t), "ok", 0.0, 0)
    order = np.argsort(t, kind="stable")
    loss, K = np.full_like(t, np.nan), np.full_like(t, np.nan)
    solver = _Solver(measure, gamma, rtol)
    status = solver.run(t[order], (rows := np.empty((t.size, 2))))
    loss[order], K[order] = rows.T
    return Flow(t, loss, K, status, solver.residual, solver.steps)


def lazy_loss(measure: SpectralMeasure, t: Array) -> Array:
    r"""L(t) = ∫ρ(dx) e^{−2xt}, the flow at γ = 0, shape of t (n,)."""
    return np.array([measure.atom + measure.rho @ np.exp(-2 * measure.x * time) for time in t])


class _Solver:
    """Marches the collocation steps; keeps the largest defect and the number of steps."""

    def __init__(self, measure: SpectralMeasure, gamma: float, rtol: float) -> None:
        order = np.argsort(-measure.x, kind="stable")
        self.x, self.rho, self.atom = measure.x[order], measure.rho[order], measure.atom
        self.gamma, self.rtol = gamma, rtol
        self.weight = gamma * self.rho / self.x
        self.chunks = [slice(start, start + CHUNK) for start in range(0, self.x.size, CHUNK)]
        self.residual, self.steps = 0.0, 0
        # Weights of the end of the step last solved, one entry a chunk.
        self.end: list[tuple[Array, Array, Array]] = []

    def run(self, t: Array, rows: Array) -> str:
        """Fill `rows` (loss, K) at the increasing times `t`; return the status."""
        state = _State(np.zeros_like(self.x), np.ones_like(self.x), 1.0, 0.0)
        h = 0.1 / (self.x[0] + np.sqrt(self.gamma * (self.rho @ self.x)))
        # A polynomial through one point is a constant: the first guess of ln u on a step.
        p, done = np.zeros(DEGREE + 1), int(np.searchsorted(t, 0.0, side="right"))
        rows[:] = np.nan
        rows[:done] = self.observe(state)
        while done < t.size:
            if self.steps >= STEPS_MAX:
                return f"stopped at t = {state.t:.3g} after {STEPS_MAX} steps: raise rtol"
            solved, defect = self.solve(state, h, p)
            if not defect <= self.rtol:
                h *= (
                    float(np.clip(0.8 * (self.rtol / defect) ** (1 / (DEGREE + 1)), 0.1, 0.7))
                    if defect < np.inf
                    else 0.2
                )
                if not h > 0:
                    return f"stopped at t = {state.t:.3g}: the step vanished; the measure may be badly scaled"
                p = np.full(DEGREE + 1, np.log(state.u))
                continue
            self.steps += 1
            self.residual = max(self.residual, defect)
            end = state.t + h * _clock(np.exp(solved), 1.0)
            while done < t.size and t[done] <= end:
                rows[done] = self.observe(
                    self.advance(state, h, np.exp(solved), self.fraction(state, h, np.exp(solved), t[done]))
                )
                done += 1
            state = self.advance(state, h, np.exp(solved), 1.0)
            growth = float(np.clip(0.8 * (self.rtol / max(defect, 1e-300)) ** (1 / (DEGREE + 1)), 0.3, 3.0))
            p = (
                COLLOCATION.lagrange(1 + growth * np.array(NODES)) @ solved
                if growth < 2
                else np.full(DEGREE + 1, solved[-1])
            )
            h *= growth
        return "ok"

    def solve(self, state: _State, h: float, p: Array) -> tuple[Array, float]:
        """ln u at the nodes, shape (s + 1,), from the guess p, by Newton; and the defect of ln K between the nodes (inf: no solution)."""
        gram = self.gram(state, h)
        p = p.copy()
        p[0] = np.log(state.u)
        with np.errstate(all="ignore"):
            for _ in range(12):
                u = np.exp(p)
                F, J = _equations(gram[:-1], u)
                change = np.linalg.solve(J, -(F + 2 * p[1:])) if np.all(np.isfinite(J)) else np.full(DEGREE, np.nan)
                if not np.all(np.isfinite(change)) or np.abs(change).max() > 3:
                    return p, np.inf
                p[1:] += change
                if np.abs(change).max() < 1e-2 * self.rtol:
                    break
            else:
                return p, np.inf
            log_K, _ = _equations(gram[-1:], np.exp(p))
            between = COLLOCATION.lagrange(np.array(CHECK)) @ np.exp(p)
            return p, float(abs(log_K[0] + 2 * np.log(between))) if between > 0 else np.inf

    def gram(self, state: _State, h: float) -> Array:
        """K_i − 1 as quadratic forms in (1, u_0 … u_s): shape (s + 1, s + 2, s + 2), nodes 1..s and then the check."""
        total = np.zeros((DEGREE + 1, DEGREE + 2, DEGREE + 2))
        self.end = []
        for part in self.chunks:
            decay, Z, R = COLLOCATION(self.x[part] * h)
            self.end.append((decay[END], Z[END], R[END]))
            V = np.concatenate([(decay * state.z[part])[:, None, :], Z], axis=1)
            total += (V * self.weight[part]) @ np.swapaxes(V, 1, 2)
        return total

    def advance(self, state: _State, h: float, u: Array, c: float) -> _State:
        """The state a fraction c into the step last solved, on which u has the given values at the nodes."""
        u_part = COLLOCATION.lagrange(c * np.array(NODES)) @ u if c < 1 else u
        z, r = np.empty_like(state.z), np.empty_like(state.r)
        for part, end in zip(self.chunks, self.end, strict=True):
            decay, Z, R = end if c == 1 else (weights[0] for weights in OUTPUT(self.x[part] * (h * c)))
            z[part] = decay * state.z[part] + u_part @ Z
            # R annihilates constants: differences keep the digits of a residual far below 1.
            r[part] = decay * state.r[part] + (u_part - u_part[0]) @ R
        return _State(z, r, float(u_part[-1]), state.t + h * _clock(u, c))

    def fraction(self, state: _State, h: float, u: Array, t: float) -> float:
        """Where in the step the flow time is t, in (0, 1]."""
        if state.t + h * _clock(u, 1.0) <= t:
            return 1.0
        return float(brentq(lambda c: state.t + h * _clock(u, c) - t, 0.0, 1.0, xtol=1e-15))

    def observe(self, state: _State) -> tuple[float, float]:
        """Loss and K of a state; K from its conservation law, not from the polynomial."""
        loss = self.atom + self.rho @ (state.r / state.u) ** 2
        return float(loss), float(1 + self.weight @ state.z**2)


def _equations(gram: Array, u: Array) -> tuple[Array, Array]:
    """ln K at the rows of `gram`, shape (k,), and the Jacobian of ln K_i + 2 ln u_i in ln u_1..ln u_s, shape (k, s)."""
    q = np.concatenate([[1.0], u])
    half = gram @ q
    K = 1 + half @ q
    J = 2 * half[:, 2:] * u[1:] / K[:, None]
    if len(gram) == DEGREE:
        J = J + 2 * np.eye(DEGREE)
    return np.log(K), J


_GAUSS = np.polynomial.legendre.leggauss(DEGREE + 1)


def _clock(u: Array, c: float) -> float:
    """∫_0^c u(σ)² dσ, exact for the polynomial u of degree s."""
    nodes, weights = _GAUSS
    return float(c / 2 * (weights @ (COLLOCATION.lagrange(c * (nodes + 1) / 2) @ u) ** 2))
