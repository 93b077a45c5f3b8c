"""The exponent of a loss curve over a window, with an interval that comes from the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featscale.errors import BadInput, require
from featscale.fits.estimate import Estimate, FloorKind, LawName, estimate
from featscale.fits.flags import doubts
from featscale.fits.plan import plan
from featscale.fits.resample import Nodes, Window, clean, resample
from featscale.fits.seed_intervals import Interval, quantile, standard_error
from featscale.fits.sensitivity import Alternative, alternatives, spread
from featscale.fits.two_terms import log_curve
from featscale.fits.windows import Prediction

Array = NDArray[np.float64]
LAWS = ("one", "two", "broken")

# Local exponents are slopes of lines through this many grid spacings: a quarter of a decade.
SMOOTHING = 6


@dataclass(frozen=True)
class CurveFit:
    """Fit of a law to the curves of S seeds over a window: loss = floor + amplitude t^-exponent, or with a second term.

    exponent, interval (lo, hi), stderr: chi, its interval at `level` (`method`: "student", or "profile", the clustered score test inverted, where the
    law is not a straight line) and its standard error, all from the seeds; NaN for one seed, infinite where nothing is rejected. checks: the
    intervals of other methods, to compare. amplitude A, floor E: those of the same curve. floor_kind: "zero", "given" or "free".
    law: "one"; "two" (A t^-a + B t^-b, or 1/L = t^a/A + t^b/B where `kappa` is −1), exponent a, which rules late; "broken", the same law, exponent b, which
    rules early. second: (exponent, amplitude) of the other term, None for one law. crossing: t where the terms are equal. condition: number of
    the scaled Jacobian.
    window (lo, hi), in units of t, and window_kind: "given", "predicted" or "automatic". covered (lo, hi): where the rows of all seeds lie inside it.
    alternatives: the exponent in other windows and with other laws. spread: largest distance of those of other windows from `exponent`.
    predicted: exponent of the predicted curve with the same law in the same window, None without one.
    points: rows used. seeds: their S names. per_seed, per_seed_amplitude, per_seed_floor, shape (S,): the fit of every seed alone (with two
    terms its linear step from the fit to all). terms, shape (4,), per_seed_terms, shape (S, 4): (chi, log A, other exponent, log other
    amplitude) above known_floor, as :class:`featscale.fits.estimate.Estimate` has them.
    curve_exponent: chi of the arithmetic mean over seeds. halves: chi over the lower and the upper half of log t.
    t_local, chi_local, chi_local_stderr: local exponents −d log(loss − floor)/d log t, mean over seeds and its standard error, each the slope
    of a line over `smoothing` decades centred there. residual: rms log residual of the seeds about their own fits.
    t, shape (G,), and loss, shape (S, G): the seeds' curves on the common log grid that was fitted. flags: what to know before quoting it.
    """

    exponent: float
    interval: Interval
    stderr: float
    method: str
    checks: dict[str, Interval]
    amplitude: float
    floor: float
    floor_kind: FloorKind
    law: LawName
    second: tuple[float, float] | None
    kappa: int
    crossing: float | None
    condition: float
    level: float
    window: Window
    window_kind: str
    covered: Window
    alternatives: tuple[Alternative, ...]
    spread: float
    predicted: float | None
    points: int
    seeds: tuple[Any, ...]
    per_seed: Array
    per_seed_amplitude: Array
    per_seed_floor: Array
    terms: Array
    per_seed_terms: Array
    known_floor: float
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
        """The fitted curve, floor + amplitude t^-exponent or the law's two terms, at t > 0."""
        return self.known_floor + np.exp(log_curve(self.terms, self.kappa, np.log(np.asarray(t, dtype=np.float64))))

    def band(self, t: ArrayLike) -> tuple[Array, Array]:
        """Student-t band at `level` of the fitted curve at t > 0, from the seeds' own fits in log loss; NaN for one seed."""
        at = np.asarray(t, dtype=np.float64)
        power = np.array([log_curve(own, self.kappa, np.log(at)) for own in self.per_seed_terms])
        curves = np.log(self.known_floor + np.exp(power))
        half = quantile(self.level, len(self.seeds)) * standard_error(curves)
        return self.at(t) * np.exp(-half), self.at(t) * np.exp(half)


def fit_curve(
    t: ArrayLike,
    loss: ArrayLike,
    seed: ArrayLike | None = None,
    *,
    window: Window | None = None,
    floor: float | str = 0.0,
    law: LawName | None = None,
    level: float = 0.95,
    prediction: Prediction | None = None,
) -> CurveFit:
    r"""Exponent of a loss curve over a window, by least squares in log-log.

    .. math:: L(t) = E + A\, t^{-\chi}, \qquad \chi \in \bar\chi \pm t_{S-1} \, \mathrm{sd}(\chi_s) / \sqrt S

    Every seed's curve is interpolated in log-log onto one grid of 24 nodes a decade, so that dense rows weigh no more than sparse ones.
    A known floor is subtracted and the line fitted; a free one is fitted by variable projection (:func:`featscale.fits.free_floor.free_floor`), a
    second term as :func:`featscale.fits.two_terms.two_terms` says. Without a window the curvature of the curves, or the prediction, decides
    (:func:`featscale.fits.plan.plan`), and without a law too whether one or two terms hold there.

    The curve fitted is the mean over seeds of log(L − E), not the log of the mean: log averages to the typical curve, the log of a mean of S
    seeds is low by var(L)/(2 S mean²), which bends the exponent where the relative scatter changes with t and lets the seed with the
    largest loss decide. With a known floor its exponent is the mean of the seeds' exponents to rounding, the very numbers whose scatter makes
    the interval. A free floor makes the fit nonlinear: the mean of the seeds' exponents would keep the bias of one seed's noise, the fit to
    the mean curve sheds it. The exponent of the arithmetic mean is reported beside and flagged where the two part.

    The rows of one trajectory are correlated: one seed is one observation, and the residuals of a fit give no interval.

    Source: derived; tests/fits/test_curve.py (recovery), test_windows.py, test_coverage.py (intervals).
    Arguments: t, flow time or steps, shape (n,); rows with t <= 0 are dropped. loss, shape (n,). seed, shape (n,), None for one seed.
    window (lo, hi) in units of t; None for an automatic one. floor E >= 0, "zero" or "free". law "one", "two" (exponent of the term that rules late) or
    "broken" (of the one that rules early); None for one in a given or predicted window, for a choice otherwise. level of the interval,
    in (0, 1). prediction, of the window and the exponent.
    Returns: :class:`CurveFit`; doubts are in its flags.
    Raises: BadInput for bad shapes, t twice in a seed, loss <= 0 or <= floor inside the window, a window without rows.
    Accuracy: exact to rounding for exact power laws. Interpolation smooths nothing: a loss that is noisy row by row stays so.
    Cost: O(n) for ordered rows, a sort for others, and 3 ms; a free floor or two terms 50 to 150 ms. Many curves: :func:`featscale.fits.batch.fit_curves`.

    >>> t = np.logspace(0, 4, 97)
    >>> fit = fit_curve(t, 2.0 * t**-0.5, window=(10, 1000))
    >>> round(fit.exponent, 10), round(fit.amplitude, 10), fit.flags
    (0.5, 2.0, ('one seed: no interval',))
    """
    asked, kind, E = checked(window, floor, level, law)
    table = clean(t, loss, seed)
    chosen = plan(table, asked, law, kind, E, prediction)
    nodes = chosen.nodes
    _require_rows(nodes, chosen.law, floor, kind)
    found = estimate(nodes, chosen.law, kind, E, chosen.start)
    others = alternatives(table, chosen, found, kind, level)
    middle = nodes.log_t.size // 2
    low, high = (estimate(nodes.part(part), "one", kind, E) for part in (slice(middle + 1), slice(middle, None)))
    fit = CurveFit(
        **_estimated(found, level),
        **_described(nodes, found.floor),
        floor_kind=kind,
        law=chosen.law,
        level=level,
        window_kind=chosen.how,
        alternatives=others,
        spread=spread(found.exponent, others, chosen.law, kind),
        predicted=_predicted(prediction, nodes, chosen.law, kind, E),
        curve_exponent=_mean_exponent(nodes, found, chosen.law, kind),
        halves=(low.exponent, high.exponent),
        residual=_residual(nodes, found),
        flags=(),
    )
    apart = float(standard_error(low.own[:, 0] - high.own[:, 0]))
    return replace(fit, flags=(*table.flags, *nodes.flags, *chosen.flags, *doubts(fit, nodes.rows, apart)))


def checked(
    window: Sequence[float] | None, floor: float | str, level: float, law: str | None = None
) -> tuple[Window | None, FloorKind, float]:
    """The window, the kind of floor and its known part, from what :func:`fit_curve` is given; BadInput names what is not allowed."""
    require(0 < level < 1, "level", level, "a number in (0, 1)")
    require(law is None or law in LAWS, "law", law, ", ".join(LAWS))
    allowed = "zero, a number >= 0, or free"
    try:
        E = 0.0 if floor in ("zero", "free") else float(floor)
    except (TypeError, ValueError):
        raise BadInput("floor", floor, allowed) from None
    require(0 <= E < math.inf, "floor", floor, allowed)
    kind: FloorKind = "free" if floor == "free" else "given" if E > 0 else "zero"
    require(kind != "free" or law in (None, "one"), "law", law, "one, where the floor is free")
    if window is None:
        return None, kind, E
    text, allowed = ",".join(f"{value:g}" for value in window), "two numbers lo,hi with 0 < lo < hi"
    require(len(window) == 2 and 0 < window[0] < window[1] < math.inf, "window", text, allowed)
    return (float(window[0]), float(window[1])), kind, E


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


def _require_rows(nodes: Nodes, law: LawName, floor: float | str, kind: FloorKind) -> None:
    few = int(nodes.rows.min())
    require(kind != "free" or few >= 4, "floor", floor, "zero or a value: a seed has fewer than 4 rows in the window")
    require(law == "one" or few >= 6, "law", law, "one: a seed has fewer than 6 rows in the window")


def _estimated(found: Estimate, level: float) -> dict[str, Any]:
    """The fields of :class:`CurveFit` that the estimate has."""
    with np.errstate(over="ignore"):
        A, A_s = float(np.exp(found.p[1])), np.exp(found.own[:, 1])
        second = (float(found.p[2]), float(np.exp(found.p[3]))) if found.two else None
    interval = found.profile(level)
    half = (found.delta(level)[1] - found.delta(level)[0]) / 2
    S = len(found.own)
    return {
        "exponent": found.exponent,
        "interval": interval,
        "stderr": half / quantile(level, S) if S > 1 else math.nan,
        "method": "student" if found.linear else "profile",
        "checks": {"student": found.student(level), "delta": found.delta(level)},
        "amplitude": A,
        "floor": found.floor,
        "second": second,
        "kappa": found.kappa,
        "crossing": found.crossing if found.two else None,
        "condition": found.condition(),
        "per_seed": found.own[:, 0],
        "per_seed_amplitude": A_s,
        "per_seed_floor": found.floors,
        "terms": found.p,
        "per_seed_terms": found.own,
        "known_floor": found.known,
    }


def _described(nodes: Nodes, E: float) -> dict[str, Any]:
    """The fields of :class:`CurveFit` that tell what was fitted."""
    t_local, chi_local, smoothing = local_exponents(nodes, E)
    return {
        "window": nodes.window,
        "covered": (float(np.exp(nodes.log_t[0])), float(np.exp(nodes.log_t[-1]))),
        "points": int(nodes.rows.sum()),
        "seeds": nodes.labels,
        "t_local": t_local,
        "chi_local": chi_local.mean(axis=0),
        "chi_local_stderr": standard_error(chi_local),
        "smoothing": smoothing,
        "t": np.exp(nodes.log_t),
        "loss": np.exp(nodes.interpolate(np.log(nodes.row_loss))),
    }


def _predicted(prediction: Prediction | None, nodes: Nodes, law: LawName, kind: FloorKind, E: float) -> float | None:
    """Exponent of the predicted curve in the window that was fitted, with the same law."""
    if prediction is None or prediction.curve is None:
        return None
    window = float(np.exp(nodes.log_t[0])), float(np.exp(nodes.log_t[-1]))
    return estimate(resample(clean(*prediction.curve), window, E), law, kind, E).exponent


def _mean_exponent(nodes: Nodes, found: Estimate, law: LawName, kind: FloorKind) -> float:
    """Exponent of the arithmetic mean over seeds."""
    if len(nodes.labels) == 1:
        return found.exponent
    return estimate(nodes.mean(), law, kind, found.known, found.start).exponent


def _residual(nodes: Nodes, found: Estimate) -> float:
    own = np.moveaxis(found.own[:, :, None, None], 1, 0)
    with np.errstate(divide="ignore"):
        fitted = np.logaddexp(np.log(found.known), log_curve(own, found.kappa, nodes.row_log_t))
    return float(np.sqrt(np.mean(nodes.interpolate(np.log(nodes.row_loss) - fitted) ** 2)))
