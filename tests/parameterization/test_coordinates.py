"""Coordinate checks: how far function and features move with width N and richness γ, measured in training."""

import functools

import numpy as np
import pytest
import torch
from tolerances import IDENTITY

from featscale.models.cnn import CNN
from featscale.models.mlp import MLP
from featscale.models.residual import ResidualCNN, ResidualMLP
from featscale.parameterization import MEAN_FIELD, NTK, STANDARD, Centred, Layers, tensor_rates
from featscale.training.optimizer import SGD, Adam, Momentum

WIDTHS = (64, 128, 256, 512, 1024)
SLOPE = 0.1  # what a fitted slope may be off by
TIMES = (1, 10)


def circle():
    theta = 2 * np.pi * torch.rand(32, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    x = torch.stack([theta.cos(), theta.sin()], 1)
    return x, (theta.cos() + (2 * theta).cos() / 2)[:, None]


def patterns():
    """Two classes of small images, each its own pattern plus noise."""
    rng = torch.Generator().manual_seed(7)
    y = torch.tensor([1.0, -1.0]).repeat(4)
    pattern = torch.randn(2, 1, 4, 4, generator=rng)
    x = pattern[(y < 0).long()] + 0.5 * torch.randn(8, 1, 4, 4, generator=rng)
    return x / x.square().mean().sqrt(), y[:, None]


def mlp(N, row, seed, bias=False):
    return MLP((2,), 1, N, depth=3, layers=Layers(row, seed, torch.float64), input_power=0.5, bias=bias)


def residual_mlp(N, row, seed, bias=False, depth=3):
    return ResidualMLP((2,), 1, N, depth, layers=Layers(row, seed, torch.float64), input_power=0.5, bias=bias)


def cnn(N, row, seed, bias=False):
    return CNN((1, 4, 4), 1, N, depth=2, layers=Layers(row, seed, torch.float32), bias=bias)


def residual_cnn(N, row, seed, bias=False):
    return ResidualCNN((1, 4, 4), 1, N, depth=2, layers=Layers(row, seed, torch.float32), bias=bias)


TASKS = {mlp: circle(), residual_mlp: circle(), cnn: patterns(), residual_cnn: patterns()}
SGD_, ADAM = SGD(0.2), Adam(0.03)
NETWORKS = [mlp, residual_mlp, cnn, residual_cnn]


def train(f, task, row, optimizer, N, steps):
    """Full-batch steps of the centred network; yields after each."""
    x, y = task
    tensors, rates = zip(*tensor_rates(f, row, optimizer.name, optimizer.eta0, N), strict=True)
    kept = [[torch.zeros_like(tensor) for _ in optimizer.state] for tensor in tensors]
    for step in range(steps):
        gradients = torch.autograd.grad(0.5 * (f(x) - y).square().mean(), tensors)
        with torch.no_grad():
            for theta, G, rate, state in zip(tensors, gradients, rates, kept, strict=True):
                optimizer.update(theta, G, rate.eta, rate.unit, state, optimizer.numbers(step))
        yield step + 1


def movement(make, N, row=MEAN_FIELD, gamma=1.0, optimizer=SGD_, seeds=4, bias=False, times=TIMES):
    """Root mean square change of function and of features over inputs and neurons at `times`, averaged over seeds, (times, 2).

    The average of roots, not the root of the average: the kernel of a network fluctuates by O(1/√N), and squares would add its variance.
    """
    x, _ = TASKS[make]
    changes = np.zeros((len(times), 2))
    for seed in range(seeds):
        f = Centred(make(N, row, seed, bias), gamma)
        start = f.g.features(x)
        for step in train(f, TASKS[make], row, optimizer, N, max(times)):
            if step in times:
                with torch.no_grad():
                    moved = f.trained().features(x) - start
                    changes[times.index(step)] += [f(x).square().mean().sqrt(), moved.square().mean().sqrt()]
    return changes / seeds


def slopes(along, movements):
    """Slopes in log-log, shape of one movement."""
    movements = np.asarray(movements)
    flat = np.polyfit(np.log(along), np.log(movements.reshape(len(along), -1)), 1)[0]
    return flat.reshape(movements.shape[1:])


@functools.cache
def width_slopes(make, row_name, optimizer, widths=WIDTHS):
    """(times, 2): rows after 1 and 10 steps; columns function and features. Narrow networks fluctuate more and cost less."""
    row = {"mean_field": MEAN_FIELD, "ntk": NTK, "standard": STANDARD}[row_name]
    return slopes(widths, [movement(make, N, row, optimizer=optimizer, seeds=counts(make, N)) for N in widths])


def counts(make, N):
    """Seeds at width N: narrow networks fluctuate more and cost less."""
    return 512 // N + 2 if make in (mlp, residual_mlp) else 256 // N + 1


CHECKED = [
    pytest.param(make, optimizer, widths, marks=[pytest.mark.slow] if widths == WIDTHS else [])
    for widths in (WIDTHS[:3], WIDTHS)
    for make in NETWORKS
    for optimizer in (SGD_, ADAM)
    if widths == WIDTHS or make is mlp
]


@pytest.mark.parametrize(
    ("make", "optimizer", "widths"), CHECKED, ids=lambda each: getattr(each, "name", getattr(each, "__name__", None))
)
def test_mean_field_moves_function_and_features_alike_at_every_width(make, optimizer, widths):
    assert np.all(np.abs(width_slopes(make, "mean_field", optimizer, widths)) < SLOPE)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [SGD_, ADAM], ids=lambda each: each.name)
def test_ntk_moves_the_function_alike_and_features_as_one_over_root_N(optimizer):
    function, features = width_slopes(mlp, "ntk", optimizer, WIDTHS[1:]).T
    assert np.all(np.abs(function) < SLOPE)
    assert np.all(np.abs(features + 0.5) < SLOPE)


@pytest.mark.parametrize("make", [mlp, *(pytest.param(each, marks=pytest.mark.slow) for each in NETWORKS[1:])])
@pytest.mark.parametrize("optimizer", [SGD(0.2 / 512), Adam(0.03 / 512)], ids=lambda each: each.name)
def test_standard_speeds_up_with_width(make, optimizer):
    """The negative twin: the row without width factors fails the same check, by a power of about one and at least a half."""
    after_one, _ = width_slopes(make, "standard", optimizer, WIDTHS[:3])
    assert after_one[0] > 1 - 2 * SLOPE
    assert np.any(np.abs(after_one) > 3 * SLOPE)


@pytest.mark.parametrize("make", [mlp, cnn, pytest.param(residual_mlp, marks=pytest.mark.slow)])
@pytest.mark.parametrize("optimizer", [SGD_, ADAM], ids=lambda each: each.name)
def test_features_move_in_proportion_to_gamma_and_the_function_does_not(make, optimizer):
    gammas = (0.01, 0.03, 0.1)
    moves = [movement(make, 128, gamma=gamma, optimizer=optimizer, seeds=2, times=(10,)) for gamma in gammas]
    ((function, features),) = slopes(gammas, moves)
    assert abs(function) < SLOPE
    assert abs(features - 1) < SLOPE


@pytest.mark.parametrize("optimizer", [SGD_, ADAM], ids=lambda each: each.name)
def test_depth_of_a_residual_network_is_no_size_either(optimizer):
    """With 1/√L branches the function's first speed and its features' change settle as L grows; a plain row would let Adam grow as √L."""
    depths = (4, 8, 16, 32)
    moves = []
    for depth in depths:
        changes = np.zeros(2)
        for seed in range(4):
            f = Centred(residual_mlp(64, MEAN_FIELD, seed, depth=depth), 1.0)
            start = f.g.features(TASKS[mlp][0])
            list(train(f, TASKS[mlp], MEAN_FIELD, optimizer, 64, 1))
            moved = f.trained().features(TASKS[mlp][0]) - start
            changes += [f(TASKS[mlp][0]).detach().square().mean().sqrt(), moved.detach().square().mean().sqrt()]
        moves.append(changes)
    assert np.all(np.abs(slopes(depths, moves)) < 2 * SLOPE)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("optimizer", [SGD(1e-5), Momentum(1e-5)], ids=lambda each: each.name)
def test_initial_speed_does_not_depend_on_gamma(bias, optimizer):
    slow, fast = (
        movement(mlp, 64, gamma=gamma, optimizer=optimizer, seeds=1, bias=bias, times=(1,))[0, 0]
        for gamma in (0.01, 1.0)
    )
    assert slow == pytest.approx(fast, rel=1e-3)


def test_the_initial_speed_depends_on_gamma_when_theta_itself_is_trained_at_one_rate():
    """The negative twin: a rate in θ that ignores γ is η₀/γ² in ϑ."""
    speeds = [movement(mlp, 64, gamma=g, optimizer=SGD(1e-5 / g**2), seeds=1, times=(1,))[0, 0] for g in (0.1, 1.0)]
    assert speeds[0] / speeds[1] == pytest.approx(100, rel=0.01)


def test_biases_keep_the_speed_alike_at_every_width():
    for optimizer in (SGD_, ADAM):
        moves = [movement(mlp, N, optimizer=optimizer, seeds=512 // N + 2, bias=True, times=(1,)) for N in WIDTHS[:3]]
        assert np.all(np.abs(slopes(WIDTHS[:3], moves)) < SLOPE)


@pytest.mark.parametrize("optimizer", [SGD_, Momentum(0.2), Adam(0.03, eps=1e-2)], ids=lambda each: each.name)
def test_ntk_is_mean_field_at_richness_one_over_root_N(optimizer):
    x, _ = TASKS[mlp]
    f, same = Centred(mlp(64, NTK, 0), 0.5), Centred(mlp(64, MEAN_FIELD, 0), 0.5 / 8)
    for network, row in ((f, NTK), (same, MEAN_FIELD)):
        list(train(network, TASKS[mlp], row, optimizer, 64, 5))
    assert torch.allclose(f(x), same(x), rtol=0, atol=100 * IDENTITY)
