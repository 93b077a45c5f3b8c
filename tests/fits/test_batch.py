"""Many curves at once against one at a time."""

import math

import numpy as np
import pytest
from fits.synthetic import correlated, tidy

from featscale.errors import BadInput
from featscale.fits import fit_curve, fit_curves

T = np.logspace(0, 3, 60)
# Interpolation by a matrix and by a sum differ in rounding.
EQUAL = 1e-9


def curves(C, S, E=0.0, seed=0):
    rng = np.random.default_rng(seed)
    chi = rng.uniform(0.2, 1.2, (C, 1, 1))
    return (E + 2 * T**-chi + rng.uniform(0, 1, (C, 1, 1)) * T ** (-2 * chi)) * correlated(rng, T, (C, S), 0.02)


def slow(loss, **options):
    return fit_curve(*tidy(T, loss), law="one", **options)


@pytest.mark.parametrize("S", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "options", [{}, {"window": (5.0, 400.0)}, {"window": (5.0, 400.0), "floor": 0.01, "level": 0.8}]
)
def test_known_floors_and_windows_as_one_at_a_time(S, options):
    loss = curves(20, S, E=options.get("floor", 0.0))
    found = fit_curves(T, loss, **options)
    assert found.refused == {}
    for i, each in enumerate(loss):
        fit = slow(each, **options)
        assert np.allclose(found.window[i], fit.window)
        assert math.isclose(found.exponent[i], fit.exponent, abs_tol=EQUAL)
        assert np.allclose(found.interval[i], fit.interval, rtol=0, atol=EQUAL, equal_nan=True)
        assert np.allclose(found.per_seed[i], fit.per_seed, rtol=0, atol=EQUAL)
        assert math.isclose(found.amplitude[i], fit.amplitude, rel_tol=EQUAL)


@pytest.mark.parametrize("S", [1, 4])
@pytest.mark.parametrize("E", [0.0, 0.03, 0.5])
def test_free_floors_as_one_at_a_time(S, E):
    loss = curves(12, S, E, seed=1)
    found = fit_curves(T, loss, window=(1, 1e3), floor="free")
    for i, each in enumerate(loss):
        fit = slow(each, window=(1, 1e3), floor="free")
        assert math.isclose(found.exponent[i], fit.exponent, abs_tol=1e-5)
        assert math.isclose(found.floor[i], fit.floor, abs_tol=1e-5)
        assert np.allclose(found.interval[i], fit.checks["delta"], rtol=0, atol=1e-4, equal_nan=True)


def test_bad_curves_are_refused_with_a_reason_and_leave_the_others_alone():
    loss = curves(6, 3)
    loss[1, 0, 40] = -1.0
    loss[2, 2, 50:] = np.nan
    loss[3] = np.nan
    loss[4] = 0.7
    found = fit_curves(T, loss, window=(1, 1e3))
    assert set(found.refused) == {1, 3}
    assert found.refused[1].startswith("loss: -1 at t=")
    assert np.isnan(found.exponent[[1, 3]]).all()
    assert np.isnan(found.interval[[1, 3]]).all()
    assert found.exponent[4] == 0.0
    cut = slow(loss[2], window=(1, 1e3))
    assert math.isclose(found.exponent[2], cut.exponent, abs_tol=EQUAL)
    good = fit_curves(T, loss[[0, 5]], window=(1, 1e3))
    assert np.array_equal(found.exponent[[0, 5]], good.exponent)


@pytest.mark.parametrize(
    ("t", "loss", "options", "field"),
    [
        (T, np.ones((2, 60)), {}, "loss"),
        (T, np.ones((2, 3, 59)), {}, "loss"),
        (T[::-1], np.ones((2, 3, 60)), {}, "t"),
        (T, np.ones((2, 3, 60)), {"floor": "free"}, "window"),
        (T, np.ones((2, 3, 60)), {"level": 2.0}, "level"),
        (T, np.ones((2, 3, 60)), {"window": (1e5, 1e6)}, "window"),
        (-T[::-1], np.ones((2, 3, 60)), {}, "t"),
    ],
)
def test_bad_input_is_named(t, loss, options, field):
    with pytest.raises(BadInput) as caught:
        fit_curves(t, loss, **options)
    assert caught.value.field == field
