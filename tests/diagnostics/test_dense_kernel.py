"""The kernel from activations against the one from gradients, and training in function space against the linearised network itself."""

import math
from functools import partial

import numpy as np
import pytest
import torch

import datamodules.circle
from datamodules.keyed import integers
from featscale.diagnostics.dense_kernel import dense_kernel, linearised_steps
from featscale.diagnostics.empirical_kernel import empirical_kernel
from featscale.errors import BadInput
from featscale.models.cnn import CNN
from featscale.models.mlp import MLP
from featscale.models.residual import ResidualMLP
from featscale.parameterization import MEAN_FIELD, NTK, STANDARD, Centred, Layers
from featscale.training.network import Network
from featscale.training.optimizer import SGD
from featscale.training.scaling import Scaling

P, B, STEPS, ETA = 256, 16, 60, 0.3


def circle_points(n):
    theta = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([theta.cos(), theta.sin()], 1)


@pytest.mark.parametrize("row", [MEAN_FIELD, NTK, STANDARD], ids=lambda row: row.name)
@pytest.mark.parametrize("architecture", [MLP, ResidualMLP])
@pytest.mark.parametrize("bias", [False, True])
def test_activations_give_the_kernel_of_the_gradients(row, architecture, bias):
    layers = Layers(row, 0, torch.float64)
    f = Centred(architecture((2,), 1, 12, 3, layers, input_power=0.5, bias=bias), 1.0)
    expected = empirical_kernel(f, row, 12, circle_points(20))
    assert torch.allclose(dense_kernel(f, row, 12, circle_points(20)), expected, rtol=1e-12, atol=1e-13)
    assert not any(module._forward_hooks for module in f.modules())


def network(gamma, monkeypatch):
    """A network whose training angles are its test angles."""
    monkeypatch.setattr(datamodules.circle, "TRAIN_GRID", P)
    data = datamodules.circle.Circle(q=1.2, k_max=40, B=B, test_size=P)
    data.place("cpu", torch.float64)
    data.setup()
    parts = {"parameterization": Scaling("mean_field", gamma), "optimizer": SGD(ETA), "dtype": torch.float64}
    module = Network(N=24, architecture=partial(MLP, depth=3), data=data, T=STEPS, seeds=(5,), **parts)
    module.on_fit_start()
    return module


def test_function_space_trains_the_linearised_network_and_not_the_rich_one(monkeypatch):
    """The same batches; a second target in the same call, which is the first turned by a quarter, does not disturb."""
    distances = []
    for gamma in (0.0, 1.0):
        module = network(gamma, monkeypatch)
        x, y, _ = module.test
        targets = torch.cat([y, y.roll(P // 4, 0)], 1)
        f = torch.zeros_like(targets)
        index = torch.from_numpy(integers([5], np.arange(STEPS)[:, None], B, P)[:, 0])
        linearised_steps(dense_kernel(module.f, MEAN_FIELD, 24, x), f, targets, index, ETA)
        module.advance(0, STEPS)
        trained = module.f(x).detach()
        assert 0.5 * (trained - y).square().sum() < 0.1 * y.square().sum()
        distances.append(float((trained - f[:, :1]).norm() / trained.norm()))
    assert distances[0] < 1e-12
    assert distances[1] > 0.01


def test_what_is_no_chain_of_dense_layers_with_one_output_is_refused():
    layers = Layers(MEAN_FIELD, 0)
    with pytest.raises(BadInput, match=r"^model: CNN: a network of dense layers"):
        dense_kernel(Centred(CNN((1, 4, 4), 1, 4, 2, layers), 1.0), MEAN_FIELD, 4, torch.ones(2, 1, 4, 4))
    with pytest.raises(BadInput, match=r"^model.outputs: 2: 1"):
        dense_kernel(Centred(MLP((2,), 2, 4, 1, layers), 1.0), MEAN_FIELD, 4, torch.ones(2, 2))
