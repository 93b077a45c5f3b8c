"""Thousands of curves at once: the numbers of fit_curve with one law, from a few matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featscale.errors import BadInput, require
from featscale.fits.curve import checked, fit_curve
from featscale.fits.estimate import CONSTANT, FloorKind
from featscale.fits.free_floor import line
from featscale.fits.free_floor_batch import free_floors
from featscale.fits.resample import Nodes, Window, clean, column, resample
from featscale.fits.seed_intervals import quantile
from featscale.fits.windows import candidates, drifts, longest, row_of

Array = NDArray[np.float64]

# Curves fitted at a time: some tens of megabytes.
CHUNK = 500


@dataclass(frozen=True)
class CurveFits:
    """One law fitted to C curves of S seeds each.

    exponent, stderr, amplitude, floor, shape (C,). interval, shape (C, 2): Student's, or the delta method's with a free floor; NaN for one seed. per_seed,
    shape (C, S), NaN with a free floor. window, shape (C, 2), in units of t. straight, shape (C,): whether a power law was found there (true for a
    given window). refused: index of a curve → why it has no numbers (they are NaN).
    """

    exponent: Array
    interval: Array
    stderr: Array
    amplitude: Array
    floor: Array
    per_seed: Array
    window: Array
    straight: NDArray[np.bool_]
    refused: dict[int, str]


def fit_curves(
    t: ArrayLike,
    loss: ArrayLike,
    *,
    window: Window | None = None,
    floor: float | str = 0.0,
    level: float = 0.95,
) -> CurveFits:
    r"""Exponents of many curves with common t, equal to :func:`featscale.fits.curve.fit_curve` with law "one" for each of them.

    With a known floor interpolation and least squares are linear in log(L − E), so that all exponents are one matrix product; windows are
    chosen by another, and a free floor is fitted to all curves in step (:func:`featscale.fits.free_floor_batch.free_floors`). Curves with a loss that is
    not finite go through fit_curve, which cuts them.
    Source: derived; equality in tests/fits/test_batch.py, speed in tests/benchmarks/bench_fits.py.
    Arguments: t, shape (n,), rising. loss, shape (C, S, n): S seeds of each curve. window (lo, hi); None for an automatic one of each curve; with a free
    floor it must be given. floor E >= 0, "zero" or "free". level.
    Returns: :class:`CurveFits`.
    Raises: BadInput for bad shapes or options; a curve that cannot be fitted is refused, not raised.
    Cost: C S n logarithms; a free floor some 30 times as much.
    """
    asked, kind, E = checked(window, floor, level, "one")
    times, losses = column("t", t), np.asarray(loss, np.float64)
    require(losses.ndim == 3, "loss", f"shape {losses.shape}", "three dimensions: curves, seeds, times")
    require(losses.shape[2] == times.size, "loss", f"{losses.shape[2]} times", f"as many as t, {times.size}")
    require(bool(np.all(np.diff(times) > 0)), "t", "not rising", "each t once, in rising order")
    require(kind != "free" or asked is not None, "window", None, "lo,hi where the floor is free")
    positive = times > 0
    require(int(positive.sum()) >= 2, "t", f"{positive.sum()} rows > 0", "at least two rows with t > 0")
    times, losses = times[positive], losses[..., positive]
    result = _empty(*losses.shape[:2])
    usable = np.isfinite(losses) if asked else np.isfinite(losses) & (losses > E)
    regular = np.asarray(usable.all(axis=(1, 2)))
    for start in range(0, len(losses), CHUNK):
        chunk = np.flatnonzero(regular[start : start + CHUNK]) + start
        for curves, nodes, straight in _windows(times, losses, chunk, asked, E):
            _fit(result, times, losses, curves, nodes, kind, E, level)
            result.straight[curves] = straight
    for i in np.flatnonzero(~regular).tolist():
        result.refused[i] = "not fitted fast"
    for i in sorted(result.refused):
        _one_by_one(result, i, times, losses[i], asked, floor, level)
    return result


def _empty(C: int, S: int) -> CurveFits:
    def nan(*shape: int) -> Array:
        return np.full(shape, np.nan)

    return CurveFits(nan(C), nan(C, 2), nan(C), nan(C), nan(C), nan(C, S), nan(C, 2), np.zeros(C, bool), {})


def _grid(t: Array, window: Window, E: float) -> Nodes:
    """The grid of every curve in a window: nodes, neighbours and weights; its losses mean nothing."""
    return resample(clean(t, np.full(t.size, E + 1.0)), window, E)


def _logs(t: Array, losses: Array, nodes: Nodes, E: float) -> Array:
    """log(loss − E) at the nodes, shape (..., G); NaN for a curve that is not above E in some row of theirs."""
    left = np.searchsorted(np.log(t), nodes.row_log_t[0] - 1e-12)
    first, last = left.min(), left.max() + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.log(losses[..., first:last] - E)
    y[~np.isfinite(y)] = np.nan
    return y @ _interpolation(nodes, left - first, last - first)


def _interpolation(nodes: Nodes, left: NDArray[np.int64], n: int) -> Array:
    """Matrix from n rows to the nodes, shape (n, G)."""
    G = nodes.log_t.size
    matrix = np.zeros((n, G))
    for side in range(2):
        np.add.at(matrix, (left[:, side], np.arange(G)), nodes.weight[0, :, side])
    return matrix


def _windows(
    t: Array, losses: Array, chunk: NDArray[np.int64], asked: Window | None, E: float
) -> Iterator[tuple[NDArray[np.int64], Nodes, NDArray[np.bool_]]]:
    """Curves of the chunk that share a window, its grid, and whether each is straight there."""
    if asked is not None:
        yield chunk, _grid(t, asked, E), np.ones(chunk.size, bool)
        return
    whole = _grid(t, (float(t[0]), float(t[-1])), E)
    y = _logs(t, losses[chunk], whole, E)
    lo, hi = candidates(whole.log_t.size)
    spacing = (whole.log_t[-1] - whole.log_t[0]) / (whole.log_t.size - 1)
    _, excess, slope = drifts(y, spacing)
    best = longest(excess, slope, lo, hi)
    straight = np.asarray(np.take_along_axis(excess, best[:, None], axis=1)[:, 0] <= 1)
    for i in np.unique(best):
        mine = np.flatnonzero(best == i)
        window = row_of(whole, int(lo[i])), row_of(whole, int(hi[i]))
        yield chunk[mine], _grid(t, window, E), straight[mine]


def _fit(
    result: CurveFits,
    t: Array,
    losses: Array,
    curves: NDArray[np.int64],
    nodes: Nodes,
    kind: FloorKind,
    E: float,
    level: float,
) -> None:
    """Fill in the numbers of `curves`, and refuse those with a loss that is not above E."""
    y = _logs(t, losses[curves], nodes, E)
    good = np.isfinite(y).all(axis=(1, 2))
    for i in curves[~good]:
        result.refused[int(i)] = "not above the floor"
    curves, y = curves[good], y[good]
    if curves.size == 0:
        return
    result.window[curves] = nodes.window
    S = y.shape[1]
    if kind == "free":
        fits = free_floors(y, nodes.row_log_t[0], nodes.weight[0])
        chi, log_A, floor, spread = fits.chi, fits.log_A, fits.E, fits.influence
    else:
        own_chi, own_log_A = line(nodes.log_t, y)
        flat = np.ptp(y, axis=2).max(axis=1) <= CONSTANT
        own_chi[flat], own_log_A[flat] = 0.0, y[flat].mean(axis=2)
        result.per_seed[curves] = own_chi
        chi, log_A, floor, spread = own_chi.mean(axis=1), own_log_A.mean(axis=1), np.full(curves.size, E), own_chi
    stderr = spread.std(axis=1, ddof=1) / math.sqrt(S) if S > 1 else np.full(curves.size, np.nan)
    result.exponent[curves], result.amplitude[curves], result.floor[curves] = chi, np.exp(log_A), floor
    result.stderr[curves] = stderr
    result.interval[curves] = chi[:, None] + quantile(level, S) * stderr[:, None] * np.array([-1.0, 1.0])


def _one_by_one(
    result: CurveFits, i: int, t: Array, losses: Array, asked: Window | None, floor: float | str, level: float
) -> None:
    """A curve that the fast path refused, by fit_curve; what that refuses keeps its reason."""
    seed = np.repeat(np.arange(len(losses)), t.size)
    try:
        fit = fit_curve(
            np.tile(t, len(losses)), losses.ravel(), seed, window=asked, floor=floor, law="one", level=level
        )
    except BadInput as error:
        result.refused[i] = str(error)
        return
    del result.refused[i]
    result.exponent[i], result.stderr[i] = fit.exponent, fit.stderr
    result.interval[i] = fit.checks["delta"]
    result.amplitude[i], result.floor[i], result.window[i] = fit.amplitude, fit.floor, fit.window
    if fit.floor_kind != "free":
        result.per_seed[i, list(fit.seeds)] = fit.per_seed
    result.straight[i] = not any(flag.startswith("window: no power law") for flag in fit.flags)
