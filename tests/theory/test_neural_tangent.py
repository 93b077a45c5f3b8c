"""The infinite-width kernel against quadrature, closed forms and published numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from featscale.errors import BadInput
from featscale.theory.flow import gradient_flow, lazy_loss
from featscale.theory.neural_tangent import (
    GRID,
    _by_hypergeometric,
    circle_measure,
    circle_spectrum,
    mlp_kernel,
    relu_covariance,
    relu_slope_covariance,
)

C = np.array([-1, -0.99, -0.5, 0, 0.3, 0.9, 0.9999, 1])


def by_quadrature(c, q):
    """E ReLU(u)^q ReLU(v)^q over its value at c = 1: the radial integral cancels, the angular one is ∫(cos s cos(s − ω))^q ds."""
    omega = math.acos(c)

    def angular(omega):
        return quad(
            lambda s: max(math.cos(s) * math.cos(s - omega), 0) ** q, omega - math.pi / 2, math.pi / 2, epsabs=1e-12
        )[0]

    return angular(omega) / angular(0)


@given(c=st.floats(-1, 0.999), q=st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_any_power_is_its_integral(c, q):
    assert relu_covariance(c, q) == pytest.approx(by_quadrature(c, q), abs=1e-8)


@pytest.mark.parametrize("q", [0, 1, 2])
def test_integer_powers_are_the_arc_cosine_kernels(q):
    assert np.allclose(relu_covariance(C, q), _by_hypergeometric(C, q), rtol=0, atol=1e-12)
    assert not np.allclose(relu_covariance(C, q), _by_hypergeometric(C, q + 0.1), atol=1e-3)


@pytest.mark.parametrize("q", [0.8, 1.0, 1.5, 2.0])
def test_the_slope_covariance_is_the_derivative(q):
    c, h = np.linspace(-0.9, 0.9, 7), 1e-5
    difference = (relu_covariance(c + h, q) - relu_covariance(c - h, q)) / (2 * h)
    assert np.allclose(relu_slope_covariance(c, q), difference, rtol=1e-7, atol=1e-9)


def test_theory_md_section_8():
    spectrum = circle_spectrum(50, depth=3)
    assert spectrum[:5] == pytest.approx([0.657, 0.280, 0.0948, 0.0520, 0.0271], rel=2e-3)
    assert spectrum[[9, 49]] == pytest.approx([6.69e-3, 2.56e-4], rel=2e-3)
    assert circle_spectrum(5, depth=2)[:1] != pytest.approx(spectrum[:1], rel=2e-3)


@pytest.mark.parametrize("q_phi", [1.0, 1.5, 2.0])
def test_eigenvalues_fall_as_k_to_the_minus_two_q_phi(q_phi):
    spectrum, k = circle_spectrum(400, 3, q_phi), np.arange(1, 401)
    even = (k % 2 == 0) & (k >= 100)
    slope = np.polyfit(np.log(k[even]), np.log(spectrum[even]), 1)[0]
    assert slope == pytest.approx(-2 * q_phi, abs=0.1)


def test_one_hidden_layer_cannot_learn_odd_harmonics():
    spectrum = circle_spectrum(21, depth=1)
    assert np.all(np.abs(spectrum[2::2]) < 1e-13)
    assert spectrum[1] > 0.01
    measure = circle_measure(q=1.0, k_max=21, depth=1)
    assert measure.atom == pytest.approx(np.sum(np.arange(3, 22, 2) ** -2.0) / 2)
    assert measure.power == pytest.approx(np.sum(np.arange(1, 22) ** -2.0) / 2)
    assert circle_measure(q=1.0, k_max=21, depth=2).atom == 0


def test_the_kernel_sums_to_its_trace():
    """Θ(1) = 1 + depth · Σ of the slope covariances at 1; for ReLU depth + 1."""
    assert mlp_kernel(1.0, 3) == pytest.approx(4, rel=1e-12)
    mean = mlp_kernel(np.cos(2 * np.pi * np.arange(GRID) / GRID), 3).mean()
    assert mean + 2 * circle_spectrum(2**14, 3).sum() == pytest.approx(4, rel=1e-4)


def test_lazy_and_rich_curves_of_the_circle():
    """theory.md: 0.0663 at t = 47.5 for a target of unit power, local slopes 0.425 and 0.493 at t = 10 and 100, q = 1, 384 modes."""
    measure, t = circle_measure(q=1.0, k_max=384, depth=3), np.array([10.0, 47.5, 100])
    assert lazy_loss(measure, t)[1] / measure.power == pytest.approx(0.0663, abs=1e-4)
    h = 1.02
    slopes = np.log(lazy_loss(measure, t / h) / lazy_loss(measure, t * h)) / (2 * np.log(h))
    assert slopes[[0, 2]] == pytest.approx([0.425, 0.493], abs=2e-3)
    rich = gradient_flow(measure, 1.0, t)
    assert rich.status == "ok"
    assert np.all(rich.loss < 0.8 * lazy_loss(measure, t))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: relu_covariance(1.1), "c"),
        (lambda: relu_covariance(math.nan), "c"),
        (lambda: relu_covariance(0.5, -0.5), "q_phi"),
        (lambda: relu_slope_covariance(0.5, 0.5), "q_phi"),
        (lambda: mlp_kernel(0.5, 0), "depth"),
        (lambda: circle_spectrum(0, 3), "k_max"),
        (lambda: circle_spectrum(GRID, 3), "k_max"),
        (lambda: circle_measure(0.5, 10, 3), "q"),
    ],
)
def test_bad_input_names_the_field(make, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        make()
