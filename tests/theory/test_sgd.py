"""SGD in flow time: the lazy closed form against the recursion it solves, and the rich one against simulations."""

import math

import numpy as np
import pytest
from tolerances import SIGMAS

from featscale.errors import BadInput
from featscale.simulate.curves import simulate
from featscale.simulate.problem import Problem
from featscale.spectra import PowerLaw
from featscale.theory.flow import gradient_flow
from featscale.theory.sgd import sgd


def recursion(task, B, eta, T):
    """Loss after each step from the second moments of the residual: c ← (1 − ηλ)² c + (η²/B)(λ² c + λ Σλc)."""
    lambdas, c = task.lambdas(), task.w_star() ** 2
    losses = [lambdas @ c]
    for _ in range(T):
        c = (1 - eta * lambdas) ** 2 * c + eta**2 / B * (lambdas**2 * c + lambdas * (lambdas @ c))
        losses.append(lambdas @ c)
    return np.array(losses)


@pytest.mark.parametrize("B", [1, 8, 64])
@pytest.mark.parametrize("beta", [0.5, 2.5])
def test_lazy_is_the_exact_second_moment_recursion(B, beta):
    task = PowerLaw(1.5, beta, 60)
    curve = sgd(task, math.inf, B, 0.2, 0.0, 300, bins=200)
    assert curve.status == "ok"
    assert curve.loss == pytest.approx(recursion(task, B, 0.2, 300)[curve.step], rel=1e-6)


def test_lazy_noise_falls_with_the_predicted_exponent_on_a_super_easy_task():
    task = PowerLaw(1.5, 2.5, 10**7)
    curve = sgd(task, math.inf, 8, 0.5, 0.0, 10**6, bins=400)
    late = curve.step >= 10**4
    slope = np.polyfit(np.log(curve.t[late]), np.log(curve.loss[late]), 1)[0]
    assert -slope == pytest.approx(2 - 1 / 1.5, abs=0.05)


def test_rich_at_infinite_batch_is_gradient_flow():
    task = PowerLaw(1.5, 0.5, 1000)
    curve = sgd(task, math.inf, math.inf, 0.1, 1.0, 1000)
    assert curve.loss[1:] == pytest.approx(gradient_flow(task.measure(60), 1.0, curve.t[1:]).loss, rel=1e-3)


def test_rich_follows_simulations_and_noiseless_theory_does_not():
    """Four standard errors, plus 5 % for what the theory neglects in η and 1/N; without batch noise it must fail."""
    task, N, B, eta, T = PowerLaw(1.5, 1.5, 300), 128, 2, 0.1, 1000
    mean, error = simulate(Problem(task, N, eta, 1.0, B), T, range(128)).mean_and_error()
    noisy, flow = (sgd(task, N, batch, eta, 1.0, T).loss for batch in (B, math.inf))
    assert np.all(np.abs(mean - noisy)[1:] <= (SIGMAS * error + 0.05 * noisy)[1:])
    assert np.any(np.abs(mean - flow)[1:] > (SIGMAS * error + 0.05 * flow)[1:])


def test_an_unstable_rate_is_a_status():
    assert "unstable" in sgd(PowerLaw(1.5, 0.5, 100), math.inf, 1, 1.5, 0.0, 100).status


def test_bad_input():
    with pytest.raises(BadInput, match="eta"):
        sgd(PowerLaw(1.5, 0.5, 100), 16, 8, -1.0, 1.0, 10)
