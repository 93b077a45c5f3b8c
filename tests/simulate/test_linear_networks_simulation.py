"""Linear networks simulated: the reduction, conservation, theory at finite and infinite width, no bottleneck, and the exponent of narrow ones."""

import math

import numpy as np
import pytest
from tolerances import IDENTITY, SIGMAS

from featscale.errors import BadInput
from featscale.simulate.curves import simulate
from featscale.simulate.linear_networks import (
    LinearNetwork,
    LinearProblem,
    narrow_flow,
    simulate_linear,
    wishart_factor,
)
from featscale.simulate.problem import Problem, draw
from featscale.spectra import PowerLaw
from featscale.theory.linear_networks import chi_deep, chi_narrow, deep_flow, two_layer_dmft

TASK = PowerLaw(1.5, 0.5, 30)


@pytest.mark.parametrize("depth", [2, 3])
def test_as_many_rows_as_modes_are_enough(depth):
    """A(0) of 50 rows against its triangular factor of 30."""
    problem = LinearProblem(TASK, 50, 0.05, 2.0, depth)
    naive, reduced = LinearNetwork(problem, 0, "naive"), LinearNetwork(problem, 0)
    assert reduced.layers[0].shape == (30, 30)
    reduced.layers[0] = np.linalg.qr(naive.layers[0])[1]
    for network in (naive, reduced):
        network.advance(0, 150)
    assert reduced.loss() == pytest.approx(naive.loss(), rel=IDENTITY)
    assert reduced.K() == pytest.approx(naive.K(), rel=IDENTITY)


def test_narrow_networks_are_their_own_reduction():
    problem = LinearProblem(TASK, 8, 0.1, 1.0, depth=3)
    naive, fast = (simulate_linear(problem, 50, [0], method=method).loss for method in ("naive", "collapsed"))
    assert np.array_equal(naive, fast)


def test_the_reduction_needs_orthogonal_hidden_layers():
    problem = LinearProblem(TASK, 50, 0.05, 2.0, depth=3, hidden="gaussian")
    assert LinearNetwork(problem, 0).layers[0].shape == (50, 30)
    assert [layer.shape for layer in LinearNetwork(problem, 0).layers[1:]] == [(50, 50)]


def test_the_triangular_factor_has_the_moments_of_a_wishart_matrix():
    """E[RᵀR] = I, and entries of variance (1 + δ_ij)/N."""
    N, M, n = 12, 4, 2000
    grams = np.array([(R := wishart_factor(seed, N, M)).T @ R for seed in range(n)])
    error = grams.std(axis=0, ddof=1) / math.sqrt(n)
    assert np.all(np.abs(grams.mean(axis=0) - np.eye(M)) < SIGMAS * error)
    assert grams.var(axis=0) == pytest.approx((1 + np.eye(M)) / N, rel=0.2)
    assert np.array_equal(wishart_factor(0, math.inf, M), np.eye(M))


def test_a_step_of_two_layers_is_a_boost_of_their_gram_matrix():
    """𝒮 = ZᵀZ, Z = [Ã, √γ w̃], obeys 𝒮 ← (I + ηG) 𝒮 (I + ηG), G the boost along √γ g."""
    problem, root = LinearProblem(TASK, 7, 0.2, 3.0), math.sqrt(3.0)
    network, S = LinearNetwork(problem, 1), np.zeros((31, 31))
    S[:30, :30] = network.layers[0].T @ network.layers[0]
    for step in range(40):
        boost = np.eye(31)
        boost[:30, 30] = boost[30, :30] = 0.2 * root * network.lambdas * (network.w_star - S[:30, 30] / root)
        S = boost @ S @ boost
        network.step(step)
    v = network.w_star - S[:30, 30] / root
    assert network.lambdas @ v**2 == pytest.approx(network.loss(), rel=1e-9)
    assert 1 + S[30, 30] == pytest.approx(network.K(), rel=1e-9)


def conserved(network):
    """W̃_lW̃_lᵀ − W̃_{l+1}ᵀW̃_{l+1} of neighbours, and the last one's with γ w̃w̃ᵀ."""
    grams = [layer @ layer.T for layer in network.layers]
    above = [*(layer.T @ layer for layer in network.layers[1:]), network.problem.gamma * np.outer(network.w, network.w)]
    return [a - b for a, b in zip(grams, above, strict=True)]


@pytest.mark.parametrize("depth", [2, 3])
def test_flow_conserves_the_difference_of_gram_matrices(depth):
    """O(η) in descent: half the step, half the change; the Gram matrix alone is not conserved."""
    changes = []
    for eta in (0.02, 0.01):
        network = LinearNetwork(LinearProblem(TASK, 6, eta, 2.0, depth, hidden="gaussian"), 0)
        start = conserved(network)
        first = network.layers[0] @ network.layers[0].T
        network.advance(0, round(4 / eta))
        changes.append(max(np.abs(a - b).max() for a, b in zip(conserved(network), start, strict=True)))
        assert np.abs(network.layers[0] @ network.layers[0].T - first).max() > 10 * changes[-1]
    assert changes[1] == pytest.approx(changes[0] / 2, rel=0.1)


@pytest.mark.parametrize("depth", [2, 3])
def test_infinite_width_tends_to_the_closed_flow(depth):
    errors = []
    for eta in (0.04, 0.02):
        curves = simulate_linear(LinearProblem(TASK, math.inf, eta, 2.0, depth), round(8 / eta), [0], per_decade=6)
        flow = deep_flow(TASK.measure(), 2.0, curves.t, depth)
        errors.append(np.abs(curves.loss[:, 0] / flow.loss - 1).max())
    assert errors[1] < 0.02
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.15)


def test_wide_networks_tend_to_infinite_width():
    """A hundred times the width, a tenth of the distance that a draw lies off; both at the cost of 30 rows."""
    curves = [simulate_linear(LinearProblem(TASK, N, 0.1, 2.0), 60, [0]).loss[-1, 0] for N in (300, 30_000, math.inf)]
    assert abs(curves[1] / curves[2] - 1) < 0.3 * abs(curves[0] / curves[2] - 1)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_batch_of_one_normal_a_mode_has_the_law_of_an_explicit_batch(depth):
    problem = LinearProblem(TASK, 40, 0.1, 2.0, depth, B=5, sigma=0.3)
    naive = simulate_linear(problem, 30, range(40), "naive", per_decade=4)
    fast = simulate_linear(problem, 30, range(1000, 1080), per_decade=4)
    (a, da), (b, db) = naive.mean_and_error(), fast.mean_and_error()
    assert np.all(np.abs(a - b)[1:] < SIGMAS * np.hypot(da, db)[1:])
    quiet = simulate_linear(LinearProblem(TASK, 40, 0.1, 2.0, depth), 30, range(1000, 1040), per_decade=4)
    assert np.any(np.abs(quiet.loss.mean(axis=1) - a) > SIGMAS * da)


@pytest.mark.parametrize(("N", "B"), [(32, math.inf), (32, 16), (128, math.inf)])
def test_mean_field_theory_at_finite_width(N, B):
    """64 draws within four standard errors plus 2/N; infinite width and the lazy theory are rejected."""
    task, eta, gamma, T = PowerLaw(1.5, 0.5, 200), 0.1, 2.0, 80
    curves = simulate_linear(LinearProblem(task, N, eta, gamma, B=B), T, range(64), per_decade=5)
    mean, error = curves.mean_and_error()
    theory, wide, lazy = (two_layer_dmft(task, n, B, eta, g, T) for n, g in ((N, gamma), (math.inf, gamma), (N, 0.0)))
    allowed, rows = SIGMAS * error + 2 / N * mean, curves.step
    assert np.all(np.abs(theory.loss[rows] - mean) < allowed)
    assert np.any(np.abs(lazy.loss[rows] - mean) > allowed)
    if N == 32:
        assert np.any(np.abs(wide.loss[rows] - mean) > allowed)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_bottleneck_is_gone(depth):
    """The projected model stays above what its N features leave out; the linear network of the same A(0) goes below."""
    task, N, eta, T = PowerLaw(1.5, 0.5, 400), 4, 0.05, 8000
    floor = draw(task, N, 0).atom
    projected = simulate(Problem(task, N, eta, 1.0), T, [0], per_decade=4).loss[-1, 0]
    linear = simulate_linear(LinearProblem(task, N, eta, 1.0, depth), T, [0], per_decade=4).loss[-1, 0]
    assert projected > floor * (1 - 1e-9)
    assert linear < 0.3 * floor


def slope(t, loss):
    return -np.polyfit(np.log(t), np.log(loss), 1)[0]


@pytest.mark.parametrize(
    ("alpha", "beta", "N"), [(1.5, 0.5, 1), (1.5, 0.8, 1), (1.5, 1.5, 1), (2.5, 0.3, 1), (1.5, 0.5, 2)]
)
def test_exponent_of_narrow_networks(alpha, beta, N):
    """αb/(αb + 1), b = min(β, 1), over three decades; neither the lazy nor the infinite-width exponent."""
    flow = narrow_flow(PowerLaw(alpha, beta, 10**7), N, 1.0, np.geomspace(1e4, 1e7, 25), seed=0)
    found = slope(flow.t, flow.loss)
    assert found == pytest.approx(chi_narrow(alpha, beta), abs=0.02)
    assert chi_deep(beta, 2, rich=True) - found > 0.02
    assert abs(chi_deep(beta, 2, rich=False) - found) > 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("beta", "eta"), [(0.5, 0.1), (1.5, 0.02)])
def test_depth_three_has_the_same_narrow_exponent(beta, eta):
    """Descent at N = 4 over one and a half decades; η small enough that the curvature, which grows as k*/N, stays stable."""
    curves = simulate_linear(LinearProblem(PowerLaw(1.5, beta, 4000), 4, eta, 1.0, 3), round(1000 / eta), range(4))
    rows = curves.t > 30
    found = slope(curves.t[rows], np.exp(np.log(curves.loss[rows]).mean(axis=1)))
    assert found == pytest.approx(chi_narrow(1.5, beta, depth=3), abs=0.05)
    assert chi_deep(beta, 3, rich=True) - found > 0.2


def test_narrow_networks_depend_on_width_times_time():
    """L ~ (γNt)^−χ with one prefactor: twice the width, or twice γ, is twice the time."""
    task, t = PowerLaw(1.5, 0.5, 10**7), 1e5 * 2.0 ** np.arange(4)
    one = narrow_flow(task, 1, 1.0, t, seed=0).loss
    wider = narrow_flow(task, 2, 1.0, t[:-1], seed=0).loss
    richer = narrow_flow(task, 1, 2.0, t[:-1], seed=0).loss
    assert wider == pytest.approx(one[1:], rel=0.06)
    assert richer == pytest.approx(one[1:], rel=0.06)
    assert np.all(wider < 0.8 * one[:-1])


def test_narrow_flow_is_small_step_descent():
    """Cells of one mode are exact: 40 modes, 400 cells; Richardson's extrapolation of two step sizes."""
    task = PowerLaw(1.5, 0.5, 40)
    flow = narrow_flow(task, 2, 1.0, [5.0], seed=0, cells=400, rtol=1e-8)
    losses = []
    for eta in (0.01, 0.005):
        network = LinearNetwork(LinearProblem(task, 2, eta, 1.0), 0)
        network.layers[0] = np.random.default_rng((0, 0, 2)).standard_normal((40, 2)).T / math.sqrt(2)
        network.advance(0, round(5 / eta))
        losses.append(network.loss())
    assert flow.status == "ok"
    assert 2 * losses[1] - losses[0] == pytest.approx(flow.loss[0], rel=1e-4)


def test_more_cells_change_a_narrow_flow_by_no_more_than_its_draws_differ():
    """The mean of ln L over draws; half the richness is told apart by the same check."""
    task, t, seeds = PowerLaw(1.5, 0.5, 10**5), [1e2, 1e3, 1e4], range(8)

    def mean_and_error(gamma, cells):
        log_loss = np.log([narrow_flow(task, 1, gamma, t, seed, cells).loss for seed in seeds])
        return log_loss.mean(axis=0), log_loss.std(axis=0, ddof=1) / math.sqrt(len(seeds))

    coarse, fine, other = (mean_and_error(*setting) for setting in ((1.0, 30), (1.0, 60), (0.5, 60)))
    assert np.all(np.abs(coarse[0] - fine[0]) < SIGMAS * np.hypot(coarse[1], fine[1]))
    assert np.any(np.abs(other[0] - fine[0]) > SIGMAS * np.hypot(other[1], fine[1]))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: LinearProblem(TASK, 0, 0.1, 1.0), "width"),
        (lambda: LinearProblem(TASK, math.nan, 0.1, 1.0), "width"),
        (lambda: LinearProblem(TASK, 4, 2.5, 1.0), "eta"),
        (lambda: LinearProblem(TASK, 4, 0.1, -1.0), "gamma"),
        (lambda: LinearProblem(TASK, 4, 0.1, 1.0, depth=1), "depth"),
        (lambda: LinearProblem(TASK, 4, 0.1, 1.0, B=0), "batch"),
        (lambda: LinearProblem(TASK, 4, 0.1, 1.0, sigma=math.nan), "sigma"),
        (lambda: LinearProblem(TASK, 4, 0.1, 1.0, hidden="sparse"), "hidden"),
        (lambda: LinearNetwork(LinearProblem(TASK, math.inf, 0.1, 1.0), 0, "naive"), "width"),
        (lambda: LinearNetwork(LinearProblem(TASK, math.inf, 0.1, 1.0, 3, hidden="gaussian"), 0), "width"),
        (lambda: LinearNetwork(LinearProblem(TASK, 4, 0.1, 1.0), 0, "fast"), "method"),
        (lambda: simulate_linear(LinearProblem(TASK, 4, 0.1, 1.0), 3, []), "seeds"),
        (lambda: narrow_flow(TASK, 9, 1.0, [1.0], 0), "width"),
        (lambda: narrow_flow(TASK, 1, 1.0, [2.0, 1.0], 0), "times"),
        (lambda: narrow_flow(TASK, 1, math.nan, [1.0], 0), "gamma"),
        (lambda: narrow_flow(TASK, 1, 1.0, [1.0], 0, cells=2), "cells"),
        (lambda: narrow_flow(PowerLaw(1.5, 0.5, 10**10), 1, 1.0, [1.0], 0), "modes"),
    ],
)
def test_bad_input(call, field):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.field == field
