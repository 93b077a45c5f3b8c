"""The frontier: against brute force, the exponent table over four decades, the phases, other costs, and hard inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.spectra import PowerLaw
from featscale.theory.exponents import chi, compute_optimal, exponents, regime
from featscale.theory.finite_width import finite_width
from featscale.theory.flow import gradient_flow
from featscale.theory.frontier import frontier, frontier_exponents, loss_terms, phase

TASK = PowerLaw(1.5, 0.5, 10**9)


@given(st.floats(1.01, 4), st.floats(0.05, 6), st.booleans())
def test_the_phase_has_the_exponents_of_the_table(alpha, beta, rich):
    balance = phase(alpha, beta, rich)
    c, a = compute_optimal(alpha, beta, chi(beta, rich))
    assert balance.loss == pytest.approx(c, abs=1e-6)
    assert balance.width == pytest.approx(a, abs=1e-6)
    assert balance.width + balance.time == pytest.approx(1)


@given(st.floats(1.01, 4), st.floats(0.05, 6), st.booleans())
def test_each_regime_balances_its_own_two_terms(alpha, beta, rich):
    expected = {
        "hard": ("gradient flow", "width bottleneck"),
        "easy": ("gradient flow", "width transient"),
        "super-easy": ("batch noise", "width transient"),
    }
    name = regime(alpha, beta)
    if name in expected and abs(beta - 1) > 1e-6 and abs(beta - 2 + 1 / alpha) > 1e-6:
        assert phase(alpha, beta, rich).balance == expected[name]
        without = phase(alpha, beta, rich, batch_noise=False).balance
        assert without == expected["easy" if name == "super-easy" else name]


@pytest.mark.parametrize(("alpha", "beta"), [(3.0, 0.7), (3.0, 1.3)])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_exponent_of_the_width_transient(alpha, beta, gamma):
    """min(1, β) − 1/α, times m if rich; the same exponent with 1 for min(1, β) is rejected on the hard task."""
    task, t = PowerLaw(alpha, beta, 10**6), np.array([1e4, 1.5e4])
    narrow, wide = (gradient_flow(m, gamma, t).loss for m in (finite_width(task, 50_000).measure, task.measure(3000)))
    excess = narrow - wide
    slope = -np.log(excess[1] / excess[0]) / np.log(1.5)
    m = chi(beta, gamma > 0) / beta
    transient = next(term for term in loss_terms(alpha, beta, gamma > 0) if term.name == "width transient")
    assert slope == pytest.approx(transient.time, abs=0.02)
    assert (abs(slope - (1 - 1 / alpha) * m) < 0.05) == (beta > 1)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_discrete_widths_are_the_best_of_all_curves(gamma):
    widths, C = [4, 8, 16, 32, 64, 128, 256], np.array([3e2, 1e3, 3e3])
    result = frontier(TASK, gamma, C, widths)
    curves = np.array([gradient_flow(finite_width(TASK, N).measure, gamma, C / N, rtol=1e-8).loss for N in widths])
    assert result.status == "ok"
    assert result.loss == pytest.approx(curves.min(axis=0), rel=1e-12)
    assert result.width.tolist() == [widths[i] for i in curves.argmin(axis=0)]
    assert result.time == pytest.approx(C / result.width)
    assert result.cost == len(widths)


def test_a_free_width_is_the_minimum_over_all_integers():
    C = 2e3
    free = frontier(TASK, 0.0, C)
    around = np.unique(np.round(free.width[0] * np.geomspace(0.7, 1.4, 15)).astype(int))
    brute = frontier(TASK, 0.0, C, around.tolist())
    assert free.status == "ok"
    assert free.loss[0] == pytest.approx(brute.loss[0], rel=max(free.residual, 1e-4))
    assert free.width[0] == pytest.approx(brute.width[0], rel=0.06)
    assert brute.width[0] not in (around[0], around[-1])


def test_computes_may_come_in_any_order():
    there, back = (frontier(TASK, 0.0, C, [8, 16, 32]) for C in ([1e2, 1e3, 1e4], [1e4, 1e2, 1e3]))
    assert back.loss.tolist() == there.loss[[2, 0, 1]].tolist()


def measured(alpha, beta, gamma, low, eta_over_B=0.0, decades=4):
    """Exponents of the frontier over `decades` of compute from 10^low, and what they should be."""
    C = np.logspace(low, low + decades, decades + 1)
    found = frontier_exponents(frontier(PowerLaw(alpha, beta, 10**9), gamma, C, eta_over_B=eta_over_B))
    assert found.status == "ok"
    return found


def test_lazy_hard_exponents_over_four_decades():
    found, table = measured(1.5, 0.5, 0.0, 3), exponents(1.5, 0.5)
    assert found.loss == pytest.approx(table.compute_exponent_lazy, abs=0.02)
    assert found.width == pytest.approx(table.width_allocation_lazy, abs=0.03)
    assert found.time == pytest.approx(1 - table.width_allocation_lazy, abs=0.03)
    assert abs(found.loss - table.compute_exponent_rich) > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.0, 1.0])
@pytest.mark.parametrize(
    ("alpha", "beta", "low", "eta_over_B"),
    [(1.5, 0.5, 6, 0.0), (2.0, 0.75, 6, 0.0), (3.0, 1.3, 10, 0.0), (2.0, 2.5, 6, 0.2), (3.0, 3.0, 6, 0.2)],
)
def test_exponents_over_four_decades(alpha, beta, low, eta_over_B, gamma):
    """Hard, easy and super-easy; an easy task needs a late window, its width exponent is 0.02 off four decades earlier."""
    found, balance = measured(alpha, beta, gamma, low, eta_over_B), phase(alpha, beta, gamma > 0)
    assert found.loss == pytest.approx(balance.loss, abs=0.02)
    assert found.width == pytest.approx(balance.width, abs=0.03)
    assert found.time == pytest.approx(balance.time, abs=0.03)
    if beta < 1:
        assert abs(found.loss - phase(alpha, beta, gamma == 0).loss) > 0.02


@pytest.mark.slow
def test_a_super_easy_task_without_batch_noise_balances_as_an_easy_one():
    found, balance = measured(2.0, 2.5, 0.0, 6), phase(2.0, 2.5, False, batch_noise=False)
    assert found.loss == pytest.approx(balance.loss, abs=0.03)
    assert abs(found.loss - phase(2.0, 2.5, False).loss) > 0.04


@pytest.mark.slow
def test_noise_takes_the_rich_gain_of_a_hard_task_away():
    """Excess ε K Σλ: with K growing the exponent falls from the rich one towards the lazy one."""
    losses = [measured(1.5, 0.5, 1.0, 4, eta_over_B).loss for eta_over_B in (0.0, 1e-3, 1e-2)]
    assert losses[0] > losses[1] > losses[2] + 0.01
    assert losses[0] == pytest.approx(phase(1.5, 0.5, rich=True).loss, abs=0.02)


def test_vanishing_noise_gives_the_frontier_without():
    C, widths = [1e2, 1e3], [8, 64]
    clean, noisy, loud = (frontier(TASK, 1.0, C, widths, eta_over_B=e) for e in (0.0, 1e-9, 1e-2))
    assert noisy.loss == pytest.approx(clean.loss, rel=1e-3)
    assert np.all(loud.loss > clean.loss * 1.003)


def test_another_cost_function():
    C, widths = np.array([1e2, 1e3, 1e4]), [4, 16, 64]
    default = frontier(TASK, 1.0, C, widths)
    same = frontier(TASK, 1.0, C, widths, cost=lambda N, t: N * t)
    assert same.loss == pytest.approx(default.loss, rel=1e-9)
    square = frontier(TASK, 1.0, C**2, widths, cost=lambda N, t: (N * t) ** 2)
    assert square.time == pytest.approx(default.time, rel=1e-9)
    dear = frontier(TASK, 1.0, C, widths, cost=lambda N, t: N * t + 20 * N)
    assert np.all(dear.loss > default.loss)
    assert np.all(dear.width <= default.width)
    assert dear.width[0] < default.width[0]
    assert dear.time == pytest.approx(C / dear.width - 20, rel=1e-9)


def test_a_compute_that_buys_nothing_gives_advice():
    result = frontier(TASK, 1.0, [10.0, 1e3], [4, 8], cost=lambda N, t: N * t + 50 * N)
    assert (result.loss[0], result.time[0]) == (np.inf, 0.0)
    assert np.isfinite(result.loss[1])
    assert "no width" in result.status
    with pytest.raises(BadInput, match="compute"):
        frontier_exponents(result)
    free = frontier(TASK, 0.0, [10.0], cost=lambda N, t: N * t + 50)
    assert free.loss[0] == np.inf
    assert "no width" in free.status


def test_a_width_at_the_end_of_those_offered_is_reported():
    assert "largest width 8 is best at compute 1e+04" in frontier(TASK, 1.0, [1e4], [4, 8]).status
    assert frontier(TASK, 1.0, [1e4], [8]).status == "ok"


@settings(max_examples=15)
@given(
    st.floats(1.01, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1.0, 1e3]),
    st.sampled_from([1, 2, 3000, 10**9]),
    st.lists(st.sampled_from([1e-9, 1.0, 1e3, 1e6, 1e13]), min_size=1, max_size=3, unique=True),
    st.sampled_from([[1], [1, 2, 500], [30]]),
)
def test_hard_inputs_give_a_falling_frontier(alpha, beta, gamma, M, compute, widths):
    task, C = PowerLaw(alpha, beta, M), np.sort(compute)
    result = frontier(task, gamma, C, widths)
    assert np.all(np.isfinite(result.loss))
    assert np.all((result.loss >= 0) & (result.loss <= task.measure().power * (1 + 1e-3)))
    assert np.all(np.diff(result.loss) <= 1e-4 * task.measure().power)
    assert result.width * result.time == pytest.approx(C)


@settings(max_examples=4)
@given(st.floats(1.05, 4.0), st.floats(0.05, 6.0), st.sampled_from([0.0, 1e3]), st.sampled_from([1e-3, 1e2]))
def test_hard_inputs_of_a_free_width_and_of_noise(alpha, beta, gamma, compute):
    task = PowerLaw(alpha, beta, 1000)
    free = frontier(task, gamma, compute)
    assert 0 <= free.loss[0] <= frontier(task, gamma, compute, [10]).loss[0] * (1 + 1e-3)
    noisy = frontier(task, gamma, compute, [10], eta_over_B=0.05)
    assert not np.isnan(noisy.loss[0])
    assert noisy.loss[0] < np.inf or "noise ends" in noisy.status


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"compute": []}, "compute"),
        ({"compute": [0.0]}, "compute"),
        ({"compute": [1.0, np.nan]}, "compute"),
        ({"compute": [np.inf]}, "compute"),
        ({"widths": []}, "widths"),
        ({"widths": [0]}, "widths"),
        ({"widths": [2.5]}, "widths"),
        ({"gamma": -1.0}, "gamma"),
        ({"gamma": np.nan}, "gamma"),
        ({"eta_over_B": 2.0}, "eta_over_B"),
        ({"eta_over_B": np.nan}, "eta_over_B"),
        ({"cost": lambda N, t: 0.1 * N}, "cost"),
    ],
)
def test_bad_input(change, field):
    with pytest.raises(BadInput) as caught:
        frontier(**({"task": TASK, "gamma": 1.0, "compute": [10.0], "widths": [4]} | change))
    assert caught.value.field == field


def test_one_compute_has_no_exponent():
    with pytest.raises(BadInput, match="compute"):
        frontier_exponents(frontier(TASK, 0.0, [10.0], [4]))
