"""Which law extrapolates: fitted on small t, scored on large t that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featscale.errors import BadInput, require
from featscale.fits.curve import CurveFit, fit_curve
from featscale.fits.estimate import LawName
from featscale.fits.resample import clean, resample
from featscale.fits.seed_intervals import standard_error

Array = NDArray[np.float64]

# From the simplest: an earlier one is preferred where a later one is not better by more than its error.
CANDIDATES: dict[str, tuple[LawName, bool]] = {
    "one": ("one", False),
    "one above a floor": ("one", True),
    "two": ("two", False),
}
# Decades of log t that are held out, at most a third of all.
HELD_OUT = 1.0


@dataclass(frozen=True)
class Score:
    """A candidate law on the rows held out: name, its exponent from the rows before them, rms error of log loss, mean squared error of every seed."""

    name: str
    exponent: float
    error: float
    per_seed: Array


@dataclass(frozen=True)
class Holdout:
    """split: t from which rows were held out. scores: of every candidate that could be fitted. chosen: name of the law to use. refused: why others were not."""

    split: float
    scores: tuple[Score, ...]
    chosen: str
    refused: dict[str, str]


def extrapolate(
    t: ArrayLike, loss: ArrayLike, seed: ArrayLike | None = None, *, split: float | None = None, floor: float = 0.0
) -> Holdout:
    r"""Fit each candidate law to t < split, in its automatic window, and score it on t >= split.

    .. math:: s = \frac1S \sum_s \frac1G \sum_g \bigl(\log L_s(t_g) - \log \hat L(t_g)\bigr)^2

    The law of the smallest score is chosen, or the first, simplest one that is not worse by more than one standard error of the difference over seeds
    (Breiman et al. 1984); of one seed, unless its score is more than twice as large.
    Source: derived; tests/fits/test_holdout.py.
    Arguments: t, loss, seed as :func:`featscale.fits.curve.fit_curve`'s. split, t; None for the last decade, but at most the last third of log t. floor,
    known, of the laws without one of their own.
    Returns: :class:`Holdout`. Raises: BadInput as fit_curve, or where no candidate can be fitted.
    Cost: a fit of every candidate.
    """
    table = clean(t, loss, seed)
    lo, hi = float(table.t.min()), float(table.t.max())
    if split is None:
        split = hi / 10 ** min(HELD_OUT, math.log10(hi / lo) / 3) if hi > lo else hi
    require(lo < split < hi, "split", split, f"a time inside {lo:g}..{hi:g}")
    early = np.asarray(t, np.float64) < split
    t, loss, seed = np.asarray(t)[early], np.asarray(loss)[early], None if seed is None else np.asarray(seed)[early]
    late = resample(table, (split, hi), floor)
    measured = late.interpolate(np.log(late.row_loss))
    scores, refused = [], {}
    for name, (law, free) in CANDIDATES.items():
        try:
            fit = fit_curve(t, loss, seed, law=law, floor="free" if free else floor)
        except BadInput as error:
            refused[name] = str(error)
            continue
        scores.append(_score(name, fit, measured, late.interpolate(np.log(fit.at(np.exp(late.row_log_t))))))
    require(bool(scores), "law", "; ".join(refused.values()), "a law that can be fitted before the split")
    return Holdout(split, tuple(scores), choose(scores).name, refused)


def _score(name: str, fit: CurveFit, measured: Array, predicted: Array) -> Score:
    per_seed = ((measured - predicted) ** 2).mean(axis=1)
    return Score(name, fit.exponent, float(np.sqrt(per_seed.mean())), per_seed)


def choose(scores: Sequence[Score]) -> Score:
    """The first of `scores` that is not worse than the best by more than the standard error of the difference; see :func:`extrapolate`."""
    best = min(scores, key=lambda score: score.error)
    within: Callable[[Score], bool] = lambda score: _worse(score, best) <= _tolerance(score, best)  # noqa: E731
    return next(score for score in scores if within(score))


def _worse(score: Score, best: Score) -> float:
    return float((score.per_seed - best.per_seed).mean())


def _tolerance(score: Score, best: Score) -> float:
    if len(best.per_seed) == 1:
        return float(best.per_seed[0])
    return float(standard_error(score.per_seed - best.per_seed))
