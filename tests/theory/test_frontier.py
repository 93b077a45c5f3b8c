"""The frontier from theory, and the phase of a task."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.spectra import PowerLaw
from featscale.theory.exponents import exponents
from featscale.theory.finite_width import finite_width_measure
from featscale.theory.flow import gradient_flow
from featscale.theory.frontier import frontier, frontier_exponents, phase


@given(st.floats(1.05, 4.0), st.floats(0.05, 4.0))
def test_phase_exponents_are_those_of_the_table_when_lazy(alpha, beta):
    table, found = exponents(alpha, beta), phase(alpha, beta, rich=False)
    assert found.loss == pytest.approx(table.compute_exponent_lazy, abs=1e-6)
    assert found.width + found.time == pytest.approx(1.0)


def test_discrete_frontier_is_the_best_of_its_widths():
    task, widths, C = PowerLaw(1.5, 0.5, 10_000), [8, 32, 128], np.array([1e2, 1e4])
    best = frontier(task, 1.0, C, widths)
    losses = [[gradient_flow(finite_width_measure(task, N), 1.0, [c / N]).loss[0] for N in widths] for c in C]
    assert best.loss == pytest.approx(np.min(losses, axis=1), rel=1e-6)
    assert best.width.tolist() == [widths[i] for i in np.argmin(losses, axis=1)]


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_hard_frontier_has_the_exponents_of_the_table(gamma):
    task, table = PowerLaw(1.5, 0.5, 10**9), exponents(1.5, 0.5)
    found = frontier_exponents(frontier(task, gamma, np.geomspace(1e4, 1e8, 9)))
    expected = table.compute_exponent_rich if gamma else table.compute_exponent_lazy
    other = table.compute_exponent_lazy if gamma else table.compute_exponent_rich
    assert found.loss == pytest.approx(expected, abs=0.02)
    assert abs(found.loss - other) > 0.02


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"compute": [0.0]}, "compute"), ({"compute": []}, "compute"), ({"compute": [1e3], "widths": [0]}, "widths")],
)
def test_bad_input(arguments, field):
    with pytest.raises(BadInput) as caught:
        frontier(PowerLaw(1.5, 0.5, 100), 1.0, **arguments)
    assert caught.value.field == field
