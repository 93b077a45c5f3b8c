r"""Functions of a sample covariance matrix by contour integrals around its spectrum.

For a function R analytic around the spectrum [0, x_max] of Ŝ,

.. math:: R(\hat S) = \oint \frac{d\zeta}{2\pi i}\, \frac{R(\zeta)}{\zeta}\; (-\zeta) (\hat S - \zeta)^{-1},

and the deterministic equivalent of z(Ŝ + z)^{-1}, z = −ζ, is κ(Λ + κ)^{-1} with z = κ (1 − Σ λ/(λ + κ)/P). The contour is an ellipse in ln(ζ + δ): it passes 0
at the distance δ ~ 1/time, stays within a sector where e^{−ζ time} decays, and the trapezoidal rule on it converges exponentially.
Derived; tests/numerics/test_contours.py compares with exact functions and with Newton's method elsewhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featscale.numerics.sample_covariance import Modes

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

# Half the opening of the ellipse in ln(ζ + δ), below π/2; nodes for each unit of its length, and at least.
OPENING = 1.35
NODES_PER_E_FOLD, NODES_MIN = 8, 96
WALK = 40


def log_ellipse(x_max: float, delta: Array) -> tuple[Complex, Complex]:
    """Upper half of contours around [0, x_max], counter-clockwise: ζ and dζ/(2πi ζ), each of shape (contours, nodes).

    Arguments: x_max > 0. delta > 0, shape (contours,): where each passes left of 0. The lower half is the mirror image, nodes and weights conjugate.
    """
    low, high = np.log(delta)[:, None], np.log(x_max + delta)[:, None]
    n = max(NODES_MIN, int(np.ceil(NODES_PER_E_FOLD * (high - low).max())))
    across = np.hypot((high - low) / 2, OPENING)
    angle = np.pi * (np.arange(n) + 0.5) / n
    q = np.exp((low + high) / 2 + across * np.cos(angle) + 1j * OPENING * np.sin(angle))
    zeta = q - delta[:, None]
    dzeta = q * (-across * np.sin(angle) + 1j * OPENING * np.cos(angle)) * np.pi / n
    return zeta, dzeta / (2j * np.pi * zeta)


def kappa_along(modes: Modes, P: float, z: Complex) -> tuple[Complex, float]:
    """κ(z) along paths that start to the left of −x_max, shape (paths, nodes); and the largest relative defect of z.

    Newton's method, continued along each path from its node before, and to its first node from far off, where κ = z + Σ λ/P.
    Cost: about 4 iterations a node, O(modes) each.
    """
    weight = modes.count * modes.lam
    kappa, residual = np.empty_like(z), 0.0
    k, last = None, None
    # The map is the identity at infinity: walk in from there along a ray.
    for scale in np.geomspace(1e3, 1.0, WALK):
        target = scale * z[:, 0]
        k = target + weight.sum() / P if k is None else k + (target - last) / slope
        k, slope, defect = _newton(modes, weight, P, target, k)
        last = target
    for i in range(z.shape[1]):
        if i:
            k, slope, defect = _newton(modes, weight, P, z[:, i], k + (z[:, i] - z[:, i - 1]) / slope)
        kappa[:, i] = k
        residual = max(residual, float(defect.max()))
    return kappa, residual


def _newton(modes: Modes, weight: Array, P: float, z: Complex, k: Complex) -> tuple[Complex, Complex, Array]:
    """The root near k of κ (1 − Σ λ/(λ + κ)/P) = z for each element, shape (paths,); dz/dκ there; and the relative defect."""
    for _ in range(30):
        inverse = 1 / (modes.lam + k[:, None])
        value = k * (1 - inverse @ weight / P)
        slope = 1 - (inverse * inverse) @ (weight * modes.lam) / P
        defect = np.abs(value - z) / np.abs(z)
        if np.all(defect < 1e-13):
            break
        k = k - (value - z) / slope
    return k, slope, defect
