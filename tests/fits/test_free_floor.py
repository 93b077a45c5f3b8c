"""The free floor, against a direct three-parameter fit and at its bound."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from featscale.fits.free_floor import free_floor, line

X = np.linspace(0, 7, 60)


def rows_at(x):
    """Rows exactly at the nodes."""
    return np.stack([x, x], axis=-1)[None], np.stack([np.ones_like(x), np.zeros_like(x)], axis=-1)[None]


def direct(y, chi, log_A, log_E):
    """The same objective over all three parameters at once."""

    def residual(p):
        return y - np.logaddexp(p[2], p[1] - p[0] * X)

    return least_squares(residual, [chi, log_A, log_E], method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_variable_projection_finds_the_minimum_of_the_three_parameter_fit(seed):
    rng = np.random.default_rng(seed)
    y = np.log(0.2 + 2 * np.exp(-0.6 * X)) + 0.02 * rng.standard_normal(X.size)
    chi, log_A, E = free_floor(y, *rows_at(X))
    found = direct(y, 0.5, 0.5, -2.0)
    assert np.allclose([chi, log_A, np.log(E)], found.x, rtol=0, atol=1e-5)
    fit = np.logaddexp(np.log(E), log_A - chi * X)
    assert np.sum((y - fit) ** 2) <= 2 * found.cost * (1 + 1e-9)


def test_the_bound_holds_where_the_floor_would_be_negative():
    chi, log_A, E = free_floor(1 - 0.5 * X - 0.05 * X**2, *rows_at(X))
    slope, height = line(X, 1 - 0.5 * X - 0.05 * X**2)
    assert E == 0.0
    assert np.allclose([chi, log_A], [slope, height], rtol=0, atol=1e-12)
    assert free_floor(1 - 0.5 * X + 0.02 * X**2, *rows_at(X))[2] > 0


def test_a_mean_of_curves_with_different_rows_is_fitted_through_their_interpolation():
    nodes = np.linspace(0.5, 6.5, 40)
    rows, weights, y = [], [], 0.0
    for own in (np.linspace(0, 7, 15), np.linspace(0.2, 6.9, 9)):
        left = np.searchsorted(own, nodes, side="right") - 1
        pair = np.stack([own[left], own[left + 1]], axis=-1)
        right = (nodes - pair[:, 0]) / (pair[:, 1] - pair[:, 0])
        weight = np.stack([1 - right, right], axis=-1)
        y = y + (weight * np.log(0.1 + 3 * np.exp(-0.8 * pair))).sum(axis=-1) / 2
        rows.append(pair)
        weights.append(weight)
    fit = free_floor(y, np.array(rows), np.array(weights))
    assert np.allclose(fit, (0.8, np.log(3), 0.1), rtol=0, atol=1e-10)
    # Taking the interpolated values for values of the curve does not recover it.
    assert abs(free_floor(y, *rows_at(nodes))[2] - 0.1) > 1e-4


def test_a_weighted_line():
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([5.0, 4.0, 3.0, 9.0])
    slope, height = line(x, y, np.array([1.0, 2.0, 1.0, 0.0]))
    assert np.allclose([slope, height], [1, 5])
    assert np.allclose(line(x, y), [-np.polyfit(x, y, 1)[0], np.polyfit(x, y, 1)[1]])
