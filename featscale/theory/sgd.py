r"""SGD in few operations for runs of any length: lazy exactly, rich in flow time.

Lazy, the mean squares c_i of the residual's parts close on themselves,

.. math:: c_i \leftarrow (1 - \eta x_i)^2 c_i + \frac{\eta^2}{B} \big( x_i^2 c_i + n_i x_i^2 (L + \sigma^2) \big), \qquad L = \mathrm{atom} + \sum_i c_i

with n_i modes of power ρ_i = c_i(0) at the rate x_i: a Volterra equation for L, solved at any step by :mod:`featscale.numerics.rank_one`. It is exact at
infinite width (x_i = λ_i) and for one draw of A(0) (its rates and powers, n_i = 1); at finite width the deterministic measures of both weights stand in,
O(1/N). Rich, :mod:`featscale.theory.sgd_flow` adds the noise of batches to gradient flow, to first order in η.
Derived; tests/theory/test_sgd.py compares with the recursion, the discrete theory and simulations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from featscale.errors import require
from featscale.numerics.grids import log_steps
from featscale.numerics.rank_one import relaxation
from featscale.numerics.sample_covariance import Modes
from featscale.spectra import PowerLaw, SpectralMeasure
from featscale.theory.dmft_iterated import RUNAWAY
from featscale.theory.flow import gradient_flow
from featscale.theory.modes import modes_at_width
from featscale.theory.sgd_flow import NoisyFlow, noisy_flow

Array = NDArray[np.float64]

BINS = 200
STEPS_MAX = 10**12
# An eigenvalue of the recursion this far above 1 is growth, not rounding.
GROWTH = 1e-12


@dataclass(frozen=True)
class Sgd:
    """Mean loss curve of SGD on fresh batches.

    step, on a log grid from 0 to T, shorter where the run is unstable. t = eta * step, flow time. loss, L. K, growth of the kernel. All of shape (n,).
    status, "ok" or advice. residual, relative error left in the equations.
    """

    step: NDArray[np.int64]
    t: Array
    loss: Array
    K: Array
    status: str
    residual: float


def sgd(
    task: PowerLaw,
    N: float,
    B: float,
    eta: float,
    gamma: float,
    T: int,
    *,
    sigma: float = 0.0,
    bins: int = BINS,
    per_decade: int = 24,
) -> Sgd:
    """Loss of `T` steps of SGD, logged as a simulation logs it.

    Arguments: N, width, an integer >= 1 or inf. B, samples a step, an integer >= 1 or inf. eta > 0, learning rate. gamma >= 0, richness.
    T, steps, 0 <= T <= 10^12. sigma >= 0, label noise. bins >= 4, most nodes of the spectrum. per_decade >= 1, rows a decade.
    Returns: :class:`Sgd`.
    Raises: BadInput that names the field.
    Accuracy: lazy, that of the bins, 1e-6; rich, O(η) and see sgd_flow; both O(1/N).
    Cost: lazy O(50 bins² + bins rows), 0.05 s; rich O(bins S²), S = 40 rows a decade, about 1 s; nothing that grows with T but the rows.
    """
    require(N == math.inf or (N >= 1 and int(N) == N), "width", N, "an integer >= 1, or inf")
    require(B == math.inf or (B >= 1 and int(B) == B), "batch", B, "an integer >= 1, or inf")
    require(0 < eta < math.inf, "eta", eta, "a number > 0")
    require(0 <= gamma < math.inf, "gamma", gamma, "a number >= 0")
    require(0 <= T <= STEPS_MAX, "steps", T, f"an integer from 0 to {STEPS_MAX:.0e}")
    require(0 <= sigma < math.inf, "sigma", sigma, "a number >= 0")
    modes, atom = modes_at_width(task, N, bins)
    step = log_steps(T, per_decade)
    if gamma == 0:
        return lazy_sgd(modes, atom, B, eta, step, sigma)
    return _rich_sgd(modes, atom, B, eta, gamma, step, sigma)


def lazy_sgd(modes: Modes, atom: float, B: float, eta: float, step: NDArray[np.int64], sigma: float = 0.0) -> Sgd:
    """The closed form at γ = 0 for any rates lam, powers rho and numbers of modes count > 0 at each; atom, power out of reach.

    Arguments: step, increasing integers >= 0, shape (n,).
    Returns: :class:`Sgd`; residual, relative error of the sum at step 0.
    Accuracy: 1e-13. Cost: O(50 bins² + bins n).
    """
    x, c = modes.lam, modes.rho
    poles = relaxation(2 * eta * x - (eta * x) ** 2 * (1 + 1 / B), eta**2 / B * modes.count * x**2, c)
    loss = atom + poles(step, atom + sigma**2)
    total = float(c.sum() + atom)
    stays = loss <= RUNAWAY * (total + sigma**2)
    rows = step.size if stays.all() else int(np.argmin(stays))
    status = "ok"
    if poles.e[0] < -GROWTH:
        status = f"unstable: the loss grows by e in {-1 / poles.e[0]:.3g} steps; lower eta or raise the batch"
    residual = abs(float(poles.start.sum()) + atom - total) / total
    return Sgd(step[:rows], np.asarray(eta * step[:rows], np.float64), loss[:rows], np.ones(rows), status, residual)


def _rich_sgd(
    modes: Modes, atom: float, B: float, eta: float, gamma: float, step: NDArray[np.int64], sigma: float
) -> Sgd:
    """Gradient flow, and what batches add to it: the difference of the noisy flow and the same grid without noise."""
    t: Array = np.asarray(eta * step, np.float64)
    flow = gradient_flow(SpectralMeasure(modes.lam, modes.rho, atom), gamma, t)
    loss, K, status, residual = flow.loss, flow.K, flow.status, flow.residual
    if t[-1] > 0:
        noisy = noisy_flow(modes, atom, gamma, eta, B, sigma, float(t[-1]))
        clean = noisy_flow(modes, atom, gamma, 0.0, math.inf, sigma, float(t[-1]))
        rows = int(np.searchsorted(t, noisy.t[-1] * (1 + 1e-12), side="right"))
        t, step, loss, K = t[:rows], step[:rows], loss[:rows], K[:rows]
        if B < math.inf:
            loss = loss + (_at(noisy, "loss", t) - _at(clean, "loss", t))
            K = K + (_at(noisy, "K", t) - _at(clean, "K", t))
        residual = max(residual, noisy.residual)
        if noisy.status != "ok":
            status = f"stopped at step {math.ceil(noisy.t[-1] / eta)}: {noisy.status}"
    return Sgd(step, t, loss, K, status, residual)


def _at(flow: NoisyFlow, name: str, t: Array) -> Array:
    """Loss or K at times t: a monotone cubic of its logarithm in ln t, linear before the first row."""
    values = getattr(flow, name)
    if flow.t.size == 1:
        return np.full_like(t, values[0])
    early = np.interp(t, flow.t[:2], values[:2])
    late = t > flow.t[1]
    if late.any():
        cubic = PchipInterpolator(np.log(flow.t[1:]), np.log(np.maximum(values[1:], 1e-300)))
        early[late] = np.exp(cubic(np.log(t[late])))
    return early
