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

# Edges of candidate windows lie this many nodes apart, a sixth of a decade, or more where that would be too many; the shortest candidate is half a decade.
STEP = PER_DECADE // 6
MOST_EDGES = 60
SHORTEST = PER_DECADE // 2
# A drift of the local exponent across a window is tolerated up to this, or up to SIGMAS of its own standard errors.
DRIFT = 0.01
SIGMAS = 1.0
# Fewer seeds than this do not tell the error of a drift; the roughness of their curves does then.
SEEDS = 3
# Coefficients of the smooth curve that roughness is measured from.
QUARTIC = 5
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

    In a window of ℓ e-folds of t a least-squares cubic, :math:`y \approx h - \chi x + c\,P_2(x) + d\,P_3(x)`, makes the local exponent drift from end to
    end by :math:`D = -2 c \ell` and bow from the ends to the middle by :math:`B = \tfrac34 d \ell^2`. The window is one power law if
    :math:`|\bar D| \le \max(0.01, \mathrm{se}(\bar D))` and B likewise, the mean over seeds and its standard error: one, not two, for an undetected
    bend biases the exponent of a long window by as much as its own interval. The error is the scatter between seeds; below three seeds at least
    that of the curves' correlated residuals.
    Among equals the later window wins; plateaus, where the curve falls less than a quarter as fast as on the whole, do not count.

    The choice looks at curvature alone, to which the slope of the same window is uncorrelated, so that it spoils the interval little.
    Source: derived, after Lepski's rule; tests/fits/test_windows.py.
    Arguments: nodes, S curves on G nodes. y, shape (S, G).
    Returns: :class:`Choice`; its window is that of the rows beside its first and last node.
    Cost: (G/4)²/2 windows, S G multiplications each.
    """
    lo, hi = candidates(y.shape[1])
    spacing = (nodes.log_t[-1] - nodes.log_t[0]) / (y.shape[1] - 1)
    drift, excess, slope = drifts(y, spacing)
    i = int(longest(excess, slope, lo, hi))
    first, last = int(lo[i]), int(hi[i])
    return Choice((row_of(nodes, first), row_of(nodes, last)), (first, last), bool(excess[i] <= 1), float(drift[i]))


@lru_cache(maxsize=64)
def candidates(G: int) -> tuple[Index, Index]:
    """First and last node of the candidate windows, each of shape (W,)."""
    step = max(STEP, -(-G // MOST_EDGES))
    edges = np.unique(np.concatenate([[0], np.arange(G - 1, -1, -step)]))
    lo, hi = (index.ravel() for index in np.meshgrid(edges, edges, indexing="ij"))
    long = hi - lo >= min(SHORTEST, G - 1)
    return lo[long], hi[long]


@lru_cache(maxsize=16)
def contrasts(G: int) -> tuple[Array, Array, Array]:
    """Rows that give drift, bow and exponent of every candidate window from y at spacing 1, each of shape (W, G)."""
    lo, hi = candidates(G)
    drift, bow, slope = np.zeros((3, lo.size, G))
    for w, (a, b) in enumerate(zip(lo, hi, strict=True)):
        length = b - a
        k = np.arange(length + 1) - length / 2
        parabola = k**2 - np.mean(k**2)
        cubic = k**3 - k * (k @ k**3) / (k @ k)
        inside = slice(a, b + 1)
        drift[w, inside] = -2 * length * parabola / (parabola @ parabola)
        bow[w, inside] = 0.75 * length**2 * cubic / (cubic @ cubic)
        slope[w, inside] = -k / (k @ k)
    return drift, bow, slope


def drifts(y: Array, spacing: float) -> tuple[Array, Array, Array]:
    """How far S curves y, shape (..., S, G), at nodes `spacing` apart are from straight in every candidate window.

    Returns: mean drift of the exponent over seeds; the larger of drift and bow over what is tolerated, at most 1 where the window is
    straight; mean exponent; each of shape (..., W).
    """
    drift_rows, bow_rows, slope_rows = contrasts(y.shape[-1])
    rough = _roughness(y) / math.sqrt(y.shape[-2]) if y.shape[-2] < SEEDS else None
    drift, drift_limit = _tolerated(y, drift_rows / spacing, rough)
    bow, bow_limit = _tolerated(y, bow_rows / spacing, rough)
    excess = np.maximum(np.abs(drift) / drift_limit, np.abs(bow) / bow_limit)
    return drift, excess, y.mean(axis=-2) @ (slope_rows.T / spacing)


def _tolerated(y: Array, rows: Array, rough: Array | None) -> tuple[Array, Array]:
    """Mean over seeds of a contrast and the largest value that is none, each of shape (..., W)."""
    S = y.shape[-2]
    value = y @ rows.T
    error = value.std(axis=-2, ddof=1) / math.sqrt(S) if S > 1 else np.zeros(value.shape[:-2] + value.shape[-1:])
    if rough is not None:
        error = np.maximum(error, rough * np.linalg.norm(rows, axis=1))
    return value.mean(axis=-2), np.maximum(DRIFT, SIGMAS * error)


def _roughness(y: Array) -> Array:
    """Standard deviation of white noise that would move a drift as much as the correlated residuals of quartics do, shape (..., W)."""
    lo, hi = candidates(y.shape[-1])
    rough = []
    for a, b in zip(lo, hi, strict=True):
        basis, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, b - a + 1), QUARTIC))
        part = y[..., a : b + 1]
        rest = part - (part @ basis) @ basis.T
        square = (rest**2).sum(axis=(-2, -1))
        lagged = (rest[..., 1:] * rest[..., :-1]).sum(axis=(-2, -1))
        rho = np.divide(lagged, square, out=np.zeros_like(square), where=square > 0)
        inflation = np.clip((1 + rho) / (1 - rho + 1e-12), 1, (b - a + 1) / 4)
        rough.append(np.sqrt(square / (y.shape[-2] * max(b - a + 1 - QUARTIC, 1)) * inflation))
    return np.stack(rough, axis=-1)


def longest(excess: Array, slope: Array, lo: Index, hi: Index) -> Index:
    """Index of the longest window that is straight and no plateau, the latest of equals; of the straightest of the shortest if there is none.

    Arguments: excess, slope, shape (..., W), of :func:`drifts`. lo, hi, shape (W,).
    Returns: shape (...).
    """
    length = hi - lo
    whole = np.abs(slope[..., np.argmax(length), None])
    falls = np.abs(slope) >= FALL * whole
    # Half a node for lateness breaks ties between windows of one length.
    score = np.where((excess <= 1) & falls, length + 0.5 * hi / hi.max(), -1.0)
    shortest = np.where(falls & (length == length.min()), excess, np.inf)
    fallback = np.where(np.isfinite(shortest).any(axis=-1), shortest.argmin(axis=-1), excess.argmin(axis=-1))
    return np.where(score.max(axis=-1) > 0, score.argmax(axis=-1), fallback)


def row_of(nodes: Nodes, node: int) -> float:
    """t of the row of the first seed nearest to a node."""
    x = nodes.row_log_t[0, node]
    return float(np.exp(x[np.argmin(np.abs(x - nodes.log_t[node]))]))
