r"""Windows in which a curve is one power law: from the curvature of the seeds' curves, or from a prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featscale.errors import require
from featscale.fits.resample import PER_DECADE, Nodes, Window, clean, resample

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Edges of candidate windows lie this many nodes apart, a sixth of a decade; the shortest candidate is half a decade.
STEP = PER_DECADE // 6
SHORTEST = PER_DECADE // 2
# A drift of the local exponent across a window is tolerated up to this, or up to SIGMAS of its own standard errors.
DRIFT = 0.01
SIGMAS = 1.0
# Fewer seeds than this do not tell the error of a drift; the roughness of their curves does then.
SEEDS = 3
# A plateau is no power law: a window must fall at least this fraction as fast as the whole curve.
FALL = 0.25
# A time scale of the prediction is kept away from by this factor.
CLEAR = 3.0


@dataclass(frozen=True)
class Prediction:
    """What theory says of a curve before it is fitted.

    curve (t, loss): the predicted curve, each of shape (n,), noise-free; None if there is none. after: times that must lie well before the
    window (crossovers, ends of transients). before: times that must lie well after it (onset of the floor, of finite size, of instability).
    """

    curve: tuple[ArrayLike, ArrayLike] | None = None
    after: Sequence[float] = ()
    before: Sequence[float] = ()

    def __post_init__(self) -> None:
        for name, times in (("after", self.after), ("before", self.before)):
            require(all(0 < t < math.inf for t in times), name, times, "times > 0")


@dataclass(frozen=True)
class Choice:
    """A window chosen for a curve, in units of t; nodes (first, last) of the grid it was chosen on; whether a power law was found in it."""

    window: Window
    nodes: tuple[int, int]
    found: bool
    drift: float


def predicted_window(prediction: Prediction, measured: Window, floor: float = 0.0) -> Window:
    """The window in which the prediction is one power law above `floor`, as far as `measured` (lo, hi) reaches.

    From CLEAR times the last of `after` to the first of `before` over CLEAR; of a predicted curve, within these, the longest stretch in
    which its own local exponent drifts by no more than DRIFT (:func:`straight`).
    Raises: BadInput where the prediction leaves no window.
    """
    lo = max([measured[0], *(CLEAR * t for t in prediction.after)])
    hi = min([measured[1], *(t / CLEAR for t in prediction.before)])
    allowed = f"a prediction that leaves some of the measured t, {measured[0]:g}..{measured[1]:g}"
    require(lo < hi, "window", f"{lo:g},{hi:g}", allowed)
    if prediction.curve is None:
        return lo, hi
    nodes = resample(clean(*prediction.curve), (lo, hi), floor)
    return straight(nodes, nodes.interpolate(np.log(nodes.row_loss - floor))).window


def straight(nodes: Nodes, y: Array) -> Choice:
    r"""The longest window in which the local exponent of y = log(loss − E) is constant within errors.

    In a window of ℓ e-folds of t the local exponent drifts from end to end, by the least-squares parabola, by
    :math:`D = -2 c \ell,\ y \approx h - \chi x + c x^2`. The window is one power law if :math:`|\bar D| \le \max(0.01, \mathrm{se}(\bar D))`, the mean over
    seeds and its standard error: one, not two, for an undetected bend biases the exponent of a long window by as much as its own
    interval. The error is the scatter of D between seeds; below three seeds at least that of the curves' correlated residuals.
    Among equals the later window wins; plateaus, where the curve falls less than a quarter as fast as on the whole, do not count.

    The choice looks at curvature alone, to which the slope of the same window is uncorrelated, so that it spoils the interval little.
    Source: derived, after Lepski's rule; tests/fits/test_windows.py.
    Arguments: nodes, S curves on G nodes. y, shape (S, G).
    Returns: :class:`Choice`; its window is that of the rows beside its first and last node.
    Cost: (G/4)²/2 windows, S G multiplications each.
    """
    lo, hi = candidates(y.shape[1])
    spacing = (nodes.log_t[-1] - nodes.log_t[0]) / (y.shape[1] - 1)
    drift, error, slope = drifts(y, spacing)
    i = longest(drift, error, slope, lo, hi)
    first, last = int(lo[i]), int(hi[i])
    found = bool(abs(drift[i]) <= max(DRIFT, SIGMAS * error[i]))
    return Choice((_row(nodes, first), _row(nodes, last)), (first, last), found, float(drift[i]))


@lru_cache(maxsize=64)
def candidates(G: int) -> tuple[Index, Index]:
    """First and last node of the candidate windows, each of shape (W,)."""
    edges = np.unique(np.concatenate([[0], np.arange(G - 1, -1, -STEP)]))
    lo, hi = (index.ravel() for index in np.meshgrid(edges, edges, indexing="ij"))
    long = hi - lo >= min(SHORTEST, G - 1)
    return lo[long], hi[long]


@lru_cache(maxsize=16)
def contrasts(G: int) -> tuple[Array, Array]:
    """Rows that give drift and exponent of every candidate window from y at spacing 1, each of shape (W, G)."""
    lo, hi = candidates(G)
    drift, slope = np.zeros((2, lo.size, G))
    for w, (a, b) in enumerate(zip(lo, hi, strict=True)):
        k = np.arange(b - a + 1) - (b - a) / 2
        parabola = k**2 - np.mean(k**2)
        drift[w, a : b + 1] = -2 * (b - a) * parabola / (parabola @ parabola)
        slope[w, a : b + 1] = -k / (k @ k)
    return drift, slope


def drifts(y: Array, spacing: float) -> tuple[Array, Array, Array]:
    """Drift and exponent in every candidate window of S curves y, shape (..., S, G), at nodes `spacing` apart.

    Returns: mean drift over seeds, its standard error, mean exponent, each of shape (..., W).
    """
    S, G = y.shape[-2:]
    drift_rows, slope_rows = contrasts(G)
    drift = y @ (drift_rows.T / spacing)
    error = drift.std(axis=-2, ddof=1) / math.sqrt(S) if S > 1 else np.zeros(drift.shape[:-2] + drift.shape[-1:])
    if S < SEEDS:
        error = np.maximum(error, _roughness(y) * np.linalg.norm(drift_rows, axis=1) / spacing / math.sqrt(S))
    return drift.mean(axis=-2), error, y.mean(axis=-2) @ (slope_rows.T / spacing)


def _roughness(y: Array) -> Array:
    """Standard deviation of white noise that would move a drift as much as the correlated residuals of parabolas do, shape (..., W)."""
    lo, hi = candidates(y.shape[-1])
    rough = []
    for a, b in zip(lo, hi, strict=True):
        basis, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, b - a + 1), 3))
        part = y[..., a : b + 1]
        rest = part - (part @ basis) @ basis.T
        square = (rest**2).sum(axis=(-2, -1))
        lagged = (rest[..., 1:] * rest[..., :-1]).sum(axis=(-2, -1))
        rho = np.divide(lagged, square, out=np.zeros_like(square), where=square > 0)
        inflation = np.clip((1 + rho) / (1 - rho + 1e-12), 1, (b - a + 1) / 4)
        rough.append(np.sqrt(square / (y.shape[-2] * max(b - a - 2, 1)) * inflation))
    return np.stack(rough, axis=-1)


def longest(drift: Array, error: Array, slope: Array, lo: Index, hi: Index) -> int | Index:
    """Index of the longest window that is straight and no plateau, the latest of equals; of the straightest of the shortest if there is none.

    Arguments: drift, error, slope, shape (..., W). lo, hi, shape (W,).
    Returns: shape (...).
    """
    length = hi - lo
    excess = np.abs(drift) / np.maximum(DRIFT, SIGMAS * error)
    whole = np.abs(slope[..., np.argmax(length), None])
    falls = np.abs(slope) >= FALL * whole
    # Half a node for lateness breaks ties between windows of one length.
    score = np.where((excess <= 1) & falls, length + 0.5 * hi / hi.max(), -1.0)
    shortest = np.where(falls & (length == length.min()), excess, np.inf)
    fallback = np.where(np.isfinite(shortest).any(axis=-1), shortest.argmin(axis=-1), excess.argmin(axis=-1))
    return np.where(score.max(axis=-1) > 0, score.argmax(axis=-1), fallback)


def _row(nodes: Nodes, node: int) -> float:
    """t of the row of the first seed nearest to a node."""
    x = nodes.row_log_t[0, node]
    return float(np.exp(x[np.argmin(np.abs(x - nodes.log_t[node]))]))
