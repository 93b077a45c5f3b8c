"""Intervals from seeds against scipy, against each other, and at their edges."""

import math

import numpy as np
import pytest
from fits.synthetic import correlated, tidy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student_t

from featscale.fits.estimate import estimate
from featscale.fits.resample import clean, resample
from featscale.fits.seed_intervals import delta, influence, profile, student, wild_bootstrap

T = np.logspace(0, 3, 73)


def fitted(curves, law="one", kind="zero"):
    return estimate(resample(clean(*tidy(T, curves)), (T[0], T[-1])), law, kind, 0.0)


def noisy(loss, S, sigma=0.01, seed=0):
    return loss * correlated(np.random.default_rng(seed), T, (S,), sigma)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=9), st.floats(0.5, 0.99))
def test_student_is_that_of_scipy(values, level):
    values = np.array(values)
    scale = values.std(ddof=1) / math.sqrt(values.size)
    lo, hi = student(values, level)
    if scale > 1e-6:
        assert np.allclose(
            (lo, hi), student_t.interval(level, values.size - 1, values.mean(), scale), rtol=1e-9, atol=1e-9
        )
    assert lo <= values.mean() + 1e-9
    assert hi >= values.mean() - 1e-9


def test_for_a_line_score_delta_and_student_are_one():
    fit = fitted(noisy(T**-0.5, 5))
    expected = student(fit.own[:, 0], 0.95)
    assert np.allclose(delta(fit.residual, fit.J, fit.exponent, 0.95), expected, rtol=0, atol=1e-12)
    half = (expected[1] - expected[0]) / 2
    assert np.allclose(profile(fit.held, fit.exponent, half * 0.7, 0.95), expected, rtol=0, atol=1e-3 * half)


def test_the_influence_is_the_linear_response_of_the_fit():
    loss = T**-0.6 + 0.4 * T**-1.3
    fit = fitted(noisy(loss, 4, sigma=1e-5), law="two")
    alone = np.array([fitted(each[None], law="two").exponent for each in noisy(loss, 4, sigma=1e-5)])
    assert np.allclose(fit.own[:, 0], alone, rtol=0, atol=2e-3 * np.ptp(alone))
    assert np.allclose(influence(fit.residual, fit.J).mean(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize(("law", "kind", "loss"), [("one", "free", 0.1 + T**-0.6), ("two", "zero", T**-0.6 + T**-1.6)])
def test_profile_and_delta_agree_where_the_fit_is_nearly_linear(law, kind, loss):
    fit = fitted(noisy(loss, 6, sigma=3e-4), law, kind)
    exact, linear = fit.profile(0.95), fit.delta(0.95)
    assert np.allclose(exact, linear, rtol=0, atol=0.05 * (linear[1] - linear[0]))


def test_the_profile_bends_where_the_delta_method_does_not():
    """The late exponent of two laws that the noise hardly tells apart is bounded more closely from above than from below."""
    fit = fitted(noisy(T**-0.67 + 0.5 * T**-1.1, 5, sigma=0.01), law="two")
    lo, hi = fit.profile(0.95)
    assert lo < fit.exponent < hi
    linear = fit.delta(0.95)
    assert (fit.exponent - lo) > 1.3 * (hi - fit.exponent)
    assert linear[1] - fit.exponent == pytest.approx(fit.exponent - linear[0])


def test_one_seed_has_no_interval_and_equal_seeds_one_without_width():
    one = fitted(noisy(0.1 + T**-0.6, 1), kind="free")
    assert np.isnan([*one.profile(0.95), *one.delta(0.95)]).all()
    same = fitted(np.tile(T**-0.6, (3, 1)))
    assert same.profile(0.95) == (same.exponent, same.exponent)
    assert np.isnan(wild_bootstrap(np.array([0.5]), 0.95)).all()
    assert wild_bootstrap(np.array([0.5, 0.5, 0.5]), 0.95) == (0.5, 0.5)


def test_the_wild_bootstrap_is_near_student_and_open_for_two_seeds():
    rng = np.random.default_rng(0)
    for S in (4, 6, 9):
        values = rng.standard_normal(S)
        lo, hi = student(values, 0.95)
        low, high = wild_bootstrap(values, 0.95)
        assert low < values.mean() < high
        assert 0.5 < (high - low) / (hi - lo) < 2.5
    assert wild_bootstrap(rng.standard_normal(2), 0.95) == (-math.inf, math.inf)
    assert wild_bootstrap(np.arange(9.0), 0.95) == wild_bootstrap(np.arange(9.0), 0.95)


@settings(max_examples=20)
@given(st.floats(-3, 3), st.floats(0.1, 10))
def test_the_wild_bootstrap_moves_and_scales_with_the_values(shift, scale):
    values = np.array([0.1, 0.5, 0.2, 0.9])
    base, moved = wild_bootstrap(values, 0.9), wild_bootstrap(shift + scale * values, 0.9)
    assert np.allclose(moved, shift + scale * np.array(base), rtol=0, atol=1e-4 * scale)
