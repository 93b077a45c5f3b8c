"""The frontier in three ways: exact on noise-free sums, with intervals and a test of agreement on noisy ones."""

import numpy as np
import pytest
from test_law_fit import ar1, table

from featscale.errors import BadInput
from featscale.fits.frontier import METHODS, fit_frontier
from featscale.fits.isoflop import Surface, envelope, isoflop, surface
from featscale.fits.observations import observe

CHI, R = 0.67, 1.5
LOSS, WIDTH = CHI * R / (CHI + R), CHI / (CHI + R)
WIDTHS = (16, 32, 64, 128, 256, 512, 1024)
T = np.logspace(0, 5, 81)


def optimal_width(C):
    """N* of t^-chi + N^-r at N t = C."""
    return (R / CHI * C**CHI) ** (1 / (CHI + R))


def measured(S=0, sigma=0.0, widths=WIDTHS, t=T, seed=0):
    return observe(table(S=S, sigma=sigma, widths=widths, t=t, seed=seed), ("t", "N"))


@pytest.mark.parametrize("widths", [WIDTHS, (10, 23, 50, 100, 240, 470, 1000)])
def test_noise_free_exponents_and_optima(widths):
    fit = fit_frontier(measured(widths=widths))
    for method in METHODS:
        found = fit.estimates[method]
        assert found.loss_exponent == pytest.approx(LOSS, rel=0.02)
        assert found.width_exponent == pytest.approx(WIDTH, rel=0.02)
        assert found.time_exponent == pytest.approx(1 - WIDTH, rel=0.02)
    slices = fit.estimates["isoflop"]
    np.testing.assert_allclose(slices.width, optimal_width(slices.compute), rtol=0.05)
    assert slices.bracketed.all()
    assert fit.agree == "untested"
    assert np.isnan(slices.loss_interval).all()


def test_a_parabola_misses_the_optimum():
    on = surface(measured())
    mean = on.mean(np.ones((1, len(WIDTHS))))[0]
    N, i = on.log_N, int(np.argmin(np.abs(on.log_C - np.log(1e6))))
    there = np.isfinite(mean[:, i])
    a, b, _ = np.polyfit(N[there], mean[there, i], 2)
    truth = np.log(optimal_width(np.exp(on.log_C[i])))
    assert abs(-b / (2 * a) - truth) > np.log(1.2)
    assert abs(isoflop(on, mean[None]).log_N[0, i] - truth) < np.log(1.03)


def test_the_envelope_hands_over_at_equal_loss():
    on = surface(measured())
    found = envelope(on, on.mean(np.ones((1, len(WIDTHS)))))
    for i in np.flatnonzero(np.isfinite(found.log_C[0])):
        C, pair = np.exp(found.log_C[0, i]), np.array(WIDTHS[i : i + 2], dtype=float)
        losses = (C / pair) ** -CHI + pair**-R
        np.testing.assert_allclose(losses, np.exp(found.log_L[0, i]), rtol=2e-3)


def test_the_spline_minimum_is_that_of_a_dense_search():
    from scipy.interpolate import CubicSpline

    rng = np.random.default_rng(0)
    log_N = np.sort(rng.uniform(0, 5, 6))
    y = (log_N - 2.5) ** 2 + 0.05 * rng.normal(size=6)
    on = Surface(log_N, np.zeros(1), y[:, None], np.arange(6), np.arange(6))
    found = isoflop(on, y[None, :, None])
    dense = np.linspace(log_N[1], log_N[-2], 200_001)
    values = CubicSpline(log_N, y)(dense)
    np.testing.assert_allclose(found.log_L[0, 0], values.min(), atol=1e-9)
    np.testing.assert_allclose(found.log_N[0, 0], dense[values.argmin()], atol=1e-4)


def test_noisy_estimates_hold_the_truth_and_agree():
    fit = fit_frontier(measured(S=5, sigma=0.02), draws=70)
    for method in METHODS:
        found = fit.estimates[method]
        assert found.loss_interval[0] <= LOSS <= found.loss_interval[1]
        assert found.width_interval[0] <= WIDTH <= found.width_interval[1]
    assert fit.agree == "compatible"
    assert fit.df == 4
    widths = {m: np.ptp(fit.estimates[m].loss_interval) for m in METHODS}
    assert widths["parametric"] < min(widths["envelope"], widths["isoflop"])


def test_a_wrong_law_disagrees_with_the_slices():
    """A transient that the sum does not know bends the measured frontier away from the parametric one."""
    columns = table(S=5, sigma=0.002, widths=WIDTHS, t=T, loss=lambda N, t: t**-CHI + N**-R + 5 / N * t**-0.2)
    fit = fit_frontier(observe(columns, ("t", "N")), draws=70)
    assert fit.agree == "differ"
    assert any(flag.startswith("lack of fit") for flag in fit.flags)


@pytest.mark.slow
def test_frontier_intervals_cover():
    """120 tables of five seeds; a share of 0.95 has a standard error of 0.02."""
    hits = {method: np.zeros(2) for method in METHODS}
    agreed = 0
    t = np.logspace(0, 4, 17)
    for seed in range(120):
        fit = fit_frontier(measured(S=5, sigma=0.01, t=t, widths=(8, 16, 32, 64, 128, 256), seed=seed), draws=70)
        agreed += fit.agree == "compatible"
        for method in METHODS:
            found = fit.estimates[method]
            hits[method] += [
                found.loss_interval[0] <= LOSS <= found.loss_interval[1],
                found.width_interval[0] <= WIDTH <= found.width_interval[1],
            ]
    print({method: h / 120 for method, h in hits.items()}, agreed / 120)
    assert (hits["parametric"] >= 0.88 * 120).all()
    assert agreed >= 0.88 * 120


def test_optima_outside_the_widths_are_not_invented():
    narrow = fit_frontier(measured(widths=(512, 1024, 2048, 4096), t=np.logspace(0, 2, 33)))
    assert np.isnan(narrow.estimates["isoflop"].loss_exponent)
    assert narrow.estimates["isoflop"].compute.size == 0
    assert any(flag.startswith("isoflop: fewer than three") for flag in narrow.flags)
    assert any(flag.startswith("optimum bracketed for no C only") for flag in narrow.flags)
    assert not narrow.estimates["parametric"].bracketed.any()


def test_widths_far_apart_are_flagged():
    fit = fit_frontier(measured(widths=(16, 64, 256, 1024, 4096)))
    assert any("widths up to a factor 4 apart" in flag for flag in fit.flags)


def test_seeds_of_one_width_each_are_resampled_within_it():
    columns = table(S=4, sigma=0.02, widths=WIDTHS, t=T)
    columns["seed"] = columns["seed"] + 10 * columns["N"]
    fit = fit_frontier(observe(columns, ("t", "N")), draws=60)
    assert (fit.cluster_kind, fit.df) == ("run", 3 * len(WIDTHS))
    assert np.isfinite(fit.estimates["envelope"].loss_interval).all()


def test_too_few_widths_are_refused():
    with pytest.raises(BadInput, match="N: 3 widths: at least 4"):
        fit_frontier(measured(widths=(16, 32, 64)))


def test_the_helper_noise_is_stationary():
    paths = np.array([ar1(np.random.default_rng(i), 30) for i in range(2000)])
    np.testing.assert_allclose(paths.var(axis=0), 1, atol=0.15)
