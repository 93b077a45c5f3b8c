"""Coordinate checks: how far function and features move with width N and richness γ, measured in training."""

import numpy as np
import pytest
import torch
from tolerances import IDENTITY

from featscale.models.cnn import CNN
from featscale.models.mlp import MLP
from featscale.parameterization import MEAN_FIELD, NTK, STANDARD, Centred, Layers, parameter_groups

WIDTHS = (64, 128, 256, 512)
SLOPE = 0.1  # what a fitted slope may be off by


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


def cnn(N, row, seed, bias=False):
    return CNN((1, 4, 4), 1, N, depth=2, layers=Layers(row, seed, torch.float32), bias=bias)


TASKS = {mlp: circle(), cnn: patterns()}


def train(make, N, row, gamma=1.0, eta0=0.2, steps=5, seed=0, bias=False):
    """The centred network after `steps` full-batch steps, its initial features, and the inputs."""
    x, y = TASKS[make]
    f = Centred(make(N, row, seed, bias), gamma)
    start = f.g.features(x).detach()
    sgd = torch.optim.SGD(parameter_groups(f, row, eta0, gamma, N))
    for _ in range(steps):
        sgd.zero_grad()
        (0.5 * (f(x) - y).square().mean()).backward()
        sgd.step()
    return f, start, x


@torch.no_grad()
def movement(*args, seeds, **kwargs):
    """Root mean square change of function and of features over inputs and neurons, averaged over seeds.

    The average of roots, not the root of the average: the kernel of a network fluctuates by O(1/√N), and squares would add its variance.
    """
    changes = []
    for seed in range(seeds):
        with torch.enable_grad():
            f, start, x = train(*args, seed=seed, **kwargs)
        changes.append([f(x).square().mean().sqrt(), (f.g.features(x) - start).square().mean().sqrt()])
    return np.mean(changes, axis=0)


def slopes(along, movements):
    return np.polyfit(np.log(along), np.log(movements), 1)[0]


def width_slopes(make, row, steps, eta0=0.2):
    # The narrow networks fluctuate more and cost less.
    return slopes(WIDTHS, [movement(make, N, row, steps=steps, eta0=eta0, seeds=4 * 512 // N + 4) for N in WIDTHS])


@pytest.mark.parametrize("make", [mlp, pytest.param(cnn, marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", [1, 5])
def test_mean_field_moves_function_and_features_alike_at_every_width(make, steps):
    function, features = width_slopes(make, MEAN_FIELD, steps)
    assert abs(function) < SLOPE
    assert abs(features) < SLOPE


@pytest.mark.parametrize("make", [mlp, pytest.param(cnn, marks=pytest.mark.slow)])
def test_ntk_moves_the_function_alike_and_features_as_one_over_root_N(make):
    function, features = width_slopes(make, NTK, steps=5)
    assert abs(function) < SLOPE
    assert abs(features + 0.5) < SLOPE


@pytest.mark.parametrize("make", [mlp, pytest.param(cnn, marks=pytest.mark.slow)])
def test_standard_speeds_up_with_width(make):
    """The negative twin: the row without width factors fails the same check."""
    function, _ = width_slopes(make, STANDARD, steps=1, eta0=0.2 / 512)
    assert abs(function - 1) < SLOPE


@pytest.mark.parametrize("make", [mlp, cnn])
def test_features_move_in_proportion_to_gamma_and_the_function_does_not(make):
    gammas = (0.01, 0.03, 0.1)
    function, features = slopes(gammas, [movement(make, 128, MEAN_FIELD, gamma=gamma, seeds=2) for gamma in gammas])
    assert abs(function) < SLOPE
    assert abs(features - 1) < SLOPE


@pytest.mark.parametrize("bias", [False, True])
def test_initial_speed_does_not_depend_on_gamma(bias):
    speeds = []
    for gamma in (0.01, 1.0):
        f, _, x = train(mlp, 64, MEAN_FIELD, gamma=gamma, eta0=1e-5, steps=1, bias=bias)
        speeds.append(f(x).detach())
    assert torch.allclose(speeds[0], speeds[1], rtol=1e-3, atol=1e-3 * float(speeds[0].abs().max()))


def test_the_initial_speed_depends_on_gamma_without_its_rate():
    """The negative twin: a rate that ignores γ."""
    x, y = TASKS[mlp]
    speeds = []
    for gamma in (0.1, 1.0):
        f = Centred(mlp(64, MEAN_FIELD, 0), gamma)
        sgd = torch.optim.SGD(parameter_groups(f, MEAN_FIELD, 1e-5, 1.0, 64))
        (0.5 * (f(x) - y).square().mean()).backward()
        sgd.step()
        speeds.append(float(f(x).detach().norm()))
    assert speeds[0] / speeds[1] == pytest.approx(100, rel=0.01)


def test_biases_keep_the_speed_alike_at_every_width():
    moves = [movement(mlp, N, MEAN_FIELD, steps=1, seeds=2 * 256 // N + 2, bias=True) for N in WIDTHS[:3]]
    assert np.all(np.abs(slopes(WIDTHS[:3], moves)) < SLOPE)


def test_ntk_is_mean_field_at_richness_one_over_root_N():
    f, _, x = train(mlp, 64, NTK, gamma=0.5)
    same, _, _ = train(mlp, 64, MEAN_FIELD, gamma=0.5 / 8)
    assert torch.allclose(f(x), same(x), rtol=0, atol=100 * IDENTITY)
