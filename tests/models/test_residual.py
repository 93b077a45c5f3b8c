"""Residual networks are their formulas, and depth is a size that nothing depends on."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from featscale.errors import BadInput
from featscale.models.mlp import MLP
from featscale.models.residual import ResidualCNN, ResidualMLP
from featscale.parameterization import MEAN_FIELD, STANDARD, Layers


def perceptron(N=8, depth=3, seed=0, architecture=ResidualMLP, row=MEAN_FIELD, **kwargs):
    return architecture((3,), 2, N, depth, Layers(row, seed, torch.float64), **kwargs)


def convolutional(shape=(1, 28, 28), N=4, depth=3, outputs=10, **kwargs):
    return ResidualCNN(shape, outputs, N, depth, Layers(MEAN_FIELD, 0, torch.float64), **kwargs)


def test_the_mlp_is_its_formula():
    g, N, L = perceptron(N=8, depth=3), 8, 3
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = x @ g.input.weight.T / math.sqrt(3)
    for branch in g.branches:
        h = h + math.sqrt(2) * h.relu() @ branch.weight.T / math.sqrt(N * L)
    assert torch.allclose(g.features(x), math.sqrt(2) * h.relu(), rtol=1e-13, atol=0)
    assert torch.allclose(g(x), math.sqrt(2) * h.relu() @ g.readout.weight.T / N, rtol=1e-12, atol=1e-15)
    assert g.flops == 2 * sum(p.numel() for p in g.parameters())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_the_cnn_is_its_formula(shape):
    g = convolutional(shape, N=4, depth=3, poolings=2, input_power=0.25)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = F.conv2d(x, g.input.weight, padding=1) / math.sqrt(9 * shape[0] * 0.25)
    assert g.pools == [True, False, True]
    for branch, pool in zip(g.branches, g.pools, strict=True):
        h = F.avg_pool2d(h, 2) if pool else h
        h = h + F.conv2d(math.sqrt(2) * h.relu(), branch.weight, padding=1) / math.sqrt(9 * 4 * 3)
    features = (math.sqrt(2) * h.relu()).flatten(2).mean(2)
    assert torch.allclose(g.features(x), features, rtol=1e-12, atol=1e-14)
    assert torch.allclose(g(x), features @ g.readout.weight.T / 4, rtol=1e-11, atol=1e-14)


def test_floating_point_operations_are_counted_over_pixels():
    pixels = 14**2 + 7**2 + 3**2
    assert convolutional(N=4, depth=3).flops == 2 * (9 * 4 * 28**2 + 9 * 16 * pixels + 40)


@pytest.mark.parametrize("row", [MEAN_FIELD, STANDARD], ids=lambda row: row.name)
def test_the_features_keep_their_size_at_any_depth(row):
    """E φ² grows to e^1 as (1 + 1/L)^L does, whatever L; without 1/√L it would be 2^L."""
    x = torch.tensor([[1.0, -1.0, 1.0]], dtype=torch.float64)
    for depth in (2, 8, 32):
        power = [perceptron(256, depth, s, row=row).features(x).square().mean().item() for s in range(8)]
        expected = (1 + 1 / depth) ** depth
        assert np.mean(power) == pytest.approx(expected, rel=4 * np.std(power, ddof=1) / expected / 8**0.5 + 0.02)


def test_without_branches_each_layer_replaces_the_last():
    """The negative twin: the plain network is another function."""
    x = torch.ones(1, 3, dtype=torch.float64)
    assert not torch.allclose(perceptron()(x), perceptron(architecture=MLP)(x), rtol=0.1)


def test_branches_and_their_biases_are_tagged_with_their_number():
    tags = {(p.tag.role, p.tag.branches) for p in perceptron(depth=5, bias=True).parameters()}
    assert tags == {("input", 1), ("bias", 1), ("branch", 5), ("bias", 5), ("readout", 1)}
    g = perceptron(depth=4, bias=True)
    assert g.branches[0].bias_multiplier == 0.5


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: perceptron(N=0), "model.N"),
        (lambda: perceptron(depth=0), "model.depth"),
        (lambda: convolutional(shape=(784,)), "model"),
        (lambda: convolutional(poolings=4, depth=3), "model.poolings"),
        (lambda: convolutional(outputs=0), "model.outputs"),
    ],
)
def test_bad_shapes_are_refused(make, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        make()
