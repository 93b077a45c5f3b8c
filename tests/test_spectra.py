"""Spectra: definitions, binning without loss, other people's letters, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale import spectra
from featscale.errors import BadInput
from featscale.spectra import PowerLaw, SpectralMeasure

alphas, betas = st.floats(1.01, 4.0), st.floats(0.05, 6.0)


def test_tail_power_is_the_source_condition():
    task = PowerLaw(1.5, 0.5, 200_000)
    rho = task.lambdas() * task.w_star() ** 2
    tail = np.cumsum(rho[::-1])[::-1]
    slope = np.log(tail[1000] / tail[100]) / np.log(1001 / 101)
    assert slope == pytest.approx(-1.5 * 0.5, abs=0.01)


@given(alphas, betas, st.sampled_from([0.01, 1.0, 100.0]))
def test_cells_equal_the_sum_over_all_modes(alpha, beta, t):
    task = PowerLaw(alpha, beta, 10_000)
    exact = task.measure()
    cells = spectra.power_law_measure(task, bins=2000)
    assert cells.x.size < exact.x.size / 3
    for observable in (
        lambda m: m.rho @ np.exp(-2 * m.x * t),
        lambda m: m.rho @ np.ones(m.x.size),
        lambda m: m.rho @ m.x,
    ):
        assert observable(cells) == pytest.approx(observable(exact), rel=1e-8)


def test_default_cells_keep_twelve_digits_beyond_ten_thousand_modes():
    task = PowerLaw(1.5, 0.5, 40_000)
    lambdas, cells = task.lambdas(), task.measure()
    rho = lambdas * task.w_star() ** 2
    assert cells.x.size < 20_000
    for t in (0.0, 1.0, 1e3, 1e6):
        assert cells.rho @ np.exp(-2 * cells.x * t) == pytest.approx(rho @ np.exp(-2 * lambdas * t), rel=1e-11)


def test_coarse_cells_do_not_keep_twelve_digits():
    task = PowerLaw(1.5, 0.5, 10_000)
    exact, coarse = task.measure(), task.measure(bins=60)
    assert abs(coarse.rho @ np.exp(-2 * coarse.x * 100) / (exact.rho @ np.exp(-2 * exact.x * 100)) - 1) > 1e-9


@given(alphas, betas)
def test_converters_are_inverse(alpha, beta):
    assert spectra.from_paquette(*spectra.to_paquette(alpha, beta)) == pytest.approx((alpha, beta))
    assert spectra.from_dynamical(*spectra.to_dynamical(alpha, beta)) == pytest.approx((alpha, beta))


def test_circle_exponents():
    assert spectra.circle_exponents(q=1.0, q_phi=1.0) == (2.0, 0.5)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: PowerLaw(1.0, 0.5, 10), "alpha"),
        (lambda: PowerLaw(float("nan"), 0.5, 10), "alpha"),
        (lambda: PowerLaw(1.5, 0.0, 10), "beta"),
        (lambda: PowerLaw(1.5, 0.5, 0), "modes"),
        (lambda: PowerLaw(1.5, 0.5, 2.5), "modes"),
        (lambda: PowerLaw(1.5, 0.5, 10).measure(bins=2), "bins"),
        (lambda: SpectralMeasure(np.array([1.0, 0.0]), np.ones(2)), "x"),
        (lambda: SpectralMeasure(np.ones(2), np.array([1.0, np.nan])), "rho"),
        (lambda: SpectralMeasure(np.ones(2), np.ones(3)), "rho"),
        (lambda: SpectralMeasure(np.ones(2), np.ones(2), atom=-1.0), "atom"),
        (lambda: spectra.from_paquette(0.0, 1.0), "alpha"),
        (lambda: spectra.circle_exponents(0.5, 1.0), "beta"),
    ],
)
def test_bad_input_names_the_field(make, field):
    with pytest.raises(BadInput) as caught:
        make()
    assert caught.value.field == field
