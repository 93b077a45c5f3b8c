r"""The spectral measure of the model at finite width N, without drawing A(0).

As N and the number of modes grow, the measure that :func:`featscale.theory.flow.gradient_flow` needs becomes deterministic,

.. math::
    \int \frac{\rho(dx)}{x + z} = \frac{1}{z} \sum_k \rho_k \frac{\kappa}{\lambda_k + \kappa}, \qquad
    z = \kappa \Big( 1 - \frac{1}{N} \sum_k \frac{\lambda_k}{\lambda_k + \kappa} \Big),

with an atom Σ ρ_k κ₀/(λ_k + κ₀) at zero, N = Σ λ_k/(λ_k + κ₀):
the power that width N does not reach, N^−α min(1,β) with κ₀ ~ N^−α. Its density is followed along
the support by :mod:`featscale.numerics.sample_covariance`, node by node and positive; the equations above, on z > 0, then give the residual.
Source: the equations are the anisotropic Marchenko–Pastur law; derived for this model and tested by tests/theory/test_finite_width.py against draws
of A(0). What is neglected is O(1/N).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featscale.errors import require
from featscale.numerics.discrete_measures import condense
from featscale.numerics.sample_covariance import Modes, bottleneck_kappa, support_curve, transform, vector_mass
from featscale.spectra import PowerLaw, SpectralMeasure

Array = NDArray[np.float64]

WIDTH_MAX = 10**7
# Cells of modes: relative width in λ where the density is smooth, and its ratio to the resolution v/λ = πk/(αN) of width N.
CELL, CELL_PER_V = 0.02, 0.45
NODES_PER_E_FOLD = 80
RESIDUAL_MAX = 1e-4
# Squares of squares of eigenvalues must not underflow.
SPAN_MIN = 1e-70


@dataclass(frozen=True)
class FiniteWidth:
    """Deterministic spectral measure at width N.

    measure, feed it to gradient_flow. kappa0, the root of Σ λ/(λ + κ₀) = N, eigenvalues below it are out of reach (0 where N covers all modes).
    residual, largest relative error of the measure's total power and of its transform ∫ρ/(x + z) over z > 0. status, "ok" or advice.
    """

    measure: SpectralMeasure
    kappa0: float
    residual: float
    status: str


def finite_width(task: PowerLaw | SpectralMeasure, N: int, bins: int | None = None) -> FiniteWidth:
    r"""Deterministic equivalent of the spectral measure at width `N`.

    Arguments: task, a power law (any M), or a measure whose nodes are single modes λ_k = x_k with power ρ_k; its atom, power that no
    kernel mode carries, stays an atom. N, width, 1 <= N <= 10^7; more than the number of modes is allowed. bins, most nodes of the result,
    >= 2; None: 80 for each factor e in x.
    Returns: :class:`FiniteWidth`.
    Raises: BadInput that names the field.
    Accuracy: of the deterministic equations 3e-6 (see residual); those are O(1/N) from the mean over draws, 1 to 10 % at N = 32.
    Cost: O(α √N) nodes, each seeing O(10³) modes or clusters: 0.1 s at N = 10⁴, 1 s at 10⁶, 3 s there at α = 4.
    """
    require(isinstance(N, (int, np.integer)) and 1 <= N <= WIDTH_MAX, "width", N, f"an integer from 1 to {WIDTH_MAX}")
    require(bins is None or bins >= 2, "bins", bins, "an integer >= 2")
    modes, atom = (power_law_modes(task, N), 0.0) if isinstance(task, PowerLaw) else _measure_modes(task)
    kappa0 = bottleneck_kappa(modes, N)
    curve = support_curve(modes, N)
    if bins is None:
        bins = max(2, int(NODES_PER_E_FOLD * np.log(curve.x[-1] / curve.x[0])))
    x, mass = condense(curve.x, vector_mass(curve), bins)
    unreached = float(modes.rho @ (kappa0 / (modes.lam + kappa0)))
    residual = _residual(modes, N, kappa0, x, mass, unreached)
    status = "ok" if residual <= RESIDUAL_MAX else f"residual {residual:.1e}: more bins, or average over draws of A(0)"
    return FiniteWidth(SpectralMeasure(x[::-1], mass[::-1], unreached + atom), kappa0, residual, status)


def finite_width_measure(task: PowerLaw | SpectralMeasure, N: int, bins: int | None = None) -> SpectralMeasure:
    """The measure of :func:`finite_width` alone."""
    return finite_width(task, N, bins).measure


def power_law_modes(task: PowerLaw, N: int, cell: float = CELL) -> Modes:
    r"""Modes of a power law as width N can tell them apart: one by one up to k ~ α √N, then in cells.

    A cell of n neighbouring modes becomes two at k = mean ± standard deviation of its indices, n/2 modes each.
    Arguments: cell, widest cell in ln λ.
    Accuracy: relative error cell⁴ (1 + β)⁴/4320, 1e-9 for β < 1. Cost: O(α √N + log M).
    """
    alpha, M = task.alpha, task.M
    require(M**-alpha >= SPAN_MIN, "modes", M, f"few enough that the smallest eigenvalue M^-alpha is >= {SPAN_MIN}")
    single = int(min(M, np.ceil(max(1.5 * alpha * np.sqrt(N), alpha / cell))))
    edges: list[int] = [single + 1]
    while edges[-1] <= M:
        start = edges[-1]
        width = min(cell, CELL_PER_V * np.pi * start / (alpha * N))
        edges.append(min(M + 1, max(start + 1, int(start * (1 + width / alpha)))))
    ends = np.array(edges, np.float64)
    low, high = ends[:-1], ends[1:]
    n, middle = high - low, (low + high - 1) / 2
    deviation = np.sqrt((n**2 - 1) / 12)
    one, two = n == 1, n > 1
    alone = np.concatenate([np.arange(1.0, single + 1), low[one]])
    k = np.concatenate([alone, (middle - deviation)[two], (middle + deviation)[two]])
    count = np.concatenate([np.ones(alone.size), n[two] / 2, n[two] / 2])
    order = np.argsort(k, kind="stable")
    k, count = k[order], count[order]
    return Modes(k**-alpha, count, count * k ** -(alpha * task.beta + 1))


def _measure_modes(measure: SpectralMeasure) -> tuple[Modes, float]:
    """Each node of a measure as one mode, equal nodes together; and its atom."""
    span = measure.x.min() / measure.x.max()
    require(span >= SPAN_MIN, "x", span, f"rates whose smallest and largest have a ratio >= {SPAN_MIN}")
    order = np.argsort(-measure.x, kind="stable")
    x, rho = measure.x[order], measure.rho[order]
    first = np.flatnonzero(np.diff(x, prepend=np.inf))
    count = np.diff(first, append=x.size).astype(np.float64)
    return Modes(x[first], count, np.add.reduceat(rho, first)), measure.atom


def _residual(modes: Modes, N: int, kappa0: float, x: Array, mass: Array, atom: float) -> float:
    """Largest relative error of the power and of ∫ρ/(x + z) at κ from κ₀ to far above the spectrum."""
    above = np.geomspace(1e-4 * max(kappa0, modes.lam[-1]), 1e2 * modes.lam[0], 60)
    z, exact = transform(modes, N, kappa0 + above)
    ours = atom / z + (mass / (x + z[:, None])).sum(axis=1)
    power = modes.rho.sum()
    return float(max(np.abs(ours / exact - 1).max(), abs((mass.sum() + atom) / power - 1)))
