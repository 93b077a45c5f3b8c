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
OPENING = 1.0
NODES_PER_E_FOLD, NODES_MIN = 8, 96
# Steps of the walk from far off, in units of the first node, and Newton's iterations at each.
WALK, WALK_FROM, ITERATIONS = 40, 1e3, 30


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


def kappa_along(modes: Modes, P: float, z: Complex) -> Complex:
    """κ(z) along paths that start to the left of −x_max, shape (paths, nodes).

    Newton's method, continued along each path from its node before, and to its first node from far off, where κ = z + Σ λ/P.
    Cost: about 4 iterations a node, O(modes) each.
    """
    kappa = np.empty_like(z)
    target = WALK_FROM * z[:, 0]
    k, slope = _newton(modes, P, target, target + modes.count @ modes.lam / P)
    # The map is the identity at infinity: walk in from there along a ray.
    for i, scale in enumerate([*np.geomspace(WALK_FROM, 1.0, WALK), *np.ones(z.shape[1] - 1)]):
        column = max(0, i - WALK + 1)
        k, slope = _newton(modes, P, scale * z[:, column], k + (scale * z[:, column] - target) / slope)
        target, kappa[:, column] = scale * z[:, column], k
    return kappa


def _newton(modes: Modes, P: float, z: Complex, k: Complex) -> tuple[Complex, Complex]:
    """The root near k of κ (1 − Σ λ/(λ + κ)/P) = z for each element, shape (paths,), and dz/dκ there."""
    weight = modes.count * modes.lam
    for _ in range(ITERATIONS):
        inverse = 1 / (modes.lam + k[:, None])
        excess = k * (1 - inverse @ weight / P) - z
        slope = 1 - (inverse * inverse) @ (weight * modes.lam) / P
        if np.all(np.abs(excess) < 1e-13 * np.abs(z)):
            break
        k = k - excess / slope
    return k, slope
