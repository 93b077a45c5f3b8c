"""What to know before quoting a fitted exponent, one line each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featscale.fits.seed_intervals import quantile, standard_error

if TYPE_CHECKING:
    from featscale.fits.curve import CurveFit

SHORT_DECADES = 0.5
SHORT_ROWS = 6
# Two estimates of one exponent that differ by more than this, and by more than SIGMAS standard errors, are flagged.
TOLERATED = 0.05
SIGMAS = 4.0
# A free floor and a second law both explain a bend; exponents that differ by more than this are flagged.
FLOOR_MOVES = 0.01
COVERED = 0.9
ILL_CONDITIONED = 1e4


def doubts(fit: CurveFit, rows: NDArray[np.int64], apart: float) -> tuple[str, ...]:
    """Flags of a fit; `rows` in the window, shape (S,), `apart` the standard error of the difference of the exponents of its halves."""
    return (*_window_flags(fit, rows, apart), *_seed_flags(fit), *_law_flags(fit), *_floor_flags(fit))


def _window_flags(fit: CurveFit, rows: NDArray[np.int64], apart: float) -> Iterator[str]:
    lo, hi = fit.covered
    decades = math.log10(hi / lo)
    if decades < COVERED * math.log10(fit.window[1] / fit.window[0]):
        yield f"window: rows cover only t {lo:g}..{hi:g} of it"
    if decades < SHORT_DECADES:
        yield f"window short: {decades:.2g} decades"
    if rows.min() < SHORT_ROWS:
        yield f"window short: {rows.min()} rows in seed {fit.seeds[int(rows.argmin())]}"
    limit = _limit(apart)
    lower, upper = fit.halves
    if abs(lower - upper) > limit and fit.law == "one":
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
    if np.isinf(fit.interval).any():
        yield "interval open: no exponent on that side is rejected"
    if abs(fit.curve_exponent - fit.exponent) > _limit(fit.stderr):
        yield f"seeds: their arithmetic mean has exponent {fit.curve_exponent:.4g}"


def _law_flags(fit: CurveFit) -> Iterator[str]:
    if fit.second is None or fit.crossing is None:
        return
    lo, hi = fit.covered
    rule = ("late", "early") if fit.law == "two" else ("early", "late")
    form = "added" if fit.kappa == 1 else "in series"
    yield (
        f"two laws {form}: exponent {fit.exponent:.4g} rules {rule[0]}, {fit.second[0]:.4g} {rule[1]}; "
        f"they cross at t={fit.crossing:.3g}" + ("" if lo < fit.crossing < hi else ", outside the window")
    )
    if fit.condition > ILL_CONDITIONED:
        yield f"ill-conditioned: {fit.condition:.2g}, the two laws are hard to tell apart"


def _floor_flags(fit: CurveFit) -> Iterator[str]:
    if fit.floor_kind != "free":
        return
    zero = next((row.exponent for row in fit.alternatives if row.name == "zero floor"), math.nan)
    bound = [str(seed) for seed, E in zip(fit.seeds, fit.per_seed_floor, strict=True) if E == 0]
    if fit.floor == 0:
        yield "floor at its bound 0"
        return
    if bound:
        yield f"floor at its bound 0 in seed {', '.join(bound)}"
    elif fit.floor <= quantile(fit.level, len(fit.seeds)) * float(standard_error(fit.per_seed_floor)):
        yield f"floor not distinguishable from 0, with which the exponent is {zero:.4g}"
    two = next((row.exponent for row in fit.alternatives if row.name == "zero floor, two laws"), math.nan)
    if abs(fit.exponent - two) > FLOOR_MOVES:
        yield (
            f"floor free: two laws without a floor fit with exponent {two:.4g}, one with {zero:.4g}; "
            "if what bends the curve is a transient, the free floor has biased it"
        )
