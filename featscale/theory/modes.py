r"""Modes with both weights that a theory with noise needs: target power ρ, and how many modes there are, in few bins, at any width.

Signal is summed over modes with weight ρ_k = λ_k w*_k², noise (of the batch, of the initial features) with weight λ_k. A cell of modes becomes two
nodes, the Gauss rule of the weight √(ρ_k λ_k) between the two; both weights then follow from that one rule.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from featscale.errors import require
from featscale.numerics.sample_covariance import Modes, bottleneck_kappa, eigenvalue_count, support_curve, vector_mass
from featscale.spectra import EXACT_MODES, PowerLaw
from featscale.theory.finite_width import power_law_modes

Array = NDArray[np.float64]

BINS_MIN = 4


def binned_modes(task: PowerLaw, bins: int | None = None) -> Modes:
    r"""Modes of a power law: eigenvalues, how many modes each stands for, and their power.

    Derived; tests/theory/test_modes.py compares Σ λ e^{−λt}, Σ λ² e^{−λt} and Σ ρ e^{−λt} with the sum over all modes.
    Arguments: bins >= 4, most nodes of the result; None: every mode up to 10^4 modes, beyond that cells of relative width 3e-3 in λ.
    Returns: Modes, lam largest first, shape (at most bins,); count need not be whole.
    Accuracy: relative error of a sum (cell width in ln λ)⁴/4320 times a fourth derivative in ln λ of order 1 + (|β − 1 + 1/α|/2)⁴.
    Cost: O(bins), any M.
    """
    require(bins is None or bins >= BINS_MIN, "bins", bins, f"an integer >= {BINS_MIN}, or none for every mode")
    alpha, beta, M = task.alpha, task.beta, task.M
    if M <= EXACT_MODES and (bins is None or bins >= M):
        lam = task.lambdas()
        return Modes(lam, np.ones(M), lam * task.w_star() ** 2)
    middle = (beta + 1 - 1 / alpha) / 2
    rule = PowerLaw(alpha, middle, M).measure(bins)
    return Modes(rule.x, rule.rho * rule.x ** -(middle + 1 / alpha), rule.rho * rule.x ** (beta - middle))


def modes_at_width(task: PowerLaw, N: float, bins: int) -> tuple[Modes, float]:
    r"""Eigenvalues of the kernel of `N` initial features, their number and power as deterministic measures, and the power out of reach.

    Source: :mod:`featscale.numerics.sample_covariance`.
    Arguments: N, width, an integer >= 1 or inf. bins >= 4.
    Returns: Modes whose lam are the rates x; counts sum to min(N, M). The power at x = 0.
    Accuracy: O(1/N). Cost: that of finite_width.
    """
    if N == math.inf:
        return binned_modes(task, bins), 0.0
    require(bins >= BINS_MIN, "bins", bins, f"an integer >= {BINS_MIN}")
    modes = power_law_modes(task, int(N))
    kappa0 = bottleneck_kappa(modes, N)
    curve = support_curve(modes, N)
    x, rho, trace = _condense_pair(curve.x, vector_mass(curve), curve.x * eigenvalue_count(curve, N), bins)
    atom = float(modes.rho @ (kappa0 / (modes.lam + kappa0)))
    return Modes(x, trace / x, rho), atom


def _condense_pair(x: Array, rho: Array, trace: Array, bins: int) -> tuple[Array, Array, Array]:
    """At most `bins` nodes, largest first, for two masses: in each geometric cell, moments 0 and 1 of both are kept, and nearly 2 and 3."""
    kept = (rho > 0) & (trace > 0)
    x, rho, trace = x[kept], rho[kept], trace[kept]
    if x.size <= bins:
        return x[::-1], rho[::-1], trace[::-1]
    edges = np.linspace(np.log(x[0]), np.log(x[-1]), bins // 2 + 1)
    cell = np.clip(np.searchsorted(edges, np.log(x), side="right"), 1, bins // 2)
    start = np.flatnonzero(np.diff(cell, prepend=0))
    low, high = _gauss_nodes(x, np.sqrt(rho * trace), start)
    weights = []
    for mass in (rho, trace):
        total = np.add.reduceat(mass, start)
        mean = np.add.reduceat(mass * x, start) / total
        share = np.divide(mean - low, high - low, out=np.full_like(low, 0.5), where=high > low)
        share = np.clip(share, 0, 1)
        weights.append(np.concatenate([total * (1 - share), total * share]))
    nodes = np.concatenate([low, high])
    order = np.argsort(-nodes, kind="stable")
    order = order[(weights[0] + weights[1])[order] > 0]
    return nodes[order], weights[0][order], weights[1][order]


def _gauss_nodes(x: Array, mass: Array, start: NDArray[np.intp]) -> tuple[Array, Array]:
    """Lower and upper node of the two-point Gauss rule of each group of consecutive x."""
    total = np.add.reduceat(mass, start)
    mean = np.add.reduceat(mass * x, start) / total
    group = np.repeat(np.arange(start.size), np.diff(start, append=x.size))
    offset = x / mean[group] - 1
    variance = np.add.reduceat(mass * offset**2, start) / total
    skew = np.add.reduceat(mass * offset**3, start) / total
    half = np.divide(skew, 2 * variance, out=np.zeros_like(skew), where=variance > 0)
    root = np.sqrt(half**2 + variance)
    return mean * (1 + half - root), mean * (1 + half + root)
