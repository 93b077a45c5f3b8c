"""The deterministic equivalent on a data set: against draws, its bias in 1/P, the exponents in P, limits, hard inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import SIGMAS

from featscale.errors import BadInput
from featscale.simulate.problem import draw
from featscale.spectra import PowerLaw
from featscale.theory.data_equivalent import data_equivalent, last_loss
from featscale.theory.finite_data import data_flow, draw_data, early_stop
from featscale.theory.finite_width import finite_width_measure
from featscale.theory.flow import gradient_flow

T = np.concatenate([[0.0], np.geomspace(0.1, 1e4, 16)])
# α, β, γ, σ, N, P: infinite width, more samples than features, as many, fewer; hard to super-easy.
CASES = [
    (1.5, 0.5, 1.0, 0.2, None, 64),
    (1.5, 0.3, 5.0, 0.0, 24, 96),
    (1.5, 0.5, 1.0, 0.3, 48, 48),
    (1.5, 1.25, 1.0, 0.1, 96, 48),
    (2.0, 2.5, 1.0, 0.1, None, 64),
]


def drawn(case, M, draws, t):
    """Train, test and K of draws of features and data, shape (draws, 3, times)."""
    alpha, beta, gamma, sigma, N, P = case
    task, flows = PowerLaw(alpha, beta, M), []
    for seed in range(draws):
        features = task.measure() if N is None else draw(task, N, seed).measure()
        flows.append(data_flow(draw_data(features, P, sigma, seed), gamma, t, rtol=1e-3))
    return np.array([(flow.train, flow.test, flow.K) for flow in flows])


def compare(case, M, draws, t=T):
    """Means within four standard errors and the O(1/P) that the sweep below measures; the wrong N, P, γ or σ rejected."""
    alpha, beta, gamma, sigma, N, P = case
    task, sample = PowerLaw(alpha, beta, M), drawn(case, M, draws, t)
    mean = sample.mean(axis=0)
    error = SIGMAS * sample.std(axis=0, ddof=1) / np.sqrt(draws) + 2e-4 * mean[:, :1]

    def agrees(P=P, gamma=gamma, N=N, sigma=sigma):
        ours = data_equivalent(task, P, gamma, t, N, sigma)
        assert ours.status == "ok"
        return bool(np.all(np.abs(np.array([ours.train, ours.test, ours.K]) - mean) < error))

    assert agrees()
    assert not agrees(P=P // 2)
    assert not agrees(P=10**6)
    assert not agrees(gamma=0.0 if gamma else 1.0)
    assert not agrees(sigma=sigma + 0.4)
    assert not agrees(N=16)


@pytest.mark.parametrize("case", CASES)
def test_lazy_draws(case):
    """With γ = 0 each draw is in closed form. At N = P single draws blow up late: only the times before that."""
    compare((*case[:2], 0.0, *case[3:]), 400, 64, T[T < 100] if case[4] == case[5] else T)


def test_rich_draws():
    compare((1.5, 0.5, 2.0, 0.2, None, 40), 200, 32, np.geomspace(0.1, 30, 7))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_64_rich_draws(case):
    compare(case, 1000, 64, T[T < 100] if case[4] == case[5] else T)


def batched(task, P, gamma, sigma, t, draws, rng, steps=12):
    """Test loss at t of many data sets at once by Runge–Kutta, shape (draws,), and controls of mean zero, shape (draws, 6)."""
    lambdas, h0 = task.lambdas(), np.sqrt(task.measure().rho)
    Z = rng.standard_normal((draws, P, task.M))
    y = Z @ h0 + sigma * rng.standard_normal((draws, P))
    U, s, Vt = np.linalg.svd(Z * np.sqrt(lambdas / P), full_matrices=False)
    fitted = np.einsum("dpi,dp->di", U, y) / np.sqrt(P)
    x, rho, a, K, h = s**2, fitted**2, np.zeros_like(s), np.ones((draws, 1)), t / steps

    def rate(a, K):
        c = (rho * a * (1 - a)).sum(axis=1, keepdims=True)
        return K * x * (1 - a) + gamma * c / K * a, 2 * gamma * c

    for _ in range(steps):
        a1, K1 = rate(a, K)
        a2, K2 = rate(a + h / 2 * a1, K + h / 2 * K1)
        a3, K3 = rate(a + h / 2 * a2, K + h / 2 * K2)
        a4, K4 = rate(a + h * a3, K + h * K3)
        a, K = a + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4), K + h / 6 * (K1 + 2 * K2 + 2 * K3 + K4)
    loss = ((h0 - np.einsum("di,dij->dj", a * fitted / s, Vt) * np.sqrt(lambdas)) ** 2).sum(axis=1)
    cross, power = np.einsum("dpj,dp->dj", Z, y) / P, h0 @ h0 + sigma**2
    first = ((P + 1) * (lambdas @ h0**2) + lambdas.sum() * power) / P
    controls = [(y**2).mean(axis=1) - power, (rho * x).sum(axis=1) - first, x.sum(axis=1) - lambdas.sum()]
    controls += [(cross - h0) @ (h0 * lambdas**j) for j in range(3)]
    return loss, np.stack(controls, axis=1)


@pytest.mark.parametrize(("task", "gamma", "sigma", "t"), [((1.5, 0.5), 1.0, 0.2, 0.6), ((1.5, 1.5), 0.0, 0.0, 0.3)])
def test_the_bias_is_first_order_in_one_over_P(task, gamma, sigma, t):
    rng, sizes, task = np.random.default_rng(0), np.array([16, 32, 64]), PowerLaw(*task, 100)
    values, errors = np.empty((2, 3))
    for i, P in enumerate(sizes):
        loss, controls = batched(task, P, gamma, sigma, t, 48_000 // P, rng)
        weights, *_ = np.linalg.lstsq(controls - controls.mean(axis=0), loss - loss.mean(), rcond=None)
        loss = loss - controls @ weights
        values[i] = 1 - data_equivalent(task, P, gamma, t, sigma=sigma).test[0] / loss.mean()
        errors[i] = loss.std(ddof=1) / np.sqrt(loss.size) / loss.mean()
    assert np.all(values > SIGMAS * errors), "theory is below the draws, by a measured amount"
    slope = np.polyfit(np.log(sizes), np.log(values), 1)[0]
    assert (errors / values)[[0, -1]].sum() / np.log(4) < 0.06
    assert slope == pytest.approx(-1, abs=0.2)


@pytest.mark.parametrize(("beta", "exponent"), [(0.5, 0.75), (1.25, 1.875), (2.5, 3.0)])
def test_without_noise_the_last_loss_falls_as_P_to_minus_alpha_min_two_beta(beta, exponent):
    """The same at every γ: the flow ends at one interpolator, lazy or rich."""
    task, P = PowerLaw(1.5, beta, 10**12), 10_000
    slope = -np.log(last_loss(task, 2 * P) / last_loss(task, P)) / np.log(2)
    assert slope == pytest.approx(exponent, abs=0.03)
    if beta > 1:
        assert abs(slope - 1.5) > 0.3, "the exponent of the width"
    for gamma in (0.0, 1.0):
        late = data_equivalent(PowerLaw(1.5, beta, 10**6), 100, gamma, 1e12).test[0]
        assert late == pytest.approx(last_loss(PowerLaw(1.5, beta, 10**6), 100), rel=1e-3)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_with_noise_the_best_stopped_loss_has_the_same_exponent_lazy_and_rich(gamma):
    """L ~ P^−αβ/(αβ+1); the slow time of the best stop is P^α/(αβ+1), the flow time its power 1/(2 − χ), χ = 2β/(1+β) when rich."""
    alpha, beta = 1.5, 0.5
    task, stops = PowerLaw(alpha, beta, 10**10), []
    for P in (20_000, 40_000):
        guess = 370 * (P / 400) ** 0.85 if gamma == 0 else 58 * (P / 400) ** 0.635
        stops.append(early_stop(data_equivalent(task, P, gamma, guess * np.geomspace(0.5, 2, 9), sigma=0.5)))
    assert all(stop.status == "ok" for stop in stops)
    slope = -np.log(stops[1].loss / stops[0].loss) / np.log(2)
    assert slope == pytest.approx(alpha * beta / (alpha * beta + 1), abs=0.02)
    time = np.log(stops[1].t / stops[0].t) / np.log(2)
    slow = alpha / (alpha * beta + 1)
    lazy, rich = slow, slow / (2 - 2 * beta / (1 + beta))
    assert time == pytest.approx(rich if gamma else lazy, abs=0.03)
    assert abs(time - (lazy if gamma else rich)) > 0.1


def test_many_samples_are_the_population_at_that_width():
    task, t = PowerLaw(1.5, 0.5, 1000), np.geomspace(0.1, 1e3, 7)
    for N, measure in ((None, task.measure()), (20, finite_width_measure(task, 20))):
        exact, gaps = gradient_flow(measure, 1.0, t).loss, []
        for P in (10**3, 10**5):
            ours = data_equivalent(task, P, 1.0, t, N)
            gaps.append(max(np.abs(ours.test / exact - 1).max(), np.abs(ours.train / exact - 1).max()))
        assert gaps[0] < 3
        assert gaps[1] < 0.03 * gaps[0]


def test_a_wide_network_is_an_infinite_one():
    task, t = PowerLaw(1.5, 0.5, 300), np.geomspace(0.1, 1e3, 7)
    infinite, wide = (data_equivalent(task, 40, 1.0, t, N, 0.2) for N in (None, 10**4))
    assert wide.test == pytest.approx(infinite.test, rel=2e-2)
    assert data_equivalent(task, 40, 1.0, t, 10, 0.2).test != pytest.approx(infinite.test, rel=0.2)


def test_the_last_loss_peaks_where_there_are_as_many_samples_as_features():
    task, N = PowerLaw(1.5, 0.5, 1000), 40
    losses = [last_loss(task, P, N, 0.1) for P in (10, 20, 38, 40, 42, 80, 400)]
    assert losses[3] == np.inf
    assert losses[0] < losses[2] > losses[1]
    assert losses[4] > losses[5] > losses[6]
    # Stopped in time nothing peaks, and long after there is still no NaN.
    flow = data_equivalent(task, N, 1.0, [3.0, 1e12], N, 0.1)
    assert flow.test[0] < 1 < 1e3 < flow.test[1] < np.inf


@settings(max_examples=12)
@given(
    st.floats(1.01, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1.0, 1e3]),
    st.sampled_from([1, 2, 37, 10**9]),
    st.sampled_from([1, 2, 37, 1000]),
    st.sampled_from([None, 1, 37, 500]),
    st.sampled_from([0.0, 1.0]),
)
def test_hard_inputs_give_finite_curves_or_advice(alpha, beta, gamma, M, P, N, sigma):
    flow = data_equivalent(PowerLaw(alpha, beta, M), P, gamma, [0.0, 1e-9, 1.0, 1e5, 1e12], N, sigma)
    assert flow.status == "ok" or "average over draws" in flow.status
    values = np.array([flow.train, flow.test, flow.K])
    assert np.all(np.isfinite(values))
    assert flow.residual < 1e-3
    start = PowerLaw(alpha, beta, M).measure(400).power
    assert np.all(values[1] > -1e-4 * start)
    assert values[:2, 0] == pytest.approx([start + sigma**2, start], rel=1e-4)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"P": 0}, "samples"),
        ({"P": 1.5}, "samples"),
        ({"N": 0}, "width"),
        ({"gamma": -1.0}, "gamma"),
        ({"gamma": np.nan}, "gamma"),
        ({"sigma": np.inf}, "sigma"),
        ({"t": [-1.0]}, "times"),
    ],
)
def test_bad_input(change, field):
    with pytest.raises(BadInput) as caught:
        data_equivalent(**({"task": PowerLaw(1.5, 0.5, 50), "P": 8, "gamma": 1.0, "t": [1.0]} | change))
    assert caught.value.field == field
