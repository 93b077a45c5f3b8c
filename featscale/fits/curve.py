"""The exponent of a loss curve over a stated window, with an interval that comes from the seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from featscale.errors import BadInput, require
from featscale.fits.free_floor import free_floor, line
from featscale.fits.resample import Nodes, Window, clean, default_window, resample

Array = NDArray[np.float64]
FloorKind = Literal["zero", "given", "free"]

# Local exponents are slopes of lines through this many grid spacings: a quarter of a decade.
SMOOTHING = 6
SHORT_DECADES = 0.5
SHORT_ROWS = 6
# Two estimates of one exponent that differ by more than this, and by more than SIGMAS standard errors, are flagged.
TOLERATED = 0.05
SIGMAS = 4.0
COVERED = 0.9
# Largest spread of log loss that is rounding.
CONSTANT = 1e-14


@dataclass(frozen=True)
class CurveFit:
    """Fit of loss = floor + amplitude t^-exponent to the curves of S seeds over a window.

    exponent, interval (lo, hi), stderr: chi, its Student-t interval at `level` and its standard error, all from the seeds; NaN bounds for
    one seed. amplitude A, floor E: those of the same curve. floor_kind: "zero", "given" or "free".
    window (lo, hi), in units of t: as asked for, or the default. covered (lo, hi): where the rows of all seeds lie inside it.
    points: rows used. seeds: their S names. per_seed, per_seed_amplitude, per_seed_floor, shape (S,): the fit of every seed alone.
    curve_exponent: chi of the arithmetic mean over seeds. halves: chi over the lower and the upper half of log t.
    t_local, chi_local, chi_local_stderr: local exponents −d log(loss − floor)/d log t, mean over seeds and its standard error, each the slope
    of a line over `smoothing` decades centred there. residual: rms log residual of the seeds about their own fits.
    t, shape (G,), and loss, shape (S, G): the seeds' curves on the common log grid that was fitted. flags: what to know before quoting it.
    """

    exponent: float
    interval: tuple[float, float]
    stderr: float
    amplitude: float
    floor: float
    floor_kind: FloorKind
    level: float
    window: Window
    covered: Window
    points: int
    seeds: tuple[Any, ...]
    per_seed: Array
    per_seed_amplitude: Array
    per_seed_floor: Array
    curve_exponent: float
    halves: tuple[float, float]
    t_local: Array
    chi_local: Array
    chi_local_stderr: Array
    smoothing: float
    residual: float
    t: Array
    loss: Array
    flags: tuple[str, ...]

    def at(self, t: ArrayLike) -> Array:
        """The fitted curve, floor + amplitude t^-exponent, at t > 0."""
        return self.floor + self.amplitude * np.asarray(t, dtype=np.float64) ** -self.exponent

    def band(self, t: ArrayLike) -> tuple[Array, Array]:
        """Student-t band at `level` of the fitted curve at t > 0, from the seeds' own fits in log loss; NaN for one seed."""
        at = np.asarray(t, dtype=np.float64)[..., None]
        curves = np.log(self.per_seed_floor + self.per_seed_amplitude * at**-self.per_seed)
        half = _quantile(self.level, len(self.seeds)) * _stderr(np.moveaxis(curves, -1, 0))
        return self.at(t) * np.exp(-half), self.at(t) * np.exp(half)


@dataclass(frozen=True)
class _Estimate:
    """chi, log A and E of the curve, then of every seed, shape (S,)."""

    curve: tuple[float, float, float]
    chi: Array
    log_A: Array
    E: Array


def fit_curve(
    t: ArrayLike,
    loss: ArrayLike,
    seed: ArrayLike | None = None,
    *,
    window: Window | None = None,
    floor: float | str = 0.0,
    level: float = 0.95,
) -> CurveFit:
    r"""Exponent of a loss curve over a window, by least squares in log-log.

    .. math:: L(t) = E + A\, t^{-\chi}, \qquad \chi \in \bar\chi \pm t_{S-1} \, \mathrm{sd}(\chi_s) / \sqrt S

    Every seed's curve is interpolated in log-log onto one grid of 24 nodes a decade, so that dense rows weigh no more than sparse ones.
    A known floor is subtracted and the line fitted; a free one is fitted by variable projection (:func:`free_floor`).

    The curve fitted is the mean over seeds of log(L − E), not the log of the mean: log averages to the typical curve, the log of a mean of S
    seeds is low by var(L)/(2 S mean²), which bends the exponent where the relative scatter changes with t and lets the seed with the
    largest loss decide. With a known floor its exponent is the mean of the seeds' exponents to rounding, the very numbers whose scatter makes
    the interval. A free floor makes the fit nonlinear: the mean of the seeds' exponents would keep the bias of one seed's noise, the fit to
    the mean curve sheds it. The exponent of the arithmetic mean is reported beside and flagged where the two part.

    The rows of one trajectory are correlated: one seed is one observation, and the residuals of a fit give no interval.

    Source: derived; tests/fits/test_curve.py (recovery, coverage of the interval).
    Arguments: t, flow time or steps, shape (n,); rows with t <= 0 are dropped. loss, shape (n,). seed, shape (n,), None for one seed.
    window (lo, hi) in units of t; None for the last decade and a half. floor E >= 0, "zero" or "free". level of the interval, in (0, 1).
    Returns: :class:`CurveFit`; doubts are in its flags.
    Raises: BadInput for bad shapes, t twice in a seed, loss <= 0 or <= floor inside the window, a window without rows.
    Accuracy: exact to rounding for exact power laws. Interpolation smooths nothing: a loss that is noisy row by row stays so.
    Cost: O(n) for ordered rows, a sort for others; a free floor 3 (S + 2) nonlinear fits of two parameters.

    >>> t = np.logspace(0, 4, 97)
    >>> fit = fit_curve(t, 2.0 * t**-0.5, window=(10, 1000))
    >>> round(fit.exponent, 10), round(fit.amplitude, 10), fit.flags
    (0.5, 2.0, ('one seed: no interval',))
    """
    asked, kind, E = checked(window, floor, level)
    rows = clean(t, loss, seed)
    nodes = resample(rows, asked or default_window(rows), E)
    rows_needed = "zero or a value: a seed has fewer than 4 rows in the window"
    require(kind != "free" or int(nodes.rows.min()) >= 4, "floor", floor, rows_needed)
    whole = _estimate(nodes, kind, E)
    middle = nodes.log_t.size // 2
    halves = [_estimate(nodes.part(part), kind, E) for part in (slice(middle + 1), slice(middle, None))]
    chi, log_A, E = whole.curve
    stderr = float(_stderr(whole.chi))
    half = _quantile(level, len(nodes.labels)) * stderr
    t_local, chi_local, smoothing = local_exponents(nodes, E)
    with np.errstate(over="ignore"):
        A, A_s = float(np.exp(log_A)), np.exp(whole.log_A)
    fit = CurveFit(
        exponent=chi,
        interval=(chi - half, chi + half),
        stderr=stderr,
        amplitude=A,
        floor=E,
        floor_kind=kind,
        level=level,
        window=nodes.window,
        covered=(float(np.exp(nodes.log_t[0])), float(np.exp(nodes.log_t[-1]))),
        points=int(nodes.rows.sum()),
        seeds=nodes.labels,
        per_seed=whole.chi,
        per_seed_amplitude=A_s,
        per_seed_floor=whole.E,
        curve_exponent=_mean_exponent(nodes, kind, E),
        halves=(halves[0].curve[0], halves[1].curve[0]),
        t_local=t_local,
        chi_local=chi_local.mean(axis=0),
        chi_local_stderr=_stderr(chi_local),
        smoothing=smoothing,
        residual=_residual(nodes, whole),
        t=np.exp(nodes.log_t),
        loss=np.exp(nodes.interpolate(np.log(nodes.row_loss))),
        flags=(),
    )
    apart = float(_stderr(halves[0].chi - halves[1].chi))
    flags = (*_window_flags(fit, nodes, apart), *_seed_flags(fit), *_floor_flags(fit, nodes))
    return replace(fit, flags=(*rows.flags, *nodes.flags, *flags))


def local_exponents(nodes: Nodes, E: float) -> tuple[Array, Array, float]:
    r"""Centred slopes :math:`-d\log(L - E) / d\log t` of every seed: of lines through 7 nodes, a quarter of a decade.

    Returns: t, shape (n,); chi, shape (S, n), NaN beside rows at or below E; the width in decades.
    """
    above = np.where(nodes.row_loss > E, nodes.row_loss - E, np.nan)
    z = nodes.interpolate(np.log(above))
    half = min(SMOOTHING, nodes.log_t.size - 1) // 2
    spacing = (nodes.log_t[-1] - nodes.log_t[0]) / (nodes.log_t.size - 1)
    offset = np.arange(-half, half + 1) * spacing
    chi = -np.lib.stride_tricks.sliding_window_view(z, offset.size, axis=1) @ offset / (offset @ offset)
    return np.exp(nodes.log_t[half : nodes.log_t.size - half]), chi, float(2 * half * spacing / math.log(10))


def checked(window: Sequence[float] | None, floor: float | str, level: float) -> tuple[Window | None, FloorKind, float]:
    """The window, the kind of floor and its known part, from what :func:`fit_curve` is given; BadInput names what is not allowed."""
    require(0 < level < 1, "level", level, "a number in (0, 1)")
    allowed = "zero, a number >= 0, or free"
    try:
        E = 0.0 if floor in ("zero", "free") else float(floor)
    except (TypeError, ValueError):
        raise BadInput("floor", floor, allowed) from None
    require(0 <= E < math.inf, "floor", floor, allowed)
    kind: FloorKind = "free" if floor == "free" else "given" if E > 0 else "zero"
    if window is None:
        return None, kind, E
    text, allowed = ",".join(f"{value:g}" for value in window), "two numbers lo,hi with 0 < lo < hi"
    require(len(window) == 2 and 0 < window[0] < window[1] < math.inf, "window", text, allowed)
    return (float(window[0]), float(window[1])), kind, E


def _quantile(level: float, S: int) -> float:
    """Student's t with S − 1 degrees of freedom; NaN for one seed."""
    return float(stdtrit(S - 1, (1 + level) / 2)) if S > 1 else math.nan


def _stderr(values: Array) -> Array:
    """Standard error of the mean over the first axis, the seeds; NaN for one seed."""
    S = len(values)
    return values.std(axis=0, ddof=1) / math.sqrt(S) if S > 1 else np.full(values.shape[1:], np.nan)


def _estimate(nodes: Nodes, kind: FloorKind, E: float) -> _Estimate:
    y = nodes.interpolate(np.log(nodes.row_loss - E))
    if np.ptp(y, axis=1).max() <= CONSTANT:
        chi, log_A = np.zeros(len(y)), y.mean(axis=1)
        return _Estimate((0.0, float(log_A.mean()), E), chi, log_A, np.full(len(y), E))
    if kind != "free":
        chi, log_A = line(nodes.log_t, y)
        return _Estimate((float(chi.mean()), float(log_A.mean()), E), chi, log_A, np.full(len(y), E))
    each = [free_floor(y[s], nodes.row_log_t[[s]], nodes.weight[[s]]) for s in range(len(y))]
    chi, log_A, floors = np.array(each).T
    return _Estimate(_free_curve(nodes, y.mean(axis=0)) if len(y) > 1 else each[0], chi, log_A, floors)


def _free_curve(nodes: Nodes, y: Array) -> tuple[float, float, float]:
    shared = bool((nodes.row_log_t == nodes.row_log_t[0]).all())
    curves = slice(1) if shared else slice(None)
    return free_floor(y, nodes.row_log_t[curves], nodes.weight[curves])


def _mean_exponent(nodes: Nodes, kind: FloorKind, E: float) -> float:
    """Exponent of the arithmetic mean over seeds."""
    if kind == "free":
        y = nodes.interpolate(np.log(nodes.row_loss))
        return _free_curve(nodes, np.log(np.exp(y).mean(axis=0)))[0]
    y = nodes.interpolate(np.log(nodes.row_loss - E))
    return float(line(nodes.log_t, np.log(np.exp(y).mean(axis=0)))[0])


def _residual(nodes: Nodes, whole: _Estimate) -> float:
    chi, log_A, E = (value[:, None, None] for value in (whole.chi, whole.log_A, whole.E))
    fitted = E + np.exp(log_A - chi * nodes.row_log_t)
    return float(np.sqrt(np.mean(nodes.interpolate(np.log(nodes.row_loss / fitted)) ** 2)))


def _window_flags(fit: CurveFit, nodes: Nodes, apart: float) -> Iterator[str]:
    """Doubts about the window; `apart` is the standard error of the difference of the halves."""
    lo, hi = fit.covered
    decades = math.log10(hi / lo)
    if decades < COVERED * math.log10(fit.window[1] / fit.window[0]):
        yield f"window: rows cover only t {lo:g}..{hi:g} of it"
    if decades < SHORT_DECADES:
        yield f"window short: {decades:.2g} decades"
    if nodes.rows.min() < SHORT_ROWS:
        yield f"window short: {nodes.rows.min()} rows in seed {fit.seeds[int(nodes.rows.argmin())]}"
    limit = _limit(apart)
    lower, upper = fit.halves
    if abs(lower - upper) > limit:
        yield f"window: exponent moves by more than {limit:.2g}: {lower:.4g} in its lower half, {upper:.4g} in its upper"
    if not fit.per_seed.any():
        yield "constant: the loss does not move in the window"
    elif fit.exponent < 0:
        yield "rising: the loss grows in the window"


def _limit(stderr: float) -> float:
    return TOLERATED if math.isnan(stderr) else max(TOLERATED, SIGMAS * stderr)


def _seed_flags(fit: CurveFit) -> Iterator[str]:
    if len(fit.seeds) == 1:
        yield "one seed: no interval"
    elif (fit.loss == fit.loss[0]).all():
        yield "seeds identical: the interval has no width"
    if abs(fit.curve_exponent - fit.exponent) > _limit(fit.stderr):
        yield f"seeds: their arithmetic mean has exponent {fit.curve_exponent:.4g}"


def _floor_flags(fit: CurveFit, nodes: Nodes) -> Iterator[str]:
    if fit.floor_kind != "free":
        return
    bound = [str(seed) for seed, E in zip(fit.seeds, fit.per_seed_floor, strict=True) if E == 0]
    if fit.floor == 0:
        yield "floor at its bound 0"
    elif bound:
        yield f"floor at its bound 0 in seed {', '.join(bound)}"
    else:
        half = _quantile(fit.level, len(fit.seeds)) * float(_stderr(fit.per_seed_floor))
        if fit.floor <= half:
            zero = _estimate(nodes, "zero", 0.0).curve[0]
            yield f"floor not distinguishable from 0, with which the exponent is {zero:.4g}"
