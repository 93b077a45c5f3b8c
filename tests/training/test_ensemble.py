"""Networks trained side by side beside the same networks by autograd, and beside themselves alone."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tolerances import IDENTITY

from datamodules.circle import Circle
from datamodules.keyed import generator
from datamodules.stream import Stream
from featscale.models.mlp import MLP
from featscale.models.residual import ResidualMLP
from featscale.training.ensemble import Ensemble, fuses
from featscale.training.loss import MSE, CrossEntropy
from featscale.training.march import March
from featscale.training.network import Network
from featscale.training.optimizer import SGD, Adam, Momentum
from featscale.training.scaling import Scaling

OPTIMIZERS = [SGD(0.2), Momentum(0.2), Adam(0.05)]
ARCHITECTURES = [
    partial(MLP, depth=3),
    partial(MLP, depth=1, activation="gelu"),
    partial(ResidualMLP, depth=2, bias=True),
]


class Blobs(Stream):
    """Three classes of small images."""

    input_shape, outputs, classes, one_hot = (1, 2, 3), 3, True, True

    def batch(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise around three means."""
        rng = generator(seed, step)
        label = torch.randint(3, (int(self.B),), generator=rng)
        x = torch.randn(int(self.B), 1, 2, 3, generator=rng, dtype=self.dtype) + label[:, None, None, None]
        return x, torch.nn.functional.one_hot(label, 3).to(self.dtype)

    def test_set(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One more batch."""
        x, y = self.batch(10**6, 0)
        return x, y, torch.full((len(x),), 1 / len(x), dtype=self.dtype)


def circle(dtype: torch.dtype, q: float = 1.0) -> Circle:
    """A small circle task, ready for use."""
    data = Circle(q=q, k_max=20, B=12)
    data.place("cpu", dtype)
    data.setup()
    return data


def network(data: Stream, seed: int, gamma: float, optimizer=OPTIMIZERS[0], architecture=ARCHITECTURES[0], loss=None):
    """A network of width 10."""
    dtype = data.dtype
    return Network(10, architecture, data, Scaling("mean_field", gamma), optimizer, dtype, loss, T=100, seeds=(seed,))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_stacked_steps_are_those_of_autograd(optimizer, architecture):
    data = circle(torch.float64)
    stacked, defined = ([network(data, s, 0.5 + s / 4, optimizer, architecture) for s in range(3)] for _ in range(2))
    Ensemble(stacked).advance(0, 8)
    for a, b in zip(stacked, defined, strict=True):
        assert a.stacks
        b.advance_by_autograd(0, 8)
        for tensor, expected in zip(a.tensors, b.tensors, strict=True):
            torch.testing.assert_close(tensor, expected, rtol=10 * IDENTITY, atol=10 * IDENTITY)
            assert tensor.any()


@pytest.mark.parametrize("depth", [1, 3])
def test_linearised_networks_stand_beside_others(depth):
    """gamma = 0 and gamma > 0 in one group, each as by autograd."""
    data, architecture = circle(torch.float64), partial(MLP, depth=depth)
    together, defined = (
        [network(data, 0, gamma, SGD(0.5), architecture) for gamma in (0.0, 1.0, 0.0)] for _ in range(2)
    )
    Ensemble(together).advance(0, 12)
    for a, b in zip(together, defined, strict=True):
        b.advance_by_autograd(0, 12)
        for tensor, expected in zip(a.tensors, b.tensors, strict=True):
            torch.testing.assert_close(tensor, expected, rtol=10 * IDENTITY, atol=10 * IDENTITY)
    assert torch.equal(together[0].tensors[0], together[2].tensors[0])
    assert not torch.allclose(together[0].tensors[0], together[1].tensors[0], rtol=0.01)


@pytest.mark.parametrize("loss", [MSE(), CrossEntropy()])
def test_classes_and_images_are_stacked_too(loss):
    data = Blobs(8)
    data.place("cpu", torch.float64)
    stacked, defined = ([network(data, s, 1.0, loss=loss) for s in range(2)] for _ in range(2))
    Ensemble(stacked).advance(0, 10)
    for a, b in zip(stacked, defined, strict=True):
        b.advance_by_autograd(0, 10)
        for tensor, expected in zip(a.tensors, b.tensors, strict=True):
            torch.testing.assert_close(tensor, expected, rtol=IDENTITY, atol=IDENTITY)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_company_changes_no_bit(optimizer, architecture):
    """Seeds, richness and targets differ; one network a call, cut elsewhere, beside all in one call on two threads."""
    tasks = [circle(torch.float32, q) for q in (1.0, 1.4)]
    cases = [(tasks[s // 3], s, 0.2 + s) for s in range(5)]
    together, alone = ([network(*case, optimizer, architecture) for case in cases] for _ in range(2))
    Ensemble(together, threads=2).advance(0, 40)
    for a, b in zip(together, alone, strict=True):
        for start, stop in ((0, 1), (1, 18), (18, 40)):
            b.advance(start, stop)
        for name, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[name]), name


def test_rates_may_differ():
    data = circle(torch.float64)
    fast, slow = (network(data, 0, 1.0, SGD(eta0)) for eta0 in (0.5, 0.1))
    Ensemble([fast, slow]).advance(0, 5)
    for one, eta0 in ((fast, 0.5), (slow, 0.1)):
        expected = network(data, 0, 1.0, SGD(eta0))
        expected.advance_by_autograd(0, 5)
        torch.testing.assert_close(one.tensors[0], expected.tensors[0], rtol=IDENTITY, atol=IDENTITY)


@pytest.mark.parametrize(
    ("change", "compiled"),
    [
        ({}, True),
        ({"optimizer": Momentum(0.2)}, False),
        ({"architecture": ARCHITECTURES[1]}, False),
        ({"architecture": ARCHITECTURES[2]}, False),
        ({"architecture": partial(MLP, depth=2, relu_power=2.0)}, False),
        ({"loss": CrossEntropy()}, False),
    ],
)
def test_the_plainest_networks_are_compiled(change, compiled):
    data = Blobs(8)
    data.place("cpu", torch.float32)
    one = network(data, 0, 1.0, **change)
    assert fuses(one) == compiled
    data.input_shape = (1, 2, 6)
    assert not fuses(network(data, 0, 1.0, **change))
    data.input_shape = Blobs.input_shape
    assert (Ensemble([one]).blocks[0].fused is not None) == compiled


def test_what_does_not_gain_goes_by_autograd():
    data = circle(torch.float64)
    assert not network(data, 0, gamma=0.0, optimizer=Momentum(0.2)).stacks
    averaged = network(data, 0, gamma=1.0)
    averaged.gradients_ready = lambda gradients: None
    assert not averaged.stacks
    large = Network(
        512,
        partial(MLP, depth=3),
        Circle(1.0, B=384),
        Scaling("mean_field", 1.0),
        SGD(0.5),
        torch.float32,
        T=1,
        seeds=(0,),
    )
    assert not large.stacks
    population = Network(
        8,
        partial(MLP, depth=3),
        Circle(1.0, B=math.inf),
        Scaling("mean_field", 1.0),
        SGD(0.5),
        torch.float32,
        T=1,
        seeds=(0,),
    )
    assert not population.stacks


def test_networks_that_march_together_keep_their_own_curves():
    """Rows, bit for bit, of three networks in company and alone; one of them diverges and drops out."""
    data = circle(torch.float32)
    cases = [(0, 0.5, SGD(0.2)), (1, 3.0, SGD(8.0)), (2, 0.9, SGD(0.2))]
    together, alone = ([network(data, *case) for case in cases] for _ in range(2))
    assert len({module.shape() for module in prepared(together)}) == 1
    March(together, chunk=7).to(100)
    for module in prepared(alone):
        March([module], chunk=100).to(100)
    assert [module.rows for module in together] == [module.rows for module in alone]
    assert [bool(module.diverged) for module in together] == [False, True, False]
    assert together[0].rows[-1]["loss"] < together[0].rows[0]["loss"]


@pytest.mark.parametrize(
    "change", [{"optimizer": Momentum(0.2)}, {"architecture": ARCHITECTURES[1]}, {"loss": CrossEntropy()}]
)
def test_networks_of_another_shape_are_told_apart(change):
    data = Blobs(8)
    data.place("cpu", torch.float32)
    one, other = prepared([network(data, 0, 1.0), network(data, 1, 1.0, **change)])
    assert one.shape() != other.shape()
    assert one.shape() == network(data, 3, 0.5, SGD(0.7)).shape()


def prepared(modules):
    """The modules as they are before their first step."""
    for module in modules:
        module.on_fit_start()
    return modules
