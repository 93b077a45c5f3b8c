"""The generalised Marchenko–Pastur law: closed form, transform, exact moments, random matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import SIGMAS

from featscale.numerics.sample_covariance import (
    Modes,
    bottleneck_kappa,
    eigenvalue_count,
    support_curve,
    transform,
    vector_mass,
)

# What the quadrature along the support is asked for.
QUADRATURE = 1e-5
# The 1/N correction of the count of eigenvalues of a real matrix: a quarter of one at each edge, taken from between.
QUARTER = 0.25


def power_law(n, alpha=1.5, beta=0.5):
    k = np.arange(1.0, n + 1)
    return Modes(k**-alpha, np.ones(n), k ** -(alpha * beta + 1))


@pytest.mark.parametrize("N", [20, 100, 400])
def test_marchenko_and_pastur(N):
    """100 equal eigenvalues: the density is √((x₊ − x)(x − x₋))/(2π x n/N), x± = (1 ± √(n/N))²."""
    n = 100
    curve = support_curve(Modes(np.ones(1), np.full(1, float(n)), np.full(1, float(n))), N)
    low, high = (1 - np.sqrt(n / N)) ** 2, (1 + np.sqrt(n / N)) ** 2
    density = N * np.sqrt((high - curve.x) * (curve.x - low)) / (2 * np.pi * curve.x)
    assert np.all((curve.x > low) & (curve.x < high))
    mass = vector_mass(curve)
    assert mass == pytest.approx(density * curve.dx, rel=1e-6, abs=1e-12)
    assert mass.sum() == pytest.approx(min(n, N), rel=1e-9)
    assert eigenvalue_count(curve, N) == pytest.approx(mass, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("n", "N"), [(2000, 32), (2000, 512), (300, 299), (300, 300), (300, 301), (40, 900), (5, 1)])
def test_the_measure_has_the_transform_that_defines_it(n, N):
    modes = power_law(n)
    kappa0 = bottleneck_kappa(modes, N)
    curve, atom = support_curve(modes, N), modes.rho @ (kappa0 / (modes.lam + kappa0))
    z, exact = transform(modes, N, kappa0 + np.geomspace(1e-3 * max(kappa0, modes.lam[-1]), 10, 30))
    ours = atom / z + (vector_mass(curve) / (curve.x + z[:, None])).sum(axis=1)
    assert ours == pytest.approx(exact, rel=QUADRATURE)
    # The negative twin: another width has another transform.
    _, other = transform(modes, 1.1 * N, kappa0 + np.geomspace(1, 10, 30))
    assert np.abs(ours / other - 1).max() > 10 * QUADRATURE


@pytest.mark.parametrize("N", [8, 100, 1000])
def test_exact_moments(N):
    """The mean of ∫ρx is Σ ρλ; of ∫ρx², Σ ρλ² + Σ ρλ Σ λ/N to leading order; of the eigenvalues' sum, Σ λ."""
    modes = power_law(500)
    curve = support_curve(modes, N)
    mass, count = vector_mass(curve), eigenvalue_count(curve, N)
    first, second = modes.rho @ modes.lam, modes.rho @ modes.lam**2
    assert mass @ curve.x == pytest.approx(first, rel=QUADRATURE)
    assert mass @ curve.x**2 == pytest.approx(second + first * modes.lam.sum() / N, rel=QUADRATURE)
    assert count.sum() == pytest.approx(min(N, 500), rel=QUADRATURE)
    assert count @ curve.x == pytest.approx(modes.lam.sum(), rel=QUADRATURE)


def test_random_matrices():
    """Mean of Σ e^{−xt} over the eigenvalues and of ∫ρ e^{−xt}, over 200 draws; half the width must fail."""
    modes, N, draws, t = power_law(300), 40, 200, np.geomspace(0.3, 300, 12)[:, None]
    rng = np.random.default_rng(0)
    counts, masses = np.empty((2, draws, t.size))
    for i in range(draws):
        A = rng.standard_normal((N, 300)) * np.sqrt(modes.lam / N)
        x, V = np.linalg.eigh(A @ A.T)
        power = (V.T @ (A @ np.sqrt(modes.rho))) ** 2 / x
        counts[i], masses[i] = np.exp(-t * x).sum(axis=1), np.exp(-t * x) @ power
    for width, right in ((N, True), (N // 2, False)):
        curve = support_curve(modes, width)
        sums = ((counts, eigenvalue_count(curve, width), QUARTER), (masses, vector_mass(curve), 0.0))
        for sample, node, allowance in sums:
            error = SIGMAS * sample.std(axis=0, ddof=1) / np.sqrt(draws) + allowance
            assert bool(np.all(np.abs(np.exp(-t * curve.x) @ node - sample.mean(axis=0)) < error)) == right


def test_a_multiple_eigenvalue_is_one_mode_of_higher_count():
    x = np.array([2.0, 1.0, 1.0, 1.0, 0.3])
    split = Modes(x + np.array([0, 2e-9, 1e-9, 0, 0]), np.ones(5), np.ones(5))
    joined = Modes(np.array([2.0, 1.0, 0.3]), np.array([1.0, 3.0, 1.0]), np.array([1.0, 3.0, 1.0]))
    z, exact = transform(joined, 3, bottleneck_kappa(joined, 3) + np.geomspace(0.1, 10, 9))
    for modes in (split, joined):
        curve = support_curve(modes, 3)
        total = (vector_mass(curve) / (curve.x + z[:, None])).sum(axis=1)
        atom = joined.rho @ (bottleneck_kappa(joined, 3) / (joined.lam + bottleneck_kappa(joined, 3)))
        assert total + atom / z == pytest.approx(exact, rel=QUADRATURE)


def test_the_bottleneck_of_very_many_modes_keeps_its_digits():
    """Σ k^-4 over 10^15 modes is ζ(4) to all digits, and the far modes matter to nothing."""
    k = np.arange(1.0, 2001)
    few = Modes(k**-4, np.ones(2000), k**-5)
    tail = Modes(np.append(few.lam, 1e-60), np.append(few.count, 1e15), np.append(few.rho, 0.0))
    for N in (1, 10):
        assert bottleneck_kappa(tail, N) == pytest.approx(bottleneck_kappa(few, N), rel=1e-9)
    assert bottleneck_kappa(few, 2000) == 0.0
    almost = bottleneck_kappa(few, 1999)
    assert (almost / (few.lam + almost)).sum() == pytest.approx(1.0, rel=1e-10)


@settings(max_examples=40)
@given(
    st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12),
    st.one_of(st.integers(1, 14), st.sampled_from([100, 10_000])),
)
def test_any_spectrum_gives_a_positive_measure_of_the_right_power(lam, N):
    lam = np.unique(lam)[::-1]
    modes = Modes(lam, np.ones(lam.size), np.ones(lam.size))
    curve = support_curve(modes, N)
    kappa0 = bottleneck_kappa(modes, N)
    mass = vector_mass(curve)
    assert np.all(np.diff(curve.x) >= -1e-9 * curve.x[1:])
    assert np.all(mass >= 0)
    assert mass.sum() + (kappa0 / (lam + kappa0)).sum() == pytest.approx(lam.size, rel=1e-4)
