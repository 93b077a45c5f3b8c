r"""Simulation of linear networks of depth D with every layer trained and no projection: as defined, and with no more rows than modes.

In the normalised layers Ã = A/√N, W̃_l = W_l/√N, w̃ = w/√N, with m_l = W̃_{l+1}ᵀ⋯W̃_{D−1}ᵀw̃ and f_l = W̃_l⋯W̃_2 Ã g, a step is, from the old values,

.. math::
    \tilde A \leftarrow \tilde A + \eta\gamma\, m_1 g^\top, \qquad \tilde W_l \leftarrow \tilde W_l + \eta\gamma\, m_l f_{l-1}^\top, \qquad
    \tilde w \leftarrow \tilde w + \eta\, f_{D-1}, \qquad g = \hat\Sigma v, \quad v = w^* - \tilde A^\top m_1 .

W̃_l(0) is orthogonal, which may be taken as I since A(0) has the same law rotated, or has entries N(0, 1)/√N.

**Exact reduction**: with W̃_l(0) = I every m_l and f_l stays in the range of Ã(0), so N > M rows may be replaced by the M of a triangular factor with the
same Ã(0)ᵀÃ(0), a Wishart matrix that is drawn as such whatever N (Bartlett); N = inf is Ã(0) = I. At D = 2 a step is a Lorentz boost of the rows
Z = [Ã, √γ w̃], Z ← Z(I + ηG): ZᵀZ closes, of size M + 1 whatever N, and flow conserves Z diag(I, −1) Zᵀ. A batch needs one normal a mode, as in
:mod:`featscale.simulate.collapsed`. Derived; tests/simulate/test_linear_networks_simulation.py checks each of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.sparse import csc_matrix
from scipy.special import zeta

from featscale.errors import require
from featscale.numerics.grids import log_steps
from featscale.simulate.curves import Curves, Method
from featscale.simulate.problem import MODE_BLOCK, PURPOSES, generator, initial_features, stability_bound
from featscale.spectra import PowerLaw

Array = NDArray[np.float64]
Hidden = Literal["orthogonal", "gaussian"]

CELLS_MIN = 8


@dataclass(frozen=True)
class LinearProblem:
    """One experiment with a linear network.

    Arguments: task. N, width, an integer >= 1, or inf (orthogonal hidden layers only). eta, learning rate > 0; flow time is t = eta * step.
    gamma >= 0, richness. depth D >= 2, trained layers. B, fresh samples a step, an integer >= 1 or inf. sigma >= 0, label noise.
    hidden, how W_2 … W_{D−1} start.
    Raises: BadInput that names the field otherwise, also when eta is past the stability bound at initialisation at infinite width.
    """

    task: PowerLaw
    N: float
    eta: float
    gamma: float
    depth: int = 2
    B: float = math.inf
    sigma: float = 0.0
    hidden: Hidden = "orthogonal"

    def __post_init__(self) -> None:
        for field, value in (("width", self.N), ("batch", self.B)):
            require(value == math.inf or (value >= 1 and int(value) == value), field, value, "an integer >= 1, or inf")
        require(0 <= self.gamma < math.inf, "gamma", self.gamma, "a number >= 0")
        require(isinstance(self.depth, (int, np.integer)) and self.depth >= 2, "depth", self.depth, "an integer >= 2")
        require(0 <= self.sigma < math.inf, "sigma", self.sigma, "a number >= 0")
        require(self.hidden in ("orthogonal", "gaussian"), "hidden", self.hidden, "orthogonal or gaussian")
        bound = stability_bound(self.task, self.B)
        require(0 < self.eta < bound, "eta", self.eta, f"a number > 0 and below the stability bound {bound:.4g}")


def initial_layers(problem: LinearProblem, seed: int, method: Method) -> list[Array]:
    """Ã(0), shape (r, M), and W̃_2(0) …, shape (r, r): r = N for "naive", min(N, M) for "collapsed"."""
    N, M = problem.N, problem.task.M
    reduced = method == "collapsed" and problem.hidden == "orthogonal" and N > M
    require(
        math.inf > N or reduced, "width", N, "finite, unless the method is collapsed and the hidden layers orthogonal"
    )
    first = wishart_factor(seed, N, M) if reduced else _features(seed, int(N), M) / math.sqrt(N)
    r = len(first)
    if problem.hidden == "orthogonal":
        return [first, *(np.eye(r) for _ in range(problem.depth - 2))]
    # Streams of the hidden layers lie behind those of the blocks of modes.
    streams = [generator(seed, "features", 2**40 + layer) for layer in range(problem.depth - 2)]
    return [first, *(torch.randn(r, r, dtype=torch.float64, generator=g).numpy() / math.sqrt(N) for g in streams)]


def wishart_factor(seed: int, N: float, M: int) -> Array:
    """Upper triangular R, shape (M, M), with RᵀR distributed as A(0)ᵀA(0)/N of N >= M rows; I at N = inf."""
    if math.inf == N:
        return np.eye(M)
    rng = np.random.default_rng((seed, PURPOSES.index("features"), int(N)))
    R = np.triu(rng.standard_normal((M, M)), 1)
    R[np.diag_indices(M)] = np.sqrt(rng.chisquare(N - np.arange(M)))
    return R / math.sqrt(N)


class LinearNetwork:
    """One seed of a linear network, float64 on the CPU.

    layers, [Ã, W̃_2, …, W̃_{D−1}], and w, w̃. method, "naive": N rows, every batch drawn; "collapsed": min(N, M) rows, one normal a mode and step.
    """

    def __init__(self, problem: LinearProblem, seed: int, method: Method = "collapsed") -> None:
        require(method in ("naive", "collapsed"), "method", method, "naive or collapsed")
        self.problem, self.seed, self.method = problem, seed, method
        self.lambdas, self.w_star = problem.task.lambdas(), problem.task.w_star()
        self.layers = initial_layers(problem, seed, method)
        self.w = np.zeros(len(self.layers[0]))

    def advance(self, start: int, stop: int) -> None:
        """Steps start, …, stop − 1."""
        for step in range(start, stop):
            self.step(step)

    def step(self, step: int) -> None:
        """One update of every layer, all from the old values."""
        eta, gamma = self.problem.eta, self.problem.gamma
        m = self.backward()
        g = self.gradient(self.w_star - m[0] @ self.layers[0], step)
        f = g
        for layer, m_l in zip(self.layers, m, strict=True):
            f, f_below = layer @ f, f
            layer += np.multiply.outer((eta * gamma) * m_l, f_below)
        self.w = self.w + eta * f

    def backward(self) -> list[Array]:
        """m_1, …, m_{D−1} = w̃, each of shape (r,)."""
        m = [self.w]
        for layer in reversed(self.layers[1:]):
            m.append(m[-1] @ layer)
        return m[::-1]

    def gradient(self, v: Array, step: int) -> Array:
        """Σ̂v + Ψᵀε/B, shape (M,); Λv at B = inf."""
        B, sigma = self.problem.B, self.problem.sigma
        if math.inf == B:
            return self.lambdas * v
        if self.method == "naive":
            rng = generator(self.seed, "batch", step)
            psi = torch.randn(int(B), len(v), dtype=torch.float64, generator=rng).numpy() * np.sqrt(self.lambdas)
            return psi.T @ (psi @ v + sigma * torch.randn(int(B), dtype=torch.float64, generator=rng).numpy()) / B
        numpy = np.random.default_rng((self.seed, PURPOSES.index("noise"), step))
        z, z0, chi2 = numpy.standard_normal(len(v)), numpy.standard_normal(), numpy.chisquare(B)
        h, g = np.sqrt(self.lambdas) * v, self.lambdas * v
        L = h @ h + sigma**2
        spread = math.sqrt(L * chi2) / B
        return g * (chi2 / B - spread * (h @ z + sigma * z0) / L) + spread * np.sqrt(self.lambdas) * z

    def loss(self) -> float:
        """Population loss vᵀΛv, without label noise."""
        v = self.w_star - self.backward()[0] @ self.layers[0]
        return float(self.lambdas @ v**2)

    def K(self) -> float:
        """Growth 1 + γ‖w̃‖²."""
        return 1 + self.problem.gamma * float(self.w @ self.w)


def simulate_linear(
    problem: LinearProblem, T: int, seeds: Sequence[int], method: Method = "collapsed", per_decade: int = 24
) -> Curves:
    """Run `T` steps of every seed from w = 0 and log on a log grid of steps.

    Arguments: T >= 1. seeds, non-negative integers. method, "collapsed" or "naive". per_decade >= 1, rows a decade.
    Returns: :class:`featscale.simulate.curves.Curves`; a diverged seed has inf or NaN from where it left.
    Cost: O(r M + D r²) a step and seed, r = min(N, M) rows collapsed, N naive.
    """
    require(len(seeds) >= 1 and all(seed >= 0 for seed in seeds), "seeds", list(seeds), "at least one integer >= 0")
    steps = log_steps(T, per_decade)
    loss, K = np.empty((2, steps.size, len(seeds)))
    with np.errstate(all="ignore"):
        for column, seed in enumerate(seeds):
            network = LinearNetwork(problem, seed, method)
            for i, step in enumerate(steps):
                network.advance(int(steps[i - 1]) if i else 0, int(step))
                loss[i, column], K[i, column] = network.loss(), network.K()
    return Curves(steps, np.asarray(problem.eta * steps, np.float64), loss, K, tuple(seeds))


@dataclass(frozen=True)
class NarrowFlow:
    """Gradient flow of one draw of a narrow two-layer linear network.

    t, flow times as asked, shape (n,). loss, L(t). K = 1 + γ‖w̃‖². status, "ok" or advice. residual, the relative tolerance of the integrator. cost, steps.
    """

    t: Array
    loss: Array
    K: Array
    status: str
    residual: float
    cost: int


def narrow_flow(
    task: PowerLaw, N: int, gamma: float, t: ArrayLike, seed: int, cells: int = 60, rtol: float = 1e-5
) -> NarrowFlow:
    r"""Gradient flow η → 0 of a two-layer linear network of small width, for one draw of A(0), to any time.

    The modes of a geometric cell share one eigenvalue, their mean, and all their power. Such n modes need only min(n, N + 1) directions, the target's
    and a triangular factor of the rest, exactly: M = 10^7 modes become 60 (N + 1). A stiff implicit integrator then crosses any time; descent could not, since
    the curvature grows with the modes learned per neuron, as k*/N.
    Arguments: task, M <= 10^9. N, width, 1 <= N <= 8. gamma >= 0. t >= 0, shape (n,), increasing. cells >= 8.
    Returns: :class:`NarrowFlow`. Accuracy: of the cells, (ln M α/cells)²/10 in L; of the integrator, rtol. Cost: 2 s at N = 1, 3 s at 2, 30 s at 4.
    """
    times = np.atleast_1d(np.asarray(t, np.float64))
    increasing = bool(np.all((times >= 0) & (times < np.inf)) and np.all(np.diff(times) > 0))
    require(increasing, "times", t, "finite flow times >= 0, increasing")
    require(isinstance(N, (int, np.integer)) and 1 <= N <= 8, "width", N, "an integer from 1 to 8")
    require(0 <= gamma < math.inf, "gamma", gamma, "a number >= 0")
    require(task.M <= 10**9, "modes", task.M, "at most 10^9")
    require(isinstance(cells, (int, np.integer)) and cells >= CELLS_MIN, "cells", cells, f"an integer >= {CELLS_MIN}")
    system = _Narrow(task, N, gamma, seed, cells)
    span = (0.0, max(float(times[-1]), 1e-12))
    solution = solve_ivp(
        system.rate, span, system.start, "Radau", times, jac=system.jacobian, rtol=rtol, atol=1e-3 * rtol
    )
    loss, K = np.full((2, times.size), np.nan)
    for i, y in enumerate(solution.y.T):
        A, w = system.split(y)
        loss[i], K[i] = system.lam @ (system.target - A @ w) ** 2, 1 + gamma * w @ w
    status = "ok" if solution.success else f"stopped: {solution.message}"
    return NarrowFlow(times, loss, K, status, rtol, int(solution.nlu))


class _Narrow:
    """Rates and Jacobian of the state y = (columns of Ã, then w̃), columns j of eigenvalue lam_j."""

    def __init__(self, task: PowerLaw, N: int, gamma: float, seed: int, cells: int) -> None:
        self.N, self.gamma = N, gamma
        edges = np.unique(np.round(np.geomspace(1, task.M + 1, cells + 1)))
        low, high = edges[:-1], edges[1:]
        n = high - low
        lam = (zeta(task.alpha, low) - zeta(task.alpha, high)) / n
        power = zeta(task.alpha * task.beta + 1, low) - zeta(task.alpha * task.beta + 1, high)
        size = np.minimum(n, N + 1).astype(int)
        first = np.cumsum(size) - size
        self.lam, self.target = np.repeat(lam, size), np.zeros(size.sum())
        self.target[first] = np.sqrt(power / lam)
        rng = np.random.default_rng((seed, PURPOSES.index("features"), N))
        columns = [_cell_columns(rng, int(count), N) for count in n]
        self.start = np.concatenate([np.concatenate(columns).ravel() / math.sqrt(N), np.zeros(N)])
        self.index = self._sparsity(self.lam.size)

    def split(self, y: Array) -> tuple[Array, Array]:
        """Columns of Ã as rows, shape (m, N), and w̃, shape (N,)."""
        return y[: -self.N].reshape(-1, self.N), y[-self.N :]

    def rate(self, t: float, y: Array) -> Array:
        A, w = self.split(y)
        g = self.lam * (self.target - A @ w)
        return np.concatenate([(self.gamma * g[:, None] * w).ravel(), g @ A])

    def jacobian(self, t: float, y: Array) -> csc_matrix:
        """An arrow: one N × N block a column, and the last N rows and columns."""
        A, w = self.split(y)
        g = self.lam * (self.target - A @ w)
        column = -self.gamma * self.lam[:, None, None] * np.outer(w, w)
        mixed = g[:, None, None] * np.eye(self.N) - (self.lam[:, None] * A)[:, None, :] * w[None, :, None]
        corner = -(A.T * self.lam) @ A
        values = np.concatenate([part.ravel() for part in (column, self.gamma * mixed, mixed, corner)])
        return csc_matrix((values, self.index), shape=(y.size, y.size))

    def _sparsity(self, m: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of each value of the Jacobian."""
        N = self.N
        own = np.arange(m * N).reshape(m, N)
        across = np.repeat(own[:, :, None], N, axis=2)
        readout = np.broadcast_to(m * N + np.arange(N), (m, N, N))
        corner = m * N + np.indices((N, N))
        rows = [across, across, readout, corner[0]]
        columns = [np.swapaxes(across, 1, 2), readout, across, corner[1]]
        row, column = (np.concatenate([part.ravel() for part in parts]) for parts in (rows, columns))
        return row, column


def _cell_columns(rng: np.random.Generator, n: int, N: int) -> Array:
    """Columns of A(0) on a cell of n modes, as rows: the target's direction, then the others or a triangular factor of them."""
    if n <= N + 1:
        return rng.standard_normal((n, N))
    rest = np.triu(rng.standard_normal((N, N)), 1)
    rest[np.diag_indices(N)] = np.sqrt(rng.chisquare(n - 1 - np.arange(N)))
    return np.concatenate([rng.standard_normal((1, N)), rest])


def _features(seed: int, N: int, M: int) -> Array:
    blocks = [initial_features(seed, N, block, M) for block in range(-(-M // MODE_BLOCK))]
    return torch.cat(blocks, dim=1).numpy()
