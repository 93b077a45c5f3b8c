"""Layers: their scale, their seeds, their tags and the rates made from the tags."""

import copy

import numpy as np
import pytest
import torch
from tolerances import SIGMAS
from torch import nn

from featscale.errors import BadInput
from featscale.parameterization import MEAN_FIELD, NTK, STANDARD, Layers, Tag, tensor_rates

ROWS = [MEAN_FIELD, NTK, STANDARD]


def outputs(row, kind, input_power, size):
    """Outputs of one wide input layer on inputs of mean square `input_power`."""
    rng = torch.Generator().manual_seed(1)
    layers = Layers(row, 0, torch.float64)
    root = input_power**0.5
    if kind == "linear":
        x = root * torch.randn(1, 50, generator=rng, dtype=torch.float64).sign()
        return layers.linear(50, size, "input", input_power=input_power)(x)[0].detach()
    x = root * torch.randn(1, 3, 3, 3, generator=rng, dtype=torch.float64).sign()
    return layers.conv(3, size, "input", input_power=input_power)(x)[0, :, 1, 1].detach()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("input_power", [1.0, 0.1])
def test_an_input_layer_has_unit_variance_whatever_the_scale_of_the_data(row, kind, input_power):
    square = outputs(row, kind, input_power, 4000).square()
    assert abs(square.mean() - 1) < SIGMAS * square.std() / 4000**0.5


def test_unit_variance_needs_the_right_input_power():
    layer = Layers(MEAN_FIELD, 0, torch.float64).linear(50, 4000, "input")
    square = layer(torch.full((1, 50), 0.1, dtype=torch.float64)).square()
    assert abs(square.mean() - 1) > SIGMAS * square.std() / 4000**0.5


def test_a_layer_is_its_formula():
    layers = Layers(MEAN_FIELD, 3, torch.float64)
    layer = layers.linear(16, 4, "readout", bias=True)
    layer.bias.data.fill_(2.0)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(layer(x), x @ layer.weight.T / 16 + 2.0, atol=0, rtol=1e-14)
    conv = layers.conv(2, 4, "hidden", bias=True)
    conv.bias.data.fill_(2.0)
    x = torch.ones(1, 2, 3, 3, dtype=torch.float64)
    assert torch.allclose(conv(x)[0, :, 1, 1], conv.weight.sum((1, 2, 3)) / 18**0.5 + 2.0, atol=0, rtol=1e-13)


def test_a_seed_means_the_same_weights_in_every_dtype_and_another_seed_does_not():
    def weights(seed, dtype):
        layers = Layers(STANDARD, seed, dtype)
        return [layers.linear(7, 5, "input").weight, layers.conv(5, 3, "hidden").weight]

    for single, double, other in zip(
        weights(0, torch.float32), weights(0, torch.float64), weights(1, torch.float64), strict=True
    ):
        assert torch.equal(single, double.float())
        assert not torch.any(double == other)
    first, second = weights(0, torch.float64)
    assert not np.isin(first.detach().numpy(), second.detach().numpy()).any()


def test_each_tensor_gets_the_rate_of_its_tag():
    layers = Layers(NTK, 0)
    model = nn.Sequential(layers.linear(2, 8, "input", bias=True), layers.linear(8, 8, "branch", bias=True, branches=4))
    model.append(layers.linear(8, 1, "readout"))
    pairs = tensor_rates(model, MEAN_FIELD, "adam", eta0=0.5, N=8)
    assert [parameter for parameter, _ in pairs] == list(model.parameters())
    assert [parameter.tag for parameter, _ in pairs] == [
        Tag("input", 2),
        Tag("bias", 2),
        Tag("branch", 8, 4),
        Tag("bias", 8, 4),
        Tag("readout", 8),
    ]
    assert [rate.eta for _, rate in pairs] == pytest.approx([0.5 / 2**0.5, 0.5, 0.25 / 8**0.5, 0.25, 0.5])
    assert {rate.eta for _, rate in tensor_rates(model, MEAN_FIELD, "sgd", 0.5, 8)} == {4.0}


def test_biases_start_at_zero_and_move():
    layer = Layers(MEAN_FIELD, 0).linear(2, 8, "input", bias=True)
    assert not layer.bias.any()
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.bias.grad.all()


def test_a_parameter_without_a_tag_is_named():
    model = nn.Sequential(Layers(MEAN_FIELD, 0).linear(2, 8, "input"), nn.Linear(8, 1))
    with pytest.raises(BadInput, match=r"^model: 1.weight: "):
        tensor_rates(model, MEAN_FIELD, "sgd", 1.0, 8)
    model[1].requires_grad_(False)
    assert len(tensor_rates(model, MEAN_FIELD, "sgd", 1.0, 8)) == 1
    with pytest.raises(BadInput, match="deep copy"):
        tensor_rates(copy.deepcopy(model), MEAN_FIELD, "sgd", 1.0, 8)


def test_a_seed_is_a_count():
    with pytest.raises(BadInput, match=r"^seed: -1: "):
        Layers(MEAN_FIELD, -1)
