"""Contour integrals around a spectrum: functions of numbers, of the deterministic equivalent, and what they cannot do."""

import numpy as np
import pytest

from featscale.numerics.contours import kappa_along, log_ellipse
from featscale.numerics.sample_covariance import Modes, support_curve, transform, vector_mass


def around(values, R, x_max, delta):
    """R at real `values` inside the contour, from its values on the contour alone."""
    zeta, weight = log_ellipse(x_max, np.array([delta]))
    c = weight[0] * R(zeta[0])
    return 2 * ((c * zeta[0]) @ (1 / (zeta[0][:, None] - values))).real


@pytest.mark.parametrize("t", [0.1, 10.0, 1e4, 1e8])
def test_a_decaying_exponential_on_the_whole_interval(t):
    x = np.concatenate([[0.0], np.geomspace(1e-3 / t, 1.3, 40)])
    ours = around(x, lambda zeta: np.exp(-zeta * t), 1.3, 2 / t)
    assert ours == pytest.approx(np.exp(-x * t), abs=1e-10)
    outside = around(np.array([-5 / t, 100 * (1.3 + 2 / t)]), lambda zeta: np.exp(-zeta * t), 1.3, 2 / t)
    assert outside == pytest.approx(0.0, abs=1e-9)


def test_it_is_not_for_functions_that_grow():
    x = np.array([0.5])
    assert abs(around(x, lambda zeta: np.exp(zeta * 300), 1.3, 2e-3)[0] / np.exp(150) - 1) > 1


def power_law(n):
    k = np.arange(1.0, n + 1)
    return Modes(k**-1.5, np.ones(n), k**-1.75)


@pytest.mark.parametrize(("n", "P"), [(300, 30), (30, 30), (30, 300), (1, 1)])
def test_kappa_solves_its_equation_on_the_physical_branch(n, P):
    modes = power_law(n)
    x_max = float(support_curve(modes, P).x[-1])
    zeta, _ = log_ellipse(x_max, np.array([1e-6, 1e-2, 10.0]))
    kappa = kappa_along(modes, P, -zeta)
    share = 1 - (modes.lam / (modes.lam + kappa[..., None])).sum(axis=-1) / P
    assert np.abs(kappa * share / -zeta - 1).max() < 1e-8
    # Im κ has the sign of Im z on the branch that is a Stieltjes transform.
    assert np.all(kappa.imag * -zeta.imag > 0)


def test_the_transform_of_the_measure_off_the_real_axis():
    """∫ρ_N(dx)/(x + z) by the nodes on the support, and by κ(z) on the contour."""
    modes, N = power_law(300), 40
    curve = support_curve(modes, N)
    zeta, _ = log_ellipse(float(curve.x[-1]), np.array([1e-3]))
    kappa = kappa_along(modes, N, -zeta)[0]
    power = modes.rho.sum() - vector_mass(curve).sum()
    ours = (vector_mass(curve) / (curve.x - zeta[0][:, None])).sum(axis=1) - power / zeta[0]
    exact = (modes.rho / (modes.lam + kappa[:, None])).sum(axis=1) * kappa / -zeta[0]
    assert np.abs(ours / exact - 1).max() < 1e-6
    # And on the positive axis the two modules state the same equation.
    z, at_real = transform(modes, N, np.array([0.3]))
    assert at_real[0] == pytest.approx((vector_mass(curve) / (curve.x + z)).sum() + power / z[0], rel=1e-6)
