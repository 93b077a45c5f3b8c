"""Automatic windows: what bends is left out or modelled, what is straight is kept; the exponent with and without."""

import math

import numpy as np
import pytest
from fits.synthetic import correlated, tidy
from tolerances import SIGMAS

from featscale.errors import BadInput
from featscale.fits import Prediction, fit_curve
from featscale.fits.windows import candidates, contrasts, drifts, longest

BIAS = 0.01


def grid(decades):
    return np.logspace(0, decades, 24 * decades + 1)


@pytest.mark.parametrize("decades", [3, 4, 6])
@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_a_transient_does_not_bias_the_exponent(decades, floor):
    t = grid(decades)
    fit = fit_curve(t, floor + t**-0.67 + 0.5 * t**-1.1, floor=floor)
    assert abs(fit.exponent - 0.67) < BIAS
    assert fit.law == "two"
    assert abs(fit.second[0] - 1.1) < BIAS
    assert any(flag.startswith("two laws added: exponent 0.67 rules late") for flag in fit.flags)


def test_one_law_in_all_of_that_curve_is_biased_and_a_free_floor_more_so_and_flagged():
    t = grid(4)
    loss = t**-0.67 + 0.5 * t**-1.1
    whole = fit_curve(t, loss, window=(1, 1e4))
    free = fit_curve(t, loss, floor="free")
    assert whole.exponent - 0.67 > 2 * BIAS
    assert free.exponent - 0.67 > 2 * BIAS
    assert any("two laws without a floor fit with exponent 0.67" in flag for flag in free.flags)
    named = {row.name: row.exponent for row in free.alternatives}
    assert abs(named["zero floor, two laws"] - 0.67) < BIAS
    assert any(flag.startswith("window cut to t") for flag in free.flags)


@pytest.mark.parametrize("N", [30, 100, 1000])
def test_a_bottleneck_does_not_bias_the_exponent(N):
    t = grid(5)
    fit = fit_curve(t, t**-0.67 + N**-1.5)
    assert abs(fit.exponent - 0.67) < BIAS
    assert abs(fit_curve(t, t**-0.67 + N**-1.5, floor="free").exponent - 0.67) < 1e-6
    assert abs(fit_curve(t, t**-0.67 + 30**-1.5, window=(1, 1e5)).exponent - 0.67) > BIAS


def test_one_law_in_the_automatic_window_of_a_long_curve_is_enough_too():
    t = grid(6)
    fit = fit_curve(t, t**-0.67 + 0.5 * t**-1.1, law="one")
    assert abs(fit.exponent - 0.67) < BIAS
    assert 100 < fit.window[0] < 1e4
    assert fit.window[1] == pytest.approx(1e6)
    assert any(flag.startswith("window cut to t") for flag in fit.flags)


def test_plateaus_at_both_ends_do_not_count_as_power_laws():
    t = np.logspace(-4, 8, 24 * 12 + 1)
    loss = (1 + t) ** -0.5 + 0.01
    fit = fit_curve(t, loss, law="one")
    assert 1 < fit.window[0] < fit.window[1] < 1e4
    assert 0.3 < fit.exponent < 0.5


@pytest.mark.parametrize("S", [1, 3, 5])
def test_noise_does_not_bias_the_exponent_of_a_transient(S):
    """Mean over replicates, within BIAS or their own standard errors."""
    rng = np.random.default_rng(S)
    t = grid(4)
    curves = (t**-0.67 + 0.5 * t**-1.1) * correlated(rng, t, (40, S), sigma=0.01)
    found = np.array([fit_curve(*tidy(t, c)).exponent for c in curves])
    assert abs(np.median(found) - 0.67) < max(BIAS, SIGMAS * found.std() / math.sqrt(found.size))
    naive = np.array([fit_curve(*tidy(t, c), window=(1, 1e4)).exponent for c in curves])
    assert np.median(naive) - 0.67 > 2 * BIAS


def test_drift_and_bow_are_those_of_a_cubic():
    G, c, d, spacing = 49, 0.02, 0.003, 0.1
    x = spacing * (np.arange(G) - 24)
    drift, excess, slope = drifts((1 - 0.5 * x + c * x**2)[None], spacing)
    lo, hi = candidates(G)
    length = (hi - lo) * spacing
    assert np.allclose(drift, -2 * c * length, atol=1e-12)
    assert np.allclose(excess, 2 * c * length / 0.01)
    assert np.allclose(slope, 0.5 - c * (lo + hi - 48) * spacing, atol=1e-12)
    whole = int(np.argmax(length))
    bowed = drifts((1 - 0.5 * x + d * x**3)[None], spacing)
    assert abs(bowed[0][whole]) < 1e-12
    # Local exponent 0.5 − 3 d x²: from the ends to the middle it moves by 3 d (ℓ/2)².
    assert bowed[1][whole] == pytest.approx(3 * d * (length[whole] / 2) ** 2 / 0.01)


def test_the_choice_is_uncorrelated_with_the_slope_of_white_noise():
    drift, bow, slope = contrasts(73)
    assert np.abs((drift * slope).sum(axis=1)).max() < 1e-12
    assert np.abs((bow * slope).sum(axis=1)).max() < 1e-12


def test_longest_is_the_latest_of_equals_and_the_straightest_if_none_holds():
    lo, hi = candidates(49)
    zero, one = np.zeros(lo.size), np.ones(lo.size)
    whole = int(longest(zero, one, lo, hi))
    assert (lo[whole], hi[whole]) == (0, 48)
    late = int(longest(np.where(hi - lo <= 24, 0.5, 2.0), one, lo, hi))
    assert (lo[late], hi[late]) == (24, 48)
    least = int(longest(np.where((lo == 12) & (hi == 24), 1.5, 2.0), one, lo, hi))
    assert (lo[least], hi[least]) == (12, 24)


def test_a_predicted_curve_sets_the_window_and_the_exponent_to_compare_with():
    t = grid(6)
    theory = np.logspace(-1, 7, 400)
    fit = fit_curve(t, 1.1 * (t**-0.5 + 3 / t), prediction=Prediction(curve=(theory, theory**-0.5 + 3 / theory)))
    assert fit.window_kind == "predicted"
    assert fit.window[0] > 100
    assert abs(fit.exponent - fit.predicted) < 1e-3
    assert 0.5 < fit.predicted < 0.5 + BIAS


def test_predicted_times_are_kept_away_from():
    t = grid(6)
    fit = fit_curve(t, t**-0.5, prediction=Prediction(after=[1, 10], before=[3e5, 1e9]))
    assert np.allclose(fit.window, (30, 1e5))
    assert fit.predicted is None
    with pytest.raises(BadInput, match="^window: 3e"):
        fit_curve(t, t**-0.5, prediction=Prediction(after=[1e6]))
    with pytest.raises(BadInput, match="^after: "):
        Prediction(after=[-1.0])


def test_other_windows_are_reported_and_their_spread_tells_a_bend_from_a_line():
    t = grid(4)
    straight, bent = fit_curve(t, t**-0.5, window=(10, 1e3)), fit_curve(t, t**-0.5 * (1 + 3 / t), window=(10, 1e3))
    names = [row.name for row in straight.alternatives]
    assert names == [
        "lower half",
        "upper half",
        "without first quarter",
        "without last quarter",
        "half a decade earlier",
        "half a decade later",
    ]
    assert straight.spread < 1e-10
    assert bent.spread == max(abs(row.exponent - bent.exponent) for row in bent.alternatives) > 0.02
    earlier = next(row for row in bent.alternatives if row.name == "half a decade earlier")
    assert np.allclose(earlier.window, (10**0.5, 1e3), rtol=0.1)
    assert earlier.exponent == pytest.approx(fit_curve(t, t**-0.5 * (1 + 3 / t), window=(10**0.5, 1e3)).exponent)


def test_a_curve_without_any_power_law_is_flagged():
    t = grid(3)
    fit = fit_curve(t, np.exp(-0.2 * np.log(t) ** 2), law="one")
    assert any(flag.startswith("window: no power law") for flag in fit.flags)
