"""Whether a fitted exponent and a predicted one agree, as a test of equivalence."""

from __future__ import annotations

import math
from typing import Literal

from featscale.errors import require
from featscale.fits.curve import CurveFit

Verdict = Literal["agrees", "differs", "undecided"]


def verdict(fit: CurveFit, predicted: float, margin: float) -> Verdict:
    r"""Compare the interval of `fit` with the band predicted ± margin.

    "agrees" if the whole interval lies inside the band, "differs" if it lies wholly outside, "undecided" otherwise: a wide interval is
    no agreement. One seed has no interval and decides nothing.
    Source: equivalence by interval inclusion, after Schuirmann 1987 (two one-sided tests); derived; tests/fits/test_verdict.py.
    Arguments: predicted, the exponent of theory. margin > 0, the largest difference that does not matter.
    Returns: "agrees", "differs" or "undecided".
    Raises: BadInput for a predicted exponent that is not finite or a margin that is not positive.
    """
    require(math.isfinite(predicted), "predicted", predicted, "a finite number")
    require(0 < margin < math.inf, "margin", margin, "a number > 0")
    lo, hi = fit.interval
    if predicted - margin <= lo and hi <= predicted + margin:
        return "agrees"
    if hi < predicted - margin or lo > predicted + margin:
        return "differs"
    return "undecided"
