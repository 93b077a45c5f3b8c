"""The convolutional network is its formula, for MNIST's and CIFAR's shapes."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from featscale.errors import BadInput
from featscale.models.cnn import CNN
from featscale.parameterization import MEAN_FIELD, Layers


def network(shape=(1, 28, 28), N=4, depth=3, seed=0, dtype=torch.float64, **kwargs):
    return CNN(shape, 10, N, depth, Layers(MEAN_FIELD, seed, dtype), **kwargs)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 5, 9)])
def test_mean_field_is_its_formula(shape):
    g = network(shape, N=4, depth=3, input_power=0.25)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = F.conv2d(x, g.convolutions[0].weight, padding=1) / math.sqrt(9 * shape[0] * 0.25)
    for convolution in g.convolutions[1:]:
        h = F.avg_pool2d(math.sqrt(2) * h.relu(), 2)
        h = F.conv2d(h, convolution.weight, padding=1) / math.sqrt(9 * 4)
    features = (math.sqrt(2) * h.relu()).flatten(2).mean(2)
    assert torch.allclose(g.features(x), features, rtol=1e-12, atol=1e-14)
    assert torch.allclose(g(x), features @ g.readout.weight.T / 4, rtol=1e-11, atol=1e-14)
    assert g(x).shape == (2, 10)


def test_a_network_is_a_function_of_its_seed_in_every_dtype():
    for single, double, other in zip(
        network(dtype=torch.float32).parameters(), network().parameters(), network(seed=1).parameters(), strict=True
    ):
        assert torch.equal(single, double.float())
        assert not torch.equal(double, other)


def test_every_tensor_is_tagged():
    roles = Counter(parameter.tag.role for parameter in network(bias=True).parameters())
    assert roles == {"input": 1, "bias": 3, "hidden": 2, "readout": 1}


def test_floating_point_operations_are_counted_over_pixels():
    # 28² pixels see the first convolution, 14² the second, 7² the third.
    assert network(N=4, depth=3).flops == 2 * (9 * 4 * 28**2 + 9 * 16 * (14**2 + 7**2) + 40)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("depth", [1, 2, 5, 12])
def test_any_depth_and_number_of_outputs(shape, depth):
    assert network(shape, depth=depth)(torch.ones(1, *shape, dtype=torch.float64)).shape == (1, 10)


def test_poolings_are_spread_over_the_depth_and_end_where_the_pixels_do():
    assert network(depth=3).pools == [True, True]
    assert network(depth=7).pools == [True, False, True, False, True, False]
    assert network(depth=7, poolings=0).pools == [False] * 6
    assert sum(network(depth=7, poolings=4).pools) == 4
    with pytest.raises(BadInput, match=r"^model.poolings: 5: .*to 4: "):
        network(depth=7, poolings=5)
    with pytest.raises(BadInput, match=r"^model.poolings: 2: .*to 1: "):
        network(depth=2, poolings=2)


@pytest.mark.parametrize(
    ("change", "field"), [({"N": 0}, "model.N"), ({"depth": 0}, "model.depth"), ({"shape": (784,)}, "model")]
)
def test_bad_shapes_are_refused(change, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        network(**change)
