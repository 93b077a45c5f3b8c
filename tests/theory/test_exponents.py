"""The exponent table: known values, marginal tasks, and the compute exponents against a minimised sum of terms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.theory.exponents import compute_optimal, exponents, regime


def test_table_of_the_hard_seed_task():
    table = exponents(1.5, 0.5)
    assert (table.regime, table.chi_lazy, table.chi_rich) == ("hard", 0.5, pytest.approx(2 / 3))
    assert (table.width_exponent, table.data_exponent) == (0.75, 0.75)
    assert table.sgd_exponent == pytest.approx(2 - 1 / 1.5)
    assert table.compute_exponent_lazy == pytest.approx(0.75 / 2.5)
    assert table.compute_exponent_rich == pytest.approx(2 * 0.75 / (1.5 * 1.5 + 2))


def test_width_and_data_saturate_at_different_betas():
    """The measured exponents are in test_finite_width.py and test_data_equivalent.py."""
    tables = [exponents(1.5, beta) for beta in (0.5, 1.25, 2.5)]
    assert [table.width_exponent for table in tables] == pytest.approx([0.75, 1.5, 1.5])
    assert [table.data_exponent for table in tables] == pytest.approx([0.75, 1.875, 3.0])


@pytest.mark.parametrize(
    ("beta", "name"),
    [
        (0.999, "hard"),
        (1.0, "marginal hard/easy"),
        (1.001, "easy"),
        (4 / 3, "marginal easy/super-easy"),
        (1.34, "super-easy"),
    ],
)
def test_regimes_and_their_margins(beta, name):
    assert regime(1.5, beta) == name


@given(st.floats(1.01, 4), st.floats(0.05, 6))
def test_rich_is_never_slower_and_gains_only_on_hard_tasks(alpha, beta):
    table = exponents(alpha, beta)
    gain = table.chi_rich - table.chi_lazy
    assert gain == pytest.approx(max(0.0, beta * (1 - beta) / (1 + beta)), abs=1e-12)
    assert table.compute_exponent_rich >= table.compute_exponent_lazy - 1e-12
    assert 0 < table.width_allocation_lazy < 1


def frontier_by_search(alpha, beta, chi):
    """Slopes of min_N and argmin_N of the sum of loss terms along C = N t, at large C."""
    logC = np.array([60.0, 62.0])
    logN = np.linspace(0, 60, 60_001)
    best = []
    for c in logC:
        logt = c - logN
        terms = (-chi * logt, -alpha * min(1, beta) * logN, -logN - (1 - 1 / alpha) * logt, -(2 - 1 / alpha) * logt)
        total = np.logaddexp.reduce(terms, axis=0)
        best.append((logN[np.argmin(total)], total.min()))
    (N0, L0), (N1, L1) = best
    return -(L1 - L0) / 2, (N1 - N0) / 2


@pytest.mark.parametrize(
    ("alpha", "beta"), [(1.5, 0.5), (1.5, 1.2), (1.5, 2.5), (2.0, 0.75), (3.0, 1.3), (1.2, 0.3), (3.0, 3.0)]
)
def test_compute_optimum_is_that_of_the_sum_of_terms(alpha, beta):
    c, a = compute_optimal(alpha, beta, chi=beta)
    slope, allocation = frontier_by_search(alpha, beta, chi=beta)
    assert c == pytest.approx(slope, abs=0.01)
    assert a == pytest.approx(allocation, abs=0.01)


@pytest.mark.parametrize(
    ("alpha", "beta", "field"),
    [(1.0, 1.0, "alpha"), (2.0, 0.0, "beta"), (2.0, -1.0, "beta"), (np.nan, 1.0, "alpha"), (np.inf, 1.0, "alpha")],
)
def test_bad_exponents(alpha, beta, field):
    with pytest.raises(BadInput) as caught:
        exponents(alpha, beta)
    assert caught.value.field == field
