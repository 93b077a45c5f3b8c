"""Agreement as equivalence: a wide interval is no agreement."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.fits import fit_curve, verdict

T = np.logspace(0, 3, 73)
FIT = fit_curve(T, T**-0.5)


def interval(lo, hi):
    return replace(FIT, interval=(lo, hi))


@pytest.mark.parametrize(
    ("lo", "hi", "expected"),
    [
        (0.48, 0.52, "agrees"),
        (0.45, 0.55, "agrees"),
        (0.44, 0.52, "undecided"),
        (0.52, 0.56, "undecided"),
        (0.3, 0.7, "undecided"),
        (0.56, 0.6, "differs"),
        (0.4, 0.44, "differs"),
    ],
)
def test_verdict_by_inclusion_of_the_interval(lo, hi, expected):
    assert verdict(interval(lo, hi), predicted=0.5, margin=0.05) == expected


def test_one_seed_decides_nothing_however_close():
    assert abs(FIT.exponent - 0.5) < 1e-10
    assert verdict(FIT, predicted=0.5, margin=0.05) == "undecided"
    assert verdict(FIT, predicted=3.0, margin=0.05) == "undecided"


@given(st.floats(-2, 2), st.floats(0, 1), st.floats(-2, 2), st.floats(1e-3, 1))
def test_a_wider_margin_never_turns_agreement_into_difference(lo, width, predicted, margin):
    order = ("differs", "undecided", "agrees")
    fit = interval(lo, lo + width)
    ranks = [order.index(verdict(fit, predicted, m)) for m in (margin, 2 * margin, 100.0)]
    assert ranks == sorted(ranks)
    assert ranks[-1] == 2


@pytest.mark.parametrize(
    ("predicted", "margin", "field"),
    [(math.nan, 0.1, "predicted"), (math.inf, 0.1, "predicted"), (0.5, 0.0, "margin"), (0.5, math.nan, "margin")],
)
def test_bad_input(predicted, margin, field):
    with pytest.raises(BadInput, match=field):
        verdict(FIT, predicted, margin)
