"""Relaxation with rank-one feedback: equal to its recursion, whatever the feedback's strength."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale.numerics.rank_one import relaxation


def recursion(g, b, c, F, steps):
    """Σc after each step, one step at a time."""
    sums = [c.sum()]
    for _ in range(steps):
        c = (1 - g) * c + b * (F + c.sum())
        sums.append(c.sum())
    return np.array(sums)


def example(n, strength, seed=0):
    """Rates over six decades and feedback that keeps the sum stable for strength < 1."""
    rng = np.random.default_rng(seed)
    g = rng.uniform(0.1, 1, n) * 10.0 ** -rng.uniform(0, 6, n)
    share = rng.uniform(0, 1, n)
    return g, strength * g * share / share.sum(), rng.uniform(0, 1, n)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("strength", [0.0, 1e-12, 0.3, 0.999])
@pytest.mark.parametrize("F", [0.0, 2.0])
def test_equal_to_the_recursion(n, strength, F):
    g, b, c = example(n, strength)
    t = np.arange(400)
    assert relaxation(g, b, c)(t, F) == pytest.approx(recursion(g, b, c, F, 399), rel=1e-12)


def test_without_its_feedback_it_is_another_sum():
    g, b, c = example(7, 0.9)
    t = np.array([300])
    assert abs(relaxation(g, 0 * b, c)(t, 0.0) / relaxation(g, b, c)(t, 0.0) - 1) > 0.01


def test_equal_rates_and_silent_modes():
    g, b, c = np.array([0.5, 0.5, 0.01, 0.3]), np.array([0.1, 0.05, 0.0, 0.02]), np.ones(4)
    assert relaxation(g, b, c)(np.arange(50), 1.0) == pytest.approx(recursion(g, b, c, 1.0, 49), rel=1e-12)


def test_growth_has_a_negative_pole():
    g, b, c = example(7, 1.3)
    stable, growing = relaxation(g, b / 1.5, c), relaxation(g, b, c)
    assert growing.e[0] < 0 < stable.e[0]
    assert growing(np.arange(300), 1.0) == pytest.approx(recursion(g, b, c, 1.0, 299), rel=1e-12)


def test_late_sums_approach_the_fixed_point():
    g, b, c = example(30, 0.5)
    share = (b / g).sum()
    assert relaxation(g, b, c)([10**12], 3.0)[0] == pytest.approx(3.0 * share / (1 - share), rel=1e-10)


@given(st.integers(1, 12), st.floats(0, 0.99), st.floats(-60, 0), st.integers(0, 10**6))
def test_weights_sum_to_the_first_values_and_poles_interlace(n, strength, exponent, seed):
    g, b, c = example(n, strength, seed)
    poles = relaxation(g, b * 10.0**exponent, c)
    assert poles.start.sum() == pytest.approx(c.sum(), rel=1e-10)
    assert np.all(poles.e <= np.sort(g))
    assert np.all(poles.e[1:] >= np.sort(g)[:-1])
    assert np.all(poles.drive >= 0)
