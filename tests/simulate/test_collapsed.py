"""The collapsed simulation against the definition, and both against theory."""

import math

import numpy as np
import pytest
import torch
from tolerances import IDENTITY, SIGMAS

from featscale.errors import BadInput
from featscale.simulate.collapsed import Collapsed
from featscale.simulate.curves import simulate
from featscale.simulate.naive import Naive
from featscale.simulate.problem import Problem
from featscale.spectra import PowerLaw
from featscale.theory.flow import gradient_flow


@pytest.mark.parametrize("N", [16, 200])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 3.0])
def test_equal_to_naive_for_the_population_gradient(N, gamma):
    problem = Problem(PowerLaw(1.5, 0.5, 500), N, 0.3, gamma)
    naive = simulate(problem, 60, [3], method="naive")
    collapsed = simulate(problem, 60, [3])
    assert collapsed.loss == pytest.approx(naive.loss, rel=IDENTITY)
    assert pytest.approx(naive.K, rel=IDENTITY) == collapsed.K


def test_replicas_with_their_own_gamma_equal_single_runs():
    task = PowerLaw(1.5, 0.5, 200)
    problems = [Problem(task, 24, 0.2, gamma, B=8) for gamma in (0.0, 0.5, 2.0)]
    together = Collapsed(problems, [5, 5, 6])
    together.advance(0, 200)
    alone = []
    for problem, seed in zip(problems, [5, 5, 6], strict=True):
        single = Collapsed([problem], [seed])
        single.advance(0, 200)
        alone.append(float(single.loss()[0]))
    assert together.loss().tolist() == pytest.approx(alone, rel=IDENTITY)


@pytest.mark.parametrize("N", [16, 200])
def test_cuts_change_no_bit(N):
    problem = Problem(PowerLaw(1.5, 0.5, 400), N, 0.2, 1.0, B=4)
    whole, cut = Collapsed([problem], [1]), Collapsed([problem], [1])
    whole.advance(0, 200)
    for start, stop in ((0, 1), (1, 130), (130, 137), (137, 200)):
        cut.advance(start, stop)
    assert torch.equal(whole.loss(), cut.loss())
    assert torch.equal(whole.state.Q, cut.state.Q)


def gradient_samples(simulation, count):
    """û at the present state for many steps' noise, shape (count, N)."""
    mu = simulation.state.mu.numpy()
    return torch.cat([torch.as_tensor(simulation._gradient(mu, step)) for step in range(count)])


@pytest.mark.parametrize("B", [1, 5])
def test_the_batch_gradient_has_the_law_of_an_explicit_batch(B):
    """First and second moments of û in one state, against batches of samples (φ, y) drawn one by one."""
    problem = Problem(PowerLaw(1.5, 0.5, 60), 6, 0.1, 1.0, B=B, sigma=0.3)
    simulation = Collapsed([problem], [0])
    simulation.advance(0, 12)
    samples, n = gradient_samples(simulation, 6_000).numpy(), 6_000
    x, h = simulation.draws[0].x.numpy(), (simulation.h0 - simulation.root * simulation.state.mu.numpy())[0]
    rng = np.random.default_rng(0)
    z = rng.standard_normal((n, B, 6))
    phi = np.sqrt(x) * z
    # y − φ·μ: the part that width reaches, h·z, and the part that it does not, with the label noise.
    r = z @ h + math.sqrt(simulation.draws[0].atom + 0.09) * rng.standard_normal((n, B))
    explicit = (phi * r[:, :, None]).mean(axis=1)
    for moment in (lambda u: u, lambda u: (u[:, :, None] * u[:, None, :]).reshape(n, -1), lambda u: u**4):
        a, b = moment(samples), moment(explicit)
        error = np.hypot(a.std(axis=0), b.std(axis=0)) / math.sqrt(n)
        assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4.5 * error)


def test_the_moment_check_notices_a_wrong_batch_size():
    problem = Problem(PowerLaw(1.5, 0.5, 60), 6, 0.1, 1.0, B=5)
    right = gradient_samples(Collapsed([problem], [0]), 6_000).numpy()
    wrong = gradient_samples(Collapsed([Problem(PowerLaw(1.5, 0.5, 60), 6, 0.1, 1.0, B=6)], [0]), 6_000).numpy()
    assert np.abs(right.var(axis=0) / wrong.var(axis=0) - 1).max() > 0.1


def test_equal_in_law_to_naive_at_finite_batch():
    problem = Problem(PowerLaw(1.5, 0.5, 100), 8, 0.1, 1.0, B=4, sigma=0.1)
    naive = simulate(problem, 60, range(150), method="naive", per_decade=4)
    collapsed = simulate(problem, 60, range(1000, 1600), per_decade=4)
    (a, da), (b, db) = naive.mean_and_error(), collapsed.mean_and_error()
    assert np.all(np.abs(a - b)[1:] < SIGMAS * np.hypot(da, db)[1:])


def mean_flow(task, N, gamma, t, seeds):
    """Flow on the measure of each seed's own features: the exact η → 0 limit of those very runs."""
    from featscale.simulate.problem import draw

    return np.array([gradient_flow(draw(task, N, seed).measure(), gamma, t).loss for seed in seeds]).T


def test_simulation_follows_the_rich_flow_and_rejects_the_lazy_one():
    """Mean over seeds within four standard errors plus O(η) of the mean flow over other draws of the features; its lazy twin must fail the same check."""
    task, N, gamma, eta, seeds = PowerLaw(1.5, 0.5, 1000), 48, 2.0, 0.05, range(16)
    curves = simulate(Problem(task, N, eta, gamma), 2000, seeds, per_decade=6)
    rows = curves.step >= 20
    mean, error = (values[rows] for values in curves.mean_and_error())
    other = mean_flow(task, N, gamma, curves.t[rows], range(100, 124))
    spread = other.std(axis=1, ddof=1) / math.sqrt(24)
    own = mean_flow(task, N, gamma, curves.t[rows], seeds).mean(axis=1)
    # O(η), measured: half the step halves the distance to the flow of the same draws.
    half = simulate(Problem(task, N, eta / 2, gamma), 4000, seeds, per_decade=24)
    at_half = np.interp(np.log(curves.t[rows]), np.log(half.t[1:]), half.loss[1:].mean(axis=1))
    assert np.abs(at_half - own).max() < 0.7 * np.abs(mean - own).max()
    discretisation = 2 * np.abs(mean - at_half)
    assert np.all(np.abs(mean - other.mean(axis=1)) < SIGMAS * np.hypot(error, spread) + discretisation)
    lazy = mean_flow(task, N, 0.0, curves.t[rows], range(100, 124))
    lazy_error = np.hypot(error, lazy.std(axis=1, ddof=1) / math.sqrt(24))
    assert np.any(np.abs(mean - lazy.mean(axis=1)) > SIGMAS * lazy_error + discretisation)


@pytest.mark.parametrize("B", [math.inf, 4])
def test_the_torch_form_of_the_steps_equals_the_numpy_form(B):
    """A GPU runs the same lines on tensors; here they run on the CPU, with the same random numbers put in."""
    problems = [Problem(PowerLaw(1.5, 0.5, 100), 10, 0.2, gamma, B=B, sigma=0.2) for gamma in (0.0, 2.0)]
    plain, tensors = Collapsed(problems, [0, 1]), Collapsed(problems, [0, 1])
    for name in ("root", "h0", "atom", "gamma", "eta_gamma", "blind"):
        setattr(tensors, name, torch.from_numpy(getattr(tensors, name)))
    tensors.on_numpy = False
    tensors._random = lambda seed, block: tuple(torch.from_numpy(v) for v in plain._random(seed, block))
    plain.advance(0, 150)
    tensors.advance(0, 150)
    assert tensors.loss().tolist() == pytest.approx(plain.loss().tolist(), rel=IDENTITY)
    assert tensors.K().tolist() == pytest.approx(plain.K().tolist(), rel=IDENTITY)


def test_float32_follows_float64():
    problem = Problem(PowerLaw(1.5, 0.5, 300), 32, 0.2, 1.0, B=16)
    single, double = Collapsed([problem], [0], dtype=torch.float32), Collapsed([problem], [0])
    single.advance(0, 1)
    double.advance(0, 1)
    assert single.loss().dtype == torch.float32
    assert float(single.loss()[0]) == pytest.approx(float(double.loss()[0]), rel=0.2)
    population = Problem(PowerLaw(1.5, 0.5, 300), 32, 0.2, 1.0)
    single, double = Collapsed([population], [0], dtype=torch.float32), Collapsed([population], [0])
    single.advance(0, 300)
    double.advance(0, 300)
    assert float(single.loss()[0]) == pytest.approx(float(double.loss()[0]), rel=1e-4)


def test_naive_state_equals_its_definition_after_one_step():
    problem = Problem(PowerLaw(2.0, 0.5, 5), 2, 0.1, 1.0)
    naive = Naive(problem, 0)
    naive.advance(0, 1)
    assert naive.w == pytest.approx(0.1 * naive.A0 @ (naive.lambdas * naive.w_star), rel=IDENTITY)
    assert torch.equal(naive.A, naive.A0)


def test_replicas_must_differ_in_gamma_and_seed_only():
    task = PowerLaw(1.5, 0.5, 50)
    with pytest.raises(BadInput, match="problems"):
        Collapsed([Problem(task, 4, 0.1, 1.0), Problem(task, 5, 0.1, 1.0)], [0, 1])
    with pytest.raises(BadInput, match="seeds"):
        Collapsed([Problem(task, 4, 0.1, 1.0)], [0, 1])
