"""The optimiser on NIST's certified problems, from both starts, and its parts."""

import numpy as np
import pytest
from nist import PROBLEMS

from featscale.fits.newton import Local, Problem, minimise
from featscale.fits.varpro import linear_part, projected, separable


def linear_count(problem):
    """m such that b = (c of length m, θ)."""
    b = np.array(problem.b)[list(problem.order)]
    return next(m for m in range(1, b.size) if fits(problem, b[m:], m))


def fits(problem, theta, m):
    try:
        return problem.basis(problem.x, theta)[0].shape[1] == m
    except (ValueError, IndexError):
        return False


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_rows_give_the_certified_sum_of_squares(problem):
    m, b = linear_count(problem), np.array(problem.b)[list(problem.order)]
    r = problem.basis(problem.x, b[m:])[0] @ b[:m] - problem.y
    np.testing.assert_allclose(r @ r, problem.rss, rtol=1e-9)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_certified_values_are_found_from_both_starts(problem, start):
    m, order = linear_count(problem), list(problem.order)
    theta = np.array(problem.starts[start], dtype=float)[order][m:]
    found, c = separable(lambda th: problem.basis(problem.x, th), problem.y, theta, nonnegative=False)
    assert found.converged.all()
    np.testing.assert_allclose(2 * found.value[0], problem.rss, rtol=1e-9)
    b = np.concatenate([c[0], found.p[0]])
    if problem.name == "Eckerle4":
        b[:2] *= np.sign(b[1])  # (b1, b2) and (−b1, −b2) are the same curve
    np.testing.assert_allclose(b, np.array(problem.b)[order], rtol=1e-6)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_the_projected_gradient_is_that_of_differences(problem):
    theta = 1.01 * np.array(problem.b)[list(problem.order)][linear_count(problem) :]
    rest = projected(lambda th: problem.basis(problem.x, th), problem.y, nonnegative=False)
    one = np.arange(1)
    steps = 1e-6 * np.diag(theta)
    slopes = [(rest.value(theta[None] + d, one) - rest.value(theta[None] - d, one))[0] / (2 * d.sum()) for d in steps]
    gradient = rest.local(theta[None], one).gradient[0]
    np.testing.assert_allclose(gradient * theta, slopes * theta, rtol=1e-4, atol=1e-5 * np.abs(gradient * theta).max())


def test_nonnegative_coefficients():
    Phi = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    y = np.array([1.0, 0.5, 0.0])
    np.testing.assert_allclose(linear_part(Phi, y), [0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(linear_part(Phi, y, nonnegative=False), [1.5, -0.5], atol=1e-12)


def rosenbrock(a):
    """K valleys (1 − x)² + a (y − x²)², with exact derivatives."""

    def value(p, which):
        x, y = p.T
        return (1 - x) ** 2 + a[which] * (y - x**2) ** 2

    def local(p, which):
        (x, y), k = p.T, a[which]
        g = np.stack([-2 * (1 - x) - 4 * k * x * (y - x**2), 2 * k * (y - x**2)], axis=1)
        xx, xy = 2 - 4 * k * (y - 3 * x**2), -4 * k * x
        H = np.stack([np.stack([xx, xy], axis=1), np.stack([xy, 2 * k], axis=1)], axis=1)
        return Local(g, H, np.stack([2 + 8 * k * x**2, 2 * k], axis=1))

    return Problem(value, local)


def test_many_problems_at_once_are_those_one_by_one():
    a, free = np.array([1.0, 10.0, 100.0]), np.full(2, np.inf)
    start = np.array([[-1.2, 1.0]] * 3)
    together = minimise(rosenbrock(a), start, -free, free)
    np.testing.assert_allclose(together.p, 1.0, atol=1e-6)
    for i in range(3):
        alone = minimise(rosenbrock(a[[i]]), start[i], -free, free)
        np.testing.assert_array_equal(alone.p[0], together.p[i])


def test_bounds_hold_and_the_rest_is_minimised():
    found = minimise(rosenbrock(np.array([100.0])), np.array([0.0, 0.0]), np.array([-1.0, -1.0]), np.array([0.5, 5.0]))
    np.testing.assert_allclose(found.p[0], [0.5, 0.25], atol=1e-8)
    fixed = minimise(rosenbrock(np.array([100.0])), np.array([0.3, 0.0]), np.array([0.3, -5.0]), np.array([0.3, 5.0]))
    np.testing.assert_allclose(fixed.p[0], [0.3, 0.09], atol=1e-8)


def test_too_few_steps_are_not_called_converged():
    free = np.full(2, np.inf)
    found = minimise(rosenbrock(np.array([100.0])), np.array([-1.2, 1.0]), -free, free, steps=3)
    assert not found.converged.any()
