r"""The neural tangent kernel of infinitely wide fully connected networks on the circle, and its exact spectrum.

For φ = ReLU^q with gain such that E φ(z)² = 1, and correlated standard normals u, v of correlation c,

.. math::
    \kappa_q(c) = E\,\varphi(u)\varphi(v)
    = \left(\frac{1+c}{2}\right)^{q+1/2} \frac{F_q\left(\frac{1+c}{2}\right)}{F_q(1)}, \qquad
    F_q(z) = {}_2F_1\left(\tfrac12, \tfrac12; q + \tfrac32; z\right), \qquad
    \kappa_q'(c) = E\,\varphi'(u)\varphi'(v) = \frac{q^2}{2q-1}\, \kappa_{q-1}(c)

and a bias-free network of `depth` hidden layers, all weights of unit scale, has on inputs at angle ω

.. math:: c_1 = \Theta_1 = \cos\omega, \qquad c_{l+1} = \kappa(c_l), \qquad \Theta_{l+1} = \kappa(c_l) + \kappa'(c_l)\, \Theta_l

The mode cos kθ then decays as e^{−λ_k t}, t = η₀ · steps, with λ_k the k-th Fourier coefficient ∫Θ cos kω dω/2π.

Source: the recursion is that of Jacot, Gabriel & Hongler 2018, arXiv:1806.07572, with the arc-cosine kernels of Cho & Saul 2009 at integer q;
for any q the angular integral of those is Mehler and Dirichlet's for a Legendre function, hence F_q, and κ' is Price's theorem (derived;
tests/theory/test_neural_tangent.py compares with quadrature, closed forms at q = 1 and 2, and theory.md section 8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gamma as Gamma
from scipy.special import hyp2f1

from featscale.errors import require
from featscale.spectra import SpectralMeasure

Array = NDArray[np.float64]

GRID = 2**18
# κ_q as a function of the angle, for powers that have a closed form; the general one is a hundred times as slow.
ARC_COSINE: dict[float, Callable[[Array], Array]] = {
    0: lambda w: (np.pi - w) / np.pi,
    1: lambda w: (np.sin(w) + (np.pi - w) * np.cos(w)) / np.pi,
    2: lambda w: (3 * np.sin(w) * np.cos(w) + (np.pi - w) * (1 + 2 * np.cos(w) ** 2)) / (3 * np.pi),
}
# Modes slower than this cannot be told from rounding.
ROUNDING = 1e-14


def relu_covariance(c: ArrayLike, q: float = 1.0) -> Array:
    r"""κ_q(c) = E φ(u) φ(v) for φ = ReLU^q of unit second moment.

    Arguments: c, correlations in [−1, 1], any shape. q > −1/2.
    Returns: the shape of c, from 0 at c = −1 to 1 at c = 1.
    Raises: BadInput for a correlation out of range or a power too small.
    Accuracy: 1e-13 absolute.
    """
    c = np.asarray(c, np.float64)
    require(-0.5 < q < np.inf, "q_phi", q, "a number > -1/2")
    require(bool(np.all(np.abs(c) <= 1)), "c", c, "correlations from -1 to 1")
    if q in ARC_COSINE:
        return np.asarray(ARC_COSINE[q](np.arccos(c)))
    return _by_hypergeometric(c, q)


def _by_hypergeometric(c: Array, q: float) -> Array:
    """κ_q for any q."""
    z = (1 + c) / 2
    whole = Gamma(q + 1.5) * Gamma(q + 0.5) / Gamma(q + 1) ** 2
    return np.asarray(z ** (q + 0.5) * hyp2f1(0.5, 0.5, q + 1.5, z) / whole)


def relu_slope_covariance(c: ArrayLike, q: float = 1.0) -> Array:
    r"""κ'_q(c) = E φ'(u) φ'(v) = q²/(2q − 1) κ_{q−1}(c); q > 1/2, so that the slope has a second moment."""
    require(0.5 < q < np.inf, "q_phi", q, "a number > 1/2")
    return q**2 / (2 * q - 1) * relu_covariance(c, q - 1)


def mlp_kernel(c: ArrayLike, depth: int, q: float = 1.0) -> Array:
    """Θ of a bias-free network of `depth` hidden layers on two inputs of unit scale (|x|² = D · input_power) with cosine c.

    Arguments: c in [−1, 1], any shape. depth >= 1. q > 1/2, the power of ReLU^q.
    Returns: the shape of c, in units of 1/flow time for the gradient of ½ mean square error.
    Raises: BadInput that names the field.
    """
    require(isinstance(depth, int) and depth >= 1, "depth", depth, "an integer >= 1")
    c = np.asarray(c, np.float64)
    theta = c
    for _ in range(depth):
        slope, c = relu_slope_covariance(c, q), np.clip(relu_covariance(c, q), -1, 1)
        theta = c + slope * theta
    return theta


def circle_spectrum(k_max: int, depth: int, q: float = 1.0) -> Array:
    """Rates λ_k of the modes cos kθ, k = 1..k_max, of a network of infinite width.

    Arguments: k_max >= 1, at most 2^16. depth >= 1, hidden layers. q > 1/2, the power of ReLU^q.
    Returns: shape (k_max,), inverse flow time; λ_k ~ k^-2q, even and odd k alternating by a factor that closes with depth. At depth 1 and
    q = 1 odd k >= 3 are exactly 0, here rounding.
    Raises: BadInput that names the field.
    Accuracy: 1e-14 absolute from rounding; aliasing on 2^18 angles adds a relative (k/2^18)^2q.
    """
    require(isinstance(k_max, int) and 1 <= k_max <= GRID // 4, "k_max", k_max, f"an integer from 1 to {GRID // 4}")
    half = mlp_kernel(np.cos(2 * np.pi * np.arange(GRID // 2 + 1) / GRID), depth, q)
    kernel = np.concatenate([half, half[-2:0:-1]])
    spectrum: NDArray[Any] = np.fft.rfft(kernel).real[1 : k_max + 1] / GRID
    return spectrum


def circle_measure(q: float, k_max: int, depth: int, q_phi: float = 1.0) -> SpectralMeasure:
    r"""Rates and powers of the target Σ_k k^-q cos kθ for the network: what :func:`featscale.theory.flow.gradient_flow` needs.

    .. math:: \rho(dx) = \sum_{k=1}^{k_{\max}} \frac{k^{-2q}}{2}\, \delta(x - \lambda_k)

    Modes that the network cannot learn (λ_k within rounding of 0) are the atom. Lazy curves are exact at infinite width; at richness γ the
    solvable model's flow at γ² is an analogy, since a deep network has more than one layer to move (docs/findings/2026-11-25-networks.md).
    Arguments: q > 1/2. k_max, depth and q_phi as in :func:`circle_spectrum`.
    """
    require(0.5 < q < np.inf, "q", q, "a number > 1/2")
    x = circle_spectrum(k_max, depth, q_phi)
    rho = np.arange(1, k_max + 1, dtype=np.float64) ** (-2 * q) / 2
    learned = x > ROUNDING
    return SpectralMeasure(x[learned], rho[learned], atom=float(rho[~learned].sum()))
