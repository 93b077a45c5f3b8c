"""A fixed data set, exactly: against descent on all weights, its limits, early stopping, and hard inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import IDENTITY

from featscale.errors import BadInput
from featscale.spectra import PowerLaw, SpectralMeasure
from featscale.theory.finite_data import DataFlow, data_flow, draw_data, early_stop, fixed_data
from featscale.theory.flow import gradient_flow

TASK = PowerLaw(1.5, 0.5, 60)


def drawn(N, P, sigma=0.3, seed=1):
    """Features A(0), inputs and labels of one experiment with all M modes."""
    rng = np.random.default_rng(seed)
    lambdas, w_star = TASK.lambdas(), TASK.w_star()
    A0 = rng.standard_normal((N, TASK.M))
    psi = rng.standard_normal((P, TASK.M)) * np.sqrt(lambdas)
    return A0, psi, psi @ w_star + sigma * rng.standard_normal(P)


def descent_on_all_weights(A0, psi, y, gamma, eta, T):
    """Train loss, test loss and K at t = 0, 1, … T by full-batch steps of w and A: theory section 2, nothing collapsed."""
    N, P, lambdas, w_star = len(A0), len(y), TASK.lambdas(), TASK.w_star()
    w, A, projection, rows = np.zeros(N), A0.copy(), A0.T @ A0 / N, []
    for step in range(round(T / eta) + 1):
        residual = y - psi @ (A.T @ w) / N
        if step % round(1 / eta) == 0:
            v = w_star - A.T @ w / N
            rows.append((np.mean(residual**2), lambdas @ v**2, 1 + gamma * w @ w / N))
        g = psi.T @ residual / P
        w, A = w + eta * A @ g, A + eta * gamma * np.outer(w, projection @ g)
    return np.array(rows).T


def decomposed(A0, psi, y):
    """The same experiment in the eigenbasis of A(0)ΛA(0)ᵀ/N, as fixed_data asks for it."""
    N, lambdas, w_star = len(A0), TASK.lambdas(), TASK.w_star()
    x, V = np.linalg.eigh((A0 * lambdas) @ A0.T / N)
    x, V = x[x > 1e-12], V[:, x > 1e-12]
    h0 = V.T @ (A0 @ (lambdas * w_star)) / np.sqrt(N * x)
    features = SpectralMeasure(x, h0**2, max(0.0, TASK.measure().power - h0 @ h0))
    return fixed_data(features, (psi @ A0.T) @ V / np.sqrt(N * x) * np.sign(h0), y)


@pytest.mark.parametrize(("N", "P"), [(10, 25), (25, 10), (12, 12), (80, 20)])
def test_equal_to_small_step_descent_on_all_weights(N, P):
    """First order in η, so that Richardson's extrapolation of two step sizes leaves O(η²)."""
    gamma, T, experiment = 2.0, 4, drawn(N, P)
    coarse, fine = (descent_on_all_weights(*experiment, gamma, eta, T) for eta in (1 / 200, 1 / 400))
    flow = data_flow(decomposed(*experiment), gamma, np.arange(T + 1))
    assert flow.status == "ok"
    ours = np.array([flow.train, flow.test, flow.K])
    assert np.abs(fine / ours - 1).max() < 0.02
    assert 2 * fine - coarse == pytest.approx(ours, rel=1e-5)
    # Negative twins: lazy dynamics, and the population's own flow.
    lazy = data_flow(decomposed(*experiment), 0.0, np.arange(T + 1))
    assert np.abs(lazy.test / ours[1] - 1).max() > 0.05
    population = gradient_flow(TASK.measure(), gamma, np.arange(T + 1))
    assert np.abs(population.loss / ours[1] - 1).max() > 0.05


def test_the_draw_has_the_law_of_explicit_inputs():
    """Means over 400 data sets of one width-12 network: samples of φ in N dimensions against inputs ψ in all M."""
    A0, _, _ = drawn(12, 1)
    t = np.array([1.0, 5.0, 50.0])
    rng = np.random.default_rng(3)
    ours, explicit = [], []
    lambdas, w_star = TASK.lambdas(), TASK.w_star()
    x, V = np.linalg.eigh((A0 * lambdas) @ A0.T / 12)
    h0 = V.T @ (A0 @ (lambdas * w_star)) / np.sqrt(12 * x)
    features = SpectralMeasure(x, h0**2, TASK.measure().power - h0 @ h0)
    for seed in range(400):
        psi = rng.standard_normal((20, TASK.M)) * np.sqrt(lambdas)
        explicit.append(data_flow(decomposed(A0, psi, psi @ w_star + 0.3 * rng.standard_normal(20)), 0.0, t).test)
        ours.append(data_flow(draw_data(features, 20, 0.3, seed), 0.0, t).test)
    a, b = np.log(explicit), np.log(ours)
    error = np.hypot(a.std(axis=0), b.std(axis=0)) / np.sqrt(400)
    assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4 * error)


@pytest.mark.parametrize(("N", "P"), [(10, 25), (25, 10)])
def test_the_flow_ends_at_the_interpolator_of_least_norm_for_every_gamma(N, P):
    A0, psi, y = drawn(N, P)
    data = decomposed(A0, psi, y)
    m, *_ = np.linalg.lstsq(psi @ A0.T / N, y, rcond=None)
    v = TASK.w_star() - A0.T @ m / N
    least_norm = TASK.lambdas() @ v**2
    assert data.last == pytest.approx(least_norm, rel=1e-9)
    for gamma in (0.0, 1.0, 100.0):
        assert data_flow(data, gamma, 1e12).test[0] == pytest.approx(least_norm, rel=1e-6)
    assert data_flow(data, 1.0, 10.0).test[0] != pytest.approx(least_norm, rel=0.01)


def test_more_features_than_samples_fit_the_noise_and_fewer_do_not():
    over, under = (decomposed(*drawn(N, P)) for N, P in ((25, 10), (10, 25)))
    assert over.measure.atom < 1e-12
    assert data_flow(over, 1.0, 1e10).train[0] < 1e-6
    assert under.measure.atom > 0.01
    assert data_flow(under, 1.0, 1e10).train[0] == pytest.approx(under.measure.atom, rel=1e-6)


def test_many_samples_are_the_population():
    """The distance of the training loss from the population's falls as P^−1/2, within a factor 2; the test loss follows."""
    t, features, gaps = np.array([0.5, 3.0, 20.0]), PowerLaw(1.5, 0.5, 20).measure(), []
    for P in (500, 50_000):
        exact = gradient_flow(features, 0.0, t).loss
        flows = [data_flow(draw_data(features, P, seed=seed), 0.0, t) for seed in range(8)]
        gaps.append(np.mean([np.abs(flow.train / exact - 1) for flow in flows]))
    assert 5 < gaps[0] / gaps[1] < 20
    rich, exact = data_flow(draw_data(features, 50_000), 1.0, t), gradient_flow(features, 1.0, t).loss
    assert rich.train == pytest.approx(exact, rel=0.05)
    assert rich.test == pytest.approx(exact, rel=0.05)


def test_times_in_any_order_and_twice():
    data = draw_data(TASK.measure(), 15, 0.2, seed=4)
    t = np.array([3.0, 0.0, 100.0, 3.0, 0.0, 0.1])
    flow, order = data_flow(data, 1.0, t), np.argsort(t, kind="stable")
    sorted_flow = data_flow(data, 1.0, t[order])
    for name in ("train", "test", "K"):
        assert getattr(flow, name)[order] == pytest.approx(getattr(sorted_flow, name), rel=IDENTITY)
    assert flow.test[1] == pytest.approx(TASK.measure().power, rel=IDENTITY)
    assert flow.train[1] == pytest.approx(data.measure.power, rel=IDENTITY)


def curve(t, test):
    return DataFlow(np.asarray(t), np.zeros(len(t)), np.asarray(test), np.ones(len(t)), "ok")


def test_early_stopping_of_a_known_curve():
    t = np.geomspace(0.1, 1e3, 97)
    stop = early_stop(curve(t, 0.2 + np.log(t / 7.3) ** 2))
    assert stop.status == "ok"
    assert stop.t == pytest.approx(7.3, rel=1e-9)
    assert stop.loss == pytest.approx(0.2, rel=1e-9)


@pytest.mark.parametrize(("test", "side"), [([3.0, 2.0, 1.0], "last"), ([1.0, 2.0, 3.0], "first"), ([1.0], "last")])
def test_early_stopping_says_when_the_least_loss_is_at_an_end(test, side):
    stop = early_stop(curve([1.0, 2.0, 4.0][: len(test)], test))
    assert side in stop.status
    assert stop.loss == 1.0


def test_noise_makes_early_stopping_pay():
    t, features = np.geomspace(0.1, 1e6, 100), PowerLaw(1.5, 0.5, 1000).measure()
    noisy, clean = (draw_data(features, 30, sigma, seed=2) for sigma in (1.0, 0.0))
    for gamma in (0.0, 2.0):
        stop = early_stop(data_flow(noisy, gamma, t, rtol=1e-6))
        assert stop.status == "ok"
        assert stop.loss < 0.7 * noisy.last
    assert early_stop(data_flow(clean, 0.0, t)).loss > 0.95 * clean.last
    lazy, rich = (early_stop(data_flow(noisy, gamma, t, rtol=1e-6)) for gamma in (0.0, 2.0))
    assert rich.t < lazy.t


@settings(max_examples=25)
@given(
    st.floats(1.01, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1.0, 1e3]),
    st.sampled_from([1, 2, 20]),
    st.sampled_from([1, 2, 20, 30]),
    st.sampled_from([0.0, 1.0]),
)
def test_hard_inputs_give_finite_curves_or_advice(alpha, beta, gamma, M, P, sigma):
    data = draw_data(PowerLaw(alpha, beta, M).measure(), P, sigma)
    t = np.array([0.0, 1e-6, 1.0, 1e6, 1e12])
    flow = data_flow(data, gamma, t, rtol=1e-5)
    finite = np.isfinite(flow.train) & np.isfinite(flow.test) & np.isfinite(flow.K)
    assert flow.status == "ok"
    assert np.all(finite)
    assert np.all(np.diff(flow.train) <= 1e-4 * flow.train[0])
    assert np.all(flow.test >= 0)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: draw_data(TASK.measure(), 0), "samples"),
        (lambda: draw_data(TASK.measure(), 2.5), "samples"),
        (lambda: draw_data(TASK.measure(), 10**7), "samples"),
        (lambda: draw_data(TASK.measure(), 5, sigma=-1.0), "sigma"),
        (lambda: draw_data(TASK.measure(), 5, sigma=np.nan), "sigma"),
        (lambda: fixed_data(TASK.measure(), np.ones((3, 4)), np.ones(3)), "Z"),
        (lambda: data_flow(draw_data(TASK.measure(), 5), -1.0, [1.0]), "gamma"),
        (lambda: data_flow(draw_data(TASK.measure(), 5), 1.0, [np.nan]), "times"),
        (lambda: data_flow(draw_data(TASK.measure(), 5), 1.0, [1.0], rtol=1.0), "rtol"),
        (lambda: early_stop(curve([1.0], [np.nan])), "times"),
    ],
)
def test_bad_input(call, field):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.field == field
