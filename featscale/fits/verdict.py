"""Whether a fitted exponent and a predicted one agree, as a test of equivalence; differences of two conditions with common seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from featscale.errors import require
from featscale.fits.curve import CurveFit
from featscale.fits.seed_intervals import Interval, standard_error, student

Verdict = Literal["agrees", "differs", "undecided"]


@dataclass(frozen=True)
class Equivalence:
    """Test of an estimate against a prediction ± margin.

    verdict, at the level of the interval. p_equivalent: p of the two one-sided tests that the difference is at least the margin; small means it
    is not. p_different: p of the two-sided test that there is no difference. needed_margin: the smallest with which the verdict is "agrees",
    or NaN without an interval.
    """

    verdict: Verdict
    predicted: float
    margin: float
    p_equivalent: float
    p_different: float
    needed_margin: float


@dataclass(frozen=True)
class Paired:
    """Exponent of one condition less that of another, from the seeds both have.

    difference, interval, stderr: mean over common seeds with its Student-t interval. per_seed, shape (S,). seeds, their names. gain: standard
    error of unpaired seeds over this one; above 1 pairing has helped. flags.
    """

    difference: float
    interval: Interval
    stderr: float
    level: float
    per_seed: NDArray[np.float64]
    seeds: tuple[Any, ...]
    gain: float
    flags: tuple[str, ...]


def verdict(fit: CurveFit, predicted: float, margin: float) -> Verdict:
    r"""Compare the interval of `fit` with the band predicted ± margin.

    "agrees" if the whole interval lies inside the band, "differs" if it lies wholly outside, "undecided" otherwise: a wide interval is
    no agreement. One seed has no interval and decides nothing.
    Source: equivalence by interval inclusion, after Schuirmann 1987 (two one-sided tests); derived; tests/fits/test_verdict.py.
    Arguments: predicted, the exponent of theory. margin > 0, the largest difference that does not matter.
    Returns: "agrees", "differs" or "undecided".
    Raises: BadInput for a predicted exponent that is not finite or a margin that is not positive.
    """
    return _included(fit.interval, predicted, margin)


def equivalence(fit: CurveFit | Paired, predicted: float, margin: float) -> Equivalence:
    r"""Two one-sided tests of |estimate − predicted| >= margin, with S − 1 degrees of freedom.

    .. math:: p = P\left(T_{S-1} \ge \frac{m - |\hat\chi - \chi_0|}{\mathrm{se}}\right)

    is the larger of the p of the two sides.

    For a Student interval of level 1 − 2a, "agrees" is p <= a: a 95 % interval tests at 2.5 %, stricter than the customary 90 % and 5 %.
    Source: Schuirmann 1987; tests/fits/test_verdict.py.
    Arguments: as :func:`verdict`'s. Returns: :class:`Equivalence`; NaN p for one seed. Raises: BadInput.
    """
    found = _included(fit.interval, predicted, margin)
    estimate = fit.exponent if isinstance(fit, CurveFit) else fit.difference
    apart, dof = estimate - predicted, len(fit.seeds) - 1
    inside = margin - abs(apart)
    if dof < 1:
        p_equivalent = p_different = math.nan
    elif fit.stderr == 0:
        p_equivalent, p_different = float(inside <= 0), float(apart == 0)
    else:
        p_equivalent = float(stdtr(dof, -inside / fit.stderr))
        p_different = float(2 * stdtr(dof, -abs(apart) / fit.stderr))
    needed = max(abs(bound - predicted) for bound in fit.interval)
    return Equivalence(found, predicted, margin, p_equivalent, p_different, needed)


def paired(first: CurveFit, second: CurveFit) -> Paired:
    r"""Exponent of `first` less that of `second`, seed by seed: what common seeds share (data, initial features) cancels.

    .. math:: \bar d \pm t_{S-1}\, \mathrm{sd}(d_s) / \sqrt S, \qquad d_s = \chi^{(1)}_s - \chi^{(2)}_s

    Arguments: first, second, fits of the two conditions, for example lazy and rich, at one level.
    Returns: :class:`Paired`, flagged where windows or laws differ or seeds are left out.
    Raises: BadInput where no seed is common.
    """
    require(first.level == second.level, "level", second.level, f"that of the other fit, {first.level:g}")
    common = [seed for seed in first.seeds if seed in second.seeds]
    require(bool(common), "seed", ", ".join(map(str, second.seeds)), "a seed that both conditions have")
    a, b = (fit.per_seed[[fit.seeds.index(seed) for seed in common]] for fit in (first, second))
    d = a - b
    stderr = float(standard_error(d))
    alone = math.hypot(float(standard_error(a)), float(standard_error(b)))
    gain = alone / stderr if stderr > 0 else math.nan
    flags = [] if len(common) > 1 else ["one common seed: no interval"]
    left = (set(first.seeds) | set(second.seeds)) - set(common)
    if left:
        flags.append(f"seeds left out, in one condition only: {', '.join(sorted(map(str, left)))}")
    if not np.allclose(np.log(first.covered), np.log(second.covered), rtol=0, atol=0.1):
        flags.append(f"windows differ: {_text(first.covered)} and {_text(second.covered)}")
    if first.law != second.law:
        flags.append(f"laws differ: {first.law} and {second.law}")
    value = float(d.mean())
    return Paired(value, student(d, first.level), stderr, first.level, d, tuple(common), gain, tuple(flags))


def _included(interval: Interval, predicted: float, margin: float) -> Verdict:
    require(math.isfinite(predicted), "predicted", predicted, "a finite number")
    require(0 < margin < math.inf, "margin", margin, "a number > 0")
    lo, hi = interval
    if predicted - margin <= lo and hi <= predicted + margin:
        return "agrees"
    if hi < predicted - margin or lo > predicted + margin:
        return "differs"
    return "undecided"


def _text(window: tuple[float, float]) -> str:
    return f"{window[0]:.4g}..{window[1]:.4g}"
