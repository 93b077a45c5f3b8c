"""Power law above an unknown floor, fitted in log space by variable projection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]

# Floors to start from, as fractions of the smallest loss.
STARTS = (0.3, 0.7, 0.9, 0.97, 0.995)
TOLERANCE = 1e-15


def free_floor(y: Array, row_log_t: Array, weight: Array) -> tuple[float, float, float]:
    r"""Least-squares exponent, log amplitude and floor of one curve.

    .. math:: \min_{\chi, A, E \ge 0} \sum_g \bigl(y_g - \log(E + A t_g^{-\chi})\bigr)^2
              = \min_{\chi, e \ge 0} \sum_g \bigl(y_g - f_g - \overline{y - f}\bigr)^2, \qquad f = \log(e + t^{-\chi}),\ e = E / A

    log A enters linearly and is projected out, which leaves two parameters. The model goes through the same interpolation from rows to
    nodes as the data, so that exact data are recovered exactly however sparse the rows.
    Source: derived; tests/fits/test_free_floor.py.
    Arguments: y, log loss at the nodes, shape (G,). row_log_t, weight, shape (R, G, 2): the rows beside each node and their weights; for
    a mean over R curves, y is their mean and the model is averaged alike.
    Returns: chi, log A, E; E is exactly 0 where the bound binds.
    Cost: about 20 evaluations of R G logarithms.
    """
    end = row_log_t.max()
    u = row_log_t - end

    def model(chi: float, q: float) -> Array:
        return np.logaddexp(q, -chi * u)

    def residual(p: Array) -> Array:
        r = y - _mean(weight * model(*p))
        return r - r.mean()

    def jacobian(p: Array) -> Array:
        f = model(*p)
        d = np.stack([_mean(weight * -u * np.exp(-p[0] * u - f)), _mean(weight * np.exp(p[1] - f))], axis=-1)
        return d.mean(axis=0) - d

    x = _mean(weight * u)
    chi0 = float(line(x, y)[0])
    r0 = residual(np.array([chi0, -np.inf]))
    starts = [start for start in (_start(x, y, fraction) for fraction in STARTS) if start is not None]
    best = min(starts, key=lambda p: float(np.sum(residual(p) ** 2)), default=None)
    # d(sum r^2 / 2)/de at e = 0; where it is >= 0 a floor makes the fit worse.
    slope = -float(r0 @ _mean(weight * np.exp(chi0 * u)))
    if best is not None and (slope < 0 or np.sum(residual(best) ** 2) < np.sum(r0**2)):
        found = least_squares(
            residual, best, jacobian, method="lm", ftol=TOLERANCE, xtol=TOLERANCE, gtol=TOLERANCE, max_nfev=200
        )
        # Below rounding the bound wins: data without a floor have none.
        if np.sum(found.fun**2) < np.sum(r0**2) * (1 - 1e-9) - y.size * 1e-28:
            chi, q = (float(value) for value in found.x)
            log_A = float(np.mean(y - _mean(weight * model(chi, q))))
            return chi, log_A + chi * end, float(np.exp(q + log_A))
    return chi0, float(np.mean(y - chi0 * -x)) + chi0 * end, 0.0


def line(x: Array, y: Array, weight: Array | None = None) -> tuple[Array, Array]:
    r"""Slope and height of the least-squares line y = h − χ x, over the last axis: :math:`\chi = -\mathrm{cov}(x, y) / \mathrm{var}(x)`.

    Arguments: x, shape (G,). y, shape (..., G). weight, shape (G,), of the squared residuals; None for equal ones.
    Returns: chi and h, shape (...).
    """
    w = np.full(x.size, 1 / x.size) if weight is None else weight / weight.sum()
    centre = w @ x
    xc = x - centre
    chi = -(y @ (w * xc)) / (w @ xc**2)
    return chi, y @ w + chi * centre


def _mean(f: Array) -> Array:
    """Interpolate rows to nodes (f holds the weights) and average the curves, (R, G, 2) → (G,)."""
    return f.sum(axis=-1).mean(axis=0)


def _start(x: Array, y: Array, fraction: float) -> Array | None:
    """(chi, log e) from a weighted line through log(loss − E), E a fraction of the smallest loss; None if that is no decay."""
    log_E = np.log(fraction) + y.min()
    share = -np.expm1(log_E - y)
    chi, height = line(x, y + np.log(share), share**2)
    return np.array([chi, log_E - height]) if np.isfinite(chi) else None
