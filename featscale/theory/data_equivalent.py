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
Derived (B at z = z' is the known formula of ridge regression); tests/theory/test_data_equivalent.py compares with draws of
:mod:`featscale.theory.finite_data`. What is neglected is O(1/N, 1/P).
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

SIZE_MAX = 10**7
NODES_PER_E_FOLD = 80
RESIDUAL_MAX = 1e-5
RANK_TOLERANCE = 1e-8
# Width of cells of modes in ln λ for sums that are smooth on the scale of λ.
COARSE = 0.06
# Interpolation of ln K on dyadic panels of flow time, and quadrature on graded ones.
DEGREE = 10
GAUSS = np.polynomial.legendre.leggauss(14)


@dataclass(frozen=True)
class NetworkModes:
    """What the data meet. modes, of the network at its width. coarse, the same with wide cells, for use away from the spectrum. blind, lost power."""

    modes: Modes
    coarse: Modes
    blind: float


def data_equivalent(
    task: PowerLaw, P: int, gamma: float, t: ArrayLike, N: int | None = None, sigma: float = 0.0
) -> DataFlow:
    """Mean train and test loss of the flow on P samples with label noise sigma, at width N (None: infinite).

    Arguments: P and N from 1 to 10^7, in any order. gamma >= 0. t >= 0, shape (n,). sigma >= 0.
    Returns: :class:`featscale.theory.finite_data.DataFlow`; K is that of the mean training measure. residual is the largest difference, relative to the
    first loss, between the training loss along the contour and on the measure.
    Raises: BadInput that names the field.
    Accuracy: 1e-6 relative to the first loss; O(1/N, 1/P) from the mean over draws. N = P = modes is as well-behaved as any.
    Cost: one gradient_flow, and some 10^2 contour nodes a time, each O(modes); 1 to 3 s for 20 times.
    """
    t = np.atleast_1d(np.asarray(t, np.float64))
    for field, size in (("samples", P), ("width", 1 if N is None else N)):
        allowed = f"an integer from 1 to {SIZE_MAX}"
        require(isinstance(size, (int, np.integer)) and 1 <= size <= SIZE_MAX, field, size, allowed)
    require(0 <= gamma < np.inf, "gamma", gamma, "a number >= 0")
    require(0 <= sigma < np.inf, "sigma", sigma, "a number >= 0")
    require(bool(np.all((t >= 0) & (t < np.inf))), "times", t, "finite flow times >= 0")
    network = network_modes(task, P, N)
    noise = network.blind + sigma**2
    measure = training_measure(network.modes, P, noise)
    history = History(measure, gamma, t)
    late = t > 0
    test, residual, status = np.where(late, np.nan, measure.power), 0.0, history.status
    if late.any() and status == "ok":
        test[late], train = _losses(network.coarse, P, noise, float(measure.x[0]), history, t[late])
        residual = float(np.abs(train - history.loss[late]).max() / measure.power)
        if not residual <= RESIDUAL_MAX:
            status = f"residual {residual:.1e}: average over draws of the data instead"
    return DataFlow(t, history.loss, test - sigma**2, history.K, status, residual)


def network_modes(task: PowerLaw, P: int, N: int | None) -> NetworkModes:
    """Modes of the network at width N (None: infinite) as P samples can tell them apart, and the power that the width leaves out."""
    if N is None:
        return NetworkModes(power_law_modes(task, P), power_law_modes(task, 1, COARSE), 0.0)
    modes = power_law_modes(task, N)
    curve, kappa0 = support_curve(modes, N), bottleneck_kappa(modes, N)
    lam, count, rho = (values[::-1] for values in (curve.x, eigenvalue_count(curve, N), vector_mass(curve)))
    ours = Modes(lam, count, rho)
    return NetworkModes(ours, ours, float(modes.rho @ (kappa0 / (modes.lam + kappa0))))


def training_measure(modes: Modes, P: int, noise: float) -> SpectralMeasure:
    """The measure of P samples whose labels carry noise of this variance; its atom is the noise that fewer than P modes cannot fit."""
    curve = support_curve(modes, P)
    mass = curve.p.imag / np.pi * (curve.rho0 + noise / np.abs(curve.p) ** 2) * curve.dx
    x, rho = condense(curve.x, mass, max(2, int(NODES_PER_E_FOLD * np.log(curve.x[-1] / curve.x[0]))))
    return SpectralMeasure(x[::-1], rho[::-1], noise * max(0.0, 1 - modes.count.sum() / P))


def last_loss(task: PowerLaw, P: int, N: int | None = None, sigma: float = 0.0) -> float:
    """Test loss as t → ∞, B(0, 0) − σ², for every gamma; inf where the modes that the network has are exactly P and there is noise."""
    network = network_modes(task, P, N)
    modes, noise = network.modes, network.blind + sigma**2
    kappa0 = bottleneck_kappa(modes, P)
    inverse = 1 / (modes.lam + kappa0)
    variance = 1 - float(modes.count @ (modes.lam * inverse) ** 2) / P
    top = float(modes.rho @ (kappa0 * inverse) ** 2) + noise
    # Counts are sums of a quadrature; a difference within its error is none.
    return top / variance - sigma**2 if variance > RANK_TOLERANCE else np.inf


def _losses(modes: Modes, P: int, noise: float, x_max: float, history: History, t: Array) -> tuple[Array, Array]:
    """Noisy test loss and training loss at times t > 0, each of shape (n,), by the contour integrals."""
    zeta, weight = log_ellipse(x_max, 2 / history.tau(t))
    kappa = kappa_along(modes, P, -zeta)
    test, train = np.zeros((2, t.size))
    for i, k in enumerate(kappa):
        R = history.residual(zeta[i], t[i])
        c = weight[i] * R
        seen = modes.lam / (modes.lam + k[:, None])
        left = 1 - seen
        # The contour's lower half is the conjugate of its upper: both signs of the second argument, twice the real part.
        for mirror in (np.asarray, np.conj):
            signal, overlap = (left * modes.rho) @ mirror(left).T, (seen * modes.count) @ mirror(seen).T
            test[i] += 2 * (c @ ((signal + noise) / (1 - overlap / P)) @ mirror(c)).real
        transform = (modes.rho / (modes.lam + k[:, None])).sum(axis=1) + noise / k
        train[i] = -2 * ((c * R * zeta[i]) @ transform).real
    return test, train


class History:
    """K(t) of the flow on a measure, on dyadic panels of flow time, and from it what is left of a mode of any complex rate.

    loss, K and status of the flow at the times t.
    """

    def __init__(self, measure: SpectralMeasure, gamma: float, t: Array) -> None:
        self.gamma = gamma
        end = max(float(t.max()), 1e-300)
        first = min(end, 0.1 / (measure.x.max() + np.sqrt(gamma * (measure.rho @ measure.x))))
        self.ends = end * 2.0 ** np.arange(-int(np.ceil(np.log2(end / first))) - 1, 1)
        self.ends[0] = 0.0
        points = chebyshev.chebpts1(DEGREE + 1)
        self.half = np.diff(self.ends) / 2
        panels = ((self.ends[:-1] + self.half)[:, None] + self.half[:, None] * points).ravel()
        flow = gradient_flow(measure, gamma, np.concatenate([panels, t]))
        self.loss, self.K, self.status = flow.loss[panels.size :], flow.K[panels.size :], flow.status
        K = flow.K[: panels.size].reshape(-1, points.size).T
        basis = chebyshev.chebvander(points, DEGREE)
        self._log_K: Array = np.asarray(np.linalg.solve(basis, np.log(K)), np.float64)
        self._slope = chebyshev.chebder(self._log_K) / self.half
        self._clock = chebyshev.chebint(np.linalg.solve(basis, K), lbnd=-1) * self.half
        self._clock[0] += np.concatenate([[0.0], np.cumsum(self._clock.sum(axis=0))[:-1]])

    def tau(self, t: Array) -> Array:
        """Slow time ∫K dt."""
        return self._at(self._clock, t)

    def residual(self, x: Complex, t: float) -> Complex:
        """R(x, t) = 1 − a for a mode of rate x, shape (n,), at t > 0."""
        now = np.array([t], np.float64)
        tau, log_K = self.tau(now), self._at(self._log_K, now)
        total = np.exp(-x * tau)
        if self.gamma > 0:
            s, dt = self._graded(t, 0.1 / float(np.abs(x).max() * np.exp(log_K[0])))
            du = -np.exp(-self._at(self._log_K, s) / 2) * self._at(self._slope, s) / 2 * dt
            total = total + np.exp(-np.outer(x, tau - self.tau(s))) @ du
        return total * np.exp(log_K / 2)

    def _graded(self, t: float, finest: float) -> tuple[Array, Array]:
        """Quadrature nodes and weights on [0, t] that grow finer toward 0 and, down to `finest`, toward t."""
        depth = max(1, int(np.ceil(np.log2(t / 2 / finest))))
        early = self.ends[self.ends < t / 2]
        edges = np.concatenate([early, t - t / 2 * 2.0 ** -np.arange(depth + 1), [t]])
        nodes, weights = GAUSS
        half = np.diff(edges)[:, None] / 2
        return np.asarray(edges[:-1, None] + half * (nodes + 1)).ravel(), np.asarray(half * weights).ravel()

    def _at(self, coefficients: Array, t: Array) -> Array:
        """Chebyshev series of the panels at times t, shape (n,)."""
        panel = np.clip(np.searchsorted(self.ends, t) - 1, 0, self.half.size - 1)
        local = (t - self.ends[panel]) / self.half[panel] - 1
        return np.asarray(chebyshev.chebval(local, coefficients[:, panel], tensor=False))
