r"""Mean train and test loss on P samples without drawing them, at infinite or finite width, lazy and rich.

Width first: N turns the kernel's modes into the spectrum of :mod:`featscale.theory.finite_width`, and what it leaves out acts as label noise,
σ² → σ_N² = σ² + atom. Then data, with modes (x_j, ρ_j) and κ(z) from z = κ (1 − Σ_j x_j/(x_j + κ)/P):

.. math::
    \int \frac{\hat\rho(dx)}{x + z} = \sum_j \frac{\rho_j}{x_j + \kappa} + \frac{\sigma_N^2}{\kappa}, \qquad
    B(z, z') = \Big[ \sum_j \frac{\rho_j\, \kappa \kappa'}{(x_j + \kappa)(x_j + \kappa')} + \sigma_N^2 \Big] \Big/
    \Big[ 1 - \frac{1}{P} \sum_j \frac{x_j^2}{(x_j + \kappa)(x_j + \kappa')} \Big]

ρ̂ is the training measure: the flow on it gives K(t), the training loss and R(x, t) = 1 − a, the part left of a mode of rate x. B is the noisy test loss
for the residual functions z/(x + z), bilinear in them; R is a superposition of those along a contour around the spectrum, hence

.. math:: L_{test}(t) + \sigma^2 = \oint \frac{d\zeta}{2\pi i \zeta} \oint \frac{d\zeta'}{2\pi i \zeta'}\, R(\zeta, t) R(\zeta', t)\, B(-\zeta, -\zeta').

At a complex rate R follows from K alone: with u = K^{-1/2} and τ = ∫K dt, R = [e^{−xτ} + ∫ e^{−x(τ−s)} du(s)]/u. As t → ∞ R → 0 for x > 0, lazy or rich, and
L_test + σ² → B(0, 0): P^−α min(2,β) without noise.
Source: B at z = z' is the ridge formula of kernel regression (arXiv:2409.17858 cites it for the lazy bottleneck); two arguments, the measure ρ̂ and the rich flow
derived. tests/theory/test_data_equivalent.py compares with draws of :mod:`featscale.theory.finite_data`. What is neglected is O(1/N, 1/P).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from featscale.errors import require
from featscale.numerics.contours import kappa_along, log_ellipse
from featscale.numerics.discrete_measures import condense
from featscale.numerics.sample_covariance import (
    Modes,
    bottleneck_kappa,
    eigenvalue_count,
    support_curve,
    vector_mass,
)
from featscale.spectra import PowerLaw, SpectralMeasure
from featscale.theory.finite_data import DataFlow
from featscale.theory.finite_width import power_law_modes
from featscale.theory.flow import gradient_flow

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

NODES_PER_E_FOLD = 80
DEGREE = 10
GAUSS = np.polynomial.legendre.leggauss(14)
DEFECT_MAX = 1e-6


def data_equivalent(
    task: PowerLaw, P: int, gamma: float, t: ArrayLike, N: int | None = None, sigma: float = 0.0
) -> DataFlow:
    t = np.atleast_1d(np.asarray(t, np.float64))
    modes, blind = network_modes(task, P, N)
    noise = blind + sigma**2
    measure = training_measure(modes, P, noise)
    history = History(measure, gamma, float(t.max()))
    late = t > 0
    test = np.full(t.size, modes.rho.sum() + blind)
    test[late], defect = _test_loss(modes, P, noise, float(measure.x.max()), history, t[late])
    test[late] -= sigma**2
    flow = gradient_flow(measure, gamma, t)
    return DataFlow(t, flow.loss, test, flow.K, flow.status)


def network_modes(task: PowerLaw, P: int, N: int | None) -> tuple[Modes, float]:
    """Modes that the data meet at width N (None: infinite), and the power that the width leaves out."""
    if N is None:
        return power_law_modes(task, P), 0.0
    modes = power_law_modes(task, N)
    curve, kappa0 = support_curve(modes, N), bottleneck_kappa(modes, N)
    lam, count, rho = (values[::-1] for values in (curve.x, eigenvalue_count(curve, N), vector_mass(curve)))
    return Modes(lam, count, rho), float(modes.rho @ (kappa0 / (modes.lam + kappa0)))


def training_measure(modes: Modes, P: int, noise: float) -> SpectralMeasure:
    """ρ̂ of P samples whose labels carry noise of variance `noise`; its atom is the noise that n < P modes cannot fit."""
    curve = support_curve(modes, P)
    v = curve.p.imag
    mass = v / np.pi * (curve.rho0 + noise / np.abs(curve.p) ** 2) * curve.dx
    bins = max(2, int(NODES_PER_E_FOLD * np.log(curve.x[-1] / curve.x[0])))
    x, rho = condense(curve.x, mass, bins)
    return SpectralMeasure(x[::-1], rho[::-1], noise * max(0.0, 1 - modes.count.sum() / P))


def last_loss(modes: Modes, P: int, noise: float) -> float:
    """B(0, 0): the noisy test loss as t → ∞, for every gamma."""
    kappa0 = bottleneck_kappa(modes, P)
    left = kappa0 / (modes.lam + kappa0)
    return float((modes.rho @ left**2 + noise) / (1 - modes.count @ (1 - left) ** 2 / P))


def _test_loss(modes: Modes, P: int, noise: float, x_max: float, history: History, t: Array) -> tuple[Array, float]:
    zeta, weight = log_ellipse(x_max, 2 / history.tau(t))
    kappa, defect = kappa_along(modes, P, -zeta)
    loss = np.empty(t.size)
    for i in range(t.size):
        c = weight[i] * history.residual(zeta[i], t[i])
        k, c = np.concatenate([kappa[i], kappa[i].conj()]), np.concatenate([c, c.conj()])
        seen = modes.lam / (modes.lam + k[:, None])
        left = k[:, None] / (modes.lam + k[:, None])
        B = ((left * modes.rho) @ left.T + noise) / (1 - (seen * modes.count) @ seen.T / P)
        loss[i] = (c @ B @ c).real
    return loss, defect


class History:
    """K(t) on dyadic panels of flow time, and from it the residual at any complex rate."""

    def __init__(self, measure: SpectralMeasure, gamma: float, t_max: float) -> None:
        self.gamma = gamma
        first = min(t_max, 0.1 / (measure.x.max() + np.sqrt(gamma * (measure.rho @ measure.x))))
        count = int(np.ceil(np.log2(t_max / first)))
        self.ends = t_max * 2.0 ** np.arange(-count - 1, 1)
        self.ends[0] = 0.0
        points = chebyshev.chebpts1(DEGREE + 1)
        low, high = self.ends[:-1, None], self.ends[1:, None]
        self.half = (high - low) / 2
        times = (low + high) / 2 + self.half * points
        flow = gradient_flow(measure, gamma, times.ravel())
        self.status = flow.status
        vander = chebyshev.chebvander(points, DEGREE)
        self.log_K = np.linalg.solve(vander, np.log(flow.K).reshape(times.shape).T)
        K = np.linalg.solve(vander, flow.K.reshape(times.shape).T)
        integral = chebyshev.chebint(K, lbnd=-1) * self.half[:, 0]
        start = np.concatenate([[0.0], np.cumsum(integral.sum(axis=0))])[:-1]
        self.clock = integral
        self.clock[0] += start

    def _at(self, coefficients: Array, t: Array) -> Array:
        panel = np.clip(np.searchsorted(self.ends, t) - 1, 0, self.half.size - 1)
        local = (t - self.ends[panel]) / self.half[panel, 0] - 1
        return chebyshev.chebval(local, coefficients[:, panel], tensor=False)

    def tau(self, t: Array) -> Array:
        return self._at(self.clock, t)

    def residual(self, x: Complex, t: float) -> Complex:
        tau = float(self.tau(np.array([t]))[0])
        if self.gamma == 0:
            return np.exp(-x * tau)
        early = self.ends[self.ends < t / 2]
        K_end = np.exp(self._at(self.log_K, np.array([t]))[0])
        finest = 0.1 / (np.abs(x).max() * K_end)
        late = t - (t / 2) * 2.0 ** -np.arange(0, max(1, int(np.ceil(np.log2(t / 2 / finest)))) + 1)
        edges = np.concatenate([early, late, [t]])
        nodes, weights = GAUSS
        half = np.diff(edges)[:, None] / 2
        when = (edges[:-1, None] + half * (nodes + 1)).ravel()
        dt = (half * weights).ravel()
        slope = self._at(chebyshev.chebder(self.log_K) / self.half[:, 0], when)
        u = np.exp(-self._at(self.log_K, when) / 2)
        du = -u * slope / 2 * dt
        total = np.exp(-x * tau) + np.exp(-np.outer(x, tau - self.tau(when))) @ du
        return total * np.sqrt(K_end)
