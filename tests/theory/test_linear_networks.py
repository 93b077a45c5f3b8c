"""Linear networks of any depth: the closed flow against descent on the layers, exponents, and the finite-width theory's limits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.spectra import PowerLaw
from featscale.theory.exponents import chi
from featscale.theory.flow import gradient_flow, lazy_loss
from featscale.theory.linear_networks import chi_deep, chi_narrow, deep_flow, two_layer_dmft


def layer_descent(task, gamma, depth, eta, steps):
    """Loss and K after `steps` steps on square layers that start at I: the infinite-width network, every matrix written out."""
    lam, w_star, M = task.lambdas(), task.w_star(), task.M
    layers, w = [np.eye(M) for _ in range(depth - 1)], np.zeros(M)
    for _ in range(steps):
        back = [w]
        for layer in layers[::-1]:
            back.append(layer.T @ back[-1])
        g = lam * (w_star - back[-1])
        forward = [g]
        for layer in layers:
            forward.append(layer @ forward[-1])
        for i in range(depth - 1):
            layers[i] = layers[i] + eta * gamma * np.outer(back[depth - 2 - i], forward[i])
        w = w + eta * forward[-1]
    p = w
    for layer in layers[::-1]:
        p = layer.T @ p
    return lam @ (w_star - p) ** 2, 1 + gamma * w @ w


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("beta", [0.5, 1.5])
def test_equal_to_small_step_descent_on_the_layers(depth, beta):
    """First order in η, so that Richardson's extrapolation of two step sizes leaves O(η²); another depth's flow is rejected."""
    task, gamma, t = PowerLaw(1.5, beta, 12), 2.0, 3.0
    coarse, fine = (np.array(layer_descent(task, gamma, depth, t / n, n)) for n in (1000, 2000))
    flow, other = (deep_flow(task.measure(), gamma, t, depth=d) for d in (depth, depth + 1))
    assert 2 * fine - coarse == pytest.approx([flow.loss[0], flow.K[0]], rel=1e-4)
    assert abs(other.loss[0] / flow.loss[0] - 1) > 0.05


@pytest.mark.parametrize("gamma", [0.0, 0.3, 30.0])
def test_depth_two_is_the_projected_model_at_infinite_width(gamma):
    measure, t = PowerLaw(1.5, 0.5, 300).measure(), [100.0, 0.0, 3.0]
    deep, two = deep_flow(measure, gamma, t), gradient_flow(measure, gamma, t)
    assert deep.loss == pytest.approx(two.loss, rel=1e-12)
    assert pytest.approx(two.K, rel=1e-12) == deep.K


def test_small_gamma_is_lazy_at_any_depth():
    measure, t = PowerLaw(1.5, 0.5, 300).measure(), np.array([1.0, 30.0])
    for depth in (2, 3, 6):
        assert deep_flow(measure, 1e-8, t, depth).loss == pytest.approx(lazy_loss(measure, t), rel=1e-5)


@pytest.mark.parametrize(("depth", "beta"), [(3, 0.25), (3, 0.5), (3, 0.75), (4, 0.5), (3, 1.5)])
def test_local_slopes_follow_the_depth(depth, beta):
    """At t = 10⁴; D = 3, 4 at β = 0.5 measured 0.738 and 0.780 there, 0.746 and 0.792 at 10⁶, towards 3/4 and 4/5."""
    measure = PowerLaw(1.5, beta, 10**12).measure(600)
    flow = deep_flow(measure, 1.0, 1e4 * np.exp([-1e-3, 1e-3]), depth, rtol=1e-8)
    slope = -np.log(flow.loss[1] / flow.loss[0]) / 2e-3
    assert flow.status == "ok"
    assert slope == pytest.approx(chi_deep(beta, depth, rich=True), abs=0.022)
    if beta < 1:
        assert slope > chi(beta, rich=True) + 0.02


@given(st.floats(1.01, 4), st.floats(0.05, 6), st.integers(2, 20))
def test_a_narrow_network_is_never_faster_than_a_wide_one(alpha, beta, depth):
    wide, narrow = chi_deep(beta, depth, rich=True), chi_narrow(alpha, beta, depth)
    assert chi_deep(beta, depth, rich=False) == beta
    assert chi_deep(beta, depth + 1, rich=True) >= wide - 1e-12
    assert chi_deep(beta, 2, rich=True) == pytest.approx(chi(beta, rich=True))
    assert 0 < narrow <= min(wide, 1) + 1e-12


@pytest.mark.parametrize("depth", [2, 3])
def test_the_narrow_exponent_is_continuous_where_its_form_changes(depth):
    alpha = 5.0
    beta = 1 - depth / alpha
    assert chi_narrow(alpha, beta - 1e-9, depth) == pytest.approx(chi_narrow(alpha, beta + 1e-9, depth), abs=1e-8)


def test_mean_field_theory_at_infinite_width_tends_to_the_flow():
    task, gamma, t = PowerLaw(1.5, 0.5, 100), 2.0, 4.0
    errors = []
    for T in (40, 80):
        theory = two_layer_dmft(task, math.inf, math.inf, t / T, gamma, T, bins=None)
        flow = gradient_flow(task.measure(), gamma, theory.t)
        errors.append(np.abs(theory.loss / flow.loss - 1).max())
        assert np.abs(theory.K / flow.K - 1).max() < 0.05
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)


def test_lazy_mean_field_theory_is_the_second_moment_recursion():
    """γ = 0 and N = ∞: c ← (1 − ηλ)² c + (η²/B)(λ²c + λL)."""
    task, eta, B, sigma, T = PowerLaw(1.5, 0.5, 50), 0.3, 8, 0.4, 40
    lam = task.lambdas()
    c, losses = task.w_star() ** 2, []
    for _ in range(T + 1):
        losses.append(lam @ c)
        c = (1 - eta * lam) ** 2 * c + eta**2 / B * (lam**2 * c + lam * (losses[-1] + sigma**2))
    theory = two_layer_dmft(task, math.inf, B, eta, 0.0, T, sigma=sigma, bins=None)
    assert theory.loss == pytest.approx(losses, rel=1e-10)


def test_bins_stand_for_all_modes():
    task = PowerLaw(1.5, 0.5, 300)
    all_modes, binned = (two_layer_dmft(task, 16, 8, 0.1, 2.0, 40, bins=bins) for bins in (None, 60))
    assert binned.loss == pytest.approx(all_modes.loss, rel=1e-5)


def test_an_unstable_run_ends_with_advice():
    theory = two_layer_dmft(PowerLaw(1.5, 0.5, 50), 8, 1, 1.5, 1.0, 200)
    assert theory.status.startswith("the loss runs away")
    assert theory.step.size == theory.loss.size < 201
    assert np.all(np.isfinite(theory.loss))


@settings(max_examples=30)
@given(
    st.floats(1.01, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1e-9, 1.0, 1e3]),
    st.integers(2, 12),
    st.sampled_from([1, 2, 3000, 10**9]),
    st.lists(st.sampled_from([0.0, 1e-9, 1.0, 1e4, 1e12]), min_size=1, max_size=4),
)
def test_hard_inputs_give_a_falling_curve(alpha, beta, gamma, depth, M, t):
    measure = PowerLaw(alpha, beta, M).measure(60)
    flow = deep_flow(measure, gamma, t, depth, rtol=1e-6)
    assert flow.status == "ok"
    order = np.argsort(flow.t)
    assert np.all(np.isfinite(flow.loss) & (flow.loss >= 0))
    assert np.all(np.diff(flow.loss[order]) <= 1e-5 * measure.power)
    assert np.all(np.diff(flow.K[order]) >= -1e-5 * flow.K[order][:-1])


@settings(max_examples=20)
@given(
    st.floats(1.01, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1.0, 1e3]),
    st.sampled_from([1, 30, math.inf]),
    st.sampled_from([1, 30, math.inf]),
    st.sampled_from([1e-6, 0.1, 1.9]),
)
def test_hard_inputs_of_the_mean_field_theory(alpha, beta, gamma, N, B, eta):
    theory = two_layer_dmft(PowerLaw(alpha, beta, 1000), N, B, eta, gamma, 8, bins=10)
    assert np.all(np.isfinite(theory.loss))
    assert (theory.status == "ok") == (theory.step.size == 9)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: deep_flow(PowerLaw(1.5, 0.5, 9).measure(), -1.0, [1.0]), "gamma"),
        (lambda: deep_flow(PowerLaw(1.5, 0.5, 9).measure(), 1.0, [math.nan]), "times"),
        (lambda: deep_flow(PowerLaw(1.5, 0.5, 9).measure(), 1.0, [1.0], rtol=1.0), "rtol"),
        (lambda: deep_flow(PowerLaw(1.5, 0.5, 9).measure(), 1.0, [1.0], depth=1), "depth"),
        (lambda: chi_deep(0.0, 2, True), "beta"),
        (lambda: chi_deep(0.5, 1, True), "depth"),
        (lambda: chi_narrow(1.0, 0.5), "alpha"),
        (lambda: two_layer_dmft(PowerLaw(1.5, 0.5, 9), 0, 1, 0.1, 1.0, 3), "width"),
        (lambda: two_layer_dmft(PowerLaw(1.5, 0.5, 9), 2, 1.5, 0.1, 1.0, 3), "batch"),
        (lambda: two_layer_dmft(PowerLaw(1.5, 0.5, 9), 2, 1, 0.0, 1.0, 3), "eta"),
        (lambda: two_layer_dmft(PowerLaw(1.5, 0.5, 9), 2, 1, 0.1, math.nan, 3), "gamma"),
        (lambda: two_layer_dmft(PowerLaw(1.5, 0.5, 9), 2, 1, 0.1, 1.0, 3, sigma=-1.0), "sigma"),
        (lambda: two_layer_dmft(PowerLaw(1.5, 0.5, 9), 2, 1, 0.1, 1.0, -3), "steps"),
        (lambda: two_layer_dmft(PowerLaw(1.5, 0.5, 9), 2, 1, 0.1, 1.0, 10**6), "steps"),
    ],
)
def test_bad_input(call, field):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.field == field
