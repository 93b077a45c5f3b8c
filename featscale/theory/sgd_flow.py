r"""Gradient flow with the noise of small batches, lazy and rich, on a log grid of time: SGD to first order in the learning rate, any number of steps.

The matrix F = (√γ w, U) of theory's collapse, A = U A(0), is multiplied from the right by 1 + η√γ 𝔅(û) at each step, 𝔅(û) = [[0, ûᵀ], [û, 0]], û = A(0)Σ̂v/√N.
Had the factor been e^{η√γ 𝔅}, a boost, FᵀF would be known from one vector. It differs by −η²γ𝔅²/2, whose large part is the number |û|² in its corner:
noise drains w at the rate of its power, as a decay of w would. So FᵀF is a sum over the times s at which that happened, r(t, s) the boosted unit vector e_0,

.. math::
    F^\top F = \mathrm{diag}(-1, I) + \int dm(s)\, r(t, s)\, r(t, s)^\top, \qquad
    dm(s) = \delta(s)\, ds + \gamma \epsilon \sum_i x_i f_i(s)\, ds, \qquad \epsilon = \eta / B

f_i = n_i (L + σ²) + E_i is the noise on the n_i modes at x_i, E_i = E h_i² their part of the loss. With r = (r_0, √γ q), self-averaging over modes, and in
the slow clock dτ = K dt, Q = √x q̄/h(0) the mean and p, ν the covariances of q and of its s = 0 member with the noise,

.. math::
    K = \int dm\, r_0^2, \qquad \frac{dQ_i}{d\tau} = \frac{r_0}{K} x_i e_i, \qquad \frac{de_i}{d\tau} = -x_i e_i - \int dm\, \frac{dr_0}{d\tau} Q_i, \qquad
    \frac{dr_0}{d\tau} = \frac{\gamma}{K} \Big[ \sum_i \rho_i Q_i e_i - \sqrt K \sum_i x_i p_i \Big] \\
    \frac{d\nu_i}{d\tau} = x_i (\epsilon f_i - 2 \nu_i), \qquad \frac{dp_i}{d\tau} = x_i \Big( \frac{r_0}{\sqrt K} (\epsilon f_i - \nu_i) - p_i \Big), \qquad
    E_i = \rho_i e_i^2 + K x_i \nu_i, \qquad L = \mathrm{atom} + \sum_i E_i

and f_i is divided by 1 − ηKx_i/2 in the last line, which makes the stationary noise of discrete steps exact. Derived. Exact as η → 0 to first order
in ε K Σx, what
its growth multiplies; neglected are O(η), O((εK Σx)²) and O(ε) of single modes. tests/theory/test_sgd.py measures the error against the discrete theory.

On a hard task (β < 1), rich, this gives: the excess loss of small batches is ε K L Σλ times a constant, ε t^{−(3β−1)/(1+β)}; it outlives L ~
t^{−2β/(1+β)}, and so
noise ends the rich phase where ε K Σλ nears 2: K stops growing first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featscale.numerics.sample_covariance import Modes

Array = NDArray[np.float64]

ROWS_PER_DECADE = 40
# The first step, in units of the fastest rate of the start.
FIRST = 1e-2
ITERATIONS = 50
TOLERANCE = 1e-11
# K changes by less than this factor in a step of the grid; iterations are kept inside.
GROWTH = 1.5
# The most that noise may add to K in a step, in units of K: older members decay as fast, and must be resolved.
RENEWAL = 0.5
LOWER = "lower eta or raise the batch"


@dataclass(frozen=True)
class NoisyFlow:
    """t, loss and K on the grid, each of shape (n,), as far as the run is stable; status; residual, largest power-weighted defect of e = 1 − ∫dm r_0 Q."""

    t: Array
    loss: Array
    K: Array
    status: str
    residual: float


def noisy_flow(modes: Modes, atom: float, gamma: float, eta: float, B: float, sigma: float, end: float) -> NoisyFlow:
    """Loss and K from t = 0 to `end` on a log grid, 40 rows a decade.

    Arguments: modes, rates x, how many modes n and power ρ at each. atom, power out of reach. B may be inf: no noise.
    Accuracy: second order in the grid, 1e-4. Cost: O(modes S²) for S rows.
    """
    first = min(FIRST / float(modes.lam[0] + np.sqrt(gamma * (modes.rho @ modes.lam))), end)
    rows = max(2, math.ceil(ROWS_PER_DECADE * math.log10(end / first)) + 1)
    t = np.concatenate([[0.0], np.geomspace(first, end, rows)])
    solver = _Solver(modes, atom, gamma, eta, B, sigma, t.size)
    loss, K = np.empty((2, t.size))
    loss[0], K[0] = solver.L - sigma**2, 1.0
    with np.errstate(all="ignore"):
        for i in range(t.size - 1):
            status = solver.advance(i, t[i + 1] - t[i])
            if status != "ok":
                return NoisyFlow(t[: i + 1], loss[: i + 1], K[: i + 1], status, solver.defect(i))
            loss[i + 1], K[i + 1] = solver.L - sigma**2, solver.K
    return NoisyFlow(t, loss, K, "ok", solver.defect(t.size - 1))


def _ramps(y: Array) -> tuple[Array, Array, Array]:
    """e^{−y} and the weights of the two ends of a linear drive g in ∫_0^1 y e^{−y(1−s)} g(s) ds."""
    decay = np.exp(-y)
    mean = np.where(y > 0, -np.expm1(-y) / y, 1.0)
    end = np.where(y > 1e-2, 1 - mean, y / 2 - y**2 / 6 + y**3 / 24 - y**4 / 120)
    return decay, -np.expm1(-y) - end, end


class _Answer:
    """Solves (a I + G Gᵀ diag m) y = b, G of shape (members, modes), by an inverse of the size of the modes."""

    def __init__(self, a: float, m: Array, G: Array) -> None:
        self.a, self.m, self.G = a, m, G
        self.inner = np.linalg.inv(a * np.eye(G.shape[1]) + (G.T * m) @ G)

    def __call__(self, b: Array) -> Array:
        return (b - self.G @ (self.inner @ (self.G.T @ (self.m * b)))) / self.a


class _Solver:
    """The state at one time and the implicit step; L includes the label noise. Member j of the sum over s was born at row j of the grid."""

    def __init__(self, modes: Modes, atom: float, gamma: float, eta: float, B: float, sigma: float, rows: int) -> None:
        self.x, self.n, self.rho, self.floor = modes.lam, modes.count, modes.rho, atom + sigma**2
        self.gamma, self.eta, self.epsilon = gamma, eta, eta / B
        self.m, self.r, self.dr = np.zeros((3, rows))
        self.Q, self.p = np.zeros((2, rows, self.x.size))
        self.m[0], self.r[0] = 1.0, 1.0
        self.K, self.L = 1.0, float(self.rho.sum()) + self.floor
        self.e, self.nu, self.drift = np.ones(self.x.size), np.zeros(self.x.size), np.zeros(self.x.size)
        self.f = self.n * self.L + self.rho

    def noise(self, f: Array, K: float) -> Array:
        """ε f over 1 − ηKx/2."""
        return self.epsilon * f / (1 - self.eta * K * self.x / 2)

    def advance(self, i: int, dt: float) -> str:
        """From row i to i + 1; "ok", or why not."""
        x, now = self.x, slice(0, i + 1)
        m, r, Q, p = self.m[now].copy(), self.r[now], self.Q[now], self.p[now]
        m[i] += self.strength(self.f) * dt / 2
        half = r + self.dr[now] * self.K * dt / 2
        kick, wander = self.noise(self.f, self.K) - self.nu, r / np.sqrt(self.K)
        K, L, f, dr, a, taken, solve = self.K, self.L, self.f, self.dr[now].copy(), r / self.K, np.zeros_like(x), None
        for _ in range(ITERATIONS):
            before = K, L
            r_1 = half + dr * K * dt / 2
            K = float(m @ r_1**2 + self.strength(f) * dt / 2)
            K = min(max(K, self.K / GROWTH), self.K * GROWTH)
            if not self.eta * K * x[0] < 2:
                return f"unstable, eta K x passes 2: {LOWER}"
            tau = (self.K + K) / 2 * dt
            decay, w_0, w_1 = _ramps(x * tau)
            drift = (m * dr) @ Q + (m @ (dr * a)) * taken
            e = self.e * decay - (w_0 * self.drift + w_1 * drift) / x
            taken, a = self.e - e - tau * (self.drift + drift) / 2, (r / self.K + r_1 / K) / 2
            L, f, nu = self.equilibrium(e, K, *_ramps(2 * x * tau))
            if not 0 <= L < np.inf:
                return f"unstable, the noise of a batch feeds itself: {LOWER}"
            kick_1 = self.noise(f, K) - nu
            mean = Q @ (self.rho * e) + a * (taken @ (self.rho * e))
            drag = float(x @ (w_1 * kick_1))
            rest = p @ (x * decay) + wander * (x @ (w_0 * kick))
            defect = self.gamma * (mean - np.sqrt(K) * rest - drag * r_1) - K * dr
            if solve is None:
                # The fast modes follow dr_0 at once: what they answer is linear in it.
                solve = _Answer(K * (1 + self.gamma * drag * dt / 2), m, Q * np.sqrt(self.gamma * self.rho * w_1 / x))
            dr = dr + solve(defect)
            if abs(K - before[0]) <= TOLERANCE * K and abs(L - before[1]) <= TOLERANCE * L:
                break
        else:
            return f"no solution found, the noise is too strong for its first order: {LOWER}, or use theory dmft"
        Q += a[:, None] * taken
        p *= decay
        p += np.outer(wander, w_0 * kick) + np.outer(r_1 / np.sqrt(K), w_1 * kick_1)
        self.m[now], self.r[now], self.dr[now] = m, r_1, dr
        self.m[i + 1], self.r[i + 1] = self.strength(f) * dt / 2, 1.0
        self.K, self.L, self.f, self.e, self.nu, self.drift = K, L, f, e, nu, drift
        return "ok"

    def strength(self, f: Array) -> float:
        """dm/ds."""
        return self.gamma * self.epsilon * float(self.x @ f)

    def equilibrium(self, e: Array, K: float, decay: Array, w_0: Array, w_1: Array) -> tuple[float, Array, Array]:
        """L, f and ν at the end of a step: ν holds f, f holds L and E, and both hold ν. L < 0 or inf if that has no stable solution."""
        base = self.nu * decay + w_0 * self.noise(self.f, self.K) / 2
        gain = K * self.x * self.noise(w_1, K) / 2
        if not gain.max() < 1:
            return np.inf, self.f, self.nu
        E = (self.rho * e**2 + K * self.x * base) / (1 - gain)
        share = gain * self.n / (1 - gain)
        L = float((E.sum() + self.floor) / (1 - share.sum()))
        f = self.n * L + E + share * L
        return L, f, base + w_1 * self.noise(f, K) / 2

    def defect(self, i: int) -> float:
        """Largest power-weighted difference of e and 1 − ∫dm r_0 Q at row i."""
        now = slice(0, i + 1)
        return float(self.rho @ np.abs(self.e - 1 + (self.m * self.r)[now] @ self.Q[now]) / self.rho.sum())
