"""Steps recorded and replayed beside the same steps made one by one: by a stand-in for CUDA graphs, and on a GPU by the graphs themselves."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from recorder import tape
from test_ensemble import Blobs

from datamodules.circle import Circle
from featscale.models.cnn import CNN
from featscale.models.mlp import MLP
from featscale.training import stack
from featscale.training.ensemble import Ensemble
from featscale.training.graph import GraphMismatch, Replayed, cuda_graph
from featscale.training.loss import MSE, CrossEntropy
from featscale.training.network import Network
from featscale.training.optimizer import SGD, Adam, Momentum
from featscale.training.scaling import Scaling

OPTIMIZERS = [SGD(0.2), Momentum(0.2), Adam(0.05)]
K = 4
# Ends that cut ranges of K steps, and shorter ones.
EDGES = [0, 1, 3, 20, 22, 40]
gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


def blobs(device="cpu", dtype=torch.float32):
    data = Blobs(8)
    data.place(device, dtype)
    return data


def circle(device="cpu", dtype=torch.float32):
    data = Circle(q=1.0, k_max=20, B=12)
    data.place(device, dtype)
    data.setup()
    return data


MLP_ON_CIRCLE = (circle, partial(MLP, depth=2, bias=True, activation="gelu"), MSE())
CNN_ON_IMAGES = (blobs, partial(CNN, depth=2, poolings=0), CrossEntropy())


def networks(case, optimizer, gammas=(1.0,), device="cpu"):
    """Networks of width 8 that differ in seed and richness."""
    source, architecture, loss = case
    data = source(device)
    parts = [(Scaling("mean_field", gamma), optimizer, torch.float32, loss) for gamma in gammas]
    made = [Network(8, architecture, data, *part, T=100, seeds=(seed,)) for seed, part in enumerate(parts)]
    return [one.to(device) for one in made]


def walk(joined):
    for start, stop in pairwise(EDGES):
        joined.advance(start, stop)


def assert_same(a, b, rtol=0.0):
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[name], rtol=rtol, atol=rtol)
    assert all(tensor.any() for tensor in a.tensors)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.name)
@pytest.mark.parametrize("case", [MLP_ON_CIRCLE, CNN_ON_IMAGES], ids=["mlp", "cnn"])
def test_a_replayed_network_has_the_bits_of_its_steps(case, optimizer):
    (replayed,), (plain,) = (networks(case, optimizer) for _ in range(2))
    walk(Replayed(replayed, tape, K))
    plain.advance_by_autograd(0, EDGES[-1])
    assert_same(replayed, plain)


def test_the_linearised_network_is_replayed_too():
    (replayed,), (plain,) = (networks(MLP_ON_CIRCLE, SGD(0.2), (0.0,)) for _ in range(2))
    walk(Replayed(replayed, tape, K))
    plain.advance_by_autograd(0, EDGES[-1])
    assert_same(replayed, plain)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.name)
def test_a_replayed_ensemble_has_the_bits_of_its_steps(optimizer, monkeypatch):
    """With the products of a GPU: those of NumPy are not torch's to record."""
    monkeypatch.setattr(stack, "product", lambda a, b, out: partial(torch.bmm, a, b, out=out))
    replayed, plain = (networks(MLP_ON_CIRCLE, optimizer, (0.5, 1.0, 2.0)) for _ in range(2))
    for network in replayed:
        network.recorder = tape
    walk(Ensemble(replayed))
    walk(Ensemble(plain))
    for a, b in zip(replayed, plain, strict=True):
        assert_same(a, b)


def test_a_recording_is_made_once_for_each_length_and_again_when_the_tensors_moved():
    made = []
    (network,) = networks(MLP_ON_CIRCLE, Adam(0.05))
    replayed = Replayed(network, lambda run: made.append(run) or tape(run), K)
    replayed.advance(0, 3 * K)
    assert len(made) == 1
    replayed.advance(3 * K, 5 * K + 2)
    replayed.advance(5 * K + 2, 6 * K)
    assert len(made) == 2
    for tensor in network.tensors:
        tensor.data = tensor.data.clone()
    replayed.advance(6 * K, 7 * K)
    assert len(made) == 3
    (plain,) = networks(MLP_ON_CIRCLE, Adam(0.05))
    plain.advance_by_autograd(0, 7 * K)
    assert_same(network, plain)


class Frozen(Network):
    """A network whose step reads Adam's corrections from elsewhere than its arguments."""

    def make(self, x, y, numbers):
        super().make(x, y, self.numbers(7) if isinstance(numbers[0], torch.Tensor) else numbers)


def test_a_number_frozen_into_the_recording_is_noticed():
    (network,) = networks(MLP_ON_CIRCLE, Adam(0.05))
    network.__class__ = Frozen
    with pytest.raises(GraphMismatch, match=r"4 recorded steps from step 0 on .* trainer\.cuda_graph=false"):
        Replayed(network, tape, K).advance(0, K)


def test_a_diverging_network_is_recorded_as_it_is():
    (network,) = networks(MLP_ON_CIRCLE, SGD(1e30))
    Replayed(network, tape, K).advance(0, K)
    assert not all(tensor.isfinite().all() for tensor in network.tensors)


def test_a_stack_has_the_shapes_of_its_products_without_a_cpu():
    """On torch's meta device, which has shapes and no numbers, a stack takes the way of a GPU."""
    members = networks(MLP_ON_CIRCLE, Momentum(0.2), (0.5, 1.0), device="meta")
    for member in members:  # whose parameters are others there, as they are not on a GPU
        member.tensors = list(member.f.displacement.values())
    assert all(member.stacks and member.together() > 100 for member in members)
    ensemble = Ensemble(members, threads=8)
    ensemble.advance(0, 20)
    assert ensemble.threads == len(ensemble.blocks) == 1
    assert {tensor.device.type for block in ensemble.blocks for tensor in block.state()} == {"meta"}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.name)
@pytest.mark.parametrize(
    "case", [pytest.param(MLP_ON_CIRCLE, id="mlp", marks=gpu), pytest.param(CNN_ON_IMAGES, id="cnn", marks=gpu)]
)
def test_a_cuda_graph_replays_a_network(case, optimizer):
    (replayed,), (plain,) = (networks(case, optimizer, device="cuda") for _ in range(2))
    walk(Replayed(replayed, cuda_graph, K))
    plain.advance_by_autograd(0, EDGES[-1])
    assert_same(replayed, plain, rtol=1e-4)


@pytest.mark.parametrize(
    "recorder", [pytest.param(None, id="plain", marks=gpu), pytest.param(cuda_graph, id="graph", marks=gpu)]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.name)
def test_on_a_gpu_many_networks_are_those_alone_and_those_of_autograd(optimizer, recorder):
    gammas = (0.5, 1.0, 2.0)
    together, alone, defined = (networks(MLP_ON_CIRCLE, optimizer, gammas, "cuda") for _ in range(3))
    for network in together:
        network.recorder = recorder
    walk(Ensemble(together))
    for many, one, plain in zip(together, alone, defined, strict=True):
        one.recorder = recorder
        walk(one)
        plain.advance_by_autograd(0, EDGES[-1])
        assert_same(many, one, rtol=1e-4)
        assert_same(many, plain, rtol=1e-4)


@pytest.mark.parametrize("steps", [pytest.param(8, marks=gpu)])
def test_a_step_on_a_gpu_is_that_on_a_cpu(steps):
    (here,), (there,) = (networks(MLP_ON_CIRCLE, SGD(0.2), device=device) for device in ("cpu", "cuda"))
    here.advance(0, steps)
    there.advance(0, steps)
    for a, b in zip(here.tensors, there.tensors, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-4, atol=1e-4)
