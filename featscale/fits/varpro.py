"""Variable projection: least squares whose linear parameters are solved inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from featscale.fits.newton import Index, Local, Minimum, Problem, minimise

Array = NDArray[np.float64]
# Basis functions at theta, shape (n, m), and their derivatives, shape (n, m, k).
Basis = Callable[[Array], tuple[Array, Array]]


def linear_part(Phi: Array, y: Array, nonnegative: bool = True) -> Array:
    """The c, shape (m,), that minimises ‖Φ c − y‖², over c >= 0 if asked; columns are scaled to unit length first."""
    norm = np.sqrt((Phi**2).sum(axis=0))
    norm = np.where((norm > 0) & np.isfinite(norm), norm, 1.0)
    if nonnegative:
        return nnls(Phi / norm, y)[0] / norm
    return np.linalg.lstsq(Phi / norm, y, rcond=None)[0] / norm


def projected(basis: Basis, y: Array, nonnegative: bool = True) -> Problem:
    r"""The problem that is left for θ, for one data set y, shape (n,).

    .. math:: R(\theta) = \tfrac12 \min_c \|\Phi(\theta) c - y\|^2,\qquad \nabla R = (\partial\Phi\, c)^T r,\qquad
              \nabla^2 R \approx \tilde J^T \tilde J,\quad \tilde J = P^\perp_\Phi\, \partial\Phi\, c

    The gradient is exact (the envelope theorem), the Hessian Kaufman's; with c >= 0 only the columns in use are projected out.
    Source: Golub & Pereyra 1973; Kaufman 1975; derived; tests/fits/test_varpro.py.
    Cost: a least-squares solve of n × m a start.
    """

    def value(p: Array, which: Index) -> Array:
        return np.array([_value(basis, y, theta, nonnegative) for theta in p])

    def local(p: Array, which: Index) -> Local:
        each = [_local(basis, y, theta, nonnegative) for theta in p]
        g, H = (np.stack(part) for part in zip(*each, strict=True))
        scale = np.einsum("kpp->kp", H)
        return Local(g, H, np.maximum(scale, 1e-12 * scale.max(axis=1, keepdims=True) + 1e-300))

    return Problem(value, local)


def separable(
    basis: Basis, y: Array, start: Array, *, nonnegative: bool = True, steps: int = 500
) -> tuple[Minimum, Array]:
    """Least squares of Φ(θ) c to y from K starts of θ, shape (K, k), by :func:`projected` and :func:`minimise`: the minima and their c, (K, m)."""
    free = np.full(np.atleast_2d(start).shape[1], np.inf)
    found = minimise(projected(basis, y, nonnegative), start, -free, free, steps=steps)
    return found, np.stack([linear_part(basis(theta)[0], y, nonnegative) for theta in found.p])


def _value(basis: Basis, y: Array, theta: Array, nonnegative: bool) -> float:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        Phi, _ = basis(theta)
    if not np.isfinite(Phi).all():
        return np.inf
    r = Phi @ linear_part(Phi, y, nonnegative) - y
    return float(r @ r) / 2


def _local(basis: Basis, y: Array, theta: Array, nonnegative: bool) -> tuple[Array, Array]:
    Phi, dPhi = basis(theta)
    c = linear_part(Phi, y, nonnegative)
    used = c != 0
    J = np.einsum("nmk,m->nk", dPhi, c)
    Q, _ = np.linalg.qr(Phi[:, used] / np.sqrt((Phi[:, used] ** 2).sum(axis=0)))
    r = Phi @ c - y
    Jp = J - Q @ (Q.T @ J)
    return J.T @ r, Jp.T @ Jp
