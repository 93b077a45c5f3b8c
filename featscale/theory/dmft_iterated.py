r"""The equations of the dynamical mean-field theory, solved as they are written: a damped fixed point of T × T matrices.

Two-time arrays are [t, s], later time first. With v the residual, g = Σ̂v, u = A(0)g, C_w and C_u the correlations of w and u over neurons,

.. math::
    W_{t+1} &= W_t + \eta\, e_t + \eta^2 \gamma \sum_{s<t} C_u(t, s) W_s, \qquad C_w = W C_u W^\top, \qquad
    Y = W + \eta\gamma\, \mathrm{lower}(C_w), \qquad X = Y R \\
    H_k &= (I + \lambda_k X R_1)^{-1}, \qquad
    C_k = H_k \big[ w_k^{*2} 11^\top + Y C_u Y^\top / N + X D_k X^\top \big] H_k^\top, \qquad L(t) = \sum_k \lambda_k C_k(t, t) \\
    C_g &= \sum_k \big[ \lambda_k^2 R_1 C_k R_1^\top + D_k - \lambda_k (R_1 H_k X D_k + \mathrm{transpose}) \big], \qquad C_u = R\, C_g R^\top \\
    R &= \Big( I + \frac{1}{N} \sum_k \lambda_k R_1 H_k Y \Big)^{-1}, \qquad R_1 = \Big( I + \frac{1}{P} \sum_k \lambda_k H_k X \Big)^{-1}

R and R_1 are the reactions of the N initial features and of the P samples. The gradient noise of mode k is D_k, and Ξ the residuals that drive it:

.. math::
    D_k = \lambda_k \Xi + b\, \lambda_k^2\, \mathrm{diag}(R_1 C_k R_1^\top), \qquad
    \Xi = R_1 \Big[ \frac1P \Big( \sum_k \lambda_k C_k + \sigma^2 11^\top \Big) + b\, \mathrm{diag}(V) \Big] R_1^\top, \qquad b = \frac1B - \frac1P

with V(t) the training loss met by step t: P (Ξ(t, t) − b V(t)), or L + σ² if P = ∞. A step draws B of the P samples without replacement; P = ∞ is a
fresh batch a step, R_1 = I and Ξ = diag(L + σ²)/B.

Source: model of arXiv:2409.17858; the equations are derived (cavity over the columns of A(0) and over the samples, with the batch's choice as white
noise on each sample). The second part of D_k, fourth moments of Gaussian features, makes γ = 0 at N = P = ∞ the exact second-moment recursion.
tests/theory/test_dmft.py checks that, gradient flow at B = ∞ and small η, the deterministic laws of finite width and data, and simulations at finite N, B
and P. Neglected: O(1/N) (relative error of the loss 0.3/N to 1.3/N measured), O(1/P), and, rich only, O(1/B) (0.1/B): C_w fluctuates with the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from featscale.numerics.sample_covariance import Modes

Array = NDArray[np.float64]

DAMPING = 0.7
ITERATIONS = 300
TOLERANCE = 1e-13
# A loss this many times what the run began with, label noise included, is not on its way back.
RUNAWAY = 1e6


@dataclass(frozen=True)
class Setting:
    """What the equations need: modes (lam, count, rho), width N, batch B, learning rate eta, richness gamma, label noise sigma, data P; N, B, P may be inf."""

    modes: Modes
    N: float
    B: float
    eta: float
    gamma: float
    sigma: float
    P: float

    @property
    def choice(self) -> float:
        """b = 1/B − 1/P, the variance of a batch mean in units of a sample's."""
        return 1 / self.B - 1 / self.P

    @property
    def ceiling(self) -> float:
        """The loss past which a run has diverged."""
        return RUNAWAY * float(self.modes.rho.sum() + self.sigma**2)


class Solution(NamedTuple):
    """loss L, training loss V and C_w(t, t) at steps 0, 1, …, each of shape (n,); status; residual; cost, multiplications."""

    loss: Array
    train_loss: Array
    C_w: Array
    status: str
    residual: float
    cost: float


class Order(NamedTuple):
    """The order parameters of the fixed point: C_u, R, R_1, Ξ, each (n, n), and E_k(t) = Σ over the modes of bin k of (R_1 C_k R_1ᵀ)(t, t)."""

    C_u: Array
    R: Array
    R_1: Array
    Xi: Array
    E: Array


def iterate(setting: Setting, n: int) -> Solution:
    """Fixed point of the module's equations at steps 0 … n − 1.

    Returns: Solution; status is advice where no fixed point was reached. Cost: about 12 n³ multiplications a mode and an iteration, 20 to 40 iterations.
    """
    modes = setting.modes
    order = Order(np.zeros((n, n)), np.eye(n), np.eye(n), np.zeros((n, n)), np.zeros((modes.lam.size, n)))
    residual, rounds = np.inf, 0
    with np.errstate(all="ignore"):
        while residual > TOLERANCE and rounds < ITERATIONS:
            new, loss, V, C_w = _sweep(setting, order)
            rounds += 1
            residual = max(_change(a, b) for a, b in zip(new, order, strict=True))
            if not np.isfinite(residual):
                break
            order = Order(*(DAMPING * a + (1 - DAMPING) * b for a, b in zip(new, order, strict=True)))
    cost = 12.0 * rounds * modes.lam.size * n**3
    if residual <= TOLERANCE and loss.max() <= setting.ceiling:
        return Solution(loss, V, C_w, "ok", residual, cost)
    status = f"no fixed point after {rounds} iterations: use method marched"
    return Solution(loss[:0], V[:0], C_w[:0], status, residual if residual < np.inf else np.inf, cost)


def _sweep(setting: Setting, order: Order) -> tuple[Order, Array, Array, Array]:
    """One pass through the equations; the new order parameters, L, V and C_w(t, t)."""
    N, eta, gamma, sigma, P = setting.N, setting.eta, setting.gamma, setting.sigma, setting.P
    C_u, R, R_1, Xi, E = order
    n = len(R)
    I, one, b = np.eye(n), np.ones((n, n)), setting.choice
    W = _readout(C_u, eta, gamma)
    C_w = W @ C_u @ W.T
    Y = W + eta * gamma * np.tril(C_w, -1)
    X = Y @ R
    C_v, C_g, R_v, R_g = np.zeros((4, n, n))
    new_E = np.empty_like(E)
    for k, (lam, count, rho) in enumerate(zip(*vars(setting.modes).values(), strict=True)):
        # A bin's modes together: Σ w*² = rho/lam, and the noise of `count` modes.
        H = _inverse(I + lam * X @ R_1)
        D = count * lam * Xi + b * lam**2 * np.diag(E[k])
        C = H @ (rho / lam * one + count * Y @ C_u @ Y.T / N + X @ D @ X.T) @ H.T
        cross = R_1 @ H @ X @ D
        C_v += lam * C
        C_g += lam**2 * R_1 @ C @ R_1.T + D - lam * (cross + cross.T)
        R_v -= count * lam * H @ X
        R_g -= count * lam * R_1 @ H @ Y
        new_E[k] = np.diag(R_1 @ C @ R_1.T)
    R, R_1 = _inverse(I - R_g / N), _inverse(I - R_v / P)
    data = R_1 @ (C_v + sigma**2 * one) @ R_1.T
    # V(t) = data(t, t) + P b Σ_{s<t} R_1(t, s)² V(s); at P = ∞ the sum vanishes like 1/P.
    memory = b * P * np.tril(R_1, -1) ** 2 if np.isfinite(P) else np.zeros((n, n))
    V = _inverse(I - memory) @ np.diag(data)
    Xi = data / P + b * R_1 @ np.diag(V) @ R_1.T
    return Order(R @ C_g @ R.T, R, R_1, Xi, new_E), np.diag(C_v), V, np.diag(C_w)


def _readout(C_u: Array, eta: float, gamma: float) -> Array:
    """W[t, s], the coefficient of u(s) in w(t)."""
    W = np.zeros_like(C_u)
    for t in range(len(W) - 1):
        W[t + 1] = W[t] + eta**2 * gamma * C_u[t, :t] @ W[:t]
        W[t + 1, t] += eta
    return W


def _inverse(A: Array) -> Array:
    """Inverse of a lower triangular matrix with ones on its diagonal; NaN where the iteration has run away."""
    return solve_triangular(A, np.eye(len(A)), lower=True, unit_diagonal=True, check_finite=False)


def _change(new: Array, old: Array) -> float:
    """Largest change of an order parameter, in units of its largest entry."""
    return float(np.abs(new - old).max() / max(np.abs(new).max(), 1e-300))
