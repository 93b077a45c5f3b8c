r"""Linear networks without the projection: no width bottleneck; infinite-width flow at any depth, mean-field theory at finite width, exponents.

f(x) = w·W_{D−1}⋯W_2 A ψ(x) / N^{D/2} of depth D, gradient descent on every layer, richness γ, features ψ of covariance Λ. In the normalised
layers Ã = A/√N, W̃ = W/√N, w̃ = w/√N, with m = W̃_2ᵀ⋯W̃_{D−1}ᵀw̃, p = Ãᵀm, residual v = w* − p and g = Λv,

.. math:: \dot{\tilde w} = \tilde W_{D-1} \cdots \tilde W_2 \tilde A\, g, \qquad \dot{\tilde A} = \gamma\, m\, g^\top

and likewise between. Flow conserves W̃W̃ᵀ − γw̃w̃ᵀ of the last hidden layer (of Ã if D = 2) and, of the others, W̃_l W̃_lᵀ − W̃_{l+1}ᵀW̃_{l+1}: the analogue
of UUᵀ − (γ/N) wwᵀ = I.

**Infinite width**, W̃_l(0) orthogonal: with K = 1 + γ‖w̃‖² these laws give every Gram matrix, and the kernel K^{D−1} I + (D−1)(γ/K) p pᵀ. Hence

.. math::
    \dot a = K^{D-1} x (1 - a) + (D-1) \frac{\gamma c}{K}\, a, \quad \dot K = 2 \gamma c, \quad c = \int \rho\, a (1 - a), \quad L = \int \rho\, (1 - a)^2

and on a hard task K ~ τ^{(1−β)/D}, τ = ∫K^{D−1}dt, L ~ τ^−β: the exponent is Dβ/(1 + (D−1)β). D = 2 is the projected model at infinite width.

**Finite width, late**: once k* ≫ N modes are learned, conservation reads Σ_{k<k*} w*_k² = m·ÃÃᵀm ≈ (k*/N)‖m‖², while the modes still to learn relax at
the rate γ‖m‖²λ_k. So ‖m‖² ~ N k*^{α(1−b)−1} with b = min(β, 1), and k* ~ (γNt)^{1/(αb+1)}. What the random first layer puts on every such mode, ‖m‖²/N, is
of the order of the target's power there or above, and L ~ (γNt)^{−αb/(αb+1)}: a function of γNt alone, and of no depth. It holds while α(1−b) < D; else
γ‖w̃‖² grows faster than k*/N and the exponent is that of infinite width.

Source: arXiv:2409.17858 for the two-layer model; the rest is derived. tests/theory/test_linear_networks.py compares with descent on the layers and
fits slopes, tests/simulate/test_linear_networks_simulation.py compares with simulations at finite width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featscale.errors import require
from featscale.numerics.sample_covariance import Modes
from featscale.spectra import PowerLaw, SpectralMeasure, require_exponents
from featscale.theory.flow import CHECK, COLLOCATION, DEGREE, Flow, _equations, _Solver, _State, lazy_loss
from featscale.theory.modes import binned_modes

Array = NDArray[np.float64]

BINS = 60
MEMORY_MAX = 8e9
# A loss this many times the initial one is not on its way back.
RUNAWAY = 1e6


def chi_deep(beta: float, depth: int, rich: bool) -> float:
    r"""Time exponent of a linear network of infinite width: β when lazy, β max(1, D/(1 + (D − 1)β)) when rich.

    Arguments: beta > 0. depth D >= 2, number of trained layers.

    >>> chi_deep(0.5, 3, rich=True), chi_deep(1.5, 3, rich=True)
    (0.75, 1.5)
    """
    require(0 < beta < np.inf, "beta", beta, "a number > 0")
    _require_depth(depth)
    return beta * max(1.0, depth / (1 + (depth - 1) * beta)) if rich else beta


def chi_narrow(alpha: float, beta: float, depth: int = 2) -> float:
    r"""Time exponent of a rich linear network of fixed width N, late: L ~ (γNt)^−χ with χ = αb/(αb + 1), b = min(β, 1), while α(1 − b) < D.

    Beyond that Db/(1 + (D − 1)b), as at infinite width. It is never larger than that: the bottleneck is gone, but narrow networks are slower.
    Arguments: alpha > 1, beta > 0. depth D >= 2.

    >>> round(chi_narrow(1.5, 0.5), 4), round(chi_narrow(1.5, 2.5), 4)
    (0.4286, 0.6)
    """
    require_exponents(alpha, beta)
    _require_depth(depth)
    b = min(beta, 1.0)
    return alpha * b / (alpha * b + 1) if alpha * (1 - b) < depth else depth * b / (1 + (depth - 1) * b)


def deep_flow(measure: SpectralMeasure, gamma: float, t: ArrayLike, depth: int = 2, rtol: float = 1e-9) -> Flow:
    r"""Gradient flow of a linear network of infinite width and depth D, hidden layers orthogonal at first.

    With the slow clock τ = ∫K^{D−1} dt and u = K^{−(D−1)/2} the modes obey the equations of :mod:`featscale.theory.flow`; only K = u^{−2/(D−1)} is new.
    Arguments: measure, x = λ_k, rho = ρ_k. gamma >= 0. t >= 0, shape (n,), any order. depth D >= 2. rtol from 1e-13 to 1e-2.
    Returns: :class:`featscale.theory.flow.Flow`. Raises: BadInput.
    Accuracy: relative error of L and K about ten times rtol. Cost: O(modes) a step, about 15 steps a decade of time.
    """
    t = np.atleast_1d(np.asarray(t, np.float64))
    require(0 <= gamma < np.inf, "gamma", gamma, "a number >= 0")
    require(bool(np.all((t >= 0) & (t < np.inf))), "times", t, "finite flow times >= 0")
    require(1e-13 <= rtol <= 1e-2, "rtol", rtol, "a number from 1e-13 to 1e-2")
    _require_depth(depth)
    if gamma == 0:
        return Flow(t, lazy_loss(measure, t), np.ones_like(t), "ok", 0.0, 0)
    order = np.argsort(t, kind="stable")
    rows, sorted_rows = np.empty((t.size, 2)), np.empty((t.size, 2))
    solver = _DeepSolver(measure, gamma, rtol, depth)
    status = solver.run(t[order], sorted_rows)
    rows[order] = sorted_rows
    return Flow(t, rows[:, 0], rows[:, 1], status, solver.residual, solver.steps)


class _DeepSolver(_Solver):
    """The two-layer solver with K = u^{−power}, power = 2/(D − 1), in place of u^{−2}."""

    def __init__(self, measure: SpectralMeasure, gamma: float, rtol: float, depth: int) -> None:
        super().__init__(measure, gamma, rtol)
        self.power = 2 / (depth - 1)

    def solve(self, state: _State, h: float, p: Array) -> tuple[Array, float]:
        """ln u at the nodes and the defect of ln K between them, as in the two-layer solver."""
        gram, p = self.gram(state, h), p.copy()
        p[0] = np.log(state.u)
        with np.errstate(all="ignore"):
            for _ in range(12):
                F, J = _equations(gram[:-1], np.exp(p))
                J = J + (self.power - 2) * np.eye(DEGREE)
                if not np.all(np.isfinite(J)):
                    return p, np.inf
                change = np.linalg.solve(J, -(F + self.power * p[1:]))
                if not np.all(np.isfinite(change)) or np.abs(change).max() > 3:
                    return p, np.inf
                p[1:] += change
                if np.abs(change).max() < 1e-2 * self.rtol:
                    break
            else:
                return p, np.inf
            log_K, _ = _equations(gram[-1:], np.exp(p))
            between = float(COLLOCATION.lagrange(np.array(CHECK)) @ np.exp(p))
            return p, float(abs(log_K[0] + self.power * np.log(between))) if between > 0 else np.inf


@dataclass(frozen=True)
class LinearDmft:
    """Mean loss curve of a two-layer linear network over draws of A(0) and batches.

    step, 0 … T, number of updates made; shorter where the run is unstable. t = eta * step, flow time. loss, population loss. K = 1 + gamma C_w.
    All of shape (n,). status, "ok" or advice. residual, relative error left in the equations: they are solved in one pass, to rounding. cost, multiplications.
    """

    step: NDArray[np.int64]
    t: Array
    loss: Array
    K: Array
    status: str
    residual: float
    cost: float


def two_layer_dmft(
    task: PowerLaw,
    N: float,
    B: float,
    eta: float,
    gamma: float,
    T: int,
    *,
    sigma: float = 0.0,
    bins: int | None = BINS,
) -> LinearDmft:
    r"""Loss after each of `T` steps of a two-layer linear network, at finite width, batch and learning rate.

    Two-time arrays are [t, s], later time first; A(t) = A(0) + ηγ Σ_{s<t} w_s g_sᵀ, ψ = A(0)g, and the projected model's
    :mod:`featscale.theory.dmft_iterated` changes in three places: W reads C_g for C_u, what the readout adds to its own features acts on g instead of u,
    and the noise of the initial features comes through W alone.

    .. math::
        W_{t+1} &= W_t + \eta\, e_t + \eta^2 \gamma \sum_{s<t} C_g(t, s) W_s, \qquad C_w = W C_\psi W^\top, \qquad
        X = W R + \eta\gamma\, \mathrm{lower}(C_w) \\
        H_k &= (I + \lambda_k X)^{-1}, \qquad C_k = H_k \big[ w_k^{*2} 11^\top + C_w / N + X D_k X^\top \big] H_k^\top \\
        L(t) &= \sum_k \lambda_k C_k(t, t), \qquad D_k = \mathrm{diag}(\lambda_k (L + \sigma^2) + \lambda_k^2 C_k) / B \\
        C_g &= \sum_k \big[ \lambda_k^2 C_k + H_k D_k + D_k H_k^\top - D_k \big], \qquad
        R = \Big( I + \frac{1}{N} \sum_k \lambda_k H_k W \Big)^{-1}, \qquad C_\psi = R\, C_g R^\top

    Every line gives row t from rows before it, so one pass in t solves them.
    Derived (cavity over the columns of A(0)); tests/simulate/test_linear_networks_simulation.py compares with simulations at finite N and B.
    Arguments: task. N >= 1 and B >= 1, integers or inf. eta > 0. gamma >= 0. T >= 0, steps. sigma >= 0, label noise. bins >= 4, or None: every mode.
    Returns: :class:`LinearDmft`. Raises: BadInput that names the field; also where the two-time arrays would not fit in memory.
    Accuracy: O(1/N). Cost: 2/3 bins T³ multiplications, 8 bins T² bytes: 2 s at T = 200, 60 bins.
    """
    for field, value in (("width", N), ("batch", B)):
        require(value == math.inf or (value >= 1 and int(value) == value), field, value, "an integer >= 1, or inf")
    require(0 < eta < math.inf, "eta", eta, "a number > 0")
    require(0 <= gamma < math.inf, "gamma", gamma, "a number >= 0")
    require(0 <= sigma < math.inf, "sigma", sigma, "a number >= 0")
    require(isinstance(T, (int, np.integer)) and T >= 0, "steps", T, "an integer >= 0")
    modes, n = binned_modes(task, bins), T + 1
    memory = 8.0 * modes.lam.size * n**2
    require(
        memory <= MEMORY_MAX,
        "steps",
        T,
        f"few enough for 8 bins steps² = {memory:.1e} bytes to fit in {MEMORY_MAX:.0e}",
    )
    march = _March(modes, 1 / N, 1 / B, eta, gamma, sigma, n)
    with np.errstate(all="ignore"):
        done = march.run()
    status = "ok" if done == n else f"the loss runs away at step {done}: lower eta or gamma, or raise the batch"
    step, C_w = np.arange(done), np.diag(march.C_w)[:done]
    cost = 2 / 3 * modes.lam.size * float(done) ** 3
    return LinearDmft(step, np.asarray(eta * step, np.float64), march.loss[:done], 1 + gamma * C_w, status, 0.0, cost)


class _March:
    """The equations of two_layer_dmft, row by row."""

    def __init__(
        self, modes: Modes, per_N: float, per_B: float, eta: float, gamma: float, sigma: float, n: int
    ) -> None:
        self.modes, self.per_N, self.per_B = modes, per_N, per_B
        self.eta, self.gamma, self.sigma, self.n = eta, gamma, sigma, n
        self.W, self.R, self.X, self.C_w, self.C_g, self.C_psi = np.zeros((6, n, n))
        self.H, self.D = np.zeros((modes.lam.size, n, n)), np.zeros((modes.lam.size, n))
        self.loss = np.full(n, np.nan)

    def run(self) -> int:
        """Fill every row; the number of rows before the loss runs away."""
        ceiling = RUNAWAY * (self.modes.rho.sum() + self.sigma**2)
        for t in range(self.n):
            self.readout(t)
            self.residual(t)
            if not self.loss[t] <= ceiling:
                return t
            self.features(t)
        return self.n

    def readout(self, t: int) -> None:
        """W, C_w and X of row t, from rows before it."""
        if t == 0:
            return
        past, upto = slice(0, t), slice(0, t + 1)
        self.W[t] = self.W[t - 1] + self.eta**2 * self.gamma * self.C_g[t - 1, : t - 1] @ self.W[: t - 1]
        self.W[t, t - 1] += self.eta
        self.C_w[t, upto] = self.C_w[upto, t] = (self.W[t, past] @ self.C_psi[past, past]) @ self.W[upto, past].T
        self.X[t, past] = self.W[t, past] @ self.R[past, past] + self.eta * self.gamma * self.C_w[t, past]

    def residual(self, t: int) -> None:
        """H, C_k, the loss, D and C_g of row t."""
        lam, count, rho = self.modes.lam, self.modes.count, self.modes.rho
        past, upto = slice(0, t), slice(0, t + 1)
        self.H[:, t, past] = -lam[:, None] * np.matmul(self.X[t, past], self.H[:, past, past])
        self.H[:, t, t] = 1.0
        h = self.H[:, t, upto]
        # Row t of H S, S the covariance of the sources of a bin's modes together; then C_k(t, ·) = (H S)(t, ·) Hᵀ.
        HS = (rho / lam * h.sum(axis=1))[:, None] + (count * self.per_N)[:, None] * (h @ self.C_w[upto, upto])
        HS += (h @ self.X[upto, upto] * self.D[:, upto]) @ self.X[upto, upto].T
        C = np.matmul(self.H[:, upto, upto], HS[:, :, None])[:, :, 0]
        self.loss[t] = lam @ C[:, t]
        self.D[:, t] = self.per_B * (count * lam * (self.loss[t] + self.sigma**2) + lam**2 * C[:, t])
        self.C_g[t, upto] = self.C_g[upto, t] = lam**2 @ C + (h * self.D[:, upto]).sum(axis=0)

    def features(self, t: int) -> None:
        """R and C_ψ of row t."""
        past, upto = slice(0, t), slice(0, t + 1)
        reaction = -((self.modes.count * self.modes.lam) @ self.H[:, t, upto]) @ self.W[upto, past]
        self.R[t, past] = self.per_N * (reaction @ self.R[past, past])
        self.R[t, t] = 1.0
        self.C_psi[t, upto] = self.C_psi[upto, t] = (self.R[t, upto] @ self.C_g[upto, upto]) @ self.R[upto, upto].T


def _require_depth(depth: int) -> None:
    require(isinstance(depth, (int, np.integer)) and depth >= 2, "depth", depth, "an integer >= 2")
