"""SGD for long runs: the exact lazy form, the noisy flow, their limits, exponents, and hard inputs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import SIGMAS

from featscale.errors import BadInput
from featscale.numerics.sample_covariance import Modes
from featscale.simulate.collapsed import Collapsed
from featscale.simulate.curves import simulate
from featscale.simulate.problem import Problem, draw, stability_bound
from featscale.spectra import PowerLaw
from featscale.theory.dmft import dmft
from featscale.theory.flow import gradient_flow
from featscale.theory.modes import binned_modes
from featscale.theory.sgd import lazy_sgd, sgd
from featscale.theory.sgd_flow import noisy_flow

INF = math.inf
HARD, SUPER = PowerLaw(1.5, 0.5, 400), PowerLaw(1.5, 1.8, 400)


@pytest.mark.parametrize(("B", "sigma", "atom"), [(1, 0.0, 0.0), (8, 0.5, 0.0), (8, 0.0, 0.3), (INF, 0.5, 0.3)])
def test_lazy_equals_the_recursion(B, sigma, atom):
    modes, eta, step = binned_modes(PowerLaw(1.5, 0.5, 10**6), 40), 0.1, np.array([0, 1, 10, 100, 1000, 5000])
    c, x, losses = modes.rho, modes.lam, []
    for t in range(step[-1] + 1):
        loss = atom + c.sum()
        if t in step:
            losses.append(loss)
        c = (1 - eta * x) ** 2 * c + eta**2 / B * x**2 * (c + modes.count * (loss + sigma**2))
    run = lazy_sgd(modes, atom, B, eta, step, sigma)
    assert run.status == "ok"
    assert run.loss == pytest.approx(losses, rel=1e-11)


def test_lazy_at_infinite_width_is_the_mean_field_theory():
    run = sgd(HARD, INF, 4, 0.2, 0.0, 200, sigma=0.3, bins=400)
    assert run.loss == pytest.approx(dmft(HARD, INF, 4, 0.2, 0.0, 200, sigma=0.3, bins=None).loss[run.step], rel=1e-11)


def test_lazy_is_exact_for_one_draw_of_the_features():
    """Many batches of one A(0); another draw's theory is rejected."""
    S, step = 512, np.array([1, 5, 20, 80])
    draws = [draw(SUPER, 16, seed) for seed in (0, 1)]
    runs = Collapsed([Problem(SUPER, 16, 0.2, 0.0, B=4)] * S, range(S), draws=[draws[0]] * S)
    losses = []
    for start, stop in zip([0, *step[:-1]], step, strict=True):
        runs.advance(int(start), int(stop))
        losses.append(runs.loss().numpy())
    mean, error = np.mean(losses, axis=1), np.std(losses, axis=1, ddof=1) / math.sqrt(S)
    right, wrong = (
        lazy_sgd(Modes(d.x.numpy(), np.ones(16), d.h0.numpy() ** 2), d.atom, 4, 0.2, step).loss for d in draws
    )
    assert np.all(np.abs(mean - right) < SIGMAS * error)
    assert np.any(np.abs(mean - wrong) > SIGMAS * error)


@pytest.mark.parametrize(("task", "gamma"), [(HARD, 0.0), (SUPER, 0.0), (HARD, 1.0)])
def test_at_finite_width_it_is_the_mean_field_theory(task, gamma):
    run = sgd(task, 32, 16, 0.02, gamma, 400)
    theory = dmft(task, 32, 16, 0.02, gamma, 400).loss[run.step]
    assert run.loss == pytest.approx(theory, rel=3e-3 if gamma else 3e-4)
    assert abs(sgd(task, INF, 16, 0.02, gamma, 400).loss / theory - 1).max() > 0.02


@pytest.mark.parametrize("task", [HARD, SUPER])
def test_rich_error_is_first_order_in_the_learning_rate(task):
    """Against the discrete theory at one η/B and one flow time."""
    errors = []
    for eta in (0.08, 0.04):
        T = round(8 / eta)
        run, discrete = sgd(task, INF, 200 * eta, eta, 1.0, T), dmft(task, INF, 200 * eta, eta, 1.0, T)
        errors.append(run.loss[-1] / discrete.loss[-1] - 1)
    assert abs(errors[1]) < 0.03
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.5)


def test_what_batches_add_to_a_rich_run_is_that_of_the_discrete_theory():
    """Loss and, what noise holds back, K; flow without noise has neither."""
    T, eta = 400, 0.05
    run, clean = (sgd(HARD, INF, B, eta, 1.0, T, bins=60) for B in (20, INF))
    noisy, exact = (dmft(HARD, INF, B, eta, 1.0, T) for B in (20, INF))
    late = run.step >= 100
    rows = run.step[late]
    assert (run.loss - clean.loss)[late] == pytest.approx((noisy.loss - exact.loss)[rows], rel=0.08)
    assert (run.K - clean.K)[-1] == pytest.approx((noisy.K - exact.K)[-1], rel=0.15)
    assert (run.K - clean.K)[-1] < -0.01


def test_without_noise_the_noisy_flow_is_gradient_flow():
    modes = binned_modes(PowerLaw(1.5, 0.5, 10**6), 60)
    error = {}
    for B in (INF, 10):
        noisy = noisy_flow(modes, 0.0, 2.0, 0.01, B, 0.0, 1e4)
        assert noisy.status == "ok"
        flow = gradient_flow(PowerLaw(1.5, 0.5, 10**6).measure(60), 2.0, noisy.t)
        error[B] = max(np.abs(noisy.loss / flow.loss - 1).max(), np.abs(noisy.K / flow.K - 1).max())
    assert error[INF] < 1e-3
    assert error[10] > 1e-2


@pytest.mark.slow
def test_rich_follows_simulations_and_noiseless_theory_does_not():
    """Four standard errors, and 5 % for what is neglected in η and 1/N; without batch noise it must fail."""
    task, N, B, eta, T = PowerLaw(1.5, 1.5, 300), 128, 2, 0.1, 1000
    mean, error = simulate(Problem(task, N, eta, 1.0, B), T, range(64)).mean_and_error()
    noisy, flow = (sgd(task, N, batch, eta, 1.0, T).loss for batch in (B, INF))
    assert np.all(np.abs(mean - noisy)[1:] <= (SIGMAS * error + 0.05 * noisy)[1:])
    assert np.any(np.abs(mean - flow)[1:] > (SIGMAS * error + 0.05 * flow)[1:])


def slope(run, values, start, stop):
    """Minus the slope of ln values in ln step between two steps."""
    i, j = np.searchsorted(run.step, (start, stop))
    return -np.log(values[j] / values[i]) / np.log(run.step[j] / run.step[i])


@pytest.mark.parametrize(("alpha", "beta"), [(1.5, 2.5), (2.0, 2.5), (1.25, 1.9)])
def test_lazy_super_easy_ends_in_the_noise_transient(alpha, beta):
    run = sgd(PowerLaw(alpha, beta, 10**9), INF, 8, 0.2, 0.0, 10**6)
    measured = slope(run, run.loss, 3 * 10**5, 10**6)
    assert measured == pytest.approx(2 - 1 / alpha, abs=0.05)
    assert abs(measured - beta) > 0.3


def test_lazy_hard_the_noise_multiplies_the_loss():
    """ε L Σλ/2: the exponent is β, not 2 − 1/α."""
    task, B, eta = PowerLaw(1.5, 0.5, 10**9), 100, 1e-2
    run, clean = (sgd(task, INF, size, eta, 0.0, 10**7) for size in (B, INF))
    trace = task.lambdas(0, 10**6).sum() + 2 / 1e3
    assert ((run.loss - clean.loss) / clean.loss)[-1] == pytest.approx(eta / B * trace / 2, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.3, 0.5, 0.75])
def test_rich_hard_the_excess_decays_as_the_kernel_times_the_loss(beta):
    """ε K L Σλ: exponent (3β − 1)/(1 + β), so it may even grow; not (2 − 1/α) m."""
    task = PowerLaw(1.5, beta, 10**12)
    run, clean = (sgd(task, INF, B, 1e-4, 1.0, 10**9, per_decade=8) for B in (1000, INF))
    measured = slope(run, run.loss - clean.loss, 10**8, 10**9)
    assert measured == pytest.approx((3 * beta - 1) / (1 + beta), abs=0.02)
    assert abs(measured - (2 - 1 / 1.5) * 2 / (1 + beta)) > 0.5


def test_steps_without_end_cost_nothing():
    run = sgd(HARD, 32, 8, 0.1, 0.0, 10**12)
    assert run.step[-1] == 10**12
    assert run.loss[-1] == pytest.approx(run.loss[-2], rel=1e-6)
    assert sgd(PowerLaw(1.5, 0.5, 10**9), INF, 8, 0.01, 1.0, 10**6, bins=60).step[-1] == 10**6


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_lazy_is_unstable_past_the_bound(factor):
    run = sgd(HARD, INF, 4, factor * stability_bound(HARD, 4), 0.0, 10**5, bins=400)
    assert (run.status == "ok") == (factor < 1)
    if factor > 1:
        assert "lower eta" in run.status
        assert run.loss[-1] > run.loss[0]


def test_a_rich_run_stops_where_its_kernel_makes_it_unstable():
    """K grows on a hard task until η K x passes 2; the discrete theory fails about there too."""
    run = sgd(HARD, INF, INF, 0.6, 10.0, 1000)
    assert "stopped at step" in run.status
    assert "eta K x passes 2" in run.status
    assert np.all(0.6 * run.K < 2)
    assert sgd(HARD, INF, INF, 0.06, 10.0, 1000).status == "ok"


@settings(max_examples=20)
@given(
    st.floats(1.01, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1e-9, 1.0, 1e3]),
    st.sampled_from([1, 2, 300, 10**9]),
    st.sampled_from([1, 4, 300, INF]),
    st.sampled_from([1, 8, INF]),
    st.floats(1e-6, 10.0),
    st.sampled_from([0.0, 10.0]),
    st.sampled_from([0, 1, 10**4, 10**12]),
)
def test_hard_inputs_give_numbers_or_advice(alpha, beta, gamma, M, N, B, eta, sigma, T):
    run = sgd(PowerLaw(alpha, beta, M), N, B, eta, gamma, T, sigma=sigma, bins=12, per_decade=4)
    for values in (run.loss, run.K):
        assert values.shape == run.step.shape
        assert np.all(np.isfinite(values))
        assert np.all(values >= 0)
    assert not math.isnan(run.residual)
    if run.status == "ok":
        assert run.step[-1] == T
    else:
        assert "lower eta" in run.status


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"N": 0}, "width"),
        ({"N": math.nan}, "width"),
        ({"B": 0.5}, "batch"),
        ({"eta": -1.0}, "eta"),
        ({"gamma": math.nan}, "gamma"),
        ({"T": -1}, "steps"),
        ({"T": 10**13}, "steps"),
        ({"sigma": -0.1}, "sigma"),
        ({"bins": 2}, "bins"),
    ],
)
def test_bad_input(arguments, field):
    with pytest.raises(BadInput) as caught:
        sgd(HARD, **({"N": 8, "B": 4, "eta": 0.1, "gamma": 1.0, "T": 5} | arguments))
    assert caught.value.field == field
