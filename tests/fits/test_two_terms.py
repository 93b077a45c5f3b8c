"""Two power laws: recovery, order, and that one of them is seen as such."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from featscale.fits.two_terms import jacobian, likelier_sign, log_curve, two_terms

X = np.linspace(0, 4 * np.log(10), 97)
T = np.exp(X)


def rows_at(x):
    """Rows exactly at the nodes."""
    return np.stack([x, x], axis=-1)[None], np.stack([np.ones_like(x), np.zeros_like(x)], axis=-1)[None]


@pytest.mark.parametrize(
    ("loss", "kappa", "p"),
    [
        (T**-0.67 + 0.5 * T**-1.1, 1, (0.67, 1.0, 1.1, 0.5)),
        (T**-0.67 + 30.0**-1.5, 1, (0.0, 30.0**-1.5, 0.67, 1.0)),
        (3 * T**-0.2 + 40 * T**-1.5, 1, (0.2, 3.0, 1.5, 40.0)),
        (1 / (T**0.5 + 0.01 * T**0.9), -1, (0.9, 100.0, 0.5, 1.0)),
    ],
)
def test_exact_sums_and_series_are_recovered_late_term_first(loss, kappa, p):
    assert likelier_sign(np.log(loss), *rows_at(X)) == kappa
    fit = two_terms(np.log(loss), *rows_at(X), kappa)
    a, A, b, B = p
    assert np.allclose(fit.p, [a, np.log(A), b, np.log(B)], rtol=0, atol=1e-7)
    assert fit.cost < 1e-20
    assert np.isclose(np.exp(fit.log_crossing), (B / A) ** (1 / (b - a)), rtol=1e-6)


def test_sparse_rows_are_fitted_through_their_interpolation():
    own = np.linspace(0, X[-1], 13)
    left = np.clip(np.searchsorted(own, X, side="right") - 1, 0, own.size - 2)
    pair = np.stack([own[left], own[left + 1]], axis=-1)[None]
    right = (X - pair[0, :, 0]) / (pair[0, :, 1] - pair[0, :, 0])
    weight = np.stack([1 - right, right], axis=-1)[None]
    p = np.array([0.67, 0.0, 1.1, np.log(0.5)])
    y = (weight * log_curve(p, 1, pair)).sum(axis=-1)[0]
    assert np.allclose(two_terms(y, pair, weight, 1).p, p, rtol=0, atol=1e-6)
    assert abs(two_terms(y, *rows_at(X), 1).p[0] - 0.67) > 1e-4


@pytest.mark.parametrize("kappa", [1, -1])
def test_the_jacobian_is_the_derivative(kappa):
    p, h = np.array([0.4, 0.3, 0.9, -0.2]), 1e-6
    steps = np.eye(4) * h
    numeric = np.stack([(log_curve(p + d, kappa, X) - log_curve(p - d, kappa, X)) / (2 * h) for d in steps], axis=-1)
    assert np.allclose(jacobian(p, kappa, X), numeric, rtol=0, atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_no_start_of_a_general_solver_finds_a_better_minimum(seed):
    rng = np.random.default_rng(seed)
    y = np.log(T**-0.5 + 2 * T**-1.3) + 0.02 * rng.standard_normal(X.size)
    fit = two_terms(y, *rows_at(X), 1)
    starts = rng.uniform([0, -3, 0.5, -3], [1, 3, 3, 3], (20, 4))
    costs = [2 * least_squares(lambda p: log_curve(p, 1, X) - y, p, method="lm").cost for p in starts]
    assert fit.cost <= min(costs) * (1 + 1e-8)


def test_a_start_nearby_leads_to_the_same_fit():
    y = np.log(T**-0.5 + 2 * T**-1.3) + 0.01 * np.random.default_rng(0).standard_normal(X.size)
    fit = two_terms(y, *rows_at(X), 1)
    again = two_terms(y, *rows_at(X), 1, fit.p + np.array([0.01, 0.02, -0.03, 0.01]))
    assert np.allclose(again.p, fit.p, rtol=0, atol=1e-6)
