"""Exponential collocation weights against quadrature, for y from 1e-8 to 1e12."""

import numpy as np
import pytest

from featscale.numerics.exponential_weights import ExponentialWeights
from featscale.theory.flow import NODES

WEIGHTS = ExponentialWeights(NODES, points=(*NODES[1:], 0.8))
# Exact to rounding for a polynomial times e^{-30 s} on the unit interval.
GAUSS_X, GAUSS_W = np.polynomial.legendre.leggauss(60)


@pytest.mark.parametrize("y", [1e-8, 1e-3, 0.5, 3.0, 7.99, 8.01, 30.0])
def test_weights_of_z_are_the_integrals(y):
    decay, Z, _ = WEIGHTS(np.array([y]))
    for i, c in enumerate(WEIGHTS.points):
        assert decay[i, 0] == pytest.approx(np.exp(-y * c), rel=1e-14)
        at = c * (1 + GAUSS_X) / 2
        drive = c / 2 * GAUSS_W * y * np.exp(-y * (c - at))
        for j in range(len(NODES)):
            exact = drive @ WEIGHTS.lagrange(at)[:, j]
            assert Z[i, j, 0] == pytest.approx(exact, abs=2e-14, rel=1e-10)


def test_small_weights_keep_relative_digits():
    """Z ~ y as y → 0, and the weights of r ~ 1/y as y → ∞: a subtraction would leave nothing."""
    _, Z, R = WEIGHTS(np.array([1e12, 1e11, 1e-11, 1e-12]))
    assert Z[:, :, 2] == pytest.approx(10 * Z[:, :, 3], rel=1e-8)
    assert R[:, :, 1] == pytest.approx(10 * R[:, :, 0], rel=1e-8)


def test_weights_sum_as_a_constant_demands():
    """For constant u: z relaxes to u, r is untouched by u."""
    y = np.geomspace(1e6, 1e-6, 50)
    decay, Z, R = WEIGHTS(y)
    assert Z.sum(axis=1) == pytest.approx(1 - decay, abs=1e-13)
    assert R.sum(axis=1) == pytest.approx(np.zeros_like(decay), abs=1e-13)
