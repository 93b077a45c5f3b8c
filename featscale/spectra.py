r"""Task spectra: eigenvalues λ_k, target coefficients w*_k and powers ρ_k, and other people's letters for them.

Source and capacity: λ_k = k^-α with α > 1, ρ_k = λ_k w*_k² = k^-(αβ+1), so that Σ_{l>k} ρ_l ~ k^-αβ = λ_k^β.
Source: Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import zeta

from featscale.errors import require

Array = NDArray[np.float64]

MODES_MAX = 10**15
EXACT_MODES = 10_000
CELL_WIDTH = 3e-3


class Exponents(NamedTuple):
    """Capacity exponent `alpha` and source exponent `beta` of a task."""

    alpha: float
    beta: float


@dataclass(frozen=True)
class SpectralMeasure:
    r"""A discrete spectral measure ρ(dx) = Σ_i rho_i δ(x − x_i) + atom δ(x).

    Arguments: x, shape (n,), relaxation rates x_i > 0 (inverse flow time). rho, shape (n,), target power at x_i,
    rho_i >= 0 (units of loss). atom >= 0, the power that no learning reaches (what width N leaves out).
    Raises: BadInput if shapes differ, a rate is not positive and finite, or a power is negative or not finite.
    """

    x: Array
    rho: Array
    atom: float = 0.0

    def __post_init__(self) -> None:
        x, rho = np.atleast_1d(np.asarray(self.x, np.float64)), np.atleast_1d(np.asarray(self.rho, np.float64))
        require(x.ndim == 1 and x.shape == rho.shape, "rho", rho.shape, f"the shape of x, {x.shape}, one dimension")
        require(x.size > 0, "x", "empty", "at least one mode")
        require(bool(np.all((x > 0) & np.isfinite(x))), "x", _first(x, ~((x > 0) & np.isfinite(x))), "rates > 0")
        bad = ~((rho >= 0) & np.isfinite(rho))
        require(not bad.any(), "rho", _first(rho, bad), "powers >= 0")
        require(0 <= self.atom < np.inf, "atom", self.atom, "a power >= 0")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "rho", rho)

    @property
    def power(self) -> float:
        """Total power, the loss at t = 0."""
        return float(self.rho.sum() + self.atom)


@dataclass(frozen=True)
class PowerLaw:
    r"""The task λ_k = k^-α, w*_k = k^-(α(β−1)+1)/2, k = 1..M.

    Arguments: alpha > 1, so that the trace converges. beta > 0, so that the target's power does. M, number of modes, 1 <= M.
    Raises: BadInput that names the field otherwise.

    >>> PowerLaw(alpha=2.0, beta=0.5, M=3).lambdas()
    array([1.        , 0.25      , 0.11111111])
    """

    alpha: float
    beta: float
    M: int

    def __post_init__(self) -> None:
        require_exponents(self.alpha, self.beta)
        require(isinstance(self.M, (int, np.integer)), "modes", self.M, "an integer >= 1")
        require(1 <= self.M <= MODES_MAX, "modes", self.M, f"an integer from 1 to {MODES_MAX}")

    def lambdas(self, start: int = 0, stop: int | None = None) -> Array:
        """Eigenvalues λ_k of modes start+1 .. stop, largest first, shape (stop − start,)."""
        return self._index(start, stop) ** -self.alpha

    def w_star(self, start: int = 0, stop: int | None = None) -> Array:
        """Target coefficients w*_k > 0 of modes start+1 .. stop, shape (stop − start,)."""
        return self._index(start, stop) ** (-(self.alpha * (self.beta - 1) + 1) / 2)

    def blocks(self, size: int) -> Iterator[tuple[int, int]]:
        """Ranges (start, stop) of at most `size` modes that cover 0..M, for streaming."""
        for start in range(0, self.M, size):
            yield start, min(start + size, self.M)

    def measure(self, bins: int | None = None) -> SpectralMeasure:
        """Infinite-width spectral measure x = λ_k, rho = ρ_k; see :func:`power_law_measure`."""
        return power_law_measure(self, bins)

    def _index(self, start: int, stop: int | None) -> Array:
        return np.arange(start + 1, (self.M if stop is None else stop) + 1, dtype=np.float64)


def power_law_measure(task: PowerLaw, bins: int | None = None) -> SpectralMeasure:
    r"""The infinite-width measure Σ_k ρ_k δ(x − λ_k) of a power-law task, on at most `bins` nodes.

    Modes are kept one by one where a geometric cell holds at most two of them; every other cell becomes its two-point Gauss rule, which keeps
    the cell's moments Σ ρ_k λ_k^j for j = 0..3. The moments are differences of Hurwitz zeta functions, so M costs nothing.

    Derived; tests/test_spectra.py compares with the sum over all modes.
    Arguments: bins >= 4, or None: every mode up to 10^4 modes, beyond that cells of relative width 3e-3 in λ.
    Accuracy: relative error of ∫ρ(dx) g(x) about (cell width in ln λ)⁴/4320 g''''; 1e-13 for bins=None, 1e-9 for 2,000 bins at M = 10^9.
    Cost: O(bins).
    """
    if bins is None and task.M <= EXACT_MODES:
        lambdas = task.lambdas()
        return SpectralMeasure(lambdas, lambdas * task.w_star() ** 2)
    if bins is None:
        cells = int(np.ceil(np.log(task.M + 1.0) * task.alpha / CELL_WIDTH))
    else:
        require(bins >= 4, "bins", bins, "an integer >= 4")
        cells = bins // 2
    edges = np.unique(np.round(np.geomspace(1.0, task.M + 1.0, cells + 1)))
    low, high = edges[:-1], edges[1:]
    single = np.concatenate([low[high - low == 1], *(low[high - low == 2] + i for i in (0, 1))])
    x, rho = _gauss_cells(task, low[high - low > 2], high[high - low > 2])
    x = np.concatenate([single**-task.alpha, x])
    rho = np.concatenate([single ** -(task.alpha * task.beta + 1), rho])
    order = np.argsort(-x, kind="stable")
    return SpectralMeasure(x[order], rho[order])


def _gauss_cells(task: PowerLaw, low: Array, high: Array) -> tuple[Array, Array]:
    """Two-point Gauss nodes and weights in λ of the modes low <= k < high of each cell, from their first four moments."""
    middle = np.sqrt(low * high)
    s = task.alpha * task.beta + 1
    # Moments of (λ_k / λ_middle)^j under (k / middle)^-s: scaled, so that nothing underflows at M = 10^9.
    m = [_power_sum(s + j * task.alpha, low, high, middle) for j in range(4)]
    mean = m[1] / m[0]
    variance = m[2] / m[0] - mean**2
    skew = m[3] / m[0] - 3 * mean * m[2] / m[0] + 2 * mean**3
    # Nodes mean + r with r² − (skew/variance) r − variance = 0: the Gauss rule of the centred moments 0..3.
    half = skew / variance / 2
    root = np.sqrt(half**2 + variance)
    upper, lower = half + root, half - root
    weight = m[0] * -lower / (upper - lower)
    x = np.concatenate([mean + upper, mean + lower]) * np.tile(middle**-task.alpha, 2)
    return x, np.concatenate([weight, m[0] - weight]) * np.tile(middle**-s, 2)


def _power_sum(s: float, low: Array, high: Array, unit: Array) -> Array:
    r"""Σ_{low <= k < high} (k/unit)^-s: by Hurwitz zeta near k = 1, by Euler–Maclaurin where its difference would cancel."""
    near = low < 20 * (s + 5)
    out = np.empty_like(low)
    out[near] = (zeta(s, low[near]) - zeta(s, high[near])) * unit[near] ** s
    h = 1 / unit[~near]
    a, b = low[~near] * h, high[~near] * h
    out[~near] = (
        -(a ** (1 - s)) * np.expm1((1 - s) * np.log(b / a)) / (s - 1) / h
        + (a**-s - b**-s) / 2
        + s * h / 12 * (a ** (-s - 1) - b ** (-s - 1))
        - s * (s + 1) * (s + 2) * h**3 / 720 * (a ** (-s - 3) - b ** (-s - 3))
    )
    return out


def require_exponents(alpha: float, beta: float) -> None:
    """Raise BadInput unless alpha > 1 and beta > 0, both finite."""
    require(1 < alpha < np.inf, "alpha", alpha, "a number > 1")
    require(0 < beta < np.inf, "beta", beta, "a number > 0")


def from_paquette(a: float, b: float) -> Exponents:
    r"""Exponents of Paquette et al. 2024 (arXiv:2405.15074), features j^-2a and targets j^-2b: α = 2a, β = (2a + 2b − 1)/(2a)."""
    return _checked(2 * a, (2 * a + 2 * b - 1) / (2 * a) if a else np.nan)


def to_paquette(alpha: float, beta: float) -> tuple[float, float]:
    """The (a, b) of Paquette et al. 2024 for (alpha, beta)."""
    require_exponents(alpha, beta)
    return alpha / 2, (alpha * (beta - 1) + 1) / 2


def from_dynamical(a: float, b: float) -> Exponents:
    r"""Exponents of Bordelon, Atanasov & Pehlevan 2024 (arXiv:2402.01092), targets k^-a and kernel k^-b: α = b, αβ = a − 1."""
    return _checked(b, (a - 1) / b if b else np.nan)


def to_dynamical(alpha: float, beta: float) -> tuple[float, float]:
    """The (a, b) of arXiv:2402.01092 for (alpha, beta)."""
    require_exponents(alpha, beta)
    return alpha * beta + 1, alpha


def circle_exponents(q: float, q_phi: float) -> Exponents:
    r"""Exponents of the circle task y = Σ_k k^-q cos kθ learned with φ = ReLU^{q_φ}: α = 2 q_φ, β = (2q − 1)/(2 q_φ)."""
    return _checked(2 * q_phi, (2 * q - 1) / (2 * q_phi) if q_phi else np.nan)


def _checked(alpha: float, beta: float) -> Exponents:
    require_exponents(alpha, beta)
    return Exponents(alpha, beta)


def _first(values: Array, bad: NDArray[np.bool_]) -> float:
    return float(values[np.argmax(bad)])
