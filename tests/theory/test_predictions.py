"""Predictions against closed forms, exponents, and runs that do turn unstable."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.simulate.collapsed import Collapsed
from featscale.simulate.problem import Problem, draw, stability_bound
from featscale.spectra import PowerLaw, SpectralMeasure
from featscale.theory.finite_width import finite_width
from featscale.theory.flow import gradient_flow
from featscale.theory.predictions import (
    bottleneck,
    crossover_time,
    gain_over_lazy,
    sharpness,
    stability_time,
    width_for_loss,
)

HARD = PowerLaw(1.5, 0.5, 10**6)


def test_kernel_has_doubled_at_the_crossover():
    measure = HARD.measure(200)
    crossover = crossover_time(measure, 0.3)
    assert crossover.status == "ok"
    assert gradient_flow(measure, 0.3, crossover.value).K[0] == pytest.approx(2, rel=1e-7)


@pytest.mark.parametrize("beta", [0.25, 0.5, 0.75])
def test_crossover_time_scales_with_richness(beta):
    measure = PowerLaw(1.5, beta, 10**9).measure(200)
    late, later = crossover_time(measure, 1e-2).value, crossover_time(measure, 1e-3).value
    assert math.log10(later / late) == pytest.approx(1 / (1 - beta), abs=0.03)


def test_an_easy_task_crosses_over_only_if_its_kernel_ends_above_two():
    """K ends at (1 + √(1 + 4γ Σw*²))/2, which is 2 at γ Σw*² = 2."""
    measure = PowerLaw(1.5, 1.5, 1000).measure(100)
    gamma = 2 / float((measure.rho / measure.x).sum())
    below, above = crossover_time(measure, 0.999 * gamma), crossover_time(measure, 1.001 * gamma)
    assert (below.value, below.status[:5]) == (math.inf, "never")
    assert above.value > 1e3
    assert above.status == "ok"
    assert gradient_flow(measure, gamma, 1e12).K[0] == pytest.approx(2, rel=1e-6)


def test_lazy_never_crosses_over():
    assert crossover_time(HARD.measure(100), 0.0).value == math.inf


def kernel_top(measure, gamma, t):
    """Top eigenvalue of the kernel as a dense matrix, with a from small steps of the flow."""
    x, rho, a, K, steps = measure.x, measure.rho, np.zeros_like(measure.x), 1.0, 20_000
    for _ in range(steps):
        c = rho @ (a * (1 - a))
        a, K = a + t / steps * (K * x * (1 - a) + gamma * c / K * a), K + t / steps * 2 * gamma * c
    r = np.sqrt(rho) * a
    return np.linalg.eigvalsh(K * np.diag(x) + gamma / K * np.outer(r, r))[-1]


@pytest.mark.parametrize("gamma", [0.0, 1.0, 10.0])
def test_sharpness_is_the_top_eigenvalue_of_the_kernel(gamma):
    measure = PowerLaw(2.0, 0.75, 12).measure()
    flow = sharpness(measure, gamma, [0.7, 5.0])
    assert flow.loss == pytest.approx([kernel_top(measure, gamma, t) for t in (0.7, 5.0)], rel=2e-3)
    assert np.all(flow.loss >= flow.K * measure.x.max() * (1 - 1e-12))


def test_a_single_mode_doubles_its_curvature_by_the_rank_one_part():
    """x = ρ = 1: K² − K = γ a² in the end, so s = K + γ/K = 2K − 1."""
    flow = sharpness(SpectralMeasure([1.0], [1.0]), 6.0, 1e3)
    assert flow.K[0] == pytest.approx(3)
    assert flow.loss[0] == pytest.approx(5)


def departure(problem, features, until):
    """Largest factor between the run and the flow of its own features, in loss, up to flow time `until`."""
    run, worst, last = Collapsed([problem], [0], draws=[features]), 0.0, 0
    steps = np.unique(np.round(np.geomspace(5, until / problem.eta, 60)).astype(int))
    flow = gradient_flow(features.measure(), problem.gamma, steps * problem.eta).loss
    for step, expected in zip(steps, flow, strict=True):
        run.advance(last, int(step))
        worst, last = max(worst, abs(math.log(float(run.loss()[0]) / expected))), int(step)
    return math.exp(worst)


@pytest.mark.parametrize(("alpha", "beta", "gamma", "eta"), [(1.5, 0.5, 1.0, 0.5), (1.5, 0.25, 3.0, 0.2)])
def test_a_run_leaves_the_flow_after_its_stability_time_and_not_before(alpha, beta, gamma, eta):
    task, N = PowerLaw(alpha, beta, 4000), 64
    features = draw(task, N, 0)
    predicted = stability_time(features.measure(), gamma, eta)
    assert predicted.status == "ok"
    assert departure(Problem(task, N, eta, gamma), features, predicted.value * 6) > 2
    assert departure(Problem(task, N, eta, gamma), features, predicted.value) < 1.3
    # A quarter of the rate lasts beyond the time at which this one failed.
    assert stability_time(features.measure(), gamma, eta / 4).value > 10 * predicted.value
    assert departure(Problem(task, N, eta / 4, gamma), features, predicted.value * 6) < 1.3


def test_stability_time_has_the_rate_times_curvature_at_two():
    measure = HARD.measure(200)
    predicted = stability_time(measure, 1.0, 0.4)
    assert 0.4 * sharpness(measure, 1.0, predicted.value).loss[0] == pytest.approx(2, rel=1e-7)
    with_batches = stability_time(measure, 1.0, 0.1, bound=stability_bound(HARD, B=8))
    assert with_batches.value < stability_time(measure, 1.0, 0.1).value


def test_stable_and_unstable_rates_say_so():
    measure = PowerLaw(1.5, 1.5, 1000).measure(100)
    stable, lazy, unstable = (stability_time(measure, g, eta) for g, eta in ((1.0, 0.1), (0.0, 1.9), (1.0, 2.1)))
    assert (stable.value, stable.status[:6]) == (math.inf, "stable")
    assert (lazy.value, lazy.status[:6]) == (math.inf, "stable")
    assert (unstable.value, unstable.status[:8]) == (0.0, "unstable")


@pytest.mark.parametrize("t", [30.0, math.inf])
def test_width_for_a_loss_is_the_smallest_that_reaches_it(t):
    target = 0.4
    answer = width_for_loss(HARD, 1.0, target, t)

    def loss(N):
        return bottleneck(HARD, N) if math.isinf(t) else gradient_flow(finite_width(HARD, N).measure, 1.0, t).loss[0]

    assert answer.status == "ok"
    assert answer.value == int(answer.value) > 2
    assert loss(int(answer.value)) <= target < loss(int(answer.value) - 1)


def test_bottleneck_is_the_atom_and_vanishes_with_all_modes():
    assert bottleneck(HARD, 40) == pytest.approx(finite_width(HARD, 40).measure.atom, rel=1e-9)
    assert bottleneck(PowerLaw(1.5, 0.5, 40), 40) == 0
    assert width_for_loss(PowerLaw(1.5, 0.5, 40), 1.0, 1e-12).value == 40


@pytest.mark.parametrize(("beta", "loss"), [(0.5, 1e-3), (1.25, 1e-6), (2.5, 1e-6)])
def test_width_for_a_loss_follows_the_bottleneck_exponent(beta, loss):
    """α min(1, β) at α = 1.5; α min(2, β) is rejected for β > 1."""
    task = PowerLaw(1.5, beta, 10**12)
    wide, wider = (width_for_loss(task, 1.0, target).value for target in (loss, loss / 10))
    exponent = 1 / math.log10(wider / wide)
    assert exponent == pytest.approx(1.5 * min(1, beta), abs=0.02)
    assert (abs(exponent - 1.5 * min(2, beta)) > 0.1) == (beta > 1)


def test_a_loss_out_of_reach_gives_advice():
    early = width_for_loss(HARD, 1.0, 0.1, t=1.0)
    assert (early.value, early.status[:8]) == (math.inf, "no width")
    small = width_for_loss(PowerLaw(1.1, 0.05, 10**15), 1.0, 1e-3)
    assert (small.value, small.status[:8]) == (math.inf, "no width")


def test_gain_is_the_ratio_of_two_frontiers_and_one_when_lazy():
    task, widths, C = PowerLaw(1.5, 0.5, 10**6), [8, 32, 128], [1e2, 1e3]
    rich, lazy = gain_over_lazy(task, 1.0, C, widths), gain_over_lazy(task, 0.0, C, widths)
    assert lazy.loss_ratio == pytest.approx(1, rel=1e-12)
    assert lazy.compute_ratio == pytest.approx(1, rel=1e-9)
    assert np.all(rich.loss_ratio > 1.1)
    assert np.all(np.diff(rich.compute_ratio) > 0)


@pytest.mark.slow
def test_gain_grows_with_compute_as_the_exponents_say():
    """Loss ratio ~ C^(c_rich − c_lazy), compute ratio ~ C^(c_rich/c_lazy − 1), up to the slow approach to both."""
    gain = gain_over_lazy(PowerLaw(1.5, 0.5, 10**9), 1.0, [1e6, 1e7])
    assert np.log10(gain.loss_ratio[1] / gain.loss_ratio[0]) == pytest.approx(6 / 17 - 0.3, abs=0.005)
    assert np.log10(gain.compute_ratio[1] / gain.compute_ratio[0]) == pytest.approx(20 / 17 - 1, abs=0.015)


@settings(max_examples=25)
@given(
    st.floats(1.01, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1e-9, 1.0, 1e3]),
    st.sampled_from([1, 2, 300, 10**9]),
    st.sampled_from([1e-3, 0.3, 1.99, 5.0]),
)
def test_hard_inputs_give_a_time_or_a_reason(alpha, beta, gamma, M, eta):
    measure = PowerLaw(alpha, beta, M).measure(100)
    for answer in (crossover_time(measure, gamma), stability_time(measure, gamma, eta)):
        assert answer.value >= 0
        assert (answer.status == "ok") == (0 < answer.value < math.inf) or "later" in answer.status


@settings(max_examples=15)
@given(st.floats(1.01, 4.0), st.floats(0.05, 6.0), st.sampled_from([1, 2, 300]), st.floats(1e-6, 10.0))
def test_hard_targets_give_a_width_or_a_reason(alpha, beta, M, loss):
    task = PowerLaw(alpha, beta, M)
    answer = width_for_loss(task, 1.0, loss)
    assert 1 <= answer.value <= max(M, 1)
    assert bottleneck(task, int(answer.value)) <= loss


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda m: crossover_time(m, -1.0), "gamma"),
        (lambda m: crossover_time(m, math.nan), "gamma"),
        (lambda m: stability_time(m, 1.0, 0.0), "eta"),
        (lambda m: stability_time(m, math.inf, 0.1), "gamma"),
        (lambda m: stability_time(m, 1.0, 0.1, bound=math.nan), "bound"),
        (lambda m: sharpness(m, 1.0, [-1.0]), "times"),
        (lambda m: sharpness(m, -1.0, [1.0]), "gamma"),
        (lambda m: width_for_loss(HARD, 1.0, 0.0), "loss"),
        (lambda m: width_for_loss(HARD, 1.0, 0.1, t=math.nan), "times"),
        (lambda m: width_for_loss(HARD, math.nan, 0.1), "gamma"),
        (lambda m: gain_over_lazy(HARD, 1.0, [0.0], [4]), "compute"),
    ],
)
def test_bad_input(call, field):
    with pytest.raises(BadInput) as caught:
        call(HARD.measure(50))
    assert caught.value.field == field
