"""Few nodes that stand for many modes in both sums: over power and over modes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.numerics.sample_covariance import Modes
from featscale.simulate.problem import draw
from featscale.spectra import PowerLaw
from featscale.theory.finite_width import finite_width
from featscale.theory.modes import binned_modes, modes_at_width

SUMS = (
    lambda m, t: m.count @ (m.lam * np.exp(-m.lam * t)),
    lambda m, t: m.count @ (m.lam**2 * np.exp(-m.lam * t)),
    lambda m, t: m.rho @ np.exp(-m.lam * t),
)


def every_mode(task):
    lam = task.lambdas()
    return Modes(lam, np.ones(task.M), lam * task.w_star() ** 2)


@given(st.floats(1.01, 3.0), st.floats(0.05, 4.0), st.sampled_from([0.0, 10.0, 1e3]))
def test_bins_keep_the_three_sums(alpha, beta, t):
    task = PowerLaw(alpha, beta, 20_000)
    exact, bins = every_mode(task), binned_modes(task, 400)
    assert bins.lam.size <= 400
    for total in SUMS:
        assert total(bins, t) == pytest.approx(total(exact, t), rel=1e-4)


def test_error_falls_with_the_fourth_power_of_the_bins():
    task = PowerLaw(1.5, 0.5, 10_000)
    exact = SUMS[0](every_mode(task), 100.0)
    errors = [abs(SUMS[0](binned_modes(task, bins), 100.0) / exact - 1) for bins in (60, 240)]
    assert errors[0] > 1e-7
    assert errors[1] < errors[0] / 50


def test_all_modes_where_they_fit():
    task = PowerLaw(1.5, 0.5, 30)
    for modes in (binned_modes(task), binned_modes(task, 30)):
        assert np.array_equal(modes.lam, task.lambdas())
        assert np.array_equal(modes.count, np.ones(30))


@pytest.mark.parametrize(("alpha", "beta", "M", "N"), [(1.5, 0.5, 10**5, 64), (1.2, 1.8, 300, 300), (2.0, 0.3, 50, 3)])
def test_at_a_width_the_counts_and_moments_are_those_of_a_random_kernel(alpha, beta, M, N):
    """Σ count = min(N, M), Σ count x = Σ λ, Σ count x² = Σ λ² + (Σ λ)²/N, and the power is that of finite_width."""
    task = PowerLaw(alpha, beta, M)
    modes, atom = modes_at_width(task, N, 200)
    lam = task.lambdas()
    assert modes.count.sum() == pytest.approx(min(N, M), rel=2e-3)
    assert modes.count @ modes.lam == pytest.approx(lam.sum(), rel=1e-5)
    assert modes.count @ modes.lam**2 == pytest.approx(lam @ lam + lam.sum() ** 2 / N, rel=1e-5)
    assert modes.rho.sum() + atom == pytest.approx(task.measure().power, rel=1e-5)
    assert atom == pytest.approx(finite_width(task, N).measure.atom, rel=1e-9)


def test_noise_kernel_of_the_mean_over_draws():
    """Σ x² e^{−2xt} over eigenvalues, what batch noise needs, against 32 draws of A(0); infinite width is told apart."""
    task, N, t = PowerLaw(1.5, 0.5, 400), 32, np.array([0.3, 3.0, 30.0])
    rates = [draw(task, N, seed).x.numpy() for seed in range(32)]
    draws = np.array([[(x**2 * np.exp(-2 * x * s)).sum() for s in t] for x in rates])
    mean, error = draws.mean(0), draws.std(0, ddof=1) / math.sqrt(32)
    ours, infinite = (
        np.array([m.count @ (m.lam**2 * np.exp(-2 * m.lam * s)) for s in t])
        for m in (modes_at_width(task, N, 200)[0], binned_modes(task))
    )
    assert np.all(np.abs(ours - mean) < 4 * error)
    assert np.any(np.abs(infinite - mean) > 4 * error)


def test_infinite_width_is_the_kernel_itself():
    task = PowerLaw(1.5, 0.5, 10**6)
    modes, atom = modes_at_width(task, math.inf, 60)
    assert atom == 0
    assert np.array_equal(modes.lam, binned_modes(task, 60).lam)


@pytest.mark.parametrize("N", [8, math.inf])
def test_bad_input(N):
    with pytest.raises(BadInput) as caught:
        modes_at_width(PowerLaw(1.5, 0.5, 100), N, 3)
    assert caught.value.field == "bins"
