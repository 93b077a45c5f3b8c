"""Mean-field theory in discrete time: two solutions, exact limits, independent theories, simulations, and hard inputs."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import IDENTITY, SIGMAS

from featscale.errors import BadInput
from featscale.simulate.curves import simulate
from featscale.simulate.problem import Problem
from featscale.spectra import PowerLaw
from featscale.theory.data_equivalent import data_equivalent
from featscale.theory.dmft import dmft
from featscale.theory.finite_width import finite_width_measure
from featscale.theory.flow import gradient_flow

HARD, EASY, SUPER = PowerLaw(1.5, 0.5, 400), PowerLaw(1.5, 1.2, 400), PowerLaw(1.5, 1.8, 400)
INF = math.inf


@pytest.mark.parametrize(
    "setting",
    [
        {"N": 16, "B": 8},
        {"N": INF, "B": 8},
        {"N": 16, "B": INF},
        {"N": 16, "B": 8, "gamma": 0.0},
        {"N": 16, "B": 8, "P": 24, "sigma": 0.4},
        {"N": 5, "B": INF, "P": 24},
        {"N": 3, "B": 1, "P": 2, "sigma": 1.0, "eta": 0.03},
    ],
)
def test_marched_equals_the_fixed_point(setting):
    setting = {"eta": 0.2, "gamma": 1.0, "T": 40, "bins": 10} | setting
    marched, fixed = (dmft(HARD, method=method, **setting) for method in ("marched", "iterated"))
    assert marched.status == fixed.status == "ok"
    assert marched.residual < 1e-12
    assert marched.loss == pytest.approx(fixed.loss, rel=1e-10)
    assert marched.train_loss == pytest.approx(fixed.train_loss, rel=1e-10)
    assert pytest.approx(fixed.K, rel=1e-10) == marched.K


def test_no_argument_is_ignored():
    base = {"N": 16, "B": 8, "eta": 0.2, "gamma": 1.0, "T": 20, "bins": 10, "P": 24, "sigma": 0.4}
    loss = dmft(HARD, **base).loss
    for other in ({"N": 17}, {"B": 9}, {"eta": 0.21}, {"gamma": 1.1}, {"P": 25}, {"sigma": 0.5}):
        assert abs(dmft(HARD, **(base | other)).loss / loss - 1).max() > 1e-3


@pytest.mark.parametrize(("B", "sigma"), [(1, 0.0), (8, 0.5), (INF, 0.0)])
def test_lazy_at_infinite_width_is_the_second_moment_recursion(B, sigma):
    lam, eta = HARD.lambdas(), 0.1
    c, losses = HARD.w_star() ** 2, []
    for _ in range(101):
        losses.append(lam @ c)
        c = (1 - eta * lam) ** 2 * c + eta**2 / B * (lam**2 * c + lam * (lam @ c + sigma**2))
    assert dmft(HARD, INF, B, eta, 0.0, 100, sigma=sigma, bins=None).loss == pytest.approx(losses, rel=10 * IDENTITY)


def test_small_steps_are_gradient_flow_and_the_error_is_first_order():
    t = np.array([1.0, 3.0, 6.0])
    flow = gradient_flow(HARD.measure(40), 1.0, t)
    coarse, fine = (
        dmft(HARD, INF, INF, eta, 1.0, round(6 / eta), bins=40).loss[np.round(t / eta).astype(int)]
        for eta in (0.04, 0.02)
    )
    assert np.all(np.abs(fine / flow.loss - 1) > 1e-4)
    assert (coarse - flow.loss) / (fine - flow.loss) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("N", [8, 64, 400])
def test_lazy_without_noise_is_the_deterministic_spectrum_of_the_width(N):
    """Two derivations of finite width: the reaction R here, Marchenko–Pastur there."""
    measure, step = finite_width_measure(HARD, N), np.arange(101)
    expected = measure.atom + (1 - 0.3 * measure.x) ** (2 * step[:, None]) @ measure.rho
    assert dmft(HARD, N, INF, 0.3, 0.0, 100, bins=None).loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("gamma", "N"), [(0.0, 24), (1.0, None), (1.0, 24)])
def test_all_of_the_data_and_small_steps_are_the_flow_on_a_data_set(gamma, N):
    """Two derivations of finite data, extrapolated to η = 0."""
    t = np.array([1.0, 4.0])
    flow = data_equivalent(HARD, 32, gamma, t, N=N, sigma=0.5)
    coarse, fine = (
        dmft(HARD, N or INF, INF, eta, gamma, round(4 / eta), sigma=0.5, P=32, bins=60) for eta in (0.05, 0.025)
    )
    rows = [np.round(t / eta).astype(int) for eta in (0.05, 0.025)]
    for ours, theirs in (("loss", flow.test), ("train_loss", flow.train)):
        ends = [getattr(run, ours)[row] for run, row in zip((coarse, fine), rows, strict=True)]
        assert 2 * ends[1] - ends[0] == pytest.approx(theirs, rel=2e-4)


@functools.lru_cache
def simulated(task, N, B, T, seeds, gamma=1.0, eta=0.2):
    """Steps, mean loss and its standard error."""
    curves = simulate(Problem(task, N, eta, gamma, B=B), T, range(seeds), per_decade=6)
    return curves.step, *curves.mean_and_error()


def allowance(task, B, T):
    """The relative bias times N, measured at N = 8, where it is largest, four standard errors included."""
    step, mean, error = simulated(task, 8, B, T, 1024)
    theory = dmft(task, 8, B, 0.2, 1.0, T, bins=100).loss[step]
    return 8 * ((np.abs(mean - theory) + SIGMAS * error) / theory).max()


def agrees(task, N, B, T, seeds, but=None):
    """Whether theory, or one that is told something else, is within four standard errors and the bias of the mean over `seeds`."""
    step, mean, error = simulated(task, N, B, T, seeds)
    theory = dmft(task, **({"N": N, "B": B, "eta": 0.2, "gamma": 1.0, "T": T, "bins": 100} | (but or {}))).loss[step]
    return bool(np.all(np.abs(mean - theory) <= SIGMAS * error + theory * allowance(task, B, T) / N))


@pytest.mark.parametrize("task", [HARD, SUPER])
def test_simulations(task):
    assert agrees(task, 32, 8, 60, 64)


@pytest.mark.slow
@pytest.mark.parametrize("task", [HARD, EASY, SUPER])
@pytest.mark.parametrize("N", [32, 128])
@pytest.mark.parametrize("B", [8, 32, INF])
def test_more_simulations(task, N, B):
    assert agrees(task, N, B, 200, 96)


@pytest.mark.parametrize("other", [{"N": INF}, {"gamma": 0.0}, {"B": INF}])
def test_theories_that_leave_something_out_are_rejected(other):
    assert agrees(HARD, 32, 4, 60, 192)
    assert not agrees(HARD, 32, 4, 60, 192, but=other)


@pytest.mark.slow
def test_the_bias_is_of_order_one_over_N():
    """N times the relative bias of a lazy run at B = inf is the same at N = 8 and 32 within errors, and not zero at 8."""
    biases = []
    for N, seeds in ((8, 4096), (32, 4096)):
        step, mean, error = simulated(HARD, N, INF, 30, seeds, gamma=0.0)
        theory = dmft(HARD, N, INF, 0.2, 0.0, 30, bins=100).loss[step]
        biases.append((N * (mean / theory - 1)[-1], N * (error / theory)[-1]))
    (at_8, error_8), (at_32, error_32) = biases
    assert at_8 > SIGMAS * error_8
    assert abs(at_8 - at_32) < SIGMAS * math.hypot(error_8, error_32) + 0.25 * at_8


@pytest.mark.slow
def test_what_is_left_at_large_width_is_of_order_one_over_B_and_rich_only():
    """The kernel's growth fluctuates with the batch; theory takes its mean. Relative error of K about 0.1/B, of a lazy loss none."""
    excess = {}
    for B in (4, 16):
        K = simulate(Problem(HARD, 128, 0.2, 1.0, B=B), 60, range(512), per_decade=2).K[-1]
        theory = dmft(HARD, 128, B, 0.2, 1.0, 60, bins=100).K[-1]
        excess[B] = B * (K.mean() / theory - 1), B * K.std() / theory / math.sqrt(512)
    (at_4, error_4), (at_16, error_16) = excess[4], excess[16]
    assert at_4 > SIGMAS * error_4
    assert abs(at_4 - at_16) < SIGMAS * math.hypot(error_4, error_16)
    step, mean, error = simulated(HARD, 128, 4, 60, 512, gamma=0.0)
    theory = dmft(HARD, 128, 4, 0.2, 0.0, 60, bins=None).loss[step]
    assert np.all(np.abs(mean - theory)[1:] < SIGMAS * error[1:] + theory[1:] / 128)


def descent_on_data(task, N, P, B, eta, gamma, sigma, T, seeds):
    """Population and training loss of SGD on P samples, batches without replacement, shape (T + 1, seeds) each."""
    lam, w_star = task.lambdas(), task.w_star()
    loss, train = np.empty((2, T + 1, seeds))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        A, psi = rng.standard_normal((N, task.M)), rng.standard_normal((P, task.M)) * np.sqrt(lam)
        y, phi = psi @ w_star + sigma * rng.standard_normal(P), psi @ A.T / N
        b, G, c = A @ (lam * w_star) / N, (A * lam) @ A.T / N**2, lam @ w_star**2
        w, U = np.zeros(N), np.eye(N)
        for t in range(T + 1):
            m = U.T @ w
            delta = y - phi @ m
            loss[t, seed], train[t, seed] = c - 2 * m @ b + m @ G @ m, (delta**2).mean()
            batch = rng.permutation(P)[:B]
            u = N * phi[batch].T @ delta[batch] / B
            w, U = w + eta * U @ u, U + eta * gamma / N * np.outer(w, u)
    return loss, train


@pytest.mark.parametrize(("B", "sigma"), [(64, 0.0), (16, 0.5)])
def test_samples_used_again(B, sigma):
    """Against SGD on fixed data; fresh samples are another curve. O(1/N + 1/P) is measured at half the sizes."""
    task, arguments = PowerLaw(1.5, 0.5, 100), {"eta": 0.2, "gamma": 1.0, "sigma": sigma, "T": 60}
    deviation = {}
    for N, P, batch in ((16, 32, B // 2), (32, 64, B)):
        simulations = descent_on_data(task, N, P, batch, seeds=100, **arguments)
        theory = dmft(task, N, batch, P=P, bins=None, **arguments)
        fresh = dmft(task, N, INF if batch == P else batch, bins=None, **arguments)
        for name, curves in zip(("loss", "train_loss"), simulations, strict=True):
            mean, error = curves.mean(1), curves.std(1, ddof=1) / math.sqrt(100)
            deviation[name, N] = np.abs(mean - getattr(theory, name)) / getattr(theory, name), error / mean
            if N == 32:
                assert np.abs(mean - getattr(fresh, name))[-1] > SIGMAS * error[-1]
    for name in ("loss", "train_loss"):
        bias, error = deviation[name, 16]
        allowed = (bias + SIGMAS * error).max() / 2
        bias, error = deviation[name, 32]
        assert np.all(bias <= SIGMAS * error + allowed)


def test_sixty_bins_are_enough_and_six_are_not():
    task = PowerLaw(1.5, 0.5, 3000)
    exact = dmft(task, 32, 8, 0.2, 1.0, 40, bins=None).loss
    error = [abs(dmft(task, 32, 8, 0.2, 1.0, 40, bins=bins).loss / exact - 1).max() for bins in (60, 6)]
    assert error[0] < 2e-5
    assert error[1] > 1e-3


@pytest.mark.parametrize("arguments", [{"eta": 2.5}, {"eta": 1.2, "B": 1}, {"eta": 0.45, "gamma": 30.0}])
def test_an_unstable_run_says_so_and_when(arguments):
    run = dmft(HARD, **({"N": 32, "B": 8, "eta": 0.2, "gamma": 0.0, "T": 300, "bins": 30} | arguments))
    assert run.status == f"unstable: the loss runs away at step {run.step.size}; lower eta"
    assert 0 < run.step.size < 300
    assert np.all(np.isfinite(run.loss))


def test_a_run_of_no_steps_is_the_first_loss():
    run = dmft(HARD, 8, 4, 0.2, 1.0, 0, bins=None)
    assert run.step.tolist() == [0]
    assert run.loss[0] == pytest.approx(HARD.measure().power, rel=IDENTITY)
    assert run.K.tolist() == [1.0]


@settings(max_examples=80)
@given(
    st.floats(1.01, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1e-9, 1.0, 1e3]),
    st.sampled_from([1, 2, 300, 10**9]),
    st.sampled_from([1, 4, 10**6, INF]),
    st.sampled_from([1, 8, INF]),
    st.sampled_from([8, 100, INF]),
    st.floats(1e-6, 10.0),
    st.sampled_from([0.0, 10.0]),
    st.sampled_from([0, 1, 40]),
    st.sampled_from(["marched", "iterated"]),
)
def test_hard_inputs_give_numbers_or_advice(alpha, beta, gamma, M, N, B, P, eta, sigma, T, method):
    if method == "iterated":
        T = min(T, 8)
    run = dmft(PowerLaw(alpha, beta, M), N, B, eta, gamma, T, sigma=sigma, P=P, bins=8, method=method)
    for values in (run.loss, run.train_loss, run.K):
        assert values.shape == run.step.shape
        assert np.all(np.isfinite(values))
        assert np.all(values >= 0)
    assert not math.isnan(run.residual)
    if run.status == "ok":
        assert run.step[-1] == T
        assert run.residual < 1e-8
    else:
        assert "lower eta" in run.status or "method marched" in run.status


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"N": 0}, "width"),
        ({"N": 1.5}, "width"),
        ({"N": math.nan}, "width"),
        ({"B": 0}, "batch"),
        ({"B": 16, "P": 8}, "batch"),
        ({"P": 0.5}, "data"),
        ({"eta": 0.0}, "eta"),
        ({"eta": math.nan}, "eta"),
        ({"gamma": -1.0}, "gamma"),
        ({"sigma": INF}, "sigma"),
        ({"T": -1}, "steps"),
        ({"T": 10**6}, "steps"),
        ({"bins": 3}, "bins"),
        ({"method": "guessed"}, "method"),
    ],
)
def test_bad_input(arguments, field):
    with pytest.raises(BadInput) as caught:
        dmft(HARD, **({"N": 8, "B": 4, "eta": 0.1, "gamma": 1.0, "T": 5} | arguments))
    assert caught.value.field == field
