r"""Gradient flow on a fixed data set of P samples: train and test loss, exact for each draw of the data.

With features φ(x) = A(0)ψ(x) the full-batch flow is the flow of the model in which Ĝ = ΦᵀΦ/P and b̂ = Φᵀy/P drive m = Uᵀw, and G and b measure the test
loss. In the eigenbasis of Ĝ/N, with eigenvalues x̂_i and training powers ρ̂_i = b̂_i²/(N x̂_i), every mode follows the same scalar flow

.. math::
    L_{train}(t) = \Big[\frac{|y|^2}{P} - \sum_i \hat\rho_i\Big] + \sum_i \hat\rho_i (1 - a_i)^2, \qquad
    L_{test}(t) = L_\infty(N) + |h_0 - F a(t)|^2, \qquad F_{ji} = \sqrt{x_j}\, V_{ji}\, \hat b_i / \hat x_i

so that :mod:`featscale.theory.flow` solves it; only the test loss needs more than a measure, the fractions a_i and the overlaps V_ji of the data's
eigenvectors with the population's. Here x_j, ρ_j = h_0j² is the population measure at the width at hand, whose atom L_∞(N) acts on the data as label
noise. The data enter through Z = the features in the population's eigenbasis, each of unit variance, and y: Gaussian, whatever the number of input modes.

As t → ∞ every a_i → 1: the flow ends at the same interpolator for every γ, so the last loss, and its exponent in P, know nothing of richness.
Derived; tests/theory/test_finite_data.py compares with small-step descent on all N × M weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featscale.errors import require
from featscale.spectra import SpectralMeasure
from featscale.theory.flow import _Solver, _State

Array = NDArray[np.float64]

ENTRIES_MAX = 3 * 10**7
# Below this fraction of the largest, a singular value is rounding.
RANK_TOLERANCE = 1e-13


@dataclass(frozen=True)
class FixedData:
    """A data set in the eigenbasis of its own kernel.

    measure, x̂ (largest first) and ρ̂ of the r modes that the data reach, its atom the training loss that no fit removes. h0, target in the
    population's eigenbasis, shape (n,). F, what each learned mode adds there, shape (n, r). floor, test loss that the width leaves out.
    """

    measure: SpectralMeasure
    h0: Array
    F: Array
    floor: float

    @property
    def last(self) -> float:
        """Test loss as t → ∞, for every gamma: that of the interpolator of least norm, or of least squares."""
        return float(self.floor + ((self.h0 - self.F.sum(axis=1)) ** 2).sum())


@dataclass(frozen=True)
class DataFlow:
    """Loss curves on a fixed data set.

    t, flow times as asked, shape (n,). train and test, losses there (test without label noise). K, growth of the kernel. status, "ok" or advice.
    residual, a measured numerical error where the solution is not exact.
    """

    t: Array
    train: Array
    test: Array
    K: Array
    status: str
    residual: float = 0.0


@dataclass(frozen=True)
class EarlyStop:
    """The time t of least test loss and that loss; status "ok", or on which side the times asked for miss the least."""

    t: float
    loss: float
    status: str


def fixed_data(features: SpectralMeasure, Z: ArrayLike, y: ArrayLike) -> FixedData:
    """The decomposition of given data.

    Arguments: features, population modes x_j with power h0_j² and what they leave out as atom. Z, samples in the population's eigenbasis over
    the standard deviation √x_j, shape (P, n), signed so that the target is Σ_j h0_j Z_j with h0 >= 0. y, labels, shape (P,).
    Cost: one singular value decomposition, O(P n min(P, n)).
    """
    Z, y = np.asarray(Z, np.float64), np.asarray(y, np.float64)
    P, root = y.size, np.sqrt(features.x)
    require(Z.shape == (P, root.size), "Z", Z.shape, f"samples by modes, {(P, root.size)}")
    U, s, Vt = np.linalg.svd(Z * (root / np.sqrt(P)), full_matrices=False)
    kept = s > RANK_TOLERANCE * s[0]
    U, s, Vt = U[:, kept], s[kept], Vt[kept]
    fitted = U.T @ (y / np.sqrt(P))
    unfitted = max(0.0, float(y @ y / P - fitted @ fitted))
    F = (root[:, None] * Vt.T) * (fitted / s)
    return FixedData(SpectralMeasure(s**2, fitted**2, unfitted), np.sqrt(features.rho), F, features.atom)


def draw_data(features: SpectralMeasure, P: int, sigma: float = 0.0, seed: int = 0) -> FixedData:
    """Draw P Gaussian samples of the model with label noise of standard deviation sigma.

    Arguments: features, the population measure at the width at hand: task.measure() at infinite width, or the measure of one draw of A(0), one
    node a mode (not a binned one). P >= 1, samples; P times the number of modes at most 3e7. sigma >= 0. seed of this data set.
    """
    n = features.x.size
    require(isinstance(P, (int, np.integer)) and P >= 1, "samples", P, "an integer >= 1")
    require(
        P * n <= ENTRIES_MAX,
        "samples",
        P,
        f"at most {ENTRIES_MAX} / {n} modes; the deterministic equivalent has no such bound",
    )
    require(0 <= sigma < np.inf, "sigma", sigma, "a number >= 0")
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((P, n))
    noise = np.sqrt(features.atom + sigma**2) * rng.standard_normal(P)
    return fixed_data(features, Z, Z @ np.sqrt(features.rho) + noise)


def data_flow(data: FixedData, gamma: float, t: ArrayLike, rtol: float = 1e-9) -> DataFlow:
    """Train and test loss at flow times `t`.

    Arguments: gamma >= 0, richness. t >= 0, shape (n,), any order. rtol, as in gradient_flow.
    Returns: :class:`DataFlow`; where the solver stops early the remaining rows are NaN and the status says why.
    Cost: that of gradient_flow on r modes, and n r multiplications a time.
    """
    t = np.atleast_1d(np.asarray(t, np.float64))
    left, K, status = residual_fractions(data.measure, gamma, t, rtol)
    train = data.measure.atom + left**2 @ data.measure.rho
    # h0 − F a = (h0 − F 1) + F (1 − a): exact where little is left to learn.
    h = (data.h0 - data.F.sum(axis=1))[:, None] + data.F @ left.T
    return DataFlow(t, train, data.floor + (h**2).sum(axis=0), K, status)


def early_stop(flow: DataFlow) -> EarlyStop:
    """Where the test loss is least: the vertex of the parabola in ln t through the least of the curve and its neighbours.

    Arguments: flow, at increasing times; 24 a decade place t within a percent.
    """
    t, test = flow.t[np.isfinite(flow.test)], flow.test[np.isfinite(flow.test)]
    require(t.size >= 1, "times", flow.t.size, "a curve with at least one finite test loss")
    i = int(np.argmin(test))
    if i == t.size - 1:
        return EarlyStop(
            float(t[i]), float(test[i]), "the loss is least at the last time: longer, or no reason to stop"
        )
    if i == 0 or t[i - 1] == 0:
        return EarlyStop(float(t[i]), float(test[i]), "the loss is least at the first time: ask for earlier ones")
    a, b, c = np.polyfit(s := np.log(t[i - 1 : i + 2] / t[i]), test[i - 1 : i + 2], 2)
    vertex = float(np.clip(-b / (2 * a), s[0], s[-1])) if a > 0 else 0.0
    return EarlyStop(float(t[i] * np.exp(vertex)), float(min(test[i], c + b * vertex + a * vertex**2)), "ok")


def residual_fractions(measure: SpectralMeasure, gamma: float, t: Array, rtol: float) -> tuple[Array, Array, str]:
    """1 − a of every mode at times t, shape (times, modes), K, shape (times,), and the status; x of the measure largest first."""
    require(0 <= gamma < np.inf, "gamma", gamma, "a number >= 0")
    require(bool(np.all((t >= 0) & (t < np.inf))), "times", t, "finite flow times >= 0")
    require(1e-13 <= rtol <= 1e-2, "rtol", rtol, "a number from 1e-13 to 1e-2")
    if gamma == 0:
        return np.exp(-np.outer(t, measure.x)), np.ones_like(t), "ok"
    order = np.argsort(t, kind="stable")
    solver = _Recorder(measure, gamma, rtol)
    status = solver.run(t[order], (rows := np.empty((t.size, 2))))
    left, K = np.full((t.size, measure.x.size), np.nan), np.empty(t.size)
    K[order] = rows[:, 1]
    # The first record is the start, whether a time asks for it or not.
    zeros = int((t == 0).sum())
    left[order[:zeros]] = 1.0
    left[order[zeros : zeros + len(solver.left) - 1]] = np.reshape(solver.left[1:], (-1, measure.x.size))
    return left, K, status


class _Recorder(_Solver):
    """The solver of the flow, which also keeps 1 − a wherever it is observed."""

    def __init__(self, measure: SpectralMeasure, gamma: float, rtol: float) -> None:
        super().__init__(measure, gamma, rtol)
        self.left: list[Array] = []

    def observe(self, state: _State) -> tuple[float, float]:
        self.left.append(state.r / state.u)
        return super().observe(state)
