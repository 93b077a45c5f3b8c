"""Log grids of steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.numerics.grids import log_steps


@given(st.integers(0, 10**7), st.integers(1, 64))
def test_grid_is_increasing_from_zero_to_the_end(T, per_decade):
    steps = log_steps(T, per_decade)
    assert steps[0] == 0
    assert steps[-1] == T
    assert np.all(np.diff(steps) > 0)


@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_a_longer_run_logs_the_same_early_steps(T, longer):
    short, whole = log_steps(T), log_steps(T + longer)
    assert set(short[:-1]) <= set(whole)


def test_rows_a_decade():
    steps = log_steps(10**6, 24)
    assert np.sum((steps > 10**4) & (steps <= 10**5)) == 24


def test_bad_sizes():
    with pytest.raises(BadInput, match="steps"):
        log_steps(-1)
    with pytest.raises(BadInput, match="rows_per_decade"):
        log_steps(10, 0)
