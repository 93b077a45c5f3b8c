"""Whatever a table holds, a fit gives one clear line or finite numbers with their flags; never a silent number."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.fits import fit_curve, fit_curves

LOSSES = st.one_of(
    st.floats(1e-8, 1e8), st.sampled_from([0.0, -1.0, 1.0, math.nan, math.inf, -math.inf, 1e-300, 5e-324, 1e300])
)
TIMES = st.one_of(st.floats(1e-3, 1e6), st.sampled_from([0.0, -1.0, 1.0, 10.0, 100.0, 1e-300, 1e300]))
ROWS = st.lists(st.tuples(TIMES, LOSSES, st.integers(0, 2)), max_size=40)


def is_answer(fit):
    """Finite exponent and amplitude with an ordered interval, or the absence of each in a flag."""
    lo, hi = fit.interval
    assert math.isfinite(fit.exponent)
    assert math.isfinite(fit.floor)
    if len(fit.seeds) == 1:
        assert "one seed: no interval" in fit.flags
        assert math.isnan(lo)
    else:
        assert lo <= fit.exponent + 1e-9 * (1 + abs(fit.exponent))
        assert hi >= fit.exponent - 1e-9 * (1 + abs(fit.exponent))
    if math.isinf(lo) or math.isinf(hi):
        assert any(flag.startswith("interval open") for flag in fit.flags)
    assert all(flag and "\n" not in flag for flag in fit.flags)


@settings(max_examples=40)
@given(
    ROWS,
    st.sampled_from([0.0, 0.5, "free"]),
    st.sampled_from([None, "one", "two"]),
    st.sampled_from([None, (1.0, 1e3)]),
)
@example([], 0.0, None, None)
@example([(1.0, 1.0, 0)], 0.0, None, None)
@example([(1.0, 1.0, 0), (10.0, 1.0, 0), (1.0, 0.5, 0)], 0.0, None, None)
def test_any_rows_are_answered_or_refused_in_one_line(rows, floor, law, window):
    t, loss, seed = (np.array(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    line = "none"
    try:
        is_answer(fit_curve(t, loss, seed, floor=floor, law=law, window=window))
    except BadInput as error:
        line = str(error)
    assert "\n" not in line
    assert line == "none" or line.count(": ") >= 2


@settings(max_examples=15)
@given(
    st.integers(0, 2**31),
    st.integers(1, 4),
    st.floats(-1, 2),
    st.floats(0, 0.3),
    st.floats(0, 10),
    st.sampled_from([0.0, "free"]),
)
def test_any_curve_with_noise_is_answered(seed, S, chi, sigma, E, floor):
    rng = np.random.default_rng(seed)
    t = np.unique(np.sort(rng.uniform(0.5, 1e3, 50)))
    loss = (E + t**-chi) * np.exp(sigma * rng.standard_normal((S, t.size)))
    fit = fit_curve(np.tile(t, S), loss.ravel(), np.repeat(np.arange(S), t.size), floor=floor)
    is_answer(fit)
    assert np.all(fit.at(t) > 0)


@settings(max_examples=15)
@given(st.lists(LOSSES, min_size=36, max_size=36), st.sampled_from([None, (1.0, 1e3)]))
def test_any_batch_has_numbers_or_reasons(losses, window):
    t = np.geomspace(1, 1e3, 6)
    found = fit_curves(t, np.array(losses).reshape(3, 2, 6), window=window)
    for i in range(3):
        assert math.isnan(found.exponent[i]) == (i in found.refused)


@pytest.mark.parametrize(
    ("t", "loss", "says"),
    [
        ([1.0, 10.0, 100.0], [1.0, -0.5, 0.1], "loss: -0.5 at t=10, seed 0: > 0 inside the window"),
        ([1.0, 10.0, 100.0], [1.0, 0.0, 0.1], "loss: 0 at t=10, seed 0: > 0 inside the window"),
        ([1.0], [1.0], "window: 1,1: a window with at least two rows of a seed"),
        (
            [1.0, 1.0, 10.0],
            [1.0, 1.0, 0.1],
            "t: 1 twice in seed 0: each t once a seed; a column seed tells seeds apart",
        ),
        ([1.0, 10.0], [math.nan, math.nan], "loss: not finite in any row with t > 0: at least two finite rows"),
        ([], [], "t: 0 rows, none with t > 0: at least two rows with t > 0"),
    ],
)
def test_the_line_says_what_is_wrong(t, loss, says):
    with pytest.raises(BadInput) as caught:
        fit_curve(t, loss)
    assert str(caught.value).startswith(says)
