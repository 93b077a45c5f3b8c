"""Exponents of loss curves: recovery, intervals that cover, flags, and bad input."""

import math

import numpy as np
import pytest
from fits.synthetic import noisy, tidy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from featscale.errors import BadInput
from featscale.fits import fit_curve

# Exact data: what is left is the rounding of a sum over some tens of logarithms.
EXACT = 1e-10
GRID = np.logspace(0, 4, 97)


@pytest.mark.parametrize("t", [GRID, np.arange(0.0, 3000.0), np.sort(np.random.default_rng(0).uniform(1, 500, 40))])
@pytest.mark.parametrize("chi", [-0.3, 0.25, 2.0])
def test_an_exact_power_law_is_recovered(t, chi):
    fit = fit_curve(t, 3.0 * np.maximum(t, 1.0) ** -chi)
    assert abs(fit.exponent - chi) < EXACT
    assert abs(fit.amplitude / 3.0 - 1) < EXACT
    assert np.all(np.abs(fit.chi_local - chi) < EXACT)
    assert max(abs(half - chi) for half in fit.halves) < EXACT
    assert fit.residual < EXACT
    assert not any(flag.startswith("window: exponent") for flag in fit.flags)


def test_every_seed_has_its_own_exponent_and_their_mean_is_that_of_the_curve():
    chi = np.array([0.4, 0.5, 0.63])
    t, loss, seed = tidy(GRID, np.array([[1.0], [2.0], [5.0]]) * GRID ** -chi[:, None])
    fit = fit_curve(t, loss, seed + 7)
    assert np.allclose(fit.per_seed, chi, rtol=0, atol=EXACT)
    assert np.allclose(fit.per_seed_amplitude, [1, 2, 5], rtol=EXACT)
    assert fit.seeds == (7, 8, 9)
    assert abs(fit.exponent - chi.mean()) < EXACT
    half = student.ppf(0.975, 2) * chi.std(ddof=1) / math.sqrt(3)
    assert np.allclose(fit.interval, (chi.mean() - half, chi.mean() + half), rtol=0, atol=EXACT)
    assert abs(fit.amplitude - 10 ** (1 / 3)) < EXACT


def test_a_known_floor_is_subtracted_and_neglecting_it_is_seen():
    loss = 0.1 + 2.0 * GRID**-0.7
    fit = fit_curve(GRID, loss, floor=0.1)
    assert abs(fit.exponent - 0.7) < EXACT
    assert (fit.floor, fit.floor_kind) == (0.1, "given")
    neglected = fit_curve(GRID, loss, window=(300, 1e4))
    assert abs(neglected.exponent - 0.7) > 0.1
    assert any(flag.startswith("window: exponent moves by more than 0.05") for flag in neglected.flags)


@pytest.mark.parametrize("E", [0.01, 0.3, 5.0])
@pytest.mark.parametrize("t", [GRID, np.geomspace(1, 1e4, 17) * 1.1])
def test_a_free_floor_is_recovered_between_sparse_rows_too(t, E):
    fit = fit_curve(t, E + 2.0 * t**-0.7, window=(1, 2e4), floor="free")
    assert abs(fit.exponent - 0.7) < EXACT
    assert abs(fit.floor / E - 1) < EXACT
    assert abs(fit.amplitude / 2.0 - 1) < EXACT
    assert np.allclose(fit.at(t), E + 2.0 * t**-0.7, rtol=EXACT)
    assert np.allclose(fit.halves, 0.7, rtol=0, atol=1e-6)


def test_a_free_floor_on_data_without_one_stops_at_its_bound():
    t, loss, seed = tidy(GRID, np.array([[1.0], [2.0]]) * GRID**-0.5)
    fit = fit_curve(t, loss, seed, floor="free")
    assert fit.floor == 0.0
    assert abs(fit.exponent - 0.5) < EXACT
    assert "floor at its bound 0" in fit.flags
    convex = fit_curve(GRID, np.exp(-0.01 * np.log(GRID) ** 2) * GRID**-0.5, floor="free")
    assert convex.floor == 0.0


def test_a_floor_the_seeds_do_not_determine_is_flagged():
    rng = np.random.default_rng(3)
    t = np.logspace(0, 2, 49)
    clear = fit_curve(*tidy(t, noisy(rng, t, 5, sigma=0.001, E=0.5)), window=(1, 100), floor="free")
    vague = fit_curve(*tidy(t, noisy(rng, t, 5, sigma=0.03, E=0.02)), window=(1, 100), floor="free")
    assert not [flag for flag in clear.flags if flag.startswith("floor")]
    assert [flag for flag in vague.flags if flag.startswith("floor")]


def test_a_transient_bends_the_early_window_only():
    t = np.logspace(-1, 5, 145)
    loss = t**-0.5 * (1 + 3 / t)
    early, late = fit_curve(t, loss, window=(0.3, 30)), fit_curve(t, loss, window=(1e3, 1e5))
    assert abs(late.exponent - 0.5) < 1e-3 < 0.2 < early.exponent - 0.5
    assert late.flags == ("one seed: no interval",)
    assert any(flag.startswith("window: exponent moves") for flag in early.flags)
    assert early.halves[0] > early.exponent > early.halves[1]
    assert np.all(np.diff(early.chi_local) < 0)


def test_local_exponents_are_slopes_over_a_quarter_of_a_decade():
    curvature = 0.05
    fit = fit_curve(GRID, GRID**-0.5 * np.exp(-curvature * np.log(GRID) ** 2), window=(1, 1e4))
    assert math.isclose(fit.smoothing, 0.25)
    # The slope of a line through a symmetric stretch of a parabola is the derivative at its centre.
    assert np.allclose(fit.chi_local, 0.5 + 2 * curvature * np.log(fit.t_local), rtol=0, atol=EXACT)
    assert np.isnan(fit.chi_local_stderr).all()
    chi = np.array([[0.4], [0.6]])
    seeds = fit_curve(*tidy(GRID, GRID**-chi))
    assert np.allclose(seeds.chi_local_stderr, 0.1, rtol=0, atol=EXACT)


def test_dense_rows_weigh_no_more_than_sparse_ones():
    """Broken power law: the exponent over the whole window must not follow the half with a thousand times more rows."""
    sparse = np.logspace(0, 4, 97)
    dense = np.unique(np.concatenate([sparse, np.linspace(100, 1e4, 20001)]))

    def law(t):
        return np.where(t < 100, t**-0.2, 100**0.6 * t**-0.8)

    even, uneven = (fit_curve(t, law(t), window=(1, 1e4)).exponent for t in (sparse, dense))
    assert abs(even - uneven) < 1e-6
    ordinary = -np.polyfit(np.log(dense), np.log(law(dense)), 1)[0]
    assert abs(ordinary - even) > 0.1


def test_one_seed_has_no_interval():
    rng = np.random.default_rng(0)
    fit = fit_curve(GRID, noisy(rng, GRID, 1)[0])
    assert np.isnan([*fit.interval, fit.stderr]).all()
    assert np.isnan(fit.band(GRID)).all()
    assert "one seed: no interval" in fit.flags


def test_the_mean_of_logs_is_kept_apart_from_the_log_of_the_mean():
    """Seeds whose scatter grows with t: the typical curve keeps its exponent, the arithmetic mean follows the largest seed."""
    scatter = np.linspace(-1, 1, 5)[:, None]
    fit = fit_curve(*tidy(GRID, GRID ** (-0.5 + 0.4 * scatter)), window=(1, 1e4))
    assert abs(fit.exponent - 0.5) < EXACT
    assert fit.curve_exponent < 0.4
    narrow = fit_curve(*tidy(GRID, GRID ** (-0.5 + 0.001 * scatter)), window=(1, 1e4))
    assert abs(narrow.curve_exponent - 0.5) < 1e-4
    heavy = noisy(np.random.default_rng(1), GRID, 200) * np.exp(
        np.log(GRID) * np.random.default_rng(2).normal(0, 0.2, (200, 1))
    )
    flags = fit_curve(*tidy(GRID, heavy), window=(1, 1e4)).flags
    assert any(flag.startswith("seeds: their arithmetic mean") for flag in flags)


def test_identical_seeds_are_seen():
    t, loss, seed = tidy(GRID, np.tile(GRID**-0.5, (3, 1)))
    assert "seeds identical: the interval has no width" in fit_curve(t, loss, seed).flags
    loss[0] *= 1.001
    assert not any("identical" in flag for flag in fit_curve(t, loss, seed, window=(1, 100)).flags)


def test_a_diverged_seed_is_cut_and_flagged():
    curves = np.array([[1.0], [1.1], [0.9]]) * GRID**-0.5
    early, late = curves.copy(), curves.copy()
    early[1, GRID > 400] = np.nan
    late[1, -2:] = np.inf
    cut = fit_curve(*tidy(GRID, early))
    assert cut.seeds == (0, 2)
    first = GRID[GRID > 400][0]
    assert f"seed 1 diverged at t={first:g}" in cut.flags
    assert any(flag.startswith("seed 1 left out: covers only t") for flag in cut.flags)
    kept = fit_curve(*tidy(GRID, late))
    assert kept.seeds == (0, 1, 2)
    assert f"seed 1 diverged at t={GRID[-2]:g}" in kept.flags
    assert math.isclose(kept.covered[1], GRID[-3])
    assert kept.window[1] == GRID[-1]
    assert not any("seed" in flag for flag in fit_curve(*tidy(GRID, curves)).flags)


def test_rows_after_the_first_bad_one_are_not_used_even_if_finite():
    loss = GRID**-0.5
    loss[60] = np.nan
    loss[61:] = 1e-9
    fit = fit_curve(GRID, loss)
    assert abs(fit.exponent - 0.5) < EXACT
    assert fit.window[1] == GRID[59]


def test_a_seed_that_ends_early_is_left_out():
    t, loss, seed = tidy(GRID, np.array([[1.0], [1.1]]) * GRID**-0.5)
    some = (seed == 0) | (t < 300)
    fit = fit_curve(t[some], loss[some], seed[some])
    assert fit.seeds == (0,)
    assert any(flag.startswith("seed 1 left out") for flag in fit.flags)
    both = fit_curve(t[some], loss[some], seed[some], window=(3, 200))
    assert both.seeds == (0, 1)


def test_without_a_window_an_exact_power_law_is_fitted_whole():
    fit = fit_curve(GRID, GRID**-0.5)
    assert np.allclose(fit.window, (1, 1e4))
    assert (fit.window_kind, fit.law, fit.second, fit.spread < EXACT) == ("automatic", "one", None, True)


def test_the_window_is_reported_as_asked_and_where_rows_cover_it():
    fit = fit_curve(GRID, GRID**-0.5, window=(100, 1e6))
    assert fit.window == (100.0, 1e6)
    assert np.allclose(fit.covered, (100, 1e4))
    assert any(flag.startswith("window: rows cover only t 100..10000") for flag in fit.flags)
    assert not any("cover" in flag for flag in fit_curve(GRID, GRID**-0.5, window=(100, 1e4)).flags)


def test_a_row_at_the_edge_is_inside_up_to_rounding():
    t = 0.1 * np.arange(1, 2001)
    assert t[2] > 0.3
    fit = fit_curve(t, t**-0.5, window=(0.1, 0.3))
    assert fit.points == 3


def test_short_windows_are_flagged():
    narrow = fit_curve(GRID, GRID**-0.5, window=(10, 25)).flags
    assert any(flag.startswith("window short: 0.3") for flag in narrow)
    few = fit_curve(GRID[::20], GRID[::20] ** -0.5, window=(1, 1e4)).flags
    assert "window short: 5 rows in seed 0" in few
    assert not any("short" in flag for flag in fit_curve(GRID, GRID**-0.5, window=(10, 40)).flags)


def test_a_constant_curve_has_exponent_zero():
    t, loss, seed = tidy(GRID, np.array([[0.3], [0.4]]) * np.ones(97))
    for floor in (0.0, 0.1, "free"):
        fit = fit_curve(t, loss, seed, floor=floor)
        assert (fit.exponent, *fit.interval, *fit.halves) == (0.0,) * 5
        assert "constant: the loss does not move in the window" in fit.flags
        assert np.allclose(fit.at([1.0, 50.0]) - fit.floor, math.sqrt((0.3 - fit.floor) * (0.4 - fit.floor)))
    assert "rising: the loss grows in the window" in fit_curve(GRID, GRID**0.1).flags


def test_rows_at_or_before_zero_are_dropped_silently():
    t, loss = np.concatenate([[-1.0, 0.0, 0.0], GRID]), np.concatenate([[np.nan, 5.0, -1.0], GRID**-0.5])
    fit, plain = fit_curve(t, loss), fit_curve(GRID, GRID**-0.5)
    assert (fit.exponent, fit.window, fit.points, fit.flags) == (
        plain.exponent,
        plain.window,
        plain.points,
        plain.flags,
    )


def test_curve_and_band_at_given_times():
    rng = np.random.default_rng(0)
    fit = fit_curve(*tidy(GRID, noisy(rng, GRID, 4)), window=(1, 1e4))
    low, high = fit.band(GRID)
    line = fit.at(GRID)
    assert np.allclose(line, fit.amplitude * GRID**-fit.exponent)
    assert np.all((low < line) & (line < high))
    wide = fit_curve(*tidy(GRID, noisy(np.random.default_rng(0), GRID, 4)), window=(1, 1e4), level=0.99).band(GRID)
    assert np.all((wide[0] < low) & (high < wide[1]))


def replaced(index, value):
    loss = GRID**-0.5
    loss[index] = value
    return loss


@pytest.mark.parametrize(
    ("arguments", "options", "field", "says"),
    [
        ((GRID, replaced(80, 0.0)), {}, "loss", "> 0 inside the window"),
        ((GRID, replaced(80, -1.0)), {}, "loss", "-1 at t="),
        ((GRID, GRID**-0.5), {"floor": 0.5}, "floor", "below the smallest loss"),
        ((GRID, GRID**-0.5), {"floor": -0.1}, "floor", "free"),
        ((GRID, GRID**-0.5), {"floor": math.nan}, "floor", "free"),
        ((GRID, GRID**-0.5), {"floor": "none"}, "floor", "free"),
        ((GRID, GRID**-0.5), {"level": 1.0}, "level", "(0, 1)"),
        ((GRID, GRID**-0.5), {"level": math.nan}, "level", "(0, 1)"),
        ((GRID, GRID**-0.5), {"window": (1e5, 1e6)}, "window", "t runs from 1 to 10000"),
        ((GRID, GRID**-0.5), {"window": (99, 101)}, "window", "at least two rows"),
        ((GRID, GRID**-0.5), {"window": (10, 1)}, "window", "lo < hi"),
        ((GRID, GRID**-0.5), {"window": (0, 1)}, "window", "0 < lo"),
        ((GRID, GRID**-0.5), {"window": (math.nan, 1)}, "window", "0 < lo"),
        ((GRID, GRID**-0.5), {"window": (1, 2, 3)}, "window", "two numbers"),
        ((np.repeat(GRID, 2), np.repeat(GRID, 2) ** -0.5), {}, "t", "a column seed tells seeds apart"),
        (([1, 2, 2, 3], [4, 3, 3, 2], [0, 1, 1, 1]), {}, "t", "twice in seed 1"),
        ((GRID, GRID[1:]), {}, "loss", "97"),
        ((GRID, GRID, [0, 1]), {}, "seed", "97"),
        ((GRID, np.ones((97, 2))), {}, "loss", "one dimension"),
        ((replaced(3, np.nan), GRID), {}, "t", "finite"),
        (([1.0, 2.0], ["a", "b"]), {}, "loss", "numbers"),
        (([1.0, 2.0], [1.0, 1.0], [np.nan, 0]), {}, "seed", "a seed in every row"),
        (([1.0, 2.0], [1.0, 1.0], np.array(["a", 1], object)), {}, "seed", "one type"),
        (([0.0, -1.0], [1.0, 1.0]), {}, "t", "t > 0"),
        (([], []), {}, "t", "t > 0"),
        ((GRID, np.full(97, np.nan)), {}, "loss", "finite"),
        ((GRID, np.full(97, np.nan)), {"window": (1, 10)}, "window", "no finite row"),
        (([1, 2, 10, 20], [4, 3, 2, 1], [0, 0, 1, 1]), {}, "window", "the same seeds cover"),
        (([1, 2, 3], [4, 3, 2]), {"floor": "free"}, "floor", "fewer than 4 rows"),
        (([1.0, np.nextafter(1.0, 2)], [4, 3]), {}, "window", "more than rounding"),
    ],
)
def test_bad_input_is_named(arguments, options, field, says):
    with pytest.raises(BadInput) as caught:
        fit_curve(*arguments, **options)
    assert caught.value.field == field
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_loss_outside_the_window_does_no_harm():
    assert abs(fit_curve(GRID, replaced(2, -1.0), window=(10, 1e4)).exponent - 0.5) < EXACT
    with pytest.raises(BadInput, match="^loss: -1 at t="):
        fit_curve(GRID, replaced(2, -1.0))


# Powers of two scale without rounding, so that rows stay on their side of the window's edges.
SCALES = st.integers(-40, 40).map(lambda power: 2.0**power)


@settings(max_examples=30)
@given(scale_t=SCALES, scale_loss=SCALES, seed=st.integers(0, 2**31), floor=st.sampled_from([0.0, "free"]))
def test_units_do_not_matter(scale_t, scale_loss, seed, floor):
    t, loss, seeds = tidy(GRID, noisy(np.random.default_rng(seed), GRID, 3, E=0.02))
    one = fit_curve(t, loss, seeds, window=(10, 1e4), floor=floor)
    other = fit_curve(t * scale_t, loss * scale_loss, seeds, window=(10 * scale_t, 1e4 * scale_t), floor=floor)
    accuracy = 1e-10 if floor == 0.0 else 1e-5
    assert math.isclose(other.exponent, one.exponent, abs_tol=accuracy)
    assert np.allclose(other.interval, one.interval, rtol=0, atol=10 * accuracy)
    assert math.isclose(other.floor, one.floor * scale_loss, rel_tol=1e-3, abs_tol=accuracy * scale_loss)


@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_rows_does_not_matter(random, names):
    t, loss, seed = tidy(GRID, noisy(np.random.default_rng(5), GRID, 4))
    order = np.array(random.sample(range(t.size), t.size))
    labels = np.array(["d", "a", "c", "b"])[seed] if names else seed
    one, other = fit_curve(t, loss, labels), fit_curve(t[order], loss[order], labels[order])
    assert other.exponent == one.exponent
    assert other.interval == one.interval
    assert (other.seeds, other.flags) == (one.seeds, one.flags)
    by_step = np.argsort(t, kind="stable")
    assert fit_curve(t[by_step], loss[by_step], labels[by_step]).interval == one.interval
