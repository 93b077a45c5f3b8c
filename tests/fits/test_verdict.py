"""Agreement as equivalence: a wide interval is no agreement."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fits.synthetic import tidy
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit
from scipy.stats import ttest_1samp

from featscale.errors import BadInput
from featscale.fits import equivalence, fit_curve, paired, verdict

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


def student(exponent, stderr, seeds=5):
    half = float(stdtrit(seeds - 1, 0.975)) * stderr
    return replace(
        FIT, exponent=exponent, stderr=stderr, interval=(exponent - half, exponent + half), seeds=tuple(range(seeds))
    )


@given(st.floats(0.3, 0.7), st.floats(1e-3, 0.1), st.integers(2, 10), st.floats(0.01, 0.2))
def test_the_two_one_sided_tests_say_what_the_interval_says(exponent, stderr, seeds, margin):
    found = equivalence(student(exponent, stderr, seeds), 0.5, margin)
    assert (found.verdict == "agrees") == (found.p_equivalent <= 0.025)
    assert found.verdict != "differs" or found.p_different < 0.05
    assert equivalence(student(exponent, stderr, seeds), 0.5, found.needed_margin * 1.0001).verdict == "agrees"
    assert equivalence(student(exponent, stderr, seeds), 0.5, found.needed_margin * 0.9999).verdict != "agrees"


def test_p_values_are_those_of_scipy():
    rng = np.random.default_rng(0)
    values = 0.52 + 0.03 * rng.standard_normal(6)
    fit = replace(student(values.mean(), values.std(ddof=1) / math.sqrt(6), 6))
    found = equivalence(fit, 0.5, 0.04)
    low = ttest_1samp(values, 0.46, alternative="greater").pvalue
    high = ttest_1samp(values, 0.54, alternative="less").pvalue
    assert found.p_equivalent == pytest.approx(max(low, high), rel=1e-9)
    assert found.p_different == pytest.approx(ttest_1samp(values, 0.5).pvalue, rel=1e-9)


def test_equivalence_of_one_seed_has_no_p():
    found = equivalence(FIT, 0.5, 0.05)
    assert found.verdict == "undecided"
    assert math.isnan(found.p_equivalent)
    assert math.isnan(found.needed_margin)


def test_errors_of_the_equivalence_test_are_at_most_its_level():
    """True exponent exactly the margin away: "agrees" is an error, made in at most 2.5 % of replicates; none away: rarely "differs"."""
    rng = np.random.default_rng(1)
    x = np.log(T)
    R, S = 400, 4
    slopes = 0.5 + 0.02 * rng.standard_normal((R, S))
    at_margin = agrees = differs = 0
    for chi in slopes:
        loss = np.exp(-chi[:, None] * x)
        fit = fit_curve(*tidy(T, loss), window=(1, 1e3))
        at_margin += equivalence(fit, 0.55, 0.05).verdict == "agrees"
        agrees += equivalence(fit, 0.5, 0.05).verdict == "agrees"
        differs += equivalence(fit, 0.5, 0.001).verdict == "differs"
    assert at_margin / R <= 0.025 + 4 * math.sqrt(0.025 / R)
    assert agrees / R > 0.5
    assert differs / R <= 0.05 + 4 * math.sqrt(0.05 / R)


def test_common_seeds_cancel_in_differences():
    rng = np.random.default_rng(2)
    shared = 0.05 * rng.standard_normal((5, 1))
    lazy, rich = (
        fit_curve(*tidy(T, T ** -(chi + shared + 0.002 * rng.standard_normal((5, 1)))), window=(1, 1e3))
        for chi in (0.5, 0.667)
    )
    found = paired(lazy, rich)
    assert found.difference == pytest.approx(lazy.exponent - rich.exponent, abs=1e-12)
    assert abs(found.difference + 0.167) < 0.005
    assert found.interval[0] < found.difference < found.interval[1] < 0
    assert found.gain > 5
    assert found.flags == ()
    assert equivalence(found, 0.5 - 2 / 3, 0.01).verdict == "agrees"
    unpaired = replace(rich, seeds=(1, 2, 3, 4, 0))
    assert paired(lazy, unpaired).stderr > 5 * found.stderr


def test_differences_use_common_seeds_only_and_say_so():
    first = fit_curve(
        *tidy(T, np.array([[1.0], [2.0], [3.0]]) * T ** -np.array([[0.5], [0.6], [0.7]])), window=(1, 1e3)
    )
    second = replace(first, seeds=(1, 2, 7), covered=(1.0, 500.0), law="two")
    found = paired(first, second)
    assert found.seeds == (1, 2)
    assert np.allclose(found.per_seed, [0.1, 0.1])
    assert found.flags[0] == "seeds left out, in one condition only: 0, 7"
    assert found.flags[1].startswith("windows differ: 1..1000 and 1..500")
    assert found.flags[2] == "laws differ: one and two"
    with pytest.raises(BadInput, match="^seed: "):
        paired(first, replace(first, seeds=(8, 9, 10)))
    with pytest.raises(BadInput, match="^level: "):
        paired(first, replace(first, level=0.9))
