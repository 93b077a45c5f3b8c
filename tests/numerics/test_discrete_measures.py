"""Fewer nodes, the same moments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import IDENTITY

from featscale.errors import BadInput
from featscale.numerics.discrete_measures import condense


def measure(n, seed=0):
    rng = np.random.default_rng(seed)
    return 10 ** rng.uniform(-6, 0, n), rng.random(n)


def test_three_moments_are_kept_and_the_fourth_is_not():
    x, mass = measure(500)
    nodes, weights = condense(x, mass, 40)
    assert nodes.size <= 40
    for j in (0, 1, 2, 3):
        assert weights @ nodes**j == pytest.approx(mass @ x**j, rel=IDENTITY)
    assert abs((weights @ nodes**4) / (mass @ x**4) - 1) > 1e-6


def test_the_error_of_a_smooth_function_falls_with_the_fourth_power_of_the_cell():
    x, mass = measure(50_000)
    errors = []
    for bins in (20, 40, 80):
        nodes, weights = condense(x, mass, bins)
        t = np.geomspace(1, 1e5, 30)[:, None]
        errors.append(np.abs(np.exp(-t * nodes) @ weights - np.exp(-t * x) @ mass).max())
    assert errors[0] / errors[1] > 8
    assert errors[1] / errors[2] > 8


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(2, 30), st.integers(0, 99))
def test_nodes_stay_inside_and_masses_positive(n, bins, seed):
    x, mass = measure(n, seed)
    x[: n // 3] = x[0]
    mass[n // 2 :] *= 1e-200
    nodes, weights = condense(x, mass, bins)
    assert nodes.size <= max(bins, 1)
    assert np.all(np.diff(nodes) >= 0)
    assert np.all(weights > 0)
    assert nodes[0] >= x.min() * (1 - 1e-7)
    assert nodes[-1] <= x.max() * (1 + 1e-7)
    assert weights.sum() == pytest.approx(mass.sum(), rel=IDENTITY)


def test_few_nodes_come_back_as_they_are_without_the_empty_ones():
    nodes, weights = condense(np.array([2.0, 1.0, 3.0]), np.array([0.5, 1.0, 0.0]), 10)
    assert nodes.tolist() == [1.0, 2.0]
    assert weights.tolist() == [1.0, 0.5]


def test_bad_input():
    with pytest.raises(BadInput, match="bins"):
        condense(np.ones(1), np.ones(1), 1)
