"""Intervals of nominal 95 % against 500 replicates a design: those from seeds cover, those from rows do not."""

import math

import numpy as np
import pytest
from fits.synthetic import correlated, tidy

from featscale.fits import fit_curves
from featscale.fits.estimate import estimate
from featscale.fits.resample import clean, resample
from featscale.fits.seed_intervals import student, wild_bootstrap

R, CHI = 500, 0.5
T = np.logspace(0, 3, 37)
DESIGNS = {
    "correlated": {"sigma": 0.05, "decades": 0.5},
    "heteroscedastic": {"sigma": 0.01, "decades": 0.3, "growth": 10.0},
}
# 95 % ± 3 %: three standard errors of a proportion over 500 replicates.
LOW, HIGH = 0.92, 0.98


def replicates(design, S, E=0.0, replicates=R):
    """Curves, shape (R, S, n); heteroscedastic also means that seeds differ in noise, by up to a factor of two."""
    rng = np.random.default_rng([S, len(design), int(100 * E)])
    noise = np.log(correlated(rng, T, (replicates, S), **DESIGNS[design]))
    scale = np.linspace(0.7, 1.4, S) if design == "heteroscedastic" else np.ones(S)
    return (E + 2 * T**-CHI) * np.exp(noise * scale[:, None])


def covered(intervals):
    lo, hi = np.asarray(intervals).T
    return float(np.mean((lo <= CHI) & (hi >= CHI)))


def by_rows(curves, rng, draws=200):
    """Percentile interval of a bootstrap that redraws the rows of all seeds as if each were independent."""
    S = curves.shape[0]
    x, y = np.tile(np.log(T), S), np.log(curves).ravel()
    rows = rng.integers(0, x.size, (draws, x.size))
    X, Y = x[rows], y[rows]
    X = X - X.mean(axis=1, keepdims=True)
    return np.quantile(-(X * Y).sum(axis=1) / (X**2).sum(axis=1), [0.025, 0.975])


def by_residuals(curves):
    """Normal interval from the residuals of one line through all rows."""
    x, y = np.tile(np.log(T), len(curves)), np.log(curves).ravel()
    x = x - x.mean()
    chi = -(x @ y) / (x @ x)
    half = 1.96 * np.std(y - y.mean() + chi * x, ddof=2) / math.sqrt(x @ x)
    return chi - half, chi + half


def by_redrawn_seeds(chi, rng, draws=200):
    """Percentile interval of a bootstrap that redraws the seeds: right in kind, too narrow for few."""
    means = chi[rng.integers(0, chi.size, (draws, chi.size))].mean(axis=1)
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("S", [3, 5, 8])
@pytest.mark.parametrize("design", DESIGNS)
def test_student_over_seeds_covers_and_rows_do_not(design, S):
    curves = replicates(design, S)
    rng = np.random.default_rng(S)
    fits = fit_curves(T, curves, window=(1, 1e3))
    assert LOW <= covered(fits.interval) <= HIGH
    assert covered([by_rows(each, rng) for each in curves]) < LOW
    assert covered([by_residuals(each) for each in curves]) < LOW
    if S == 3:
        assert covered([by_redrawn_seeds(chi, rng) for chi in fits.per_seed]) < LOW - 0.05


@pytest.mark.parametrize("design", DESIGNS)
def test_the_wild_bootstrap_of_three_seeds_covers(design):
    chi = fit_curves(T, replicates(design, 3), window=(1, 1e3)).per_seed
    assert LOW <= covered([wild_bootstrap(each, 0.95) for each in chi]) <= 1.0


@pytest.mark.parametrize("S", [3, 5, 8])
def test_choosing_the_window_by_curvature_spoils_little(S):
    fits = fit_curves(T, replicates("correlated", S))
    assert 0.88 <= covered(fits.interval) <= HIGH
    assert np.mean(np.log10(fits.window[:, 1] / fits.window[:, 0])) > 2


def nodes_of(curves):
    return resample(clean(*tidy(T, curves)), (1, 1e3))


@pytest.mark.slow
@pytest.mark.parametrize("S", [3, 5, 8])
@pytest.mark.parametrize("E", [0.0, 0.05])
def test_profiles_with_a_free_floor_cover_at_the_bound_and_away_from_it(E, S):
    fits = [estimate(nodes_of(each), "one", "free", 0.0) for each in replicates("heteroscedastic", S, E)]
    profiles = covered([fit.profile(0.95) for fit in fits])
    assert LOW <= profiles <= HIGH
    # One seed's own fit of a floor is biased by its noise; the fit to the mean curve less so.
    own = [student(fit.own[:, 0], 0.95) for fit in fits]
    assert covered(own) < profiles + 0.02
