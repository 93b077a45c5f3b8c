"""A network of small richness follows its own linearisation over a whole run of training; a rich one leaves it."""

import functools
from functools import partial

import pytest
import torch

from datamodules.circle import Circle
from featscale.models.mlp import MLP
from featscale.models.residual import ResidualMLP
from featscale.training.network import Network
from featscale.training.optimizer import SGD, Adam, Momentum
from featscale.training.scaling import Scaling


@functools.cache
def curve(gamma, optimizer, architecture=MLP, T=150):
    """Test losses at log-spaced steps, and the outputs at the end."""
    data = Circle(q=1.2, k_max=40, B=32)
    data.place("cpu", torch.float64)
    data.setup()
    module = Network(
        N=128,
        architecture=partial(architecture, depth=3),
        data=data,
        parameterization=Scaling("mean_field", gamma),
        optimizer=optimizer,
        dtype=torch.float64,
        T=T,
        seeds=(0,),
        rows_per_decade=8,
    )
    module.on_fit_start()
    losses = []
    for start, stop in zip(module.log_steps[:-1].tolist(), module.log_steps[1:].tolist(), strict=True):
        module.advance(start, stop)
        losses.append(module.observe()[0]["loss"])
    with torch.no_grad():
        return torch.tensor(losses), module.f(module.test[0])


def distance(gamma, optimizer, **kwargs):
    """Largest relative difference of the loss over the run, and of the function at its end, from the linearised network."""
    (losses, outputs), (limit, limit_outputs) = (curve(g, optimizer, **kwargs) for g in (gamma, 0.0))
    assert limit[-1] < 0.7 * limit[0], "the network has learned nothing to follow"
    return float((losses / limit - 1).abs().max()), float((outputs - limit_outputs).norm() / limit_outputs.norm())


OPTIMIZERS = [SGD(0.1), *(pytest.param(each, marks=pytest.mark.slow) for each in (Momentum(0.1), Adam(0.01)))]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.name)
def test_richness_of_a_thousandth_follows_the_linearised_network_to_a_percent(optimizer):
    loss, function = distance(1e-3, optimizer)
    assert loss < 0.01
    assert function < 0.01


@pytest.mark.slow
def test_a_residual_network_does_so_too():
    assert max(distance(1e-3, SGD(0.1), architecture=ResidualMLP)) < 0.01


def test_richness_one_does_not():
    loss, function = distance(1.0, SGD(0.1))
    assert loss > 0.1
    assert function > 0.05
